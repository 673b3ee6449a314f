"""Specs of models that remember or select: linear attention, and attention to chosen tokens."""

from __future__ import annotations

from conftest import spec_text

LINEAR = """block linear_block(x) {
  h = rms_norm(x)
  q[batch, seq, key_heads, key_dim] = h * Wq[hidden, key_heads, key_dim]
  k[batch, seq, key_heads, key_dim] = h * Wk[hidden, key_heads, key_dim]
  v[batch, seq, key_heads, value_group, value_dim] = h * Wv[hidden, key_heads, value_group, value_dim]
  b[batch, seq, key_heads, value_group] = h * Wb[hidden, key_heads, value_group]
  c = conv(v, C[key_heads, value_group, value_dim, taps])
  qs[batch, seq, key_heads] = q * q
  ks[batch, seq, key_heads] = k * k
  o = delta(q * rsqrt(qs + 1e-6), k * rsqrt(ks + 1e-6), c, softplus(b), sigmoid(b))
  y[batch, seq, hidden] = o * Wo[key_heads, value_group, value_dim, hidden]
  return x + y
}
layer hybrid { linear_block, moe }
layer full { gqa, moe }
"""
SPARSE = """block sparse_block(x) {
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  k[batch, seq, head_dim] = h * Wk[hidden, head_dim]
  iq[batch, seq, index_heads, index_dim] = h * Wiq[hidden, index_heads, index_dim]
  ik[batch, seq, index_dim] = h * Wik[hidden, index_dim]
  iw[batch, seq, index_heads] = h * Wiw[hidden, index_heads]
  o[batch, seq, heads, head_dim] = attend(q, k, k, causal = true, selected = select(iq, ik, iw, top_k = attention.index_top_k))
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}
layer hybrid { sparse_block, moe }
"""
GROUPED = """block grouped_block(x) {
  let ratio = 4
  let series = 2
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  kv[batch, seq, head_dim] = h * Wk[hidden, head_dim]
  k = cache(rope(kv, tail = true, fraction = 0.5))
  c[batch, seq, series, head_dim] = h * Wc[hidden, series, head_dim]
  z[batch, seq, series, head_dim] = h * Wz[hidden, series, head_dim]
  e = rope(rms_norm(pool(c, z, B[ratio, series, head_dim], overlap = true)), tail = true, fraction = 0.5)
  ic[batch, seq, index_dim] = h * Wic[hidden, index_dim]
  iz[batch, seq, index_dim] = h * Wiz[hidden, index_dim]
  iq[batch, seq, index_heads, index_dim] = h * Wiq[hidden, index_heads, index_dim]
  iw[batch, seq, index_heads] = h * Wiw[hidden, index_heads]
  picked = select(rope(iq), rope(pool(ic, iz, Bi[ratio, index_dim])), iw, top_k = attention.index_top_k)
  o = attend(rope(q, tail = true, fraction = 0.5), k, k, causal = true, window = 16, entries = e, sinks = S[heads], selected = picked)
  ro = rope(o, tail = true, fraction = 0.5, inverse = true)
  y[batch, seq, hidden] = ro * Wo[heads, head_dim, hidden]
  return x + y
}
block wide_block(x) {
  let ratio = 32
  h = rms_norm(x)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  k[batch, seq, kv_heads, head_dim] = h * Wk[hidden, kv_heads, head_dim]
  v[batch, seq, kv_heads, head_dim] = h * Wv[hidden, kv_heads, head_dim]
  z[batch, seq, kv_heads, head_dim] = h * Wz[hidden, kv_heads, head_dim]
  ke = pool(k, z, Bk[ratio, kv_heads, head_dim])
  ve = pool(v, z, Bv[ratio, kv_heads, head_dim])
  o = attend(q, k, v, causal = true, window = 16, entries = ke, entry_values = ve)
  y[batch, seq, hidden] = o * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}
layer hybrid { grouped_block, wide_block, moe }
"""
MODEL = """hidden = 64, vocab = 512, dtype = bf16
attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8, index_heads = 4, index_dim = 16, index_top_k = 32 }
experts { count = 8, top_k = 2, hidden = 32 }
"""
SIZES = "linear { key_heads = 4, value_group = 2, key_dim = 8, value_dim = 16, taps = 4 }\n"


def state_spec(block: str, phase: str = "gpus = [0]", kind: str = "prefill", prompt: int = 256) -> str:
    """A spec of a model with the block in its layers."""
    linear = block is LINEAR
    stack = "stack = [embed, hybrid, full, lm_head]" if linear else "stack = [embed, 2 * hybrid, lm_head]"
    text = spec_text(
        phase=phase,
        kind=kind,
        model=MODEL + (SIZES if linear else "") + stack,
        workload=f"sequences = 16, prompt = {prompt} tok, output = 16 tok",
    )
    return text + block
