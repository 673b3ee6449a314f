"""Placement: a compile with `place = best` against one in the default order, on nodes, racks and a cluster.

python benchmarks/placing.py [-n RUNS]
"""

from __future__ import annotations

import argparse
import statistics
import time

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline import kept_phases
from dagc.pipeline.compile import compile_spec

SPEC = """moe 1
hardware from "h100-sxm" {{
  gpus = {gpus}
  link node {{ gpus = 8, bandwidth = 450 GB/s, latency = 2 us }}
  link rack {{ gpus = 64, bandwidth = 100 GB/s, latency = 3 us }}
  link cluster {{ bandwidth = 50 GB/s, latency = 6 us }}
}}
model m {{
  layers = 16, hidden = 2048, vocab = 32_000, dtype = bf16
  attention {{ heads = 16, kv_heads = 8, head_dim = 128 }}
  experts {{ count = 16, top_k = 2, hidden = 4096 }}
}}
workload {{ sequences = {sequences}, prompt = 4096 tok }}
phase prefill {{ gpus = 0..{last}, pp = 4, dp = {dp}, ep = 8, tp = 4, microbatches = 4{place} }}
"""
TARGET = 20
"""Times a compile in the default order."""


def text(gpus: int, place: str = "") -> str:
    dp = gpus // 128
    return SPEC.format(gpus=gpus, last=gpus - 1, dp=dp, sequences=64 * 8 * dp, place=place)


def main() -> None:
    kept_phases.MOST = 0  # what was compiled before is compiled again
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=5, help="runs of each size")
    runs = parser.parse_args().n
    print(f"{'GPUs':>6}{'default ms':>12}{'best ms':>10}{'ratio':>8}  target <= {TARGET}")
    for gpus in (256, 4096):
        plain, best = (load(Source("bench", text(gpus, more)), Collector()) for more in ("", ", place = best"))
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(runs):
            for spec, seconds in zip((plain, best), times, strict=True):
                start = time.process_time()
                plan = compile_spec(spec, Collector())
                seconds.append(time.process_time() - start)
        default_s, best_s = map(statistics.median, times)
        found = plan.phases["prefill"].placement
        assert found is not None
        print(
            f"{gpus:>6}{default_s * 1e3:>12.1f}{best_s * 1e3:>10.1f}{best_s / default_s:>8.1f}  {found.ways} ways, "
            f"{found.priced} compiled; ttft {found.before_s * 1e3:.1f} -> {found.after_s * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
