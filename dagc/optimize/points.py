"""Many settings of one spec, in processes of this machine or on a Dask or Ray cluster: the same rows in the same order.

A point is a pure function of the spec's text and its settings. A worker that is lost takes no point with it: what it
had not finished is done again elsewhere.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING

from .clusters import TRIES, cluster
from .point import SweepRow, Task, compiled

if TYPE_CHECKING:
    from .kept_points import KeptPoints

MOST_PER_CPU = 4
"""Processes for each CPU: more would only take memory, and without an end they would take the machine."""


def processes(asked: int) -> int:
    """How many are started where so many are asked for."""
    return min(asked, MOST_PER_CPU * (os.cpu_count() or 1))


def points(domains: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination, the last name varying fastest."""
    return [dict(zip(domains, values, strict=True)) for values in product(*domains.values())]


def evaluate(task: Task) -> SweepRow:
    """One point, by what is kept of others of its sweep, or compiled."""
    global _kept
    from .kept_points import KeptPoints

    key = (task.text, task.name, task.base_dir, task.phases, task.allow_import, task.servings)
    if _kept is None or _kept[0] != key:
        _kept = key, KeptPoints(task)
    try:
        row = _kept[1].row(task)
    except Exception:  # what is kept is only faster: the point is compiled alone, which tells of its faults
        row, _kept = None, None
    return compiled(task) if row is None else row


_kept: tuple[tuple[object, ...], KeptPoints] | None = None
"""Of the sweep that this process works on."""


def sweep(
    tasks: Sequence[Task], *, workers: int | None = None, run: Callable[[Task], SweepRow] = evaluate
) -> Iterator[SweepRow]:
    """Rows in the order of the tasks, each as soon as it and those before it are done, on processes of this machine."""
    workers = min(len(tasks), processes(workers or os.cpu_count() or 1))
    done: dict[int, SweepRow] = {}
    shown = 0
    together = max(1, min(MOST_TOGETHER, len(tasks) // (8 * workers))) if workers else 1
    while len(done) < len(tasks):
        with process_pool(workers) as pool:
            for index, row in _together(pool, tasks, done, run, together):
                done[index] = row
                while shown in done:
                    yield done[shown]
                    shown += 1
        # A worker died, and which point it had is not known: the first unfinished ones go on alone, so that one that
        # kills its worker is known by it.
        for index in [i for i in range(len(tasks)) if i not in done][: workers + 1]:
            done[index] = _alone(tasks[index], run)
        together = 1
    yield from (done[i] for i in range(shown, len(tasks)))


LONGEST_END_S = 5.0
"""How long the end of processes that were told to end is waited for."""


def end_on_request() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def process_pool(workers: int, begin: Callable[[], None] = end_on_request) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end with the process that waits for them; `begin` runs first in each."""
    pool = ProcessPoolExecutor(workers, initializer=begin)
    try:
        yield pool
    except BaseException:
        waiting = getattr(pool, "_executor_manager_thread", None)
        for process in (getattr(pool, "_processes", None) or {}).values():
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        if waiting is not None:
            waiting.join(LONGEST_END_S)  # at exit, Python may write to a pipe that a thread still ending has closed
        raise
    pool.shutdown()


def _together(
    pool: Executor, tasks: Sequence[Task], done: Mapping[int, SweepRow], run: Callable[[Task], SweepRow], together: int
) -> Iterator[tuple[int, SweepRow]]:
    """Every task that is not done yet, so many at once, until the pool breaks."""
    waiting: dict[tuple[int, ...], Future[list[SweepRow]]] = {}
    given: set[tuple[int, ...]] = set()
    left = [index for index in range(len(tasks)) if index not in done]
    try:
        for first in range(0, len(left), together):
            some = tuple(left[first : first + together])
            waiting[some] = pool.submit(_several, run, [tasks[index] for index in some])
        for some, future in waiting.items():
            rows = future.result()
            given.add(some)
            yield from zip(some, rows, strict=True)
    except BrokenProcessPool:
        for some, future in waiting.items():
            if some not in given and future.done() and future.exception() is None:
                yield from zip(some, future.result(), strict=True)


MOST_TOGETHER = 32
"""Points that a process is given at once."""


def _several(run: Callable[[Task], SweepRow], tasks: Sequence[Task]) -> list[SweepRow]:
    return [run(task) for task in tasks]


def _alone(task: Task, run: Callable[[Task], SweepRow]) -> SweepRow:
    for _ in range(TRIES):
        with process_pool(1) as pool:
            try:
                return pool.submit(run, task).result()
            except BrokenProcessPool:
                continue
    return _lost(task)


def _lost(task: Task) -> SweepRow:
    return SweepRow(dict(task.settings), errors=(f"lost with its worker {TRIES} times",))


def sweep_on(url: str, tasks: Sequence[Task], run: Callable[[Task], SweepRow] = evaluate) -> Iterator[SweepRow]:
    """The same on a cluster (`dask://HOST:PORT`, `ray://HOST:PORT`). Raises ClusterError."""
    with cluster(url) as submit:
        for task, row in zip(tasks, submit(run, tasks), strict=True):
            yield _lost(task) if row is None else row
