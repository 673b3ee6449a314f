"""uneven: the time of a step where ranks differ: the recurrence of `even.py` on arrays, and on numbers where all ranks are alike again.

An array of one moment is that number here; all others keep their shapes, which tell states apart as the scheduler does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .even import Entry, EvenSchedule, Program
from .layer import RESOLUTION_S


class UnevenSchedule(EvenSchedule):
    """Of a graph; times are numbers, or arrays over the dimensions of the mesh."""

    def latest(self, moments: tuple[Any, ...]) -> float:
        return max([each if type(each) is float else float(each.max()) for each in moments])

    def later(self, a: Any, b: Any) -> Any:
        return max(a, b) if type(a) is float and type(b) is float else np.maximum(a, b)

    def key(self, state: Entry) -> tuple[object, ...]:
        ready, streams = state
        least = min([each if type(each) is float else float(each.min()) for each in ready])
        moments = (*ready, *[self.later(each, least) for each in streams])
        return tuple([_rounded(each) for each in moments])

    def layer(self, program: Program, entry: Entry, times: Sequence[Any]) -> Entry:
        ready, streams = entry
        free = list(streams)
        later = self.later
        starts: list[Any] = []
        ends: list[Any] = []
        for time, stream, lane, takes, rings, enters, axes in program.steps:
            at = free[stream]
            if enters:
                at = later(at, ready[lane])
            for k in takes:
                at = later(at, ends[k])
            for k in rings:
                at = later(at, starts[k])
            if axes and type(at) is not float:
                at = at.max(axis=axes, keepdims=True)
                at = float(at.item()) if at.size == 1 else at
            end = at + times[time]
            for k in rings:
                end = later(end, ends[k])
            starts.append(at)
            ends.append(end)
            free[stream] = end
        left = tuple(ready[lane] if k is None else ends[k] for lane, k in enumerate(program.results))
        return left, tuple(free)


def _rounded(moment: Any) -> object:
    if type(moment) is float:
        return round(moment / RESOLUTION_S)
    return moment.shape, (np.round(moment / RESOLUTION_S) + 0.0).tobytes()
