"""Blocks as strangers write them: which are refused, and with what words, and which compute what they say."""

from __future__ import annotations

SPEC = """moe 1
hardware pool {{
  gpus = 64, per_node = 8
  compute = 400 TFLOP/s, mfu = 60%, memory = 64 GB, hbm = 1.8 TB/s, mbu = 80%
  link node {{ bandwidth = 450 GB/s, latency = 2 us }}
  link cluster {{ bandwidth = 50 GB/s, latency = 6 us }}
}}
model small {{
  hidden = 8, vocab = 16, dtype = fp32
  stack = [embed, 2 * mine, lm_head]
  attention {{ kind = gqa, heads = 4, kv_heads = 2, head_dim = 4 }}
  mlp {{ hidden = 8 }}
  experts {{ count = 4, top_k = 2, hidden = 4 }}
}}
workload {{ sequences = 4, prompt = 8 tok, output = 4 tok }}
layer mine {{ {other}, b }}
block b(x) {{
{body}
}}
phase {kind} {{ {phase} }}
"""
HALVES = "gpus = 0..3, tp = 2, ep = 2"


def text(body: str, phase: str = HALVES, kind: str = "prefill") -> str:
    other = "mlp" if "attend" in body or "delta" in body else "gqa"
    return SPEC.format(body=body, other=other, phase=phase, kind=kind)


ROUTED = """let ffn = experts.hidden
  let expert = experts.count
  h = rms_norm(x)
  s[batch, seq, expert] = h * Wr[hidden, expert]
  r = route(s, top_k = 2)
  t = dispatch(h, r)
"""
BACK = """
  y = combine(d, r)
  return x + y
"""
HEADS = """q[batch, seq, heads, head_dim] = x * Wq[hidden, heads, head_dim]
  k[batch, seq, {keys}head_dim] = x * Wk[hidden, {keys}head_dim]
  v[batch, seq, {values}head_dim] = x * Wv[hidden, {values}head_dim]
  o[batch, seq, heads, head_dim] = attend(rope(q), rope(k), v)
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y"""

