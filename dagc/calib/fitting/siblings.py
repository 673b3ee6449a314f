"""Fits a part of few rows over a sibling: the same kernels on the nearest GPU with more rows, or of another engine that
calls them on the same GPU.

    time = formula(constants) x residual of the sibling x own residual

The constants are the sibling's, scaled by the datasheets, or fitted again. Which of the two, or the fit of the part alone, is
shipped is decided by their cross-validated errors. Where a shape is hidden, it is hidden from the sibling's fit as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import replace
from ..calibration import moved
from ..constants import Device, Entry, Over
from ..shape import Floats
from . import tables
from .fit import Fitter, Part, cross_validated, error_of, ranges
from .kriging import loss

MOST_ROWS = 160
"""Parts with more are fitted alone."""
RICHER = 1.5
"""A sibling has this many times the rows."""
BETTER, FAR_BETTER = 0.95, 0.8
"""A fit over a sibling must take the loss below this share of that of the part alone: one `NEAR` by, or another."""
NEAR = 1.0
"""How far apart GPUs of one generation are at most: an octave, over all rates."""


def near(gpu: str, devices: Mapping[str, Device]) -> list[str]:
    """Other GPUs by how far they are."""
    others = (other for other in devices if other != gpu)
    return sorted(others, key=lambda other: (apart(devices[gpu], devices[other]), other))


def apart(a: Device, b: Device) -> float:
    """How far two GPUs are: their bf16, memory and link rates in octaves, and the dtypes that one of them lacks."""

    def rates(device: Device) -> Floats:
        return np.log2([device.flops["bf16"], device.hbm_Bps, device.link_Bps])

    return float(np.abs(rates(a) - rates(b)).sum()) + len(set(a.flops) ^ set(b.flops))


def over_siblings(parts: Sequence[Part], devices: Mapping[str, Device]) -> list[Part]:
    """`parts`: the same kernels on several GPUs and called by several engines, each fitted alone. Those that miss less over a
    sibling come back so; what one leans on may lean once more."""
    found = {(part.gpu, part.key.engine): part for part in parts}
    for part in sorted(parts, key=lambda part: -len(part.rows)):
        if part.entry is None:
            continue
        leaning = [part]
        for sibling in _siblings(part, found, devices):
            close = apart(devices[part.gpu], devices[sibling.gpu]) <= NEAR
            tries = [_over(part, sibling, devices[part.gpu], again) for again in (False, True)]
            best = min((each for each in tries if each is not None), key=_loss, default=part)
            if _loss(best) < (BETTER if close else FAR_BETTER) * _loss(part):
                leaning.append(best)
        found[part.gpu, part.key.engine] = min(leaning, key=_loss)
    return list(found.values())


def _siblings(part: Part, found: Mapping[tuple[str, str], Part], devices: Mapping[str, Device]) -> Iterator[Part]:
    """The engine's own on the nearest other GPU, then those of other engines on the same GPU."""
    if len(part.rows) > MOST_ROWS:
        return
    elsewhere = ((gpu, part.key.engine) for gpu in near(part.gpu, devices))
    yield from islice((found[at] for at in elsewhere if at in found and _richer(found[at], part, devices)), 1)
    for (gpu, engine), other in sorted(found.items()):
        if gpu == part.gpu and engine != part.key.engine and _richer(other, part, devices):
            yield other


def _richer(other: Part, part: Part, devices: Mapping[str, Device]) -> bool:
    """Stands alone or over one that does, has more rows, and holds on the part's GPU."""
    entry = other.entry
    leans = entry is not None and entry.over is not None and entry.over.over is not None
    if entry is None or leans or len(other.rows) < RICHER * len(part.rows):
        return False
    return moved(part.family, entry, devices[part.gpu], part.variant) is not None


def _loss(part: Part) -> float:
    by_row = np.log(part.by_row / part.measured_s)
    return loss(by_row, np.log(part.by_shape / part.measured_s) if len(part.by_shape) else by_row)


def _over(part: Part, sibling: Part, device: Device, again: bool) -> Part | None:
    """The part over the sibling; `again`: with constants of its own. None where a fold of the part's shapes is in several
    of the sibling's, so that no fit of the sibling is without them."""
    family, rows = part.family, list(part.rows)
    arguments = family.arguments(rows)
    features, shapes = family.features(*arguments), tables.shape_numbers(family, rows)
    there = set(tables.shape_names(family, sibling.rows))

    def fitted(base: Entry[Any], seen: NDArray[np.intp]) -> Entry[Any]:
        scaled = moved(family, base, device, part.variant)
        assert scaled is not None
        beneath = (base.residual, *(base.over.residuals if base.over is not None else ()))
        below = np.exp(sum(each.log_factor(features) for each in beneath if each is not None))
        fitter = Fitter(family, device, part.variant, arguments, part.measured_s / below, shapes)
        constants = {
            name: float(f"{getattr(scaled.constants, name):.6g}") for name in family.constants.__dataclass_fields__
        }
        if again:
            constants = fitter.constants(seen, constants)
        entry = fitter.entry(constants, fitter.residual(constants, seen))
        theirs = sibling.variant if sibling.variant != part.variant else ""
        return replace(entry, over=Over(sibling.gpu, sibling.key.engine, base.residual, theirs, base.over))

    def base_without(hidden: frozenset[str]) -> Entry[Any] | None:
        if not hidden & there:
            return sibling.entry
        return next((blind.entry for blind in sibling.blind if hidden & there <= blind.shapes), None)

    def without(hidden: frozenset[str], seen: NDArray[np.intp]) -> Entry[Any]:
        base = base_without(hidden)
        if base is None:
            raise _NotBlind
        return fitted(base, seen)

    assert sibling.entry is not None
    plain = Fitter(family, device, part.variant, arguments, part.measured_s, shapes)
    try:
        tested = cross_validated(plain, rows, without)
    except _NotBlind:
        return None
    entry = replace(
        fitted(sibling.entry, np.arange(len(rows))), shapes=ranges(family, rows), gpu=part.gpu, engine=part.key.engine,
        error=error_of(tested.by_row, tested.by_shape, part.measured_s),
    )  # fmt: skip
    return Part(part.key, family, part.rows, entry, part.measured_s, tested.by_row, tested.by_shape, tested.blind)


class _NotBlind(Exception):
    """No fit of the sibling is without some shapes."""
