"""Fits one part, the rows of a (GPU, engine, family, variant): a formula in log space with a robust loss, then what it
misses. Errors are cross-validated: each row is estimated by a fit without it, and by one without its shape. Needs scipy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import record, replace
from ..constants import Device, Entry, FitError
from ..families import FAMILIES
from ..family import LENGTH, US, Row, column
from ..residual import Residual
from ..shape import Floats
from . import tables
from .kriging import fit_residual
from .tables import AnyFamily, Key

FEWEST_ROWS = 8
STARTS = 6
FOLDS = 5
# Residual (log) beyond which a row counts linearly, and the pull of a guess that the rows say nothing about.
OUTLIER, RIDGE = 0.07, 0.02


@record
class Blind:
    """An entry by a fit that saw no row of some shapes."""

    shapes: frozenset[str]
    entry: Entry[Any]


@record
class Part:
    """Rows of one (gpu, engine, family, variant). `entry` None: too few rows. `by_row`, `by_shape`: seconds of every row by
    a fit that did not see it, or no row of its shape (empty where all rows are of one shape). `blind`: for each fold of
    shapes, their names and the entry of a fit that saw none of them."""

    key: Key
    family: AnyFamily
    rows: Sequence[Row]
    entry: Entry[Any] | None
    measured_s: Floats
    by_row: Floats
    by_shape: Floats
    blind: Sequence[Blind] = ()

    @property
    def gpu(self) -> str:
        return self.key.gpu

    @property
    def variant(self) -> str:
        return self.key.variant


def fit_part(key: Key, rows: list[Row], device: Device) -> Part:
    """One part, with its errors."""
    family = FAMILIES[key.family]
    measured_s = column(rows, "latency_us") * US
    none = np.zeros(0)
    if len(rows) < FEWEST_ROWS:
        return Part(key, family, rows, None, measured_s, none, none)
    fitter = Fitter(family, device, key.variant, family.arguments(rows), measured_s, tables.shape_numbers(family, rows))
    everything = np.arange(len(rows))
    constants = fitter.constants(everything)
    residual = fitter.residual(constants, everything)

    def without(out: frozenset[str], seen: NDArray[np.intp]) -> Entry[Any]:
        again = fitter.constants(seen, constants)
        return fitter.entry(again, fitter.residual(again, seen))

    tested = cross_validated(fitter, rows, without)
    entry = replace(
        fitter.entry(constants, residual), shapes=ranges(family, rows), gpu=key.gpu, engine=key.engine,
        error=error_of(tested.by_row, tested.by_shape, measured_s),
    )  # fmt: skip
    return Part(key, family, rows, entry, measured_s, tested.by_row, tested.by_shape, tested.blind)


def ranges(family: AnyFamily, rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """The least and greatest of each shape."""
    values = {name: column(list(rows), name) for name in family.shapes}
    return {name: (float(each.min()), float(each.max())) for name, each in values.items()}


@record
class Tested:
    """As in `Part`."""

    by_row: Floats
    by_shape: Floats
    blind: Sequence[Blind]


def cross_validated(
    fitter: Fitter, rows: Sequence[Row], without: Callable[[frozenset[str], NDArray[np.intp]], Entry[Any]]
) -> Tested:
    """Every row estimated by `without(shapes, seen)`: an entry from the rows `seen`; where shapes are named, none of them
    may be known to it from elsewhere either."""
    family = fitter.family
    names = tables.shape_names(family, rows)
    folds = tables.folds(tables.row_names(family, rows), FOLDS)
    by_row, by_shape, blind = np.zeros(len(rows)), np.zeros(0), []
    for out, seen in _splits(folds):
        by_row[out] = family.estimate_s(without(frozenset(), seen), *picked(fitter.arguments, out))
    if len(set(names)) > 1:
        by_shape = np.zeros(len(rows))
        for out, seen in _splits(tables.folds(names, FOLDS)):
            hidden = frozenset(names[row] for row in out)
            blind.append(Blind(hidden, without(hidden, seen)))
            by_shape[out] = family.estimate_s(blind[-1].entry, *picked(fitter.arguments, out))
    return Tested(by_row, by_shape, blind)


def _splits(folds: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows out and rows seen."""
    for fold in range(int(folds.max()) + 1):
        if (folds == fold).any():
            yield np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)


