"""Start-up: whole processes of a normal install against a peer in the same run, alternating, as ratios.

python benchmarks/startup.py [-n RUNS] [SPEC ...]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.moe"))


class Pair(NamedTuple):
    """A command, the exit codes it may end with, and its peer."""

    name: str
    command: list[str]
    codes: tuple[int, ...]
    peer_name: str
    peer: list[str]
    target: float


def pairs(specs: Sequence[Path]) -> list[Pair]:
    dagc = [sys.executable, "-m", "dagc"]
    peer = [sys.executable, "-c", "import numpy, lark"]
    return [
        Pair("--help", [*dagc, "--help"], (0,), "python -c pass", [sys.executable, "-c", "pass"], 1.5),
        *(
            # 1: a claim of the plan does not hold
            Pair(
                spec.stem,
                [*dagc, "check", str(spec)],
                (0, 1),
                "import numpy, lark",
                peer,
                1.4 if spec.stem == "plan_a" else 1.6,
            )
            for spec in specs
        ),
    ]


def install(folder: Path) -> None:
    """This checkout as anybody installs it, compiled, and first on the path of all that is started from here."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(folder / "site"),
    ]
    with tempfile.TemporaryDirectory() as copy:
        ignored = shutil.ignore_patterns(
            ".git", "build", "*.egg-info", "node_modules", "__pycache__", "tests", "docs", "editors"
        )
        shutil.copytree(ROOT, Path(copy) / "dagc", symlinks=True, ignore=ignored)
        subprocess.run([*pip, str(Path(copy) / "dagc")], check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""})
    os.environ["PYTHONPATH"] = str(folder / "site")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.chdir(folder)


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
    cold = run(pair.command, pair.codes).cpu / run(pair.peer).cpu  # nothing is kept of an earlier run yet
    spent = [(run(pair.command, pair.codes), run(pair.peer)) for _ in range(runs)]
    cpu = statistics.median(ours.cpu / peer.cpu for ours, peer in spent)
    wall = statistics.median(ours.wall / peer.wall for ours, peer in spent)
    row(pair.name, [ours for ours, _ in spent], f"{cpu:>11.2f}{wall:>12.2f}{cold:>10.2f}{f'<= {pair.target:g}':>9}")
    row("  " + pair.peer_name, [peer for _, peer in spent])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("specs", nargs="*", type=Path, default=EXAMPLES)
    parser.add_argument("-n", type=int, default=15, help="counted runs of each command")
    args = parser.parse_args()
    specs = [spec.resolve() for spec in args.specs]
    print(
        f"{'ms':<24}{'cpu median':>10}{'min':>9}{'wall med.':>10}{'min':>9}{'cpu ratio':>11}{'wall ratio':>12}{'first run':>10}{'target':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        for pair in pairs(specs):
            measure(pair, args.n)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
