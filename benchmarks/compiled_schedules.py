"""Training steps of every schedule: how much longer one of 512 micro-batches on 1024 GPUs compiles than one of 32 on 8, with 8 stages both.

python benchmarks/compiled_schedules.py [-n RUNS] [--layers N] [SCHEDULE ...]
"""

from __future__ import annotations

import argparse
import time

import dagc
from dagc.base.pipeline_schedules import SCHEDULES
from dagc.pipeline.kept_phases import forget

STAGES = 8
SIZES = ((8, 32), (1024, 512))
"""GPUs and micro-batches."""
TARGET = 1.5

SPEC = """moe 1
hardware from "h100-sxm" {{ gpus = {gpus}, memory = 100 TB }}
model from "qwen3-235b-a22b" {{ layers = {layers} }}
workload {{ sequences = {sequences}, prompt = 4096 tok }}
phase train {{
  kind = train
  gpus = 0..{last}, pp = {stages}, microbatches = {microbatches}, schedule = {schedule}, zero = 1
  {cut}
  attention {{ dp = {dp} }}
  experts {{ ep = {ep} }}
}}
"""


def spec(schedule: str, gpus: int, microbatches: int, layers: int) -> str:
    """Layers that chunks do not divide are given to each of them; a micro-batch has a sequence on every GPU of a stage."""
    dp, chunks = gpus // STAGES, SCHEDULES[schedule].cuts(2 if schedule == "interleaved" else None)
    each, more = divmod(layers, STAGES * chunks)
    counts = [each + (k < more) for k in range(STAGES * chunks)]
    virtual = "virtual = 2, " if schedule == "interleaved" else ""
    return SPEC.format(
        gpus=gpus, last=gpus - 1, layers=layers, sequences=dp * microbatches, stages=STAGES, microbatches=microbatches,
        schedule=schedule, cut=f"{virtual}layers_per_stage = {counts}", dp=dp, ep=min(dp, 8),
    )  # fmt: skip


def seconds(text: str) -> float:
    """CPU time of a compile, from the text; nothing is kept of the one before."""
    forget()
    start = time.process_time()
    dagc.compile_text(text)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("schedules", nargs="*", metavar="SCHEDULE", default=list(SCHEDULES))
    parser.add_argument("-n", "--runs", type=int, default=7, help="compiles of each, in turn (default: 7)")
    parser.add_argument("--layers", type=int, default=94)
    args = parser.parse_args()
    print(
        f"{'schedule':<14}" + "".join(f"{f'{m} on {n} GPUs, ms':>22}" for n, m in SIZES) + f"{'ratio':>8}{'target':>9}"
    )
    for schedule in args.schedules:
        texts = [spec(schedule, gpus, count, args.layers) for gpus, count in SIZES]
        took = [
            min(times) for times in zip(*([seconds(text) for text in texts] for _ in range(args.runs)), strict=True)
        ]
        small, large = took
        print(
            f"{schedule:<14}{small * 1e3:>22.1f}{large * 1e3:>22.1f}{large / small:>8.2f}{f'<= {TARGET}':>9}",
            flush=True,
        )


if __name__ == "__main__":
    main()
