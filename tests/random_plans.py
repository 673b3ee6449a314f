"""Random small specs: any model that the language can say, under any strategy; not all are legal."""

from __future__ import annotations

from conftest import spec_text
from hypothesis import strategies as st

BLOCKS = """
block gated_mqa(x) {
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  k[batch, seq, head_dim] = h * Wk[hidden, head_dim]
  v[batch, seq, head_dim] = h * Wv[hidden, head_dim]
  o[batch, seq, heads, head_dim] = attend(rope(q), rope(k), v, causal = true)
  g[batch, seq, heads, head_dim] = h * Wgate[hidden, heads, head_dim]
  a = o * sigmoid(g)
  y[batch, seq, hidden] = a * Wo[heads, head_dim, hidden]
  return x + y
}
block bottleneck(x) {
  let low = 4
  let ffn = mlp.hidden
  h = layer_norm(x)
  d[batch, seq, low] = h * Wd[hidden, low]
  u[batch, seq, ffn] = relu(d) * Wu[low, ffn]
  y[batch, seq, hidden] = gelu(u) * Wy[ffn, hidden]
  return x + 0.5 * y
}
layer own { gqa, bottleneck }
layer routed { gqa, moe }
layer two { gqa, moe_plain }
"""
"""Blocks that no library has: one key/value head with a gate, and a feed-forward with a narrow waist."""

STACKS = ("stack = [embed, 2 * own, routed, lm_head]", "stack = [embed, 3 * two, lm_head]")


@st.composite
def models(draw: st.DrawFn, experts: int) -> str:
    """Three layers. Dims have the factors that most small degrees need, some not even those."""
    attention = draw(st.sampled_from(["gqa", "gqa", "mla", "gated_mqa"]))
    heads = draw(st.sampled_from([4, 6, 12]))
    if attention == "gqa":
        sizes = f"kv_heads = {draw(st.sampled_from([n for n in (1, 2, 3, 4) if heads % n == 0]))}, head_dim = 4"
    elif attention == "mla":
        sizes = "q_latent = 6, kv_latent = 4, nope_dim = 4, rope_dim = 2, v_dim = 4"
    else:
        sizes = "head_dim = 4"
    options = f"count = {experts}, top_k = {draw(st.integers(1, min(3, experts)))}, hidden = 12"
    options += draw(st.sampled_from(["", ", score = sigmoid"]))
    if attention == "gqa" and draw(st.booleans()):
        layers = draw(st.sampled_from(STACKS))
    else:
        layers = f"layers = 3, dense_first = {draw(st.sampled_from([0, 1, 2]))}"
        options += f", shared = {draw(st.sampled_from([0, 1, 2]))}"
    return (
        f"{layers}, hidden = 8, vocab = {draw(st.sampled_from([12, 24]))}, dtype = fp32\n"
        f"attention {{ kind = {attention}, heads = {heads}, {sizes} }}\n"
        f"mlp {{ hidden = 12 }}\nexperts {{ {options} }}"
    )


@st.composite
def plans(draw: st.DrawFn, *, uses: bool = False) -> tuple[str, str]:
    """(kind, spec) of a plan on at most 48 ranks. `uses`: of some of them choices are skipped, or experts come from hosts."""
    kind = draw(st.sampled_from(["prefill", "prefill", "decode"]))
    dp, sp, tp = (draw(st.sampled_from(degrees)) for degrees in ((1, 2), (1, 1, 2), (1, 2, 2, 3, 4)))
    pp, spread = draw(st.sampled_from([(1, ""), (1, ""), (3, ""), (2, "[1, 2]"), (2, "[2, 1]")]))
    replicas, micro = draw(st.sampled_from([1, 1, 1, 2])), draw(st.sampled_from([1, 1, 2]))
    overlap = draw(st.sampled_from(["none", "none", "two_batch"]))
    parallel = kind == "prefill" and draw(st.booleans())
    if draw(st.booleans()):
        stage, batch = dp * sp * tp, dp
        sides = [(e, t) for e in (1, 2, 3, 4, 6, 8) for t in (1, 2, 3, 4) if stage % (e * t) == 0]
        ep, etp = draw(st.sampled_from(sides))
        degrees = f"attention {{ dp = {dp}, sp = {sp}, tp = {tp} }}\nexperts {{ ep = {ep}, tp = {etp}USE }}"
    else:
        ep = draw(st.sampled_from([1, 2, 3] if sp * tp * dp <= 4 else [1, 2]))
        stage, batch = dp * ep * sp * tp, dp * ep
        degrees = f"dp = {dp}, ep = {ep}, sp = {sp}, tp = {tp}\nexperts {{ USE }}"
    experts = draw(st.sampled_from([3, 4, 5, 6, 8]))
    redundant = -experts % ep + draw(st.sampled_from([0, 0, ep if ep > 1 else 0]))
    phase = (
        f"gpus = 0..{stage * pp * replicas - 1}, pp = {pp}, replicas = {replicas}, microbatches = {micro}\n"
        f"sp_method = {draw(st.sampled_from(['allgather', 'ring', 'ulysses']))}, overlap = {overlap}\n"
        f"redundant = {redundant}, sequence_parallel = {'true' if parallel else 'false'}\n{degrees}"
    )
    known = ["", "skip = 30%, skip_below = 60%"]
    known += [f"resident = {ep}, prefetch = next_layer(hit = 50%)"] if overlap == "none" else []
    use = draw(st.sampled_from(known)) if uses else ""
    phase = phase.replace("experts { USE }", f"experts {{ {use} }}" if use else "").replace(
        "USE", f", {use}" if use else ""
    )
    if kind == "prefill" and sp > 1 and draw(st.booleans()):
        phase += "\nsp_layout = zigzag"
    phase += draw(st.sampled_from(["", "", "\nhost = 1 ms, cuda_graph = false"]))
    if spread:
        phase += f"\nlayers_per_stage = {spread}"
    parts = batch * replicas * micro * (2 if overlap == "two_batch" else 1)
    prompt = sp * (tp if parallel else 1) * draw(st.sampled_from([1, 2]))
    prompt = prompt if prompt > 2 else 4
    few = draw(st.sampled_from([0, 0, 0, 1, parts // 2]))  # a batch that does not divide, or leaves ranks idle
    if kind == "prefill" and sp == 1 and not parallel:
        phase += draw(st.sampled_from(["", "", "\nchunk = 3 tok", "\nprefix = 1 tok"]))
    elif kind == "decode":
        phase += draw(st.sampled_from(["", "", "\ndraft = 1"]))
    work = f"sequences = {parts * draw(st.sampled_from([1, 2])) - min(few, parts - 1)}, prompt = {prompt} tok, output = {prompt} tok"
    work += f", routing = {draw(st.sampled_from(['uniform', 'zipf(1.0)']))}"
    text = spec_text(kind=kind, gpus=512, phase=phase, model=draw(models(experts)), workload=work, extra=BLOCKS)
    return kind, text
