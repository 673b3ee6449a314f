"""workers: exact costs in processes of this machine or on a Dask or Ray cluster: the same answer wherever they run.

Plans are costed in batches whose size does not depend on who costs them. A plan is a pure function of the spec's text and the values of
its choices; what a lost worker had not finished is done here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...base.diagnostics import Collector
from ...base.frozen import record
from ...base.source import Source
from ...lang.open_spec import OpenSpec, load_open
from ..clusters import cluster
from ..points import end_on_request, process_pool, processes
from .costing import Told, costing, judge_of
from .exact import Allowed, Judge, closed_phases
from .space import Word


@record
class Text:
    """A spec as any machine can read it. `picked`: alternatives, by phase."""

    text: str
    name: str
    base_dir: str | None
    settings: tuple[tuple[str, str], ...] = ()
    allow_import: tuple[str, ...] = ()
    picked: tuple[tuple[str, str], ...] = ()

    def opened(self) -> OpenSpec:
        """Raises SpecError."""
        base = None if self.base_dir is None else Path(self.base_dir)
        spec = load_open(Source(self.name, self.text), Collector(), dict(self.settings), base, self.allow_import)
        return spec.under(dict(self.picked)) if self.picked else spec


@record
class Task:
    """A plan to cost: the phase, and the values of its choices. `pieces`: what bounds learn from it is wanted too; `glance`: what they learn
    from its ops alone, and nothing else."""

    spec: Text
    phase: str
    alone: tuple[str, ...]
    values: tuple[tuple[str, Word], ...]
    pieces: bool
    allowed: Allowed | None = None
    glance: bool = False


@record(slots=False)
class Costed:
    """A plan that was costed elsewhere: without the spec that its sender has too."""

    refused: tuple[str, str] | None
    why: str
    figures: tuple[Any, ...] | None
    learnt: Told | None


Run = Callable[[Sequence[Task]], Sequence[Costed]]
"""Costs a batch, in its order."""


@lru_cache(maxsize=8)
def _judge(spec: Text, phase: str, alone: tuple[str, ...], allowed: Allowed | None) -> tuple[OpenSpec, Judge]:
    opened = spec.opened()
    return opened, judge_of(opened, phase, closed_phases(opened), alone, allowed)


def cost(task: Task) -> Costed:
    """One plan, wherever this runs."""
    opened, judge = _judge(task.spec, task.phase, task.alone, task.allowed)
    phase = opened.phase(task.phase, dict(task.values), Collector())
    own = costing(opened.spec.phase(task.phase))
    if task.glance:
        return Costed(None, "", None, None if phase is None else own.glance(judge, phase))
    learnt: Told | None = None
    if task.pieces and phase is not None:
        plan, learnt = own.seen(judge, phase)
    else:
        plan = judge.of_values(opened, dict(task.values)) if phase is None else judge.plan(phase)
    return Costed(plan.refused, plan.why, None if plan.estimate is None else own.packed(plan.estimate), learnt)


def here(tasks: Sequence[Task]) -> list[Costed]:
    return [cost(task) for task in tasks]


@contextmanager
def running(workers: int, on: str = "") -> Iterator[Run | None]:
    """Who costs batches; None: the search itself does. Raises ClusterError."""
    if on:
        with cluster(on) as submit:
            yield lambda tasks: [
                cost(task) if found is None else found for task, found in zip(tasks, submit(cost, tasks), strict=True)
            ]
    elif workers > 1:
        with _processes(workers) as run:
            yield run
    else:
        yield None


@contextmanager
def _processes(workers: int) -> Iterator[Run]:
    with process_pool(processes(workers), _begin) as pool:

        def run(tasks: Sequence[Task]) -> Sequence[Costed]:
            try:
                return list(pool.map(cost, tasks))
            except BrokenProcessPool:
                return here(tasks)

        yield run


def _begin() -> None:
    """A worker leaves Ctrl-C to the search."""
    end_on_request()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def usual_workers() -> int:
    """One for each CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
