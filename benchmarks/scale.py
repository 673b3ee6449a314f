"""Scale: a symmetric plan on 8 and on 4096 GPUs, and costing against networkx on the expanded graph, in one run.

python benchmarks/scale.py [--nodes 1000000]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from expand_nx import expand

import dagc
from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.cost.price import price
from dagc.cost.schedule.records import Schedule
from dagc.cost.schedule.scheduler import Scheduler
from dagc.lang.load import load
from dagc.pipeline import kept_phases
from dagc.pipeline.compile import compile_spec
from dagc.plan.result import PhaseResult
from dagc.spec.unit import Unit

ROOT = Path(__file__).resolve().parent.parent
AGREE = 1e-6
"""Relative difference between networkx's longest path and the makespan that still counts as none."""

SPEC = """moe 1
hardware from "h100-sxm" {{ gpus = {gpus} }}
model m {{
  layers = 16, hidden = 2048, vocab = 32_000, dtype = bf16
  attention {{ heads = 16, kv_heads = 8, head_dim = 128 }}
  experts {{ count = 16, top_k = 2, hidden = 4096 }}
}}
workload {{ sequences = {sequences}, prompt = 4096 tok }}
phase prefill {{ gpus = 0..{last}, dp = {dp}, ep = 4, tp = 2, microbatches = 4 }}
"""


def spec(gpus: int) -> str:
    """The same work on every GPU, whatever their number."""
    dp = gpus // 8
    return SPEC.format(gpus=gpus, last=gpus - 1, dp=dp, sequences=64 * dp)


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def symmetric(runs: int) -> None:
    """One plan at two sizes, alternating: cost and schedule alone, every pass, and from the text."""
    sizes = (8, 4096)
    specs = {n: load(Source("bench", spec(n)), Collector()) for n in sizes}
    plans = {n: compile_spec(specs[n], Collector()) for n in sizes}

    def costing(n: int) -> None:
        costed(plans[n].phases["prefill"], plans[n].units["prefill"])

    rows = {
        "cost and schedule": (costing, "<= 1.10"),
        "all passes": (lambda n: compile_spec(specs[n], Collector()), ""),
        "from the text": (lambda n: dagc.compile_text(spec(n)), ""),
    }
    print(f"{'symmetric plan, medians':<24}{'8 GPUs ms':>12}{'4096 GPUs ms':>14}{'ratio':>8}{'target':>10}")
    for name, (work, target) in rows.items():
        times: dict[int, list[float]] = {n: [] for n in sizes}
        for _ in range(runs):
            for n in sizes:
                times[n].append(timed(lambda n=n, work=work: work(n)))  # type: ignore[misc]
        small, large = (statistics.median(times[n]) * 1e3 for n in sizes)
        ratio = statistics.median(b / a for a, b in zip(times[8], times[4096], strict=True))
        print(f"{name:<24}{small:>12.2f}{large:>14.2f}{ratio:>8.2f}{target:>10}")
    same = plans[8].phases["prefill"].time_s, plans[4096].phases["prefill"].time_s
    print(f"estimated ttft: {same[0] * 1e3:.6f} ms and {same[1] * 1e3:.6f} ms\n")


def costed(result: PhaseResult, unit: Unit) -> Schedule:
    return Scheduler(result.graph, price(result.graph, unit), False).run()


def against_networkx(name: str, result: PhaseResult, unit: Unit) -> bool:
    """Cost a phase, and find the longest path of its graph expanded to every rank. True when they agree."""
    import networkx as nx

    expanded = expand(result.graph, result.costs)  # as arrays; not counted
    costed(result, unit)
    times = [timed(lambda: costed(result, unit)) for _ in range(15)]
    ours = statistics.median(times)
    start = time.perf_counter()
    graph = expanded.to_networkx()
    built = time.perf_counter()
    longest = float(nx.dag_longest_path_length(graph))
    done = time.perf_counter()
    build_s, query_s = built - start, done - built
    makespan = costed(result, unit).latency_s
    apart = abs(longest - makespan) / makespan
    nodes = expanded.rank_nodes
    print(f"{name}: {len(result.gpus)} GPUs, {nodes} rank-nodes, {graph.number_of_edges()} edges in networkx")
    print(f"{'':<26}{'ms':>12}{'us a rank-node':>16}{'ratio':>10}")
    rows = {
        "dagc, cost and schedule": ours,
        "networkx, build": build_s,
        "networkx, longest path": query_s,
        "networkx, both": build_s + query_s,
    }
    for label, seconds in rows.items():
        print(f"{label:<26}{seconds * 1e3:>12.2f}{seconds / nodes * 1e6:>16.4f}{seconds / ours:>9.0f}x")
    verdict = "equal" if apart <= AGREE else "DIFFERENT"
    print(f"longest path {longest * 1e3:.6f} ms, makespan {makespan * 1e3:.6f} ms, apart {apart:.1e}: {verdict}\n")
    return apart <= AGREE


def largest(limit: int) -> int:
    """GPUs of the largest plan of at most so many rank-nodes; its folded graph does not depend on their number."""
    result = dagc.compile_text(spec(8)).phases["prefill"]
    replica = expand(result.graph, result.costs).rank_nodes
    return 8 * min(512, max(1, limit // replica))


def main() -> None:
    kept_phases.MOST = 0  # what was compiled before is compiled again
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000, help="rank-nodes of the expanded graph, at most")
    parser.add_argument("-n", type=int, default=15, help="runs of each size")
    args = parser.parse_args()
    symmetric(args.n)
    small = dagc.compile(ROOT / "examples" / "plan_a.moe")
    large = dagc.compile_text(spec(largest(args.nodes)))
    agree = [
        against_networkx(name, plan.phases["prefill"], plan.units["prefill"])
        for name, plan in (("plan A, prefill", small), ("symmetric plan", large))
    ]
    sys.exit(0 if all(agree) else 1)


if __name__ == "__main__":
    main()
