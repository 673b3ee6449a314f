"""Search: Qwen3-235B on H200, every degree free: bounds and exact costs a second, the first plan, and the whole search.

python benchmarks/searching.py [--gpus N] [--workers N] [--all]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.open_spec import load_open
from dagc.optimize.search.apart import Apart
from dagc.optimize.search.best_first import Found
from dagc.optimize.search.exact import Judge
from dagc.optimize.search.objectives import TABLE
from dagc.optimize.search.optimum import Asked, search
from dagc.optimize.search.workers import Text, usual_workers

SPEC = """moe 1
hardware from "h200-sxm" {{ gpus = {gpus} }}
model from "qwen3-235b-a22b" {{ weight_dtype = fp8_block }}
workload {{ sequences = {sequences}, prompt = 4096 tok, output = 1024 tok, routing = power_law(0.3) }}
"""
DECODE = """phase decode {{ gpus = {gpus}, strategy = any{more} }}
require "20 tokens a second for each user" decode.tpot <= 50 ms
"""
PREFILL = """phase prefill {{ gpus = {gpus}, strategy = any{more} }}
require "first token" prefill.ttft <= 5 s
"""
SAMPLE = 60
"""Plans that are costed again."""
TARGETS = {"bounds": 1e6, "exact": 1e3, "first": 1.0, "whole": 2.0, "divided": 20.0}


def rates(text: str) -> None:
    """Bounds and exact costs a second, in this process."""
    spec = load_open(Source("bench", text), Collector())
    space = Apart(spec, "decode", {})
    began = time.process_time()
    space.search((TABLE["throughput_per_gpu"],), 1)
    searched_s = time.process_time() - began
    bounds = space.pieces.bounds
    assert bounds is not None
    rows = np.tile(np.arange(len(space.rows)), 1 + 200_000 // len(space.rows))
    began = time.process_time()
    bounds.times(rows)
    bounds_s = time.process_time() - began
    plans = [plan for plan in space.pieces.known.values() if plan.estimate is not None][:SAMPLE]
    judge = Judge(space.judge.spec, "decode")
    began = time.process_time()
    for plan in plans:
        judge.plan(plan.phase)
    fresh_s = time.process_time() - began
    for _ in range(2):  # from the third time on a layout is kept
        for plan in plans:
            judge.plan(plan.phase)
    began = time.process_time()
    for plan in plans:
        judge.plan(plan.phase)
    kept_s = time.process_time() - began
    print(
        f"{space.size:,} plans, {len(space.rows):,} legal and different; {len(space.pieces.known):,} compiled in {searched_s:.2f} s of CPU"
    )
    print(f"bounds    {len(rows) / bounds_s:>12,.0f}/s  target >= {TARGETS['bounds']:,.0f}")
    print(f"exact     {len(plans) / fresh_s:>12,.0f}/s  layouts of which each is new: most of a search")
    print(
        f"          {len(plans) / kept_s:>12,.0f}/s  the same again, kept where ranks are equal; target >= {TARGETS['exact']:,.0f}"
    )


def whole(label: str, text: str, workers: int, target_s: float) -> None:
    """Wall time of a search, and until its first plan."""
    first: list[float] = []
    began = time.perf_counter()
    spec = load_open(Source("bench", text), Collector())

    def told(one: Found, count: int) -> None:
        if not first:
            first.append(time.perf_counter() - began)

    found = search(spec, Asked(workers=workers), told, Text(text, "bench", None))
    seconds = time.perf_counter() - began
    state = "complete" if found.complete else "not complete"
    compiled = sum(one.certificate.compiled for one in found.searched.values())
    print(
        f"{label:<10}{seconds:>8.2f} s, first plan after {first[0] if first else seconds:.2f} s, {compiled:,} compiled, {state}; target <= {target_s:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=32)
    parser.add_argument("--workers", type=int, default=usual_workers())
    parser.add_argument("--all", action="store_true", help="also prefill and decode that divide the GPUs, with batches")
    args = parser.parse_args()
    head = SPEC.format(gpus=args.gpus, sequences=16 * args.gpus)
    decode = head + DECODE.format(gpus=f"0..{args.gpus - 1}", more="")
    rates(decode)
    whole("decode", decode, args.workers, TARGETS["whole"])
    if args.all:
        counts = ", ".join(str(n) for n in range(1, args.gpus) if args.gpus % n == 0 or n % 4 == 0)
        free = f"any({counts})"
        both = PREFILL.format(gpus=free, more=", sequences = any(8, 32)") + DECODE.format(
            gpus=free, more=", sequences = any(64, 256, 1024)"
        )
        whole("divided", head + both, args.workers, TARGETS["divided"])


if __name__ == "__main__":
    main()
