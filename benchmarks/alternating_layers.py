"""Layers of two kinds in turn: CPU time of compiling many against few, in turn, the best of each.

python benchmarks/alternating_layers.py [-n RUNS] [--layers N]
"""

from __future__ import annotations

import argparse
import time

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline import kept_phases
from dagc.pipeline.compile import compile_spec
from dagc.spec.spec import Spec

TARGET = 1.5
FEW = 24
SPEC = """moe 1
hardware from "h200-sxm" {{ gpus = 32 }}
model from "gpt-oss-120b" {{ stack = [embed, each({layers}, if(equal(mod(index, 2), 1), full_attention, sliding_attention)), lm_head] }}
workload {{ sequences = 64, prompt = 4096 tok, output = 512 tok }}
phase {kind} {{ gpus = 0..{last}, ep = 8, pp = {stages}, microbatches = {microbatches} }}
"""
CASES = (("decode", 1, 1), ("prefill", 1, 1), ("prefill", 4, 8), ("decode", 4, 8))
"""Kind of phase, stages and micro-batches."""


def spec_of(layers: int, kind: str, stages: int, microbatches: int) -> Spec:
    text = SPEC.format(layers=layers, kind=kind, stages=stages, microbatches=microbatches, last=8 * stages - 1)
    return load(Source("alternating.moe", text), Collector())


def cpu_s(spec: Spec) -> float:
    kept_phases.forget()
    start = time.process_time()
    compile_spec(spec, Collector())
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=15, help="counted runs of each")
    parser.add_argument("--layers", type=int, default=992)
    args = parser.parse_args()
    print(f"{'phase':<34}{FEW:>5} layers{args.layers:>6} layers{'ratio':>8}   (ms; target {TARGET:g})")
    for case in CASES:
        few, many = (spec_of(layers, *case) for layers in (FEW, args.layers))
        runs = [(cpu_s(few), cpu_s(many)) for _ in range(args.n + 1)][1:]
        few_ms, many_ms = (1e3 * min(times) for times in zip(*runs, strict=True))
        kind, stages, microbatches = case
        name = f"{kind}, {stages} x {microbatches} micro-batches"
        print(f"{name:<34}{few_ms:>12.1f}{many_ms:>13.1f}{many_ms / few_ms:>8.2f}")


if __name__ == "__main__":
    main()
