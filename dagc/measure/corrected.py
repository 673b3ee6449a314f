"""A plan's calibration with what a run showed of its kernels: constants stay, and what they miss at the measured sizes is learned.

time = formula(constants) x residual of the calibration x own residual
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..base.frozen import record, replace
from ..calib import collective, custom_allreduce, domain_a2a, moe_a2a
from ..calib.calibration import Calibration
from ..calib.calibration_file import checked
from ..calib.constants import Entry, FitError
from ..calib.families import FAMILIES
from ..calib.family import LENGTH, Family, Row
from ..calib.fitting import file
from ..calib.residual import Residual, distances, matern, packed
from ..calib.shape import Floats
from ..cost.measured import Faster, scaled
from ..spec.phase import Phase
from .jobs import Job
from .timing import Timing

NOISE = 0.02
"""Variance of one size's own error over that of what sizes share: what was measured is followed to 2 %."""
LICENCE = "own measurements"
Place = tuple[str, str]
"""(family, variant)."""


@record
class Corrected:
    """`text` of the file; `lines` for people. `changed`: kernels that the run has; 0: the file is the calibration as it was."""

    text: str
    lines: tuple[str, ...]
    changed: int


def corrected(
    base: Calibration, by: Faster | None, phase: Phase, timed: Mapping[Job, Timing], source: str, by_engine: bool
) -> Corrected:
    """`base`: after the plan was priced: every kernel that the plan asked for is in the file. `by`: see cost/measured.py. `phase`: that
    ran; `by_engine`: in a serving engine, whose all-reduce is NCCL's where NCCL was seen."""
    engine = phase.engine
    entries = dict(_asked(base, phase))
    parts = _parts(timed)
    mode = "graph" if phase.cuda_graph else "eager"
    if by_engine and (nccl := parts.get((collective.FAMILY, "all_reduce"))):
        parts[custom_allreduce.FAMILY, mode] = nccl
    lines, changed = [], 0
    for (family, variant), rows in parts.items():
        found = entries.get((family.name, variant)) or base.find(family, variant, engine)
        if found is None:
            lines.append(f"{family.name} {variant}: {_sizes(rows)}, which no kernel of the calibration is near to")
            continue
        entry, line = _with(family, found, by, rows)
        entries[family.name, variant] = entry
        lines.append(f"{family.name} {variant}: {line}")
        changed += 1
    bodies = file.bodies(
        (FAMILIES[family], entry) for (family, _), entry in sorted(entries.items(), key=lambda e: e[0])
    )
    text = file.text(base.gpu, "", f"{base.source}; {source}", LICENCE, base.device, bodies)
    checked(text, "the calibration")
    return Corrected(text, tuple(lines), changed)


def _asked(base: Calibration, phase: Phase) -> Iterator[tuple[Place, Entry[Any]]]:
    """What prices asked for; of two engines' kernels those of the phase that ran, which come last. Exchanges of tokens that nobody timed
    on this GPU are left out where no phase names them: a file's kernels are taken to run on its GPU."""
    for _, family, entry in sorted(base.asked(), key=lambda one: one[0] == phase.engine):
        if entry.gpu == base.gpu or phase.exchange or family not in (domain_a2a.FAMILY.name, moe_a2a.FAMILY.name):
            yield (family, entry.variant), entry


def _parts(timed: Mapping[Job, Timing]) -> dict[tuple[Family[Any], str], list[Row]]:
    """Rows as tables have them, by what they are of."""
    out: dict[tuple[Family[Any], str], list[Row]] = {}
    for job, timing in timed.items():
        columns = job.columns()
        if columns is None:
            continue
        row = {**{name: str(value) for name, value in columns.items()}, "latency_us": repr(timing.median_s * 1e6)}
        for family in FAMILIES.values():
            variant = family.variant(row) if family.file == job.table else None
            if variant is not None:
                out.setdefault((family, variant), []).append(row)
    return out


def _sizes(rows: Sequence[Row]) -> str:
    return f"{len(rows)} size{'s' * (len(rows) > 1)}"


def _with(family: Family[Any], entry: Entry[Any], by: Faster | None, rows: list[Row]) -> tuple[Entry[Any], str]:
    """The entry with a residual that has the rows, and what to say of it."""
    arguments = family.arguments(rows)
    measured_s = np.array([float(row["latency_us"]) * 1e-6 for row in rows])
    before_s = np.broadcast_to(family.estimate_s(scaled(entry, by), *arguments), measured_s.shape)
    missed = np.log(measured_s / before_s)
    old = entry.residual
    lengths = old.lengths if old is not None else family.lengths or (LENGTH,) * family.features(*arguments).shape[1]
    features = np.asarray(family.features(*arguments), dtype=np.float64)
    weights, by_others = _learned(features / np.array(lengths), missed)
    own = packed(features, weights, lengths, float(f"{np.abs(missed).max():.4g}"))
    error = _error(by_others) if len(rows) > 2 else entry.error
    shapes = dict(entry.shapes)
    for name in family.shapes:
        values = [float(row[name]) for row in rows]
        least, most = shapes.get(name, (min(values), max(values)))
        shapes[name] = min(least, *values), max(most, *values)
    ratios = np.exp(missed)
    middle = f"{float(np.median(ratios)):.2f} of the estimate"
    spread = f" ({ratios.min():.2f} to {ratios.max():.2f})" if len(rows) > 1 else ""
    return replace(entry, residual=_both(old, own), error=error, shapes=shapes), f"{_sizes(rows)}, {middle}{spread}"


def _learned(at: Floats, missed: Floats) -> tuple[Floats, Floats]:
    """Weights of the knots, and the relative error of each row by the others alone (see calib/fitting/kriging.py)."""
    near = matern(distances(at, at)) + NOISE * np.eye(len(missed))
    inverse = np.linalg.inv(near)
    weights: Floats = np.asarray(inverse @ missed, dtype=np.float64)
    return weights, np.expm1(-weights / np.diag(inverse))


def _error(by_others: Floats) -> FitError:
    median, p90 = (float(f"{np.quantile(np.abs(by_others), q):.4g}") for q in (0.5, 0.9))
    return FitError(median, p90, len(by_others), float(f"{np.median(by_others):.4g}"))


def _both(old: Residual | None, own: Residual) -> Residual:
    """Knots of both: factors multiply."""
    if old is None:
        return own
    from base64 import b64decode, b64encode

    knots = b64encode(b64decode(old.packed) + b64decode(own.packed)).decode("ascii")
    return Residual(old.lengths, float(f"{old.most + own.most:.4g}"), knots)
