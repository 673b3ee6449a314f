"""Phases as they are priced where their GPU was not measured: how much wider the range is.

The compiled phase of every serving without doubt, once more: with the kernels of the nearest other GPU that has a calibration,
scaled by the datasheets, and with no measured kernel at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .cache import Cache
from .case import Estimate, Inexpressible, Point
from .estimate import ANOTHER_GPU, ROOFLINE, Estimates
from .servings import Case
from .statistics import error_table

SETS = {ANOTHER_GPU: "of the nearest other GPU", ROOFLINE: "none, the roofline"}
KINDS = {"tpot": "decode", "ttft": "prefill"}
Ratios = Mapping[str, Mapping[str, Sequence[float]]]
"""Set of kernels -> kind of phase -> estimate / measured."""


def of(cases: Sequence[Case], estimates: Estimates, cache: Path | None) -> Ratios:
    """Ratios of all sets; `estimates` says where the configs are and how many processes compile."""
    sure = [c for c in cases if c.without_doubt and c.alone.phase is not None and c.serving.metric in KINDS]
    found: dict[str, dict[str, list[float]]] = {}
    for kernels in SETS:
        kept = None if cache is None else Cache.of(cache, f"-{kernels}")
        other = replace(estimates, known={}, cache=kept, kernels=kernels, _wanted={})
        groups: dict[str, list[float]] = defaultdict(list)
        for case, answer in zip(sure, other.settle([_ask(c, other) for c in sure]), strict=True):
            if not isinstance(answer, Inexpressible):
                groups[KINDS[case.serving.metric]].append(answer.time_s / case.serving.value)
        found[kernels] = dict(groups)
    return found


def _ask(case: Case, estimates: Estimates) -> Callable[[], Estimate]:
    point = case.alone.phase
    assert isinstance(point, Point)
    return lambda: estimates.ask(point)


def section(found: Ratios) -> str:
    """A row per set and kind of phase."""
    figure = {"decode": "decode step, TPOT", "prefill": "prefill, TTFT"}
    return error_table(
        "kernels, phase, figure",
        {f"{SETS[kernels]}: {figure[kind]}": r for kernels, kinds in found.items() for kind, r in kinds.items()},
    )
