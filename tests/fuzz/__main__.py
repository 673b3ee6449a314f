"""`python -m tests.fuzz --cases 100000 --workers 2`: counts of how the cases ended; exit 1 when any failed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from .judge import Ended, Report, prepare, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="begin no case after so long")
    parser.add_argument("--keep", type=Path, help="folder for the cases that failed")
    chosen = parser.parse_args()
    prepare()
    report = Report()
    shown = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        for ended in _workers(chosen, Path(place)):
            report.add(ended)
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(report.text(), flush=True)
    print(report.text())
    return 1 if report.faults else 0


def _workers(chosen: argparse.Namespace, place: Path):  # type: ignore[no-untyped-def]
    """Every worker takes each so-manieth case, and writes a line for it into one pipe."""
    end, begin = os.pipe()
    started = time.monotonic()
    for worker in range(chosen.workers):
        if os.fork():
            continue
        os.close(end)
        with os.fdopen(begin, "w") as out:
            numbers = range(chosen.first + worker, chosen.first + chosen.cases, chosen.workers)
            for ended in run(numbers, chosen.seed, place / str(worker), chosen.keep):
                out.write(json.dumps(asdict(ended)) + "\n")
                out.flush()
                if chosen.seconds is not None and time.monotonic() - started > chosen.seconds:
                    break
        os._exit(0)
    os.close(begin)
    with os.fdopen(end) as lines:
        for line in lines:
            yield Ended(**json.loads(line))


sys.exit(main())
