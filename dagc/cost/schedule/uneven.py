"""uneven: the time of a step where ranks differ: the recurrence of `even.py` on arrays, and on numbers where all ranks are alike again.

An array of one moment is that number here; all others keep their shapes, which tell states apart as the scheduler does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .even import Entry, EvenSchedule
from .layer_program import Program, run_uneven
from .moments import State, later, latest_s, state_key


class UnevenSchedule(EvenSchedule):
    """Of a graph; times are numbers, or arrays over the dimensions of the mesh."""

    def latest(self, moments: tuple[Any, ...]) -> float:
        return latest_s(moments)

    def later(self, a: Any, b: Any) -> Any:
        return later(a, b)

    def key(self, state: Entry) -> tuple[object, ...]:
        return state_key(State(*state))

    def layer(self, program: Program, entry: Entry, times: Sequence[Any]) -> Entry:
        return run_uneven(program, State(*entry), times).exit
