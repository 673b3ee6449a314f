"""Steps of models cut to a few layers on eight B200: Megatron-LM's layout, bf16, gradients summed in fp32, the distributed optimizer."""

from __future__ import annotations

from .measured_rows import Row, Step, compiled, rows

PRESETS = {
    "llama3-70b": 'from "llama-3.1-70b" { layers = LAYERS',
    "deepseekv2": 'from "deepseek-v2" { layers = LAYERS, dense_first = 1',
    "deepseekv3": 'from "deepseek-v3" { layers = LAYERS, dense_first = 1',
}
"""Of those of DeepSeek one layer is dense."""
GIB = 2**30


def runs() -> list[Row]:
    """All of them."""
    return rows("b200_simumax.csv")


def steps() -> list[Step]:
    return [
        Step(row["case"].removesuffix("_cef"), row["model"], "b200_sxm", float(row["real_ms"]) / 1e3, spec_of(row))
        for row in runs()
    ]


def spec_of(row: Row) -> str:
    tp, pp, ep, cp, dp, microbatches = (int(row[k]) for k in ("tp", "pp", "ep", "cp", "dp", "microbatches"))
    degrees = f"dp = {dp}, sp = {cp}, tp = {tp}"
    degrees = f"attention {{ {degrees} }}\n  experts {{ ep = {ep}, tp = 1 }}" if ep > 1 else degrees
    return f"""moe 1
hardware from "b200-sxm" {{ gpus = 8 }}
model {PRESETS[row["model"]].replace("LAYERS", row["layers"])}, dtype = bf16, weight_dtype = bf16 }}
workload {{ sequences = {dp * microbatches}, prompt = {row["seq"]} tok }}
phase train {{
  gpus = 0..7, pp = {pp}, microbatches = {microbatches}, zero = 1, sequence_parallel = {"true" if tp > 1 else "false"}
  {degrees}, sp_layout = zigzag
}}
"""


def memory_error(row: Row) -> float:
    """Of the peak without what the runtime keeps, over what was measured."""
    worst = compiled(spec_of(row)).worst
    return (worst.peak_B - worst.reserve_B) / GIB / float(row["real_peak_alloc_gib"]) - 1
