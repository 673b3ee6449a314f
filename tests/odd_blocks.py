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

HEAD = """return x
}
block lm_head(x) {
"""
"""Ends the block and begins the one of the last layer."""

GROUPS = """let n = 2
  let m = 4
  let w = 3
  q[batch, seq, heads, head_dim] = x * Wq[hidden, heads, head_dim]
  k[batch, seq, head_dim] = x * Wk[hidden, head_dim]
  z[batch, seq, head_dim] = x * Wz[hidden, head_dim]
  u[batch, seq, w] = x * Wu[hidden, w]
  e = pool(k, z, B[n, head_dim])
  i = pool(u, u, Bu[n, w])
  g[batch, seq, heads] = x * Wg[hidden, heads]
  p[batch, seq, heads, w] = x * Wp[hidden, heads, w]
"""
"""Queries, keys, and entries of groups of them: two widths."""

REFUSED = {
    "a group of other gates": (GROUPS + "y = pool(k, u, Bk[n, head_dim])\nreturn x", "E13", "`pool` takes contents and gates [batch, s", "pool(k, u, Bk[n, head_dim])"),
    "a group without parts that overlaps": (GROUPS + "y = pool(k, z, Bk[n, head_dim], overlap = true)\nreturn x", "E13", "`pool` takes contents and gates [batch, s", "pool(k, z, Bk[n, head_dim], overlap = true)"),
    "a group whose biases are values": (GROUPS + "y = pool(k, z, last(k))\nreturn x", "E13", "the biases of `pool` are a weight", "pool(k, z, last(k))"),
    "entries that are tokens": (GROUPS + "o = attend(q, k, k, entries = z)\nreturn x", "E13", "`entries` are tensors [batch, pooled, ...", "attend(q, k, k, entries = z)"),
    "values of no entries": (GROUPS + "o = attend(q, k, k, entry_values = e)\nreturn x", "E13", "`entry_values` are those of `entries`, wh", "attend(q, k, k, entry_values = e)"),
    "entries of groups of two sizes": (GROUPS + "o = attend(q, k, k, entries = e, entry_values = pool(k, z, Bm[m, head_dim]))\nreturn x", "E13", "`entries` are tensors [batch, pooled, ...", "attend(q, k, k, entries = e, entry_values = pool(k, z, Bm[m, head_dim]))"),
    "fewer keys of entries than queries": (GROUPS + "o = attend([q, q], [k, k], k, entries = e)\nreturn x", "E13", "queries: 2, keys of `entries`: 1", "attend([q, q], [k, k], k, entries = e)"),
    "keys of entries of another width": (GROUPS + "o = attend(q, k, k, entries = i)\nreturn x", "E13", "a query of width `head_dim` meets entries of width", "attend(q, k, k, entries = i)"),
    "values of entries of another width": (GROUPS + "o = attend(q, k, k, entries = e, entry_values = i)\nreturn x", "E13", "values of width `head_dim` beside entries", "attend(q, k, k, entries = e, entry_values = i)"),
    "tokens that are chosen beside entries": (GROUPS + "o = attend(q, k, k, entries = e, selected = select(p, u, g, top_k = 2))\nreturn x", "E13", "`selected` chooses among tokens; beside e", "attend(q, k, k, entries = e, selected = select(p, u, g, top_k = 2))"),
    "entries that are chosen where none are seen": (GROUPS + "o = attend(q, k, k, selected = select(p, i, g, top_k = 2))\nreturn x", "E13", "`selected` chooses among entries of other", "attend(q, k, k, selected = select(p, i, g, top_k = 2))"),
    "a cache of a cache of entries": (GROUPS + "o = cache(cache(e))\nreturn x", "E13", "`cache` needs a tensor with dimension `se", "cache(cache(e))"),
    "a size for groups": ("let pooled = 2\nreturn x", "E13", "`pooled` is a dimension that `pool` makes", "let pooled = 2"),
    "a row for what is no token": ("y[batch, seq, hidden] = lookup(x, We[vocab, hidden])\nreturn x", "E13", "`lookup` takes the token ids", "lookup(x, We[vocab, hidden])"),
    "a new name within a sum": ("let wide = hidden\ny[batch, seq, wide] = rename(x) + 1\nreturn x", "E13", "`rename` stands alone behind `=`", "rename(x)"),
    "a new name of nothing": ("y = rename(x)\nreturn y", "E13", "`rename` stands alone behind `=`", "rename(x)"),
    "a new name of another size": ("let wide = 4\ny[batch, seq, wide] = rename(x)\nreturn x", "E13", "as many dimensions of the same sizes, in order", "rename(x)"),
    "a new name of a dimension more": ("let wide = 8\ny[batch, seq, wide, hidden] = rename(x)\nreturn x", "E13", "as many dimensions of the same sizes, in order", "rename(x)"),
    "a new name of the tokens": ("let wide = 8\nlet places = 8\ny[batch, places, wide] = rename(x)\nreturn x", "E13", "`rename` leaves `batch`, `seq` and `context` as they are", "rename(x)"),
    "a new name of two things": ("y[batch, seq, hidden] = rename(x, x)\nreturn x", "E13", "`rename` takes 1 tensor", "rename(x, x)"),
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
    "a bias of the choice on rows": (ROUTED.replace("top_k = 2)", "top_k = 2, bias = W[expert])") + "d = t * W[expert]" + BACK, "E13", "`W` belongs both to the experts", "d = t * W[expert]"),
    "rows that are turned": (ROUTED + "d = argmax(t)\nreturn x", "E13", "`argmax` does not work on rows", "d = argmax(t)"),
    "arithmetic on a choice": (ROUTED + "z = dispatch(h, r * 2)\nreturn x", "E13", "the choice of a router", "z = dispatch(h, r * 2)"),
    "arithmetic on a position": ("a = argmax(x)\nreturn x * a", "E13", "a position", "return x * a"),
    "a choice that is a size": ("let choice = 3\nreturn x", "E13", "`route` makes", "let choice = 3"),
    "slots that are a size": ("let slot = 3\nreturn x", "E13", "`route` makes", "let slot = 3"),
    "slots without a router": ("y[batch, slot, hidden] = x * W[hidden]\nreturn x", "E02", "it does not exist before that", "y[batch, slot, hidden] = x * W[hidden]"),
    "a size of the phase": ("let batch = 3\nreturn x", "E13", "a size of the phase", "let batch = 3"),
    "two sizes": ("let n = 3\nlet n = 4\nreturn x", "E11", "`n` was already given a size", "let n = 4"),
    "a size after its use": ("y[batch, seq] = x * W[hidden]\nlet hidden = 3\nreturn x * y", "E13", "used before", "let hidden = 3"),
    "another residual": ("let hidden = 3\ny[batch, seq, hidden] = x * W[hidden]\nreturn y", "E13", "returns [batch, seq, hidden]", "return y"),
    "a number": ("return 3", "E13", "tensor that it computes", "return 3"),
    "a weight": ("return W[hidden]", "E13", "tensor that it computes", "return W[hidden]"),
    "no hidden": ("y[batch, seq] = x * W[hidden]\nreturn y", "E13", "returns [batch, seq, hidden]", "return y"),
    "turned around": ("y[seq, batch, hidden] = x * W[hidden]\nreturn y", "E13", "returns [batch, seq, hidden]", "return y"),
    "the context": ("return cache(x)", "E13", "returns [batch, seq, hidden]", "return cache(x)"),
    "the last token": ("return last(x)", "E13", "returns [batch, seq, hidden]", "return last(x)"),
    "rows": (ROUTED + "return t", "E13", "returns [batch, seq, hidden]", "return t"),
    "last of nothing": ("a = last(W[hidden])\nreturn x", "E13", "`seq`", "last(W[hidden])"),
    "a lookup in the middle": ("a = lookup(x, W[vocab, hidden])\nreturn x", "E13", "token ids", "lookup(x, W[vocab, hidden])"),
    "a norm over tokens": ("q[batch, seq] = x * W[hidden]\nn = rms_norm(q)\nreturn x", "E13", "not a width", "rms_norm(q)"),
    "heads to dispatch": (ROUTED + "q[batch, seq, heads, head_dim] = x * W[hidden, heads, head_dim]\nz = dispatch(q, r)\nreturn x", "E13", "[batch, seq, width]", "dispatch(q, r)"),
    "a route over a name of its own": ("let e = 4\ns[batch, seq, e] = x * W[hidden, e]\nr = route(s, top_k = 2)\nt = dispatch(x, r)\nreturn x", "E13", "over `e`", "dispatch(x, r)"),
    "a weight of two kinds": (ROUTED + "d = t * W[expert]\nz[batch, seq] = s * W[expert]" + BACK, "E13", "`W` belongs both to the experts", "z[batch, seq] = s * W[expert]"),
    "attention of two": ("o = attend(x, x)\nreturn x", "E13", "`attend` takes queries, keys and values", "attend(x, x)"),
    "attention to a number": ("o = attend(x, 2, x)\nreturn x", "E13", "`attend` takes queries, keys and values", "attend(x, 2, x)"),
    "attention over widths": ("q[batch, hidden, seq] = x * W[hidden]\no = attend(q, q, q)\nreturn x", "E13", "`attend` needs tensors [seq, ..., width]", "attend(q, q, q)"),
    "attention to weights": ("o = attend(x, W[head_dim, hidden], x)\nreturn x", "E13", "`attend` needs tensors [seq, ..., width]", "attend(x, W[head_dim, hidden], x)"),
    "attention of unequal lists": ("o = attend([x, x], [x], x)\nreturn x", "E13", "`attend` has 2 queries and 1 keys", "attend([x, x], [x], x)"),
    "queries and keys of two widths": ("let n = 4\nk[batch, seq, n] = x * W[hidden, n]\no = attend(x, k, x)\nreturn x", "E13", "a query of width `hidden` meets a key of", "attend(x, k, x)"),
    "sinks of no heads": ("o = attend(x, x, x, sinks = S[vocab])\nreturn x", "E13", "sinks [vocab] have one number per head of [", "attend(x, x, x, sinks = S[vocab])"),
    "sinks that are a number": ("o = attend(x, x, x, sinks = 3)\nreturn x", "E13", "`sinks` is a tensor, not a number", "3"),
    "tokens that no one selected": ("o = attend(x, x, x, selected = x)\nreturn x", "E13", "`selected` is the result of `select`", "attend(x, x, x, selected = x)"),
    "tokens that a router chose": (ROUTED + "o = attend(x, x, x, selected = r)\nreturn x", "E13", "`selected` is the result of `select`", "attend(x, x, x, selected = r)"),
    "a cache of a weight": ("c = cache(W[hidden])\nreturn x", "E13", "`cache` needs a tensor with dimension `s", "cache(W[hidden])"),
    "a selection without a number": ("let n = 4\nlet w = 4\nq[batch, seq, n, w] = x * Wq[hidden, n, w]\nk[batch, seq, w] = x * Wk[hidden, w]\ng[batch, seq, n] = x * Wg[hidden, n]\nc = select(q, k, g)\nreturn x", "E13", "`select` needs `top_k = ...`, a number o", "select(q, k, g)"),
    "blocks that are kept where tokens are chosen": ("let n = 4\nlet w = 4\nq[batch, seq, n, w] = x * Wq[hidden, n, w]\nk[batch, seq, w] = x * Wk[hidden, w]\ng[batch, seq, n] = x * Wg[hidden, n]\nc = select(q, k, g, top_k = 2, local = 1)\nreturn x", "E13", "`local` counts blocks: it needs `together", "select(q, k, g, top_k = 2, local = 1)"),
    "tokens chosen for heads that queries have not": ("let n = 4\nlet w = 4\nq[batch, seq, n, w] = x * Wq[hidden, n, w]\nk[batch, seq, w] = x * Wk[hidden, w]\nc = select(q, k, top_k = 4, together = 2)\no = attend(x, x, x, selected = c)\nreturn x", "E13", "tokens [batch, seq, n, chosen] are chosen for heads that [batch, seq, hidden] does not have", "attend(x, x, x, selected = c)"),
    "a selection of nothing": ("c = select(x, x, x, top_k = 2)\nreturn x", "E13", "`select` takes queries [batch, seq, head", "select(x, x, x, top_k = 2)"),
    "a convolution of weights": ("let n = 3\ny = conv(W[hidden], V[hidden, n])\nreturn x", "E13", "`conv` takes a tensor [batch, seq, ..] a", "conv(W[hidden], V[hidden, n])"),
    "a convolution over heads": ("let n = 3\ny = conv(x, V[heads, n])\nreturn x", "E13", "`conv` takes a tensor [batch, seq, ..] a", "conv(x, V[heads, n])"),
    "a convolution whose taps are channels": ("y = conv(x, V[hidden])\nreturn x", "E13", "`conv` takes a tensor [batch, seq, ..] a", "conv(x, V[hidden])"),
    "the delta rule of tokens": ("y = delta(x, x, x, x, x)\nreturn x + y", "E13", "`delta` takes queries and keys of one wi", "delta(x, x, x, x, x)"),
    "the delta rule of two widths": ("let n = 4\nlet m = 2\nq[batch, seq, heads, n] = x * Wq[hidden, heads, n]\nk[batch, seq, heads, m] = x * Wk[hidden, heads, m]\nv[batch, seq, heads, head_dim] = x * Wv[hidden, heads, head_dim]\ng[batch, seq, heads] = x * Wg[hidden, heads]\ny = delta(q, k, v, g, g)\nreturn x", "E13", "`delta` takes queries and keys of one wi", "delta(q, k, v, g, g)"),
    "dimensions that are others": ("y[batch, seq, vocab] = silu(x)\nreturn x", "E13", "`y` has dimensions [batch, seq, hidden],", "y[batch, seq, vocab] = silu(x)"),
    "a value with other dimensions": ("y = silu(x[batch, seq, vocab])\nreturn x", "E13", "`x` has dimensions [batch, seq, hidden]", "x[batch, seq, vocab]"),
    "a division by zero": ("return x / 0", "E13", "division by zero", "0"),
    "a division by next to nothing": ("return x / 1e-320", "E13", "division by zero", "1e-320"),
    "a factor beyond all numbers": ("return x * 1e300 * 1e300", "E13", "the factor is not a finite number", "x * 1e300 * 1e300"),
    "a dimension from nowhere": ("y[batch, seq, vocab] = x * W[hidden]\nreturn x", "E13", "dimension `vocab` of the result is in ne", "x * W[hidden]"),
    "a sum of two widths": ("return x + W[vocab]", "E13", "`+` of [vocab] and [batch, seq, hidden]:", "x + W[vocab]"),
    "a function of two": ("return silu(x, x)", "E13", "`silu` takes 1 tensor", "silu(x, x)"),
    "a function of a number": ("return silu(3)", "E13", "`silu` takes 1 tensor", "silu(3)"),
    "a keyword that is none": ("return rms_norm(x, epsilon = 1)", "E02", "`rms_norm` has no keyword `epsilon`", "1"),
    "a keyword of another kind": ("return rms_norm(x, gain = 3)", "E08", "`gain` is true or false, not a plain num", "3"),
    "a keyword that the model has not": (ROUTED + "q = route(s, top_k = 2, score = experts.nothing)\nreturn x", "E02", "the model has no `experts.nothing`", "experts.nothing"),
    "an odd rotation": ("let n = 3\nq[batch, seq, n] = x * W[hidden, n]\np = rope(q)\nreturn x", "E13", "`rope` rotates pairs of numbers, not 3 of ", "rope(q)"),
    "a rotation of one": ("q[batch, seq, head_dim] = x * W[hidden, head_dim]\np = rope(q, fraction = 0.25)\nreturn x", "E13", "`rope` rotates pairs of numbers, not 1 of ", "rope(q, fraction = 0.25)"),
    "a rotation of no tokens": ("p = rope(W[head_dim])\nreturn x", "E13", "`rope` needs a tensor [seq, ...], not [h", "rope(W[head_dim])"),
    "bounds turned round": ("return clamp(x, low = 1, high = 0)", "E13", "`clamp` between 1 and 0", "clamp(x, low = 1, high = 0)"),
    "a position in a weight": ("a = argmax(W[hidden])\nreturn x", "E13", "`argmax` goes over the last dimension of", "argmax(W[hidden])"),
    "a position in a sequence": ("q[batch, hidden, seq] = x * W[hidden]\na = argmax(q)\nreturn x", "E13", "`argmax` goes over the last dimension of", "argmax(q)"),
    "a function that is none": ("return softmx(x)", "E02", "unknown function `softmx`", "softmx(x)"),
    "a size in bytes": ("let n = 3 GB\nreturn x", "E13", "a plain number was expected here, not a ", "3 GB"),
    "a size by zero": ("let n = 3 / 0\nreturn x", "E13", "division by zero", "3 / 0"),
    "a size from nowhere": ("let n = nothing\nreturn x", "E02", "unknown size `nothing`", "nothing"),
    "a size that is a tensor": ("let n = silu(x)\nreturn x", "E13", "a number was expected here", "silu(x)"),
    "half a condition": ("y = if(true, x)\nreturn y", "E13", "`if` takes a condition and two values", "if(true, x)"),
    "a condition that is a number": ("y = if(3, x, x)\nreturn y", "E13", "`if` needs a condition: a flag of the mo", "3"),
    "a dimension without a size": ("y[batch, seq, mine] = x * W[hidden, mine]\nreturn x", "E02", "unknown dimension `mine`", "y[batch, seq, mine] = x * W[hidden, mine]"),
    "a broken size": ("let n = hidden / 3\ny[batch, seq, n] = x * W[hidden, n]\nreturn x", "E03", "dimension `n` has size 2.66667, not a wh", "y[batch, seq, n] = x * W[hidden, n]"),
    "a size below one": ("let n = 0 - 3\ny[batch, seq, n] = x * W[hidden, n]\nreturn x", "E03", "dimension `n` has size -3, not a whole n", "y[batch, seq, n] = x * W[hidden, n]"),
    "a weight with a dimension twice": ("y[batch, seq] = x * W[hidden, hidden]\nreturn x", "E13", "weight `W` names a dimension twice", "W[hidden, hidden]"),
    'a weight of tokens': ("y = x * W[seq, hidden]\nreturn y", 'E13', 'weight `W` has dimension `seq`, whose si', 'W[seq, hidden]'),
    'a weight of slots': (ROUTED + "d = t * W[slot, hidden]" + BACK, 'E13', 'weight `W` has dimension `slot`, whose s', 'W[slot, hidden]'),
    "a weight of two shapes": ("let n = 2\ny[batch, seq] = x * W[hidden]\nz[batch, seq, n] = x * W[hidden, n]\nreturn x", "E13", "weight `W` was used with dimensions [hid", "W[hidden, n]"),
    "a router of heads": (ROUTED + "q[batch, seq, heads, head_dim] = x * W[hidden, heads, head_dim]\np = route(q, top_k = 2)\nreturn x", "E13", "`route` needs scores [batch, seq, expert", "route(q, top_k = 2)"),
    "a router of a weight": ("let expert = 4\np = route(W[hidden, heads, expert], top_k = 2)\nreturn x", "E13", "`route` needs scores [batch, seq, expert", "route(W[hidden, heads, expert], top_k = 2)"),
    "a router that chooses nothing": (ROUTED + "p = route(s)\nreturn x", "E13", "`route` needs `top_k = ...`", "route(s)"),
    "a router that chooses no expert": (ROUTED + "p = route(s, top_k = 0)\nreturn x", "E09", "`top_k` must be at least 1 and at most 1", "0"),
    "a router that chooses too many": (ROUTED + "p = route(s, top_k = 5)\nreturn x", "E13", "top_k 5 exceeds the 4 experts", "route(s, top_k = 5)"),
    "a bias of the wrong width": (ROUTED + "p = route(s, top_k = 2, bias = W[hidden])\nreturn x", "E13", "the bias [hidden] is one number for each", "route(s, top_k = 2, bias = W[hidden])"),
    "groups that do not divide": (ROUTED + "p = route(s, top_k = 2, groups = 3)\nreturn x", "E13", "4 experts do not divide into 3 groups", "route(s, top_k = 2, groups = 3)"),
    "more groups than there are": (ROUTED + "p = route(s, top_k = 1, groups = 2, groups_limit = 3)\nreturn x", "E13", "groups_limit 3 exceeds the 2 groups", "route(s, top_k = 1, groups = 2, groups_limit = 3)"),
    "groups too small": (ROUTED + "p = route(s, top_k = 2, groups = 4, groups_limit = 1)\nreturn x", "E13", "top_k 2 exceeds the 1 experts in 1 of 4 group", "route(s, top_k = 2, groups = 4, groups_limit = 1)"),
    "tokens to combine": (ROUTED + "y = combine(h, r)\nreturn x", "E13", "`combine` needs a tensor [expert, slot, ", "combine(h, r)"),
    "a row of numbers to combine": (ROUTED + "g[expert, slot] = t * Wg[expert, hidden]\ny = combine(g, r)\nreturn x", "E13", "`combine` needs a tensor [expert, slot, ", "combine(g, r)"),
    "a dispatch without a choice": (ROUTED + "z = dispatch(h, s)\nreturn x", "E13", "`dispatch` needs the result of `route`", "dispatch(h, s)"),
    "a dispatch by a weight": (ROUTED + "z = dispatch(h, W[hidden])\nreturn x", "E13", "`dispatch` needs the result of `route`", "dispatch(h, W[hidden])"),
    "an unknown tensor": ("return nothing", "E02", "unknown tensor `nothing`", "nothing"),
    "heads of both kinds": ("q[batch, seq, heads] = x * Wq[hidden, heads]\nk[batch, seq, kv_heads] = x * Wk[hidden, kv_heads]\ny[batch, seq] = q * k\nreturn x", "E13", "`kv_heads` of [batch, seq, kv_heads] is ", "q * k"),
    "a head whose values have the sequences second": (HEAD + "y[seq, batch, hidden] = x * W[hidden]\nreturn y", "E13", "the last layer returns a value for each sequence", "return y"),
    "a head that chooses tokens": (HEAD + "q[batch, seq, heads, head_dim] = x * Wq[hidden, heads, head_dim]\nk[batch, seq, head_dim] = x * Wk[hidden, head_dim]\nw[batch, seq, heads] = x * Ww[hidden, heads]\nc = select(q, k, w, top_k = 3)\nreturn c", "E13", "the last layer returns a value for each sequence", "return c"),
}  # fmt: skip


