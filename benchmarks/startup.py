"""Start-up: whole processes beside a peer in the same run, in turn, as ratios of CPU time.

python benchmarks/startup.py [-n RUNS]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DAGC = [sys.executable, "-c", "import sys; from dagc.cli import main; sys.exit(main(sys.argv[1:]))"]
PAIRS = (
    ("dagc --help", [*DAGC, "--help"], "python -c pass", [sys.executable, "-c", "pass"]),
    (
        "dagc check plan_a.moe",
        [*DAGC, "check", str(ROOT / "examples" / "plan_a.moe")],
        "python -c 'import numpy, lark'",
        [sys.executable, "-c", "import numpy, lark"],
    ),
)


def run(command: list[str]) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env=os.environ)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=15, help="counted runs of each command")
    runs = parser.parse_args().n
    print(f"{'command':<24}{'cpu ms':>9}{'wall ms':>9}   {'peer':<32}{'cpu ms':>9}{'wall ms':>9}{'cpu ratio':>11}")
    for name, command, peer_name, peer in PAIRS:
        run(command), run(peer)  # warm the file cache
        pairs = [(run(command), run(peer)) for _ in range(runs)]
        ours = [statistics.median(p[0][k] for p in pairs) * 1e3 for k in (0, 1)]
        theirs = [statistics.median(p[1][k] for p in pairs) * 1e3 for k in (0, 1)]
        ratio = statistics.median(p[0][0] / p[1][0] for p in pairs)
        print(
            f"{name:<24}{ours[0]:>9.1f}{ours[1]:>9.1f}   {peer_name:<32}{theirs[0]:>9.1f}{theirs[1]:>9.1f}{ratio:>11.2f}"
        )


if __name__ == "__main__":
    main()
