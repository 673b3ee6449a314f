"""Execution traces: dagc's writer against one that makes a protobuf object per node, and many equal ranks against their bytes.

python benchmarks/chakra.py [-n RUNS] [--gpus 4096] [EXAMPLE ...]   (needs `pip install protobuf`)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chakra_schema import attributes, messages, read  # noqa: E402
from scale import spec  # noqa: E402

import dagc  # noqa: E402
from dagc.export.chakra.folder import classes, image, traces  # noqa: E402
from dagc.export.chakra.ranks import Ranks  # noqa: E402
from dagc.export.protobuf import varint  # noqa: E402
from dagc.plan.result import PhaseResult  # noqa: E402

Plain = tuple[int, str, int, list[int], list[int], int, list[tuple[str, str, Any]]]


def plain(data: bytes) -> list[Plain]:
    """A file's nodes as plain numbers and texts: what the peer is handed."""
    return [
        (n.id, n.name, n.type, list(n.ctrl_deps), list(n.data_deps), n.duration_micros,
         [(k, f"{kind}_val", v) for k, (kind, v) in attributes(n).items()])
        for n in read(data)[1]
    ]  # fmt: skip


def write_objects(nodes: list[Plain], path: Path) -> None:
    """One object per node, each written with its length before it."""
    made = messages()
    with path.open("wb") as file:
        first = made["GlobalMetadata"](version="0.0.4").SerializeToString()
        file.write(varint(len(first)) + first)
        for id_, name, kind, control, data, micros, values in nodes:
            node = made["Node"](id=id_, name=name, type=kind, duration_micros=micros)
            node.ctrl_deps.extend(control)
            node.data_deps.extend(data)
            for key, field, value in values:
                attr = node.attr.add(name=key)
                if isinstance(value, list):
                    attr.string_list.values.extend(value)
                else:
                    setattr(attr, field, value)
            record = node.SerializeToString()
            file.write(varint(len(record)) + record)


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def one_rank(name: str, result: PhaseResult, runs: int, folder: Path) -> None:
    """From a compiled phase to files: the first alone, and the mean over all ranks; the peer's from numbers at hand."""
    ranks = Ranks(result)
    alike = next(classes(result, ranks))
    nodes = plain(bytes(next(traces(result, ranks))[1]))
    first, mean, peer = [], [], []

    def every() -> int:
        return sum(1 for _, data in traces(result, Ranks(result)) if (folder / "ours").write_bytes(data))

    for _ in range(runs):
        first.append(timed(lambda: (folder / "ours").write_bytes(memoryview(image(ranks, alike).data))))
        mean.append(timed(every) / len(result.gpus))
        peer.append(timed(lambda: write_objects(nodes, folder / "peer")))
    a, b, c = (statistics.median(times) * 1e3 for times in (first, mean, peer))
    ratio = statistics.median(y / x for x, y in zip(mean, peer, strict=True))
    print(f"{name:<28}{len(nodes):>8}{a:>10.2f}{b:>10.2f}{c:>13.2f}{ratio:>8.1f}{'>= 3':>8}")


def all_ranks(name: str, result: PhaseResult, runs: int, folder: Path) -> None:
    """Every rank of a phase, against writing as many files of as many bytes."""
    files = {rank: len(data) for rank, data in traces(result, Ranks(result))}
    content = memoryview(bytes(max(files.values())))

    def ours() -> None:
        for rank, data in traces(result, Ranks(result)):
            (folder / f"{rank}.et").write_bytes(data)

    def bare() -> None:
        for rank, size in files.items():
            (folder / f"{rank}.et").write_bytes(content[:size])

    bare()
    a, b = zip(*((timed(ours), timed(bare)) for _ in range(runs)), strict=True)
    ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
    size = sum(files.values()) / 1e6
    ms = statistics.median(a) * 1e3, statistics.median(b) * 1e3
    print(f"{name:<28}{len(files):>8}{size:>10.1f}{ms[0]:>12.1f}{ms[1]:>12.1f}{ratio:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=7, help="runs")
    parser.add_argument("--gpus", type=int, default=4096, help="ranks of the symmetric plan")
    parser.add_argument("examples", nargs="*", default=("plan_a", "plan_b", "deepseek_v3_h800"))
    args = parser.parse_args()
    plans = {name: dagc.compile(ROOT / "examples" / f"{name}.moe") for name in args.examples}
    phases = {f"{name}, {p}": r for name, plan in plans.items() for p, r in plan.phases.items()}
    phases[f"symmetric, {args.gpus} GPUs"] = dagc.compile_text(spec(args.gpus)).phases["prefill"]
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{'one rank, medians':<28}{'nodes':>8}{'first ms':>10}{'mean ms':>10}{'protobuf ms':>13}{'ratio':>8}{'target':>8}"
        )
        for name, result in phases.items():
            one_rank(name, result, args.n, Path(folder))
        print(f"\n{'all ranks, medians':<28}{'files':>8}{'MB':>10}{'dagc ms':>12}{'bytes ms':>12}{'ratio':>8}")
        for name, result in phases.items():
            all_ranks(name, result, max(1, args.n // 2), Path(folder))


if __name__ == "__main__":
    main()
