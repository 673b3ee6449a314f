"""Constants of training.json fitted to measured steps, and what they miss on models that they were not fitted to.

A step is nearly a sum of what each constant divides: it is compiled at a few values of each, between which its time is a straight line
in their reciprocals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from math import log
from typing import Any

import numpy as np

from dagc.base.frozen import record
from dagc.calib import training_constants as training
from dagc.calib.known_gpus import folder

from .measured_rows import Step, compiled

FILE = folder() / "training.json"
SUSTAINED, ROWS = (0.5, 0.7, 1.0), (0.1, 0.2, 0.4, 0.8)
"""At which steps are compiled."""
FINE = 0.01
"""Constants are fitted to this step."""


@record
class Constants:
    """`sustained`: by GPU."""

    sustained: Mapping[str, float]
    rows: float


@contextmanager
def using(constants: Constants) -> Iterator[None]:
    """The compiler with other constants than those of its file."""
    file = json.loads(FILE.read_text(encoding="utf-8"))
    with training.instead({**file, "sustained": dict(constants.sustained), "rows": constants.rows}):
        yield


@contextmanager
def using_low(sustained: float, rows: float) -> Iterator[None]:
    """The compiler with other constants of steps whose products have 8 or 4 bits."""
    file = json.loads(FILE.read_text(encoding="utf-8"))
    with training.instead({**file, "low_precision": {"sustained": sustained, "rows": rows}}):
        yield


def low_times_of(steps: Iterable[Step]) -> dict[str, np.ndarray[Any, Any]]:
    """Name -> seconds [sustained, rows]; runs of one spec are compiled once."""
    specs = {step.name: step.spec for step in steps}
    found = {spec: np.zeros((len(SUSTAINED), len(ROWS))) for spec in specs.values()}
    for (i, sustained), (k, rows) in product(enumerate(SUSTAINED), enumerate(ROWS)):
        with using_low(sustained, rows):
            for spec, times in found.items():
                times[i, k] = compiled(spec).time_s
    return {name: found[spec] for name, spec in specs.items()}


def fitted_low(steps: Sequence[Step], times: Mapping[str, np.ndarray[Any, Any]]) -> tuple[float, float]:
    """(sustained, rows) of all GPUs, as `fitted`."""
    grid = product(
        np.arange(SUSTAINED[0], SUSTAINED[-1] + FINE / 2, FINE), np.arange(ROWS[0], ROWS[-1] + FINE / 2, 5 * FINE)[::-1]
    )
    misses = [(_miss(steps, times, float(s), float(r)), round(float(s), 2), round(float(r), 2)) for s, r in grid]
    _, sustained, rows = min(misses, key=lambda found: found[0])
    return sustained, rows


def times_of(steps: Iterable[Step]) -> dict[str, np.ndarray[Any, Any]]:
    """Name -> seconds [sustained, rows]."""
    found = {step.name: np.zeros((len(SUSTAINED), len(ROWS))) for step in steps}
    for (i, sustained), (k, rows) in product(enumerate(SUSTAINED), enumerate(ROWS)):
        for step in steps:
            with using(Constants({step.gpu: sustained}, rows)):
                found[step.name][i, k] = compiled(step.spec).time_s
    return found


def at(times: np.ndarray[Any, Any], sustained: float, rows: float) -> float:
    """Between the values that were compiled."""
    by_rows = [np.interp(-1 / rows, [-1 / r for r in ROWS], each) for each in times]
    return float(np.interp(-1 / sustained, [-1 / s for s in SUSTAINED], by_rows))


def fitted(steps: Sequence[Step], times: Mapping[str, np.ndarray[Any, Any]]) -> Constants:
    """The least sum over models of the mean |log(estimate / measured)| of their steps. Where no step has experts rows move as fast as
    anything."""
    gpus = sorted({step.gpu for step in steps})
    best: tuple[float, Constants] | None = None
    for rows in np.arange(ROWS[0], ROWS[-1] + FINE / 2, FINE)[::-1]:
        chosen, total = {}, 0.0
        for gpu in gpus:
            own = [step for step in steps if step.gpu == gpu]
            shares = np.arange(SUSTAINED[0], SUSTAINED[-1] + FINE / 2, FINE)
            misses = [_miss(own, times, float(share), float(rows)) for share in shares]
            chosen[gpu], total = round(float(shares[int(np.argmin(misses))]), 2), total + min(misses)
        if best is None or total < best[0] - 1e-9:
            best = total, Constants(chosen, round(float(rows), 2))
    assert best is not None
    return best[1]


def _miss(steps: Sequence[Step], times: Mapping[str, np.ndarray[Any, Any]], sustained: float, rows: float) -> float:
    models: dict[str, list[float]] = {}
    for step in steps:
        models.setdefault(step.model, []).append(abs(log(at(times[step.name], sustained, rows) / step.measured_s)))
    return sum(sum(each) / len(each) for each in models.values())
