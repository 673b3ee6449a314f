"""Scale: a symmetric plan on 8 and on 4096 GPUs, and costing beside networkx on the expanded graph, in one run.

python benchmarks/scale.py [--nodes 1000000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import dagc
from dagc.driver import compile_spec, load
from dagc.export.json import expand_ranks
from dagc.export.unroll import Node, counts, unroll
from dagc.ir.result import PhaseResult
from dagc.lang.diagnostics import Collector
from dagc.lang.source import Source
from dagc.passes import cost, schedule

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


def timed(run: Callable[[], object], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def symmetric(runs: int) -> None:
    """Elaborated specs compiled (every pass) and costed (cost and schedule alone), in turn."""
    sizes = (8, 4096)
    specs = {n: load(Source("bench", spec(n)), Collector()) for n in sizes}
    plans = {n: compile_spec(specs[n], Collector()) for n in sizes}

    def costing(n: int) -> None:
        plan = plans[n]
        graph, unit = plan.phases["prefill"].graph, plan.units["prefill"]
        schedule.run(graph, cost.run(graph, unit), unit)

    rows = {"cost and schedule": costing, "compile, all passes": lambda n: compile_spec(specs[n], Collector())}
    print(f"{'symmetric plan':<24}{'8 GPUs ms':>12}{'4096 GPUs ms':>14}{'ratio':>8}")
    for name, work in rows.items():
        times: dict[int, list[float]] = {n: [] for n in sizes}
        for _ in range(runs):
            for n in sizes:
                times[n].append(timed(lambda n=n, work=work: work(n)))  # type: ignore[misc]
        small, large = (statistics.median(times[n]) * 1e3 for n in sizes)
        ratio = statistics.median(b / a for a, b in zip(times[8], times[4096], strict=True))
        print(f"{name:<24}{small:>12.2f}{large:>14.2f}{ratio:>8.2f}")
    same = plans[8].phases["prefill"].time_s, plans[4096].phases["prefill"].time_s
    print(f"estimated ttft: {same[0] * 1e3:.6f} ms and {same[1] * 1e3:.6f} ms\n")


def against_networkx(limit: int) -> None:
    """Cost one plan, and find the longest path of its graph expanded to every rank."""
    import networkx as nx

    gpus = 8
    while gpus < 4096 and rank_nodes(gpus * 2) <= limit:
        gpus *= 2
    plan = dagc.compile_text(spec(gpus))
    result, unit = plan.phases["prefill"], plan.units["prefill"]
    ours = timed(lambda: schedule.run(result.graph, cost.run(result.graph, unit), unit), 10)

    graph = nx.DiGraph()
    items = list(expand_ranks(result, unroll(result)))
    start = time.perf_counter()
    build(graph, result, items)
    built = time.perf_counter()
    longest = nx.dag_longest_path_length(graph)
    done = time.perf_counter()
    error = abs(longest - result.schedule.latency_s) / result.schedule.latency_s
    print(f"{gpus} GPUs, {graph.number_of_nodes()} rank-nodes, {graph.number_of_edges()} edges")
    print(f"{'dagc, cost and schedule':<28}{ours * 1e3:>12.2f} ms")
    print(f"{'networkx, build':<28}{(built - start) * 1e3:>12.2f} ms")
    print(f"{'networkx, longest path':<28}{(done - built) * 1e3:>12.2f} ms")
    print(f"{'ratio, build and query':<28}{(done - start) / ours:>12.0f} x")
    print(f"{'ratio, query alone':<28}{(done - built) / ours:>12.0f} x")
    print(f"longest path {longest * 1e3:.6f} ms, dagc {result.schedule.latency_s * 1e3:.6f} ms, apart {error:.1e}")


def rank_nodes(gpus: int) -> int:
    """Rank-nodes of the plan when expanded; its folded graph does not depend on the number of GPUs."""
    return counts(dagc.compile_text(spec(8)).phases["prefill"])[0] * gpus


def build(graph: object, result: PhaseResult, items: list[object]) -> None:
    """One node a rank; a collective waits for the inputs of its whole group."""
    import networkx as nx

    assert isinstance(graph, nx.DiGraph)
    times = {item.id: item.time_s for item in items if isinstance(item, Node)}
    groups = {item.id: item for item in items if isinstance(item, Node) and len(item.gpus) > 1}
    graph.add_nodes_from(times)
    for item in items:
        if isinstance(item, Node):
            continue
        target = groups.get(item.dst)  # type: ignore[attr-defined]
        source, weight = item.src, times[item.src]  # type: ignore[attr-defined]
        if target is None:
            graph.add_edge(source, item.dst, weight=weight)  # type: ignore[attr-defined]
            continue
        stem = target.id.rsplit("@", 1)[0]
        for gpu in target.gpus:
            graph.add_edge(source, f"{stem}@{gpu}", weight=weight)
    for node in [n for n in graph if graph.out_degree(n) == 0]:
        graph.add_edge(node, "end", weight=times[node])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000, help="rank-nodes of the expanded graph, at most")
    parser.add_argument("-n", type=int, default=15, help="runs of each size")
    args = parser.parse_args()
    symmetric(args.n)
    against_networkx(args.nodes)


if __name__ == "__main__":
    main()