def error_of(by_row: Floats, by_shape: Floats, measured_s: Floats) -> FitError:
    """What a calibration states of a part."""
    signed = by_row / measured_s - 1
    median, p90 = (round(float(np.quantile(np.abs(signed), q)), 4) for q in (0.5, 0.9))
    unseen = round(float(np.median(np.abs(by_shape / measured_s - 1))), 4) if len(by_shape) else None
    return FitError(median, p90, len(signed), round(float(np.median(signed)), 4), unseen)


@record
class Fitter:
    """Fits of one part, to all rows or some. `shapes` [rows]: equal where rows are of one shape."""

    family: AnyFamily
    device: Device
    variant: str
    arguments: tuple[Any, ...]
    measured_s: Floats
    shapes: NDArray[np.int64]

    def constants(self, rows: NDArray[np.intp], near: Mapping[str, float] | None = None) -> dict[str, float]:
        """By formula alone; `near`: constants to start from, else several starts."""
        from scipy.optimize import least_squares

        family = self.family
        bounds, facts = family.bounds(self.device, self.variant), family.facts(self.device, self.variant)
        guess, least, greatest = np.log(np.array(list(bounds.values()))).T
        target, arguments = np.log(self.measured_s[rows]), picked(self.arguments, rows)

        def named(x: NDArray[np.float64]) -> dict[str, float]:
            return facts | dict(zip(bounds, np.exp(x).tolist(), strict=True))

        def missed(x: NDArray[np.float64]) -> NDArray[np.float64]:
            estimate = family.time_s(family.constants(**named(x)), *arguments)
            return np.append(np.log(estimate) - target, RIDGE * (x - guess))

        rng = np.random.default_rng(0)
        firsts = [np.log(np.array([near[name] for name in bounds]))] if near else []
        firsts += [guess + (rng.normal(0, 0.5, len(guess)) if start else 0.0) for start in range(0 if near else STARTS)]
        best: Any = None
        for first in firsts:
            solution = least_squares(
                missed, np.clip(first, least + 1e-6, greatest - 1e-6), bounds=(least, greatest), loss="soft_l1",
                f_scale=OUTLIER, max_nfev=60 if near else 400,
            )  # fmt: skip
            best = solution if best is None or solution.cost < best.cost else best
        fitted = named(best.x)
        return {name: float(f"{fitted[name]:.6g}") for name in family.constants.__dataclass_fields__}

    def residual(self, constants: Mapping[str, float], rows: NDArray[np.intp]) -> Residual | None:
        """What the formula misses on these rows."""
        arguments = picked(self.arguments, rows)
        plain = self.family.time_s(self.family.constants(**constants), *arguments)
        features = self.family.features(*arguments)
        lengths = self.family.lengths or (LENGTH,) * features.shape[1]
        return fit_residual(features, np.log(self.measured_s[rows] / plain), self.shapes[rows], lengths)

    def entry(self, constants: Mapping[str, float], residual: Residual | None) -> Entry[Any]:
        """Without ranges and error."""
        made = self.family.constants(**constants)
        return Entry(made, {}, FitError(0, 0, 0), self.device, residual, variant=self.variant)


def picked(arguments: tuple[Any, ...], rows: NDArray[np.intp]) -> tuple[Any, ...]:
    """The arguments of some rows."""
    return tuple(
        type(each)(*(part[rows] for part in each)) if isinstance(each, tuple) else each[rows] for each in arguments
    )


def at_bounds(family: AnyFamily, device: Device, variant: str, constants: Any) -> list[str]:
    """Constants that ended at the least or greatest value allowed: the device's peaks may be another device's."""
    ends = {name: (least, greatest) for name, (_, least, greatest) in family.bounds(device, variant).items()}
    return [name for name, pair in ends.items() if any(abs(getattr(constants, name) / end - 1) < 1e-3 for end in pair)]
