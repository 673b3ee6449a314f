"""What is kept of a rank's trace to be compared: sums by class and stream, how busy it was, and its collectives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from ..base.units import TIME, show
from .busy import NOTHING, Activity, activity, length_s
from .kernel_classes import EXCHANGE, UNKNOWN
from .pass_marks import Passes
from .rank_trace import Call, Floats, Ints, RankTrace

MOST_STREAMS = 1000
"""The busiest that are kept."""
MOST_UNKNOWN = 20
"""Names of kernels that no pattern knows which are kept."""


@record
class ClassSum:
    """Kernels of one class, of all passes. `time_s`: their durations added up."""

    name: str
    part: str
    row: str
    calls: int
    time_s: float


@record
class StreamSum:
    device: int
    stream: int
    kernels: int
    busy_s: float


@record(slots=False)
class MeasuredRank:
    """Sums are over `passes` passes. `whole`: of all kernels of the trace, in passes or not. `calls`, `call`, `call_s`: collectives in the
    order in which they began: index of the call, and its duration. `decodes`: sequences that decode in a pass, where marks count them. `between_s`: from the beginning of a pass to that of the next, the median. `unknown`: names that no pattern knows, with their time."""

    path: str
    rank: int | None
    world: int
    device: str
    kernels: int
    passes: int
    said: str
    decodes: float | None
    between_s: float | None
    whole: Activity
    activity: Activity
    classes: tuple[ClassSum, ...]
    streams: tuple[StreamSum, ...]
    calls: tuple[Call, ...]
    call: Ints
    call_s: Floats
    unknown: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]

    @property
    def gpu_s(self) -> float:
        """Durations of all kernels of the passes."""
        return sum(one.time_s for one in self.classes)

    def rows(self) -> Mapping[str, tuple[int, float]]:
        """Row of the plan -> (calls, seconds) of all passes."""
        found: dict[str, tuple[int, float]] = {}
        for one in self.classes:
            calls, time_s = found.get(one.row, (0, 0.0))
            found[one.row] = calls + one.calls, time_s + one.time_s
        return found


def parts_of(trace: RankTrace) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    """Of each kernel: compute, copy or exchange."""
    names = np.array([one.part for one in trace.classes] or [""])
    found: np.ndarray[tuple[int], np.dtype[np.str_]] = names[trace.kernels.of]
    return found


def summed(trace: RankTrace, passes: Passes) -> MeasuredRank:
    kernels, part, end_s = trace.kernels, parts_of(trace), trace.kernels.end_s
    inside = passes.of >= 0
    each, begins = NOTHING, []
    for which in _groups(passes.of, inside):
        each = each.plus(activity(kernels.start_s[which], end_s[which], part[which]))
        begins.append(float(kernels.start_s[which].min()))
    between_s = float(np.median(np.diff(np.sort(begins)))) if len(begins) > 1 else None
    calls = np.bincount(kernels.of[inside], minlength=len(trace.classes))
    times = np.bincount(kernels.of[inside], weights=kernels.time_s[inside], minlength=len(trace.classes))
    sums = [
        ClassSum(one.name, one.part, one.row, int(calls[k]), float(times[k])) for k, one in enumerate(trace.classes)
    ]
    exchanges = inside & (part == EXCHANGE)
    devices = np.unique(kernels.device)
    notes = list(trace.notes)
    if len(devices) > 1:
        notes.append(f"{len(devices)} GPUs in one file are taken together: shares of idle time are of all of them")
    outside_s = float(kernels.time_s[~inside].sum())
    if outside_s > 0.01 * float(kernels.time_s.sum()):
        notes.append(f"{show(outside_s, TIME)} of kernels are outside of the passes")
    return MeasuredRank(
        str(trace.path), trace.rank, trace.world, trace.devices[int(devices[0])] if _known(trace, devices) else "",
        len(kernels), passes.count, passes.said, passes.decodes, between_s, activity(kernels.start_s, end_s, part), each,
        tuple(sorted((one for one in sums if one.calls), key=lambda one: -one.time_s)), tuple(_streams(trace, inside)),
        trace.calls, kernels.call[exchanges], kernels.time_s[exchanges], tuple(_unknown(trace, inside)), tuple(notes),
    )  # fmt: skip


def _known(trace: RankTrace, devices: Ints) -> bool:
    return len(devices) > 0 and 0 <= int(devices[0]) < len(trace.devices)


def _groups(number: NDArray[np.integer[Any]], inside: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Which kernels have each number, of those inside."""
    at = np.flatnonzero(inside)
    order = at[np.argsort(number[at], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(order) else []


def _streams(trace: RankTrace, inside: NDArray[np.bool_]) -> list[StreamSum]:
    kernels, found = trace.kernels, []
    _, pair = np.unique(np.stack([kernels.device, kernels.stream]), axis=1, return_inverse=True)
    for which in _groups(pair.reshape(-1), inside):
        busy_s = length_s(kernels.start_s[which], kernels.end_s[which])
        found.append(StreamSum(int(kernels.device[which[0]]), int(kernels.stream[which[0]]), len(which), busy_s))
    return sorted(found, key=lambda one: -one.busy_s)[:MOST_STREAMS]


def _unknown(trace: RankTrace, inside: NDArray[np.bool_]) -> list[tuple[str, float]]:
    kernels = trace.kernels
    number = next((k for k, one in enumerate(trace.classes) if one.name == UNKNOWN), -1)
    which = inside & (kernels.of == number)
    names, at = np.unique(kernels.name[which], return_inverse=True)
    times = np.bincount(at, weights=kernels.time_s[which], minlength=len(names))
    order = np.argsort(-times)[:MOST_UNKNOWN]
    return [(trace.names[int(names[k])], float(times[k])) for k in order]
