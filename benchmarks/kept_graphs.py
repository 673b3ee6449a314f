"""Plans that differ in sizes or in their layout: exact costs per second with and without kept graphs, in one process; then `dagc sweep`
over so many sizes as a process.

python benchmarks/kept_graphs.py [-n POINTS] [--before FOLDER]

`--before`: a checkout of an older commit, whose sweep runs beside, the two in turn, and must print the same rows. CPU time is that of
all processes.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import ceil, sqrt
from pathlib import Path

from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline.compile import compile_phase
from dagc.pipeline.estimates import Estimates
from dagc.spec.phase import Phase
from dagc.spec.strategy import Fold
from dagc.spec.unit import Unit

ROOT = Path(__file__).resolve().parent.parent
SPEC = """moe 1
param b = 512
param c = 4096
hardware from "h200-sxm" { gpus = 32 }
model from "qwen3-235b-a22b" { weight_dtype = fp8 }
workload { sequences = b, prompt = 4096 tok, output = 1024 tok }
phase decode { gpus = 0..31, context = c * 1 tok, attention { dp = 8, tp = 4 }, experts { ep = 32, tp = 1 } }
"""
TARGET_PER_S, TARGET_S = 1000, 1.0
"""Exact costs with kept graphs, and a sweep of 1,000 sizes."""


def grid(points: int) -> tuple[list[int], list[int]]:
    """Sequences and contexts, whose product is about so many."""
    each = ceil(sqrt(points))
    return [16 + 32 * k for k in range(each)], [1000 + 200 * k for k in range(ceil(points / each))]


def layouts(phase: Phase) -> Iterator[Phase]:
    """The phase in other layouts."""
    for dp in (1, 2, 4, 8, 16, 32):
        for ep, tp in ((32, 1), (16, 2), (8, 4)):
            for dispatch in ("all_to_all", "allgather"):
                sides = Fold((("dp", dp), ("sp", 1), ("tp", 32 // dp))), Fold((("ep", ep), ("tp", tp)))
                yield replace(
                    phase, strategy=replace(phase.strategy, attention=sides[0], experts=sides[1], dispatch=dispatch)
                )


def per_second(estimates: Estimates, phases: Iterable[Phase]) -> tuple[int, float]:
    """(costed, CPU milliseconds of each)."""
    done, start = 0, time.process_time()
    for phase in phases:
        try:
            estimates(phase)
        except SpecError:
            continue
        done += 1
    return done, (time.process_time() - start) * 1e3 / max(1, done)


def swept(folder: Path, spec: Path, points: int) -> tuple[str, float, float]:
    """(rows, CPU seconds, seconds) of a sweep by the checkout in a folder."""
    over = [
        word
        for name, values in zip("bc", grid(points), strict=True)
        for word in ("--over", f"{name}={','.join(map(str, values))}")
    ]
    command = [sys.executable, "-m", "dagc", "sweep", str(spec), *over, "--format", "csv"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
    )
    after, wall_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000, metavar="POINTS")
    parser.add_argument("--before", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    spec = load(Source("sizes.moe", SPEC), Collector())
    (phase,) = spec.phases
    batches, contexts = grid(args.n)
    for sequences in (8, 16, 24):
        compile_phase(Unit(spec, replace(phase, sequences=sequences), Collector()))  # tables of kernels are read once
    start = time.process_time()
    some = [replace(phase, sequences=1000 + 8 * k) for k in range(min(10, args.n))]
    for each in some:
        compile_phase(Unit(spec, each, Collector()))
    rows = {"compiled, each for itself": (len(some), (time.process_time() - start) * 1e3 / len(some))}
    rows["estimated, each another layout"] = per_second(Estimates(spec), layouts(phase))
    estimates = Estimates(spec)
    sizes = [replace(phase, sequences=b, context=c) for b in batches for c in contexts]
    rows["estimated, kept graph, a grid of sequences and contexts"] = per_second(estimates, sizes)
    rows["estimated, kept graph, each another context"] = per_second(
        estimates, (replace(phase, context=20000 + k) for k in range(args.n))
    )
    rows["estimated, kept graph, each other sequences"] = per_second(
        estimates, (replace(phase, sequences=8 * (k + 1) + 3) for k in range(max(1, args.n // 4)))
    )
    print(f"exact costs, CPU time of one process (target: {TARGET_PER_S:,}/s with kept graphs)")
    for name, (done, each_ms) in rows.items():
        print(f"  {name:56} {done:5} plans  {each_ms:8.3f} ms  {1e3 / each_ms:8,.0f}/s")
    print(f"dagc sweep of {len(sizes):,} sizes, {os.cpu_count()} CPUs (target: {TARGET_S:g} s for 1,000)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sizes.moe"
        path.write_text(SPEC, encoding="utf-8")
        text, cpu_s, wall_s = swept(ROOT, path, args.n)
        print(f"  now     CPU {cpu_s:7.2f} s  wall {wall_s:7.2f} s")
        if args.before is not None:
            other, before_s, wall_before_s = swept(args.before.resolve(), path, args.n)
            print(
                f"  before  CPU {before_s:7.2f} s  wall {wall_before_s:7.2f} s: {before_s / cpu_s:.1f} times the CPU time"
            )
            print(f"  rows {'are the same' if other == text else 'DIFFER'}")


if __name__ == "__main__":
    main()
