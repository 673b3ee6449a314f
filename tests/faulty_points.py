"""Points of a sweep that end the process which is given them. What workers import: no more than dagc."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from dagc.optimize.point import SweepRow, Task
from dagc.optimize.points import evaluate


def dies_once(task: Task) -> SweepRow:
    """The first process that gets a point of `wide = 2` dies with it."""
    mark = Path(task.base_dir or ".") / "died"
    if dict(task.settings)["wide"] == "2" and not mark.exists():
        mark.touch()
        os._exit(1)
    return evaluate(task)


def dies(task: Task) -> SweepRow:
    if dict(task.settings) == {"wide": "2", "unused": "3"}:
        os._exit(1)
    return evaluate(task)


def ended_once(task: Task) -> SweepRow:
    """The first process that gets a point of `wide = 2` is asked to end."""
    mark = Path(task.base_dir or ".") / "died"
    if dict(task.settings)["wide"] == "2" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    return evaluate(task)


def sleeps(task: Task) -> SweepRow:
    time.sleep(600)
    return evaluate(task)
