"""Fits one variant: a quarter of its rows set aside, the rest in log space with a robust loss. Needs scipy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.frozen import record
from ..constants import Device
from ..families import FAMILIES
from ..family import US, Row, column
from . import tables
from .tables import AnyFamily

FEWEST_ROWS = 8
STARTS = 6
# Residual (log) beyond which a row counts linearly, and the pull of a guess that the rows say nothing about.
OUTLIER, RIDGE = 0.07, 0.02


@record
class Part:
    """Rows of one (gpu, family, variant). `found`: what a calibration file says of it; None: too few rows."""

    gpu: str
    family: AnyFamily
    variant: str
    rows: Sequence[Row]
    unseen: Sequence[Row]
    found: Mapping[str, Any] | None


@dataclass(slots=True)
class Fit:
    """Every part of a folder of tables; `absent`: families whose table is not there."""

    parts: list[Part] = field(default_factory=list)
    absent: list[AnyFamily] = field(default_factory=list)

    def families(self, gpu: str) -> dict[str, dict[str, Any]]:
        """Families of a GPU, as in its calibration file."""
        out: dict[str, dict[str, Any]] = {name: {} for name in FAMILIES}
        for part in self.parts:
            if part.gpu == gpu and part.found is not None:
                out[part.family.name][part.variant] = part.found
        return out

    @property
    def gpus(self) -> list[str]:
        """GPUs with any constants."""
        return sorted({part.gpu for part in self.parts if part.found is not None})


class UnknownDevice(KeyError):
    """A table has a GPU whose datasheet peaks are not known."""


def fit_folder(
    folder: Path, devices: Mapping[str, Device], done: Callable[[Part], None] = lambda part: None, only: str = ""
) -> Fit:
    """Fits every table in a folder, calling `done` after each part; `only`: this GPU.

    Raises UnknownDevice(file, gpu), and tables.TableError when a table is not what its columns say.
    """
    result = Fit()
    for family in FAMILIES.values():
        if not (folder / family.file).exists():
            result.absent.append(family)
            continue
        parts = tables.groups(family, tables.read(folder / family.file))
        for (gpu, variant), rows in sorted(parts.items()):
            if only and gpu != only:
                continue
            if gpu not in devices:
                raise UnknownDevice(family.file, gpu)
            part = fit_part(family, devices[gpu], gpu, variant, rows)
            result.parts.append(part)
            done(part)
    return result


def fit_part(family: AnyFamily, device: Device, gpu: str, variant: str, rows: list[Row]) -> Part:
    """One variant, with its error on the rows set aside."""
    held_out = tables.validation_rows(f"{gpu} {family.name} {variant}", rows)
    seen = [row for row, out in zip(rows, held_out, strict=True) if not out]
    unseen = [row for row, out in zip(rows, held_out, strict=True) if out]
    if len(seen) < FEWEST_ROWS:
        return Part(gpu, family, variant, rows, unseen, None)
    constants = fit(family, device, variant, seen)
    error = tables.relative_error(family, family.constants(**constants), unseen)
    shapes = {name: [float(f(column(seen, name))) for f in (np.min, np.max)] for name in family.shapes}
    median, p90 = (round(float(np.quantile(error, q)), 4) for q in (0.5, 0.9))
    stated = {"median": median, "p90": p90, "rows": len(unseen)}
    return Part(gpu, family, variant, rows, unseen, {"constants": constants, "shapes": shapes, "error": stated})


def fit(family: AnyFamily, device: Device, variant: str, rows: list[Row]) -> dict[str, float]:
    """Constants of one variant."""
    from scipy.optimize import least_squares

    bounds, facts = family.bounds(device, variant), family.facts(device, variant)
    guess, least, greatest = np.log(np.array(list(bounds.values()))).T
    target = np.log(column(rows, "latency_us") * US)
    arguments = family.arguments(rows)

    def constants(x: NDArray[np.float64]) -> dict[str, float]:
        return facts | dict(zip(bounds, np.exp(x).tolist(), strict=True))

    def residual(x: NDArray[np.float64]) -> NDArray[np.float64]:
        estimate = family.time_s(family.constants(**constants(x)), *arguments)
        return np.append(np.log(estimate) - target, RIDGE * (x - guess))

    rng = np.random.default_rng(0)
    best: Any = None
    for start in range(STARTS):
        first = guess + (rng.normal(0, 0.5, len(guess)) if start else 0.0)
        first = np.clip(first, least + 1e-6, greatest - 1e-6)
        solution = least_squares(
            residual, first, bounds=(least, greatest), loss="soft_l1", f_scale=OUTLIER, max_nfev=400
        )
        best = solution if best is None or solution.cost < best.cost else best
    fitted = constants(best.x)
    return {name: float(f"{fitted[name]:.6g}") for name in family.constants.__dataclass_fields__}


def at_bounds(family: AnyFamily, device: Device, variant: str, constants: Mapping[str, float]) -> list[str]:
    """Constants that ended at the least or greatest value allowed: the device's peaks may be another device's."""
    ends = {name: (least, greatest) for name, (_, least, greatest) in family.bounds(device, variant).items()}
    return [name for name, pair in ends.items() if any(abs(constants[name] / end - 1) < 1e-3 for end in pair)]
