"""Loads of experts over time, and how often a phase places its experts anew by them."""

from __future__ import annotations

from ..base.frozen import record
from .workload import Routing

FEWEST_PERIODS = 3
"""One to place by, and two that a placement lies between."""
Window = tuple[tuple[float, ...], ...]
"""Loads [layer][expert] of some steps."""


@record
class LoadSeries:
    """`windows`: loads [layer][expert] of equally many steps each, in order; one row of a window is of all layers. `numbers`: of the
    layers, where they are stated."""

    windows: tuple[Window, ...]
    numbers: tuple[int, ...] = ()

    @property
    def mean(self) -> Routing:
        """Of the whole time."""
        layers = tuple(
            tuple(map(sum, zip(*(window[k] for window in self.windows), strict=True)))
            for k in range(len(self.windows[0]))
        )
        where = tuple(f"layer {n}" for n in self.numbers) or tuple(
            f"row {n} of a step" for n in range(1, len(layers) + 1)
        )
        return Routing("loads", 0.0, (), layers, self.numbers, where)


@record
class Rebalance:
    """`window`: steps that each window of the series is of; `every`: steps between two placements, each by the loads of the period
    before it. `once`: the first placement stays."""

    series: LoadSeries
    window: int = 1
    every: int = 1
    once: bool = False

    @property
    def per_period(self) -> int:
        """Windows of a period."""
        return self.every // self.window

    @property
    def periods(self) -> int:
        """Whole ones; what is left of the series does not count."""
        return len(self.series.windows) // self.per_period