REFUSED = {
    "a result with a dimension twice": ("y[batch, seq, hidden, hidden] = x * W[hidden]\nreturn x", "E13", "dimension `hidden` twice", "y[batch, seq, hidden, hidden] = x * W[hidden]"),
    "experts of experts": (ROUTED + "g[expert, slot, expert] = t * W[hidden, expert]\nreturn x", "E13", "dimension `expert` twice", "g[expert, slot, expert] = t * W[hidden, expert]"),
    "heads as a width": (HEADS.format(keys="heads, ", values="heads, ").replace("v[batch, seq, heads, head_dim]", "v[batch, seq, heads]").replace("Wv[hidden, heads, head_dim]", "Wv[hidden, heads]"), "E13", "dimension `heads` twice", "o[batch, seq, heads, head_dim] = attend(rope(q), rope(k), v)"),
    "a cache of scores": ("s[batch, seq, context] = x * cache(x)\nc = cache(s)\nreturn x", "E13", "cannot be cached", "cache(s)"),
    "scores of scores": ("s[batch, seq, context] = x * cache(x)\nz[batch, seq, seq] = s * s\nreturn x", "E13", "dimension `seq` twice", "z[batch, seq, seq] = s * s"),
    "grouped keys": (HEADS.format(keys="kv_heads, ", values="heads, "), "E13", "`kv_heads`, which the queries", "attend(rope(q), rope(k), v)"),
    "grouped values": (HEADS.format(keys="", values="kv_heads, "), "E13", "`kv_heads`, which the queries", "attend(rope(q), rope(k), v)"),
    "grouped queries": ("q[batch, seq, kv_heads, group, head_dim] = x * Wq[hidden, kv_heads, group, head_dim]\nk[batch, seq, heads, head_dim] = x * Wk[hidden, heads, head_dim]\no = attend(q, k, k)\nreturn x", "E13", "`heads`, which the queries", "attend(q, k, k)"),
    "scores by a product": ("q[batch, seq, heads, head_dim] = x * Wq[hidden, heads, head_dim]\nk[batch, seq, kv_heads, head_dim] = x * Wk[hidden, kv_heads, head_dim]\ns[batch, seq, heads, context] = q * cache(k)\nreturn x", "E13", "`kv_heads` of", "q * cache(k)"),
    "second queries of their own": ("let n = 4\nq[batch, seq, heads, head_dim] = x * Wq[hidden, heads, head_dim]\np[batch, seq, kv_heads, n] = x * Wp[hidden, kv_heads, n]\nk[batch, seq, n] = x * Wk[hidden, n]\no = attend([q, p], [q, k], q)\nreturn x", "E13", "queries [batch, seq, kv_heads, n]", "attend([q, p], [q, k], q)"),
    "sequences that mix": ("y[seq, hidden] = x * x\nreturn x + y", "E13", "mixes the sequences", "y[seq, hidden] = x * x"),
    "rows across experts": (ROUTED + "g[slot, ffn] = t * W[expert, hidden, ffn]\nreturn x", "E13", "rows of experts", "g[slot, ffn] = t * W[expert, hidden, ffn]"),
    "rows added up": (ROUTED + "g[expert, hidden] = t * W[expert]\nreturn x", "E13", "`combine` brings them back", "g[expert, hidden] = t * W[expert]"),
    "rows turned": (ROUTED + "g[slot, expert, ffn] = t * W[expert, hidden, ffn]\nreturn x", "E13", "written [expert, slot, ...]", "g[slot, expert, ffn] = t * W[expert, hidden, ffn]"),
    "a weight of experts turned": (ROUTED + "g[expert, slot, ffn] = t * W[hidden, ffn, expert]\nreturn x", "E13", "written [expert, ...]", "g[expert, slot, ffn] = t * W[hidden, ffn, expert]"),
    "rows and tokens": (ROUTED + "d[expert, slot, hidden] = t * h" + BACK, "E13", "does not follow the router", "d[expert, slot, hidden] = t * h"),
    "rows and a product of weights": (ROUTED + "let n = 2\nw[expert, hidden] = A[expert, hidden, n] * B[expert, n]\nd[expert, slot, hidden] = t * w" + BACK, "E13", "does not follow the router", "d[expert, slot, hidden] = t * w"),
    "rows of two routers": (ROUTED + "r2 = route(s, top_k = 2)\nt2 = dispatch(h, r2)\nd = t * t2" + BACK, "E13", "needs the result's dimensions", "t * t2"),
    "rows to another's tokens": (ROUTED + "r2 = route(s, top_k = 2)\ny = combine(t, r2)\nreturn x + y", "E13", "one router", "combine(t, r2)"),
    "a bias of the choice on rows": (ROUTED.replace("top_k = 2)", "top_k = 2, bias = W[expert])") + "d = t * W[expert]" + BACK, "E13", "`W` is one of the experts' own", "d = t * W[expert]"),
    "rows that are turned": (ROUTED + "d = argmax(t)\nreturn x", "E13", "`argmax` does not work on rows", "d = argmax(t)"),
    "arithmetic on a choice": (ROUTED + "z = dispatch(h, r * 2)\nreturn x", "E13", "the choice of a router", "z = dispatch(h, r * 2)"),
    "arithmetic on a position": ("a = argmax(x)\nreturn x * a", "E13", "a position", "return x * a"),
    "a choice that is a size": ("let choice = 3\nreturn x", "E13", "`route` makes", "let choice = 3"),
    "slots that are a size": ("let slot = 3\nreturn x", "E13", "`route` makes", "let slot = 3"),
    "slots without a router": ("y[batch, slot, hidden] = x * W[hidden]\nreturn x", "E02", "there is none before it", "y[batch, slot, hidden] = x * W[hidden]"),
    "a size of the phase": ("let batch = 3\nreturn x", "E13", "a size of the phase", "let batch = 3"),
    "two sizes": ("let n = 3\nlet n = 4\nreturn x", "E11", "`n` was given a size", "let n = 4"),
    "a size after its use": ("y[batch, seq] = x * W[hidden]\nlet hidden = 3\nreturn x * y", "E13", "used before", "let hidden = 3"),
    "another residual": ("let hidden = 3\ny[batch, seq, hidden] = x * W[hidden]\nreturn y", "E13", "hands on [batch, seq, hidden]", "return y"),
    "a number": ("return 3", "E13", "tensor that it computes", "return 3"),
    "a weight": ("return W[hidden]", "E13", "tensor that it computes", "return W[hidden]"),
    "no hidden": ("y[batch, seq] = x * W[hidden]\nreturn y", "E13", "hands on [batch, seq, hidden]", "return y"),
    "turned around": ("y[seq, batch, hidden] = x * W[hidden]\nreturn y", "E13", "hands on [batch, seq, hidden]", "return y"),
    "the context": ("return cache(x)", "E13", "hands on [batch, seq, hidden]", "return cache(x)"),
    "the last token": ("return last(x)", "E13", "hands on [batch, seq, hidden]", "return last(x)"),
    "rows": (ROUTED + "return t", "E13", "hands on [batch, seq, hidden]", "return t"),
    "last of nothing": ("a = last(W[hidden])\nreturn x", "E13", "`seq`", "last(W[hidden])"),
    "a lookup in the middle": ("a = lookup(x, W[vocab, hidden])\nreturn x", "E13", "token ids", "lookup(x, W[vocab, hidden])"),
    "a norm over tokens": ("q[batch, seq] = x * W[hidden]\nn = rms_norm(q)\nreturn x", "E13", "no width", "rms_norm(q)"),
    "heads to dispatch": (ROUTED + "q[batch, seq, heads, head_dim] = x * W[hidden, heads, head_dim]\nz = dispatch(q, r)\nreturn x", "E13", "[batch, seq, width]", "dispatch(q, r)"),
    "a route over a name of its own": ("let e = 4\ns[batch, seq, e] = x * W[hidden, e]\nr = route(s, top_k = 2)\nt = dispatch(x, r)\nreturn x", "E13", "over `e`", "dispatch(x, r)"),
    "a weight of two kinds": (ROUTED + "d = t * W[expert]\nz[batch, seq] = s * W[expert]" + BACK, "E13", "`W` is one of the experts' own", "z[batch, seq] = s * W[expert]"),
}  # fmt: skip


