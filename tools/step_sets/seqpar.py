"""Steps and memory of GPT-3's shape on A100, 22 to 530 billion parameters (arXiv 2205.05198): fp16 is taken as bf16, dropout left out."""

from __future__ import annotations

from .measured_rows import Row, Step, rows

GPT = """
block gpt_attention(x) {
  h = layer_norm(x, gain = true)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  k[batch, seq, kv_heads, head_dim] = h * Wk[hidden, kv_heads, head_dim]
  v[batch, seq, kv_heads, head_dim] = h * Wv[hidden, kv_heads, head_dim]
  o[batch, seq, kv_heads, group, head_dim] = attend(q, k, v, causal = true)
  y[batch, seq, hidden] = o * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}
block gpt_mlp(x) {
  let ffn = mlp.hidden
  h = layer_norm(x, gain = true)
  u[batch, seq, ffn] = h * Wu[hidden, ffn]
  a = gelu(u)
  y[batch, seq, hidden] = a * Wd[ffn, hidden]
  return x + y
}
layer gpt { gpt_attention, gpt_mlp }
"""


def table(metric: str) -> list[Row]:
    return [row for row in rows("megatron_seqpar.csv") if row["metric"] == metric]


def steps() -> list[Step]:
    return [
        Step(f"{row['model']} {row['recompute']}", row["model"], "a100_sxm", float(row["value"]), spec_of(row))
        for row in table("iteration_s")
    ]


def spec_of(row: Row) -> str:
    """`selective` keeps no scores of attention, as dagc's attention never does."""
    size = {k: int(row[k]) for k in ("gpus", "tp", "pp", "interleave", "global_batch", "micro_batch")}
    schedule = f"interleaved, virtual = {size['interleave']}" if size["interleave"] > 1 else "one_f_one_b"
    return f"""moe 1
hardware from "a100-80gb-sxm" {{ gpus = {size["gpus"]} }}
{GPT}
model gpt {{
  hidden = {row["hidden"]}, vocab = 51200, stack = [embed, {row["layers"]} * gpt, lm_head]
  attention {{ heads = {row["heads"]} }}
  mlp {{ hidden = {row["ffn"]} }}
}}
workload {{ sequences = {size["global_batch"]}, prompt = {row["seq"]} tok }}
phase train {{
  gpus = 0..{size["gpus"] - 1}, pp = {size["pp"]}, tp = {size["tp"]}, schedule = {schedule}
  microbatches = {size["global_batch"] // size["micro_batch"]}, sequence_parallel = {"true" if "SP" in row["recompute"] else "false"}
  recompute = {"full" if row["recompute"] == "full" else "none"}
}}
"""
