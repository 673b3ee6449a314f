"""A metric: its name, unit, which direction is better, and how its value follows from a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...base.frozen import record
from ...base.units import (
    SCALAR,
    Dim,
    dim_name,
    number,
    show,
)

PHASE, SERVE, TRAIN, HARDWARE, MODEL, WORKLOAD = "PHASE", "SERVE", "TRAIN", "hardware", "model", "workload"

How = Callable[[Any], float | None]
"""Reads a `dagc.plan.subject.Subject`, which is above: the language must know the names, and knows no plan."""


@record
class Metric:
    """`owner`: what precedes the name; `better`: lower, higher, or nothing; `how`: its value in SI units, None where the
    phase has none; `share`: a fraction, shown as percent.

    Where it appears beyond what can be named: `json`: its path in a phase of `dagc compile --json`; `row`: its column in
    `plan.rows("phases")`; `reported`: reports show it, in the format `brief` if there is one; `usual`: a column of every sweep;
    `gated`: `--fail-on-regression` heeds it; `compared`: `dagc diff` shows it (None: if one direction is better); `pooled`: it
    counts all that the GPUs hold, for whatever phase; `needs`: an attribute of the hardware without which it has no value; `settled`: known
    before anything runs, however a plan is laid out; `absent`: why a serving may have no value."""

    owner: str
    name: str
    dim: Dim
    better: str
    about: str
    how: How
    share: bool = False
    json: str = ""
    row: str = ""
    reported: bool = False
    brief: str = ""
    usual: bool = False
    gated: bool = False
    compared: bool | None = None
    pooled: bool = False
    needs: str = ""
    settled: bool = False
    absent: str = ""

    @property
    def full(self) -> str:
        return f"{self.owner}.{self.name}"

    @property
    def unit(self) -> str:
        return "%" if self.share else "" if self.dim == SCALAR else dim_name(self.dim)

    @property
    def is_result(self) -> bool:
        return bool(self.better) if self.compared is None else self.compared

    def shown(self, value: float) -> str:
        return percent(value) if self.share else show(value, self.dim)

    def briefly(self, value: float) -> str:
        """As reports show it."""
        return format(value, self.brief) if self.brief else self.shown(value)


def percent(value: float) -> str:
    """A fraction for people: `35.6%`."""
    return f"{number(100 * value)}%"


def figure_of(found: Any, name: str) -> float | None:
    """A figure of something that a phase may not have."""
    return None if found is None else getattr(found, name)


def per_unit(rate: float | None, per_s: float) -> float | None:
    """What costs so much per second, of one of so many per second; nothing where none is done or nothing known."""
    return None if rate is None or per_s <= 0 else rate / per_s
