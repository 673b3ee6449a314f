"""Training steps that were measured on eight B200, compiled: how far times and peaks of memory are from what was measured.

python tools/measured_steps.py
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import dagc

ROWS = Path(__file__).resolve().parent.parent / "tests" / "data" / "training" / "b200_simumax.csv"
GIB = 2**30
PRESETS = {
    "llama3-70b": 'from "llama-3.1-70b" { layers = LAYERS',
    "deepseekv2": 'from "deepseek-v2" { layers = LAYERS, dense_first = 1',
    "deepseekv3": 'from "deepseek-v3" { layers = LAYERS, dense_first = 1',
}
"""The models, cut to a few layers; of those of DeepSeek one is dense."""
Row = Mapping[str, str]


def runs() -> list[Row]:
    """All of them."""
    with ROWS.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def spec_of(row: Row) -> str:
    """Megatron-LM's layout: bf16, gradients summed in fp32, the distributed optimizer."""
    tp, pp, ep, cp, dp, microbatches = (int(row[k]) for k in ("tp", "pp", "ep", "cp", "dp", "microbatches"))
    degrees = f"dp = {dp}, sp = {cp}, tp = {tp}"
    degrees = f"attention {{ {degrees} }}\n  experts {{ ep = {ep}, tp = 1 }}" if ep > 1 else degrees
    return f"""moe 1
hardware from "b200-sxm" {{ gpus = 8 }}
model {PRESETS[row["model"]].replace("LAYERS", row["layers"])}, dtype = bf16, weight_dtype = bf16 }}
workload {{ sequences = {dp * microbatches}, prompt = {row["seq"]} tok }}
phase train {{
  gpus = 0..7, pp = {pp}, microbatches = {microbatches}, zero = 1, sequence_parallel = {"true" if tp > 1 else "false"}
  {degrees}
}}
"""


def errors(row: Row) -> tuple[float, float]:
    """Of the step's time and of the peak without what the runtime keeps, over what was measured."""
    found = dagc.compile_text(spec_of(row)).trainings["train"]
    peak = (found.worst.peak_B - found.worst.reserve_B) / GIB
    return found.time_s * 1e3 / float(row["real_ms"]) - 1, peak / float(row["real_peak_alloc_gib"]) - 1


if __name__ == "__main__":
    every = {row["case"]: errors(row) for row in runs()}
    for case, (time, memory) in every.items():
        print(f"{case:<52} time {time:+7.1%}   memory {memory:+6.1%}")
    for name, each in zip(("time", "memory"), zip(*every.values(), strict=True), strict=True):
        sizes = [abs(error) for error in each]
        print(f"{name}: median {median(sizes):.1%}, largest {max(sizes):.1%}")
