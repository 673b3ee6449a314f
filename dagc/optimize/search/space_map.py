"""space_map: the space of a phase over its two largest choices: the best plan of each pair of values, or what refuses all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ...base.frozen import record
from ...plan.searched import Cell, Measure, SpaceMap
from .answer import Searched
from .best_first import BOUNDED, LEFT, REFUSED, Fates
from .plain_answer import word
from .space import Domain, Flags, Ints, Tally, TooLarge, legal
from .within import WITHIN

MOST_VALUES = 16
"""Of a choice that are drawn."""
BOUND, UNSEEN = "a bound proves them worse", "not looked at"


@record(slots=False)
class _Axis:
    """A choice, the places of its values that are drawn, and each row's place."""

    domain: Domain
    places: tuple[int, ...]
    column: Ints

    @property
    def shown(self) -> tuple[str, tuple[str, ...]]:
        return self.domain.path, tuple(word(self.domain.values[k]) for k in self.places)


def map_of(name: str, one: Searched) -> SpaceMap | None:
    """`name`: of the space. None of one with fewer than two choices."""
    axes = _axes(one.outcome.fates)
    if axes is None or one.certificate.left == one.certificate.size:
        return None
    objective = one.objectives[0]
    measure = Measure(objective.name, objective.phase, objective.better, objective.dim)
    return SpaceMap(name, axes[0].shown, axes[1].shown, tuple(_cells(one, *axes)), measure)


def _axes(fates: Fates) -> tuple[_Axis, _Axis] | None:
    """The choices with the most values that legal plans have; the larger one across."""
    rows = fates.rows
    found = []
    for k, domain in enumerate(rows.domains):
        if len(domain.values) > 1 and len(rows.places) > k:
            used = np.unique(rows.places[k])
            every = range(len(domain.values))
            shown = every if len(every) <= MOST_VALUES or not len(used) else used[:MOST_VALUES]
            found.append((len(used), len(domain.values), _Axis(domain, tuple(map(int, shown)), rows.places[k])))
    found.sort(key=lambda one: (-one[0], -one[1]))
    return (found[0][2], found[1][2]) if len(found) > 1 else None


def _cells(one: Searched, across: _Axis, up: _Axis) -> Iterator[Cell]:
    fates, objective = one.outcome.fates, one.objectives[0]
    best: dict[tuple[str, str], float] = {}
    for found in one.outcome.found:  # the best first
        key = word(found.values[across.domain.path]), word(found.values[up.domain.path])
        best.setdefault(key, objective.shown(found.scores[0]))
    for i, a in enumerate(across.places):
        for j, b in enumerate(up.places):
            figure = best.get((word(across.domain.values[a]), word(up.domain.values[b])))
            here: Flags = (across.column == a) & (up.column == b)
            why = "" if figure is not None else _fate(fates, here) if here.any() else _rule(one, across, a, up, b)
            yield Cell(i, j, figure, why)


def _fate(fates: Fates, here: Flags) -> str:
    """What became of most of these rows."""
    ((code, _),) = Counter(fates.code[here].tolist()).most_common(1)
    return {LEFT: UNSEEN, BOUNDED: BOUND}.get(code) or fates.rules[code - REFUSED]


def _rule(one: Searched, across: _Axis, a: int, up: _Axis, b: int) -> str:
    """The rule that rejects most of the plans with these values."""
    fixed = {across.domain.path: across.domain.values[a], up.domain.path: up.domain.values[b]}
    rows = one.outcome.fates.rows
    domains = [Domain(d.path, (fixed[d.path],)) if d.path in fixed else d for d in rows.domains]
    tally = Tally()
    try:
        left = legal(domains, rows.fixed, rows.names, one.outcome.rules, tally)
    except TooLarge:
        return UNSEEN
    rejected = max(tally, key=lambda found: found.count, default=None)
    if rejected is None or len(left):
        return "another plan in other words"
    return rejected.rule if rejected.rule.startswith(WITHIN) else f"not so: {rejected.about}"
