"""Start-up: whole processes against a peer in the same run, alternating, as ratios.

python benchmarks/startup.py [-n RUNS]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).with_name("dagc")
DAGC = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "dagc"]


class Pair(NamedTuple):
    """A command, the exit codes it may end with, and its peer."""

    name: str
    command: list[str]
    codes: tuple[int, ...]
    peer_name: str
    peer: list[str]
    target: float


PAIRS = (
    Pair("dagc --help", [*DAGC, "--help"], (0,), "python -c pass", [sys.executable, "-c", "pass"], 1.5),
    Pair(
        "dagc check plan_a.moe",
        [*DAGC, "check", str(ROOT / "examples" / "plan_a.moe")],
        (0, 1),  # 1: a claim of the plan does not hold
        "import numpy, lark",
        [sys.executable, "-c", "import numpy, lark"],
        3.0,
    ),
)


class Spent(NamedTuple):
    """Seconds of one process."""

    cpu: float
    wall: float


def run(command: list[str], codes: tuple[int, ...] = (0,)) -> Spent:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in codes:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}")  # a failure would be timed as a success
    return Spent(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def row(name: str, spent: Sequence[Spent], tail: str = "") -> None:
    figures = ""
    for values in ([s.cpu for s in spent], [s.wall for s in spent]):
        figures += f"{statistics.median(values) * 1e3:>10.1f}{min(values) * 1e3:>9.1f}"
    print(f"{name:<24}{figures}{tail}")


def measure(pair: Pair, runs: int) -> None:
    run(pair.command, pair.codes), run(pair.peer)  # warm the file cache
    spent = [(run(pair.command, pair.codes), run(pair.peer)) for _ in range(runs)]
    cpu = statistics.median(ours.cpu / peer.cpu for ours, peer in spent)
    wall = statistics.median(ours.wall / peer.wall for ours, peer in spent)
    row(pair.name, [ours for ours, _ in spent], f"{cpu:>11.2f}{wall:>12.2f}{f'< {pair.target:g}':>9}")
    row("  " + pair.peer_name, [peer for _, peer in spent])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=15, help="counted runs of each command")
    runs = parser.parse_args().n
    print(
        f"{'ms':<24}{'cpu median':>10}{'min':>9}{'wall med.':>10}{'min':>9}{'cpu ratio':>11}{'wall ratio':>12}{'target':>9}"
    )
    for pair in PAIRS:
        measure(pair, runs)


if __name__ == "__main__":
    main()
