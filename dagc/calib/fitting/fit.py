"""Fits one part, the rows of a (GPU, engine, family, variant): a formula in log space with a robust loss, then what it
misses. Errors are cross-validated: each row is estimated by a fit without it, and by one without its shape. Needs scipy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.frozen import record
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
class Part:
    """Rows of one (gpu, engine, family, variant). `entry` None: too few rows. `by_row`, `by_shape`: seconds of every row by
    a fit that did not see it, or no row of its shape (empty where all rows are of one shape)."""

    key: Key
    family: AnyFamily
    rows: Sequence[Row]
    entry: Entry[Any] | None
    measured_s: Floats
    by_row: Floats
    by_shape: Floats

    @property
    def gpu(self) -> str:
        return self.key.gpu

    @property
    def variant(self) -> str:
        return self.key.variant


@dataclass(slots=True)
class Fit:
    """Every part of the tables; `absent`: tables that are not there."""

    parts: list[Part] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def entries(self) -> Iterator[tuple[AnyFamily, Entry[Any]]]:
        """Of every part with enough rows."""
        return ((part.family, part.entry) for part in self.parts if part.entry is not None)


class UnknownDevice(KeyError):
    """A table has a GPU whose datasheet peaks are not known."""


def fit_folders(
    folders: Sequence[Path],
    devices: Mapping[str, Device],
    done: Callable[[Part], None] = lambda part: None,
    wanted: Callable[[Key], bool] = lambda key: True,
    jobs: int = 1,
) -> Fit:
    """Fits every part of the tables in some folders for which `wanted`, calling `done` after each, in `jobs` processes. A
    row without a backend is of no engine.

    Raises UnknownDevice(file, gpu), and tables.TableError when a table is not what its columns say.
    """
    result = Fit()
    tasks: list[tuple[Key, list[Row], Device]] = []
    for family in FAMILIES.values():
        found, absent = tables.groups(family, folders)
        result.absent += absent
        for key, rows in sorted(found.items()):
            if wanted(key):
                if key.gpu not in devices:
                    raise UnknownDevice(family.file, key.gpu)
                tasks.append((key, rows, devices[key.gpu]))
    for part in _fitted(tasks, jobs):
        result.parts.append(part)
        done(part)
    return result


def _fitted(tasks: list[tuple[Key, list[Row], Device]], jobs: int) -> Iterable[Part]:
    if jobs == 1:
        yield from (fit_part(*task) for task in tasks)
        return
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(_numbers_of, *task) for task in tasks]
        for (key, rows, _), future in zip(tasks, futures, strict=True):
            yield Part(key, FAMILIES[key.family], rows, *future.result())


def _numbers_of(key: Key, rows: list[Row], device: Device) -> tuple[Any, ...]:
    part = fit_part(key, rows, device)  # the record of a family does not travel between processes
    return part.entry, part.measured_s, part.by_row, part.by_shape


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
    by_row = fitter.left_out(tables.folds(tables.row_names(family, rows), FOLDS), constants)
    names = tables.shape_names(family, rows)
    by_shape = fitter.left_out(tables.folds(names, FOLDS), constants) if len(set(names)) > 1 else none
    shapes = {}
    for name in family.shapes:
        values = column(rows, name)
        shapes[name] = (float(values.min()), float(values.max()))
    entry = Entry(
        family.constants(**constants), shapes, error_of(by_row, by_shape, measured_s), device, residual,
        key.gpu, key.engine, key.variant,
    )  # fmt: skip
    return Part(key, family, rows, entry, measured_s, by_row, by_shape)


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

    def left_out(self, folds: NDArray[np.int64], near: Mapping[str, float]) -> Floats:
        """Seconds of every row, by a fit to the rows of the other folds [rows]."""
        found = np.zeros(len(folds))
        for fold in range(int(folds.max()) + 1):
            out, seen = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            if not len(out):
                continue
            constants = self.constants(seen, near)
            residual = self.residual(constants, seen)
            entry = Entry(
                self.family.constants(**constants), {}, FitError(0, 0, 0), self.device, residual, variant=self.variant
            )
            found[out] = self.family.estimate_s(entry, *picked(self.arguments, out))
        return found


def picked(arguments: tuple[Any, ...], rows: NDArray[np.intp]) -> tuple[Any, ...]:
    """The arguments of some rows."""
    return tuple(
        type(each)(*(part[rows] for part in each)) if isinstance(each, tuple) else each[rows] for each in arguments
    )


def at_bounds(family: AnyFamily, device: Device, variant: str, constants: Any) -> list[str]:
    """Constants that ended at the least or greatest value allowed: the device's peaks may be another device's."""
    ends = {name: (least, greatest) for name, (_, least, greatest) in family.bounds(device, variant).items()}
    return [name for name, pair in ends.items() if any(abs(getattr(constants, name) / end - 1) < 1e-3 for end in pair)]
