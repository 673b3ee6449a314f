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