COMPUTED = {
    "multi-query attention": HEADS.format(keys="", values=""),
    "multi-head attention": HEADS.format(keys="heads, ", values="heads, "),
    "attention without heads": "o = attend(x, x, x)\nreturn x + o",
    "a square weight there and back": "let wide = hidden\ny[batch, seq, wide] = x * W[hidden, wide]\nz[batch, seq, hidden] = y * V[wide, hidden]\nreturn x + z",
    "linear attention by products": "s[batch, seq, context] = x * cache(x)\ny[batch, seq, hidden] = s * cache(x)\nreturn x + y",
    "tokens as they are": ROUTED + "d = t" + BACK,
    "experts without a product": ROUTED + "d = silu(t)" + BACK,
    "a gate on rows": ROUTED + "g[expert, slot] = t * Wg[expert, hidden]\nd = t * sigmoid(g)" + BACK,
    "experts with heads": ROUTED + "let n = 2\nlet m = 4\ng[expert, slot, n, m] = t * Wg[expert, hidden, n, m]\nd[expert, slot, hidden] = silu(g) * Wd[expert, n, m, hidden]" + BACK,
    "one matrix for all experts": ROUTED + "g[expert, slot, ffn] = t * Wg[hidden, ffn]\nd[expert, slot, hidden] = silu(g) * Wd[expert, ffn, hidden]" + BACK,
    "a number of each expert": ROUTED + "d = t * W[expert] + B[expert]" + BACK,
    "norms within experts": ROUTED + "g[expert, slot, ffn] = t * Wg[expert, hidden, ffn]\nn = layer_norm(g)\nd[expert, slot, hidden] = n * Wd[expert, ffn, hidden]" + BACK,
    "matrices of low rank": ROUTED + "let n = 2\ng[expert, slot, ffn] = t * A[expert, hidden, n] * B[expert, n, ffn]\nd[expert, slot, hidden] = silu(g) * Wd[expert, ffn, hidden]" + BACK,
    "two values to one choice": ROUTED + "u = dispatch(x, r)\nd = t * u" + BACK,
    "one choice brought back twice": ROUTED + "y = combine(t, r)\nz = combine(silu(t), r)\nreturn x + y + z",
    "two routers in a block": ROUTED + "p = route(s, top_k = 1)\nu[expert, slot, hidden] = dispatch(h, p)\ng[expert, slot, ffn] = t * Wg[expert, hidden, ffn]\ne[expert, slot, ffn] = u * Ve[expert, hidden, ffn]\nd[expert, slot, hidden] = g * Wd[expert, ffn, hidden]\nf[expert, slot, hidden] = e * Vf[expert, ffn, hidden]\ny = combine(d, r)\nz = combine(f, p)\nreturn x + y + z",
    "experts that two routers share": ROUTED + "p = route(s, top_k = 1)\nu = dispatch(h, p)\ng[expert, slot, hidden] = t * W[expert, hidden]\ne[expert, slot, hidden] = u * W[expert, hidden]\ny = combine(g, r)\nz = combine(e, p)\nreturn x + y + z",
    "every expert for every token": "let expert = 4\nlet ffn = 8\ns[batch, seq, expert] = x * W[hidden, expert]\nu[batch, seq, expert, ffn] = x * U[expert, hidden, ffn]\ny[batch, seq, hidden] = u * V[expert, ffn, hidden] * s\nreturn x + y",
    "two selections": "let n = 4\nlet w = 4\nq[batch, seq, n, w] = x * Wq[hidden, n, w]\nk[batch, seq, w] = x * Wk[hidden, w]\ng[batch, seq, n] = x * Wg[hidden, n]\nc = select(q, k, g, top_k = 3)\ne = select(q, k, g, top_k = 5)\no = attend(x, x, x, selected = c)\np = attend(x, x, x, selected = e)\nreturn x + o + p",
}  # fmt: skip
