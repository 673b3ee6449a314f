"""The table of metrics: what a requirement, a sweep, a comparison, a report, JSON and the documentation say of a plan."""

from __future__ import annotations

from ...base.units import (
    show,
)
from .metric import HARDWARE, MODEL, PHASE, SERVE, TRAIN, WORKLOAD, Metric
from .phase import PHASES
from .serving import SERVINGS
from .stated import HARDWARES, OTHERS
from .training import TRAININGS

TABLE: tuple[Metric, ...] = (*PHASES, *SERVINGS, *TRAININGS, *HARDWARES, *OTHERS)
"""In addition, `model.` has every attribute of the model (`model.experts.count`), and constants go by their name."""


def of_phase() -> tuple[Metric, ...]:
    """Those of a phase."""
    return tuple(m for m in TABLE if m.owner == PHASE)


def of_serving() -> tuple[Metric, ...]:
    """Those of a serving."""
    return tuple(m for m in TABLE if m.owner == SERVE)


def of_training() -> tuple[Metric, ...]:
    """Those of a phase that trains."""
    return tuple(m for m in TABLE if m.owner == TRAIN)


def metric(name: str) -> Metric | None:
    """What is known of a name as written in a spec: `decode.memory.peak`. What both phases and servings or pools have is taken for a
    phase's: its dimension is the same."""
    owner, _, rest = name.partition(".")
    owners = (owner,) if owner in (HARDWARE, MODEL, WORKLOAD) else (PHASE, SERVE, TRAIN, HARDWARE)
    return next((m for o in owners for m in TABLE if m.name == rest and m.owner == o), None)


def shown(name: str, value: float) -> str:
    """A value of a metric with its unit."""
    found = metric(name)
    return found.shown(value) if found is not None else show(value)
