"""Which files of a command line are traces, and what is kept of each: one trace is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..plan.result import PhaseResult
from .against_plan import planned_calls
from .kernel_classes import EXCHANGE
from .kineto import read
from .matching.rank_calls import RankCalls, calls_of
from .measured_rank import MeasuredRank, summed
from .pass_marks import Passes, counted, marked, whole
from .product_shapes import Shapes, by_shape
from .rank_trace import RankTrace
from .trace_fault import TraceFault

SUFFIXES = (".json", ".json.gz")
MOST_FILES = 4096


def files_of(given: Sequence[str]) -> list[Path]:
    """Files as they are named, and the traces of folders, by name. Raises TraceFault."""
    found: list[Path] = []
    for name in given:
        path = Path(name)
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = sorted(one for one in path.iterdir() if one.name.endswith(SUFFIXES) and one.is_file())
        except OSError as error:
            raise TraceFault(path, f"cannot be read: {error.strerror}") from None
        if not inside:
            raise TraceFault(path, "has no trace in it", f"names of traces end with {' or '.join(SUFFIXES)}")
        found += inside
    if len(found) > MOST_FILES:
        raise TraceFault(found[MOST_FILES], f"is one of {len(found):,} traces; at most {MOST_FILES:,} are read")
    return found


def ranks_of(
    paths: Sequence[Path],
    result: PhaseResult,
    passes: int | None,
    within: str,
    calls: list[RankCalls] | None = None,
    experts: Shapes = frozenset(),
) -> list[MeasuredRank]:
    """In the order of their ranks; none for traces of `dagc run` on CPUs, which have no kernels. `calls`: where to put what is kept of every
    trace to be laid beside the plan call by call. `experts`: shapes of products that only experts have. Raises TraceFault."""
    plan, found = _Planned(result), []
    for trace, origin_ns in _traces(paths):
        chosen = _passes(trace, plan, passes, within) if len(trace.kernels) else None
        if calls is not None:
            calls.append(calls_of(trace, origin_ns, None if chosen is None else chosen.of >= 0))
        if chosen is not None:
            found.append(summed(by_shape(trace, experts), chosen))
    by_rank: dict[int, str] = {}
    for one in found:
        if one.rank is not None:
            if one.rank in by_rank:
                raise TraceFault(one.path, f"is of rank {one.rank}, as `{by_rank[one.rank]}` is")
            by_rank[one.rank] = one.path
    return sorted(found, key=lambda one: (one.rank is None, one.rank or 0))


def _traces(paths: Sequence[Path]) -> Iterator[tuple[RankTrace, int]]:
    """Each with the origin of the first."""
    origin_ns: int | None = None
    for path in paths:
        trace = read(path)
        origin_ns = trace.origin_ns if origin_ns is None else origin_ns
        if not len(trace.kernels) and not isinstance(trace.about.get("phase"), str):
            reason = f"has {trace.events:,} event{'s' if trace.events != 1 else ''} and no GPU kernel among them"
            raise TraceFault(path, reason, "profile with `activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]`")
        yield trace, origin_ns


class _Planned:
    """Calls of one pass, found when the first trace asks."""

    def __init__(self, result: PhaseResult) -> None:
        self.result = result

    @cached_property
    def calls(self) -> dict[str, float]:
        return planned_calls(self.result)


def _passes(trace: RankTrace, plan: _Planned, passes: int | None, within: str) -> Passes:
    found = marked(trace, plan.result.phase_kind.name, within)
    if within and found is None:
        raise TraceFault(trace.path, f"has no mark with `{within}` in which kernels were launched")
    if passes is not None:
        return Passes(found.of, passes, "as said") if within and found is not None else whole(trace, passes, "as said")
    if found is not None:
        return found
    calls: dict[str, int] = {}
    for of, number in enumerate(np.bincount(trace.kernels.of, minlength=len(trace.classes)).tolist()):
        row = trace.classes[of].row
        calls[row] = calls.get(row, 0) + number
    exchanges = {one.row for one in trace.classes if one.part == EXCHANGE}
    planned = {row: n for row, n in plan.calls.items() if row in exchanges}
    by_count = counted({row: n for row, n in calls.items() if row in exchanges}, planned)
    if by_count is None:
        return whole(trace, 1, "taken as one: no marks, no collectives to count")
    return whole(trace, *by_count)