COMPUTED = {
    "groups whose values are not their keys": GROUPS + "v[batch, pooled, head_dim] = e * Wv[head_dim] \no = attend(q, k, k, window = 3, entries = e, entry_values = v)\ny[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]\nreturn x + y",
    "groups that are named before they are made": "let n = 4\nk[batch, seq, head_dim] = x * Wk[hidden, head_dim]\nlet w = 2\ne = pool(k, k, B[n, head_dim])\ni[batch, pooled, w] = e * Wi[head_dim, w]\nf[batch, entries, w] = cache(i)\nu[batch, seq, w] = x * Wu[hidden, w]\nq[batch, seq, heads, w] = x * Wq[hidden, heads, w]\no = attend(q, u, u, window = 2, entries = f)\ny[batch, seq, hidden] = o * Wo[heads, w, hidden]\nreturn x + y",
    "a square weight of one width": "let wide = hidden\ny[batch, seq, wide] = rename(x)\nz[batch, seq, hidden] = y * W[wide, hidden]\nreturn x + z",
    "a width under another name and back": "let wide = hidden\ny[batch, seq, wide] = rename(x)\nz[batch, seq, hidden] = rename(y)\nreturn x + z",
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


SUMS = """let n = 10 - 2 * 3
let m = if(less(n, 5), n * 2 / 4, n - 1)
let w = -(1 - n) + 1
a = x + x - 3 * x - (-x) / 2
b = 2 - (x - 1) / 4 + x / 4 - 1
c = (a + 1) * b - b
u[batch, seq, n] = x * W[hidden, n]
v[batch, seq, m] = u * V[n, m]
z[batch, seq, w] = v * U[m, w]
y[batch, seq, hidden] = z * T[w, hidden] - 0 * x
return c + y - y"""
"""Worth -0.5 x times 1.25, as is SAME; n is 4, m 2, w 4."""
SAME = "return x * -0.625"
