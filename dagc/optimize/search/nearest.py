"""nearest: of a space without a plan, those that break one rule alone, and by how little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...base.diagnostics import Collector
from ...base.frozen import record
from ...base.units import BYTES, show
from ...lang.values.evaluate import compare
from ...plan.refusal_rules import of_requirement, of_several, requirement_in, several_in
from ...plan.require import is_share
from ...spec.metrics.metric import percent
from .apart import Apart, limits
from .best_first import MEMORY, REFUSED, Outcome
from .exact import Judge, Plan, plain_test, value
from .rules import fixed, names, rules
from .space import Tally, Word, legal

NAMED = 3
"""Plans that are shown at most."""


@record(slots=False)
class Near:
    """A plan that breaks `rule` alone. `words`: how; `excess`: by how much, as a share, where that is known."""

    rule: str
    values: Mapping[str, Word | range]
    words: str
    excess: float = float("inf")


@dataclass
class Reasons:
    """Why combinations of plans are refused: how many by each rule, and the nearest of them."""

    counts: Counter[str] = field(default_factory=Counter)
    near: dict[str, Near] = field(default_factory=dict)

    def add(self, rule: str, words: str, excess: float, values: Mapping[str, Mapping[str, Word | range]]) -> None:
        """`values`: by phase or serving."""
        self.counts[rule] += 1
        if rule not in self.near or excess < self.near[rule].excess:
            flat = {f"{owner}.{path}": one for owner, own in values.items() for path, one in own.items()}
            self.near[rule] = Near(rule, flat, words, excess)

    @property
    def nearest(self) -> tuple[Near, ...]:
        return tuple(sorted(self.near.values(), key=lambda one: one.excess)[:NAMED])


def failing(judge: Judge, plan: Plan) -> tuple[str, str, float]:
    """(rule, how, by which share) of a plan that is refused."""
    assert plan.refused is not None
    rule = plan.refused[0]
    if plan.estimate is None:
        return rule, plan.why or rule, float("inf")
    if not plan.estimate.fits:
        return "memory", *_too_full(plan)
    failed = _failed(judge, plan) if requirement_in(rule) is not None else []
    if not failed:
        return rule, plan.why or rule, float("inf")
    words = "; ".join(f"{label}: {how}" if len(failed) > 1 else how for label, how, _ in failed)
    return rule if len(failed) == 1 else of_several(len(failed)), words, sum(excess for _, _, excess in failed)


def _too_full(plan: Plan) -> tuple[str, float]:
    own = plan.costed
    words = f"{show(own.peak_B, BYTES)} on the fullest GPU, of {show(own.capacity_B, BYTES)}"
    return words, own.peak_B / own.capacity_B - 1


def near_of(space: Apart, outcome: Outcome) -> tuple[Near, ...]:
    """Nothing where something was found, or not all was looked at."""
    if outcome.found or outcome.certificate.left:
        return ()
    space.pieces.evaluate(_closest(space, outcome))
    return nearest(space)


def _closest(space: Apart, outcome: Outcome) -> list[int]:
    """Of each requirement that bounds prove not to hold, the plan whose bound is nearest to it, and the emptiest of those that do not fit:
    not one may have been compiled."""
    fates, out = outcome.fates, []
    if space.pieces.bounds is not None and MEMORY in fates.rules:
        rows = np.flatnonzero(fates.code == REFUSED + fates.rules.index(MEMORY))
        out.append(int(rows[np.argmin(space.pieces.bounds.over_B[rows])]))
    for limit in limits(space.judge, space.name):
        rule = f"requirement: {limit.label}"
        if rule in fates.rules:
            rows = np.flatnonzero(fates.code == REFUSED + fates.rules.index(rule))
            out.append(int(rows[np.argmin(space.pieces.bound((limit.objective,))[0][rows])]))
    return out


def nearest(space: Apart) -> tuple[Near, ...]:
    """The nearest first: plans that were compiled and fail one thing; where rules let none pass, plans that one of them rejects and no other."""
    found = [near for row, plan in space.pieces.known.items() if (near := _compiled(space, row, plan)) is not None]
    best: dict[str, Near] = {}
    for near in sorted(found, key=lambda one: one.excess):
        best.setdefault(near.rule, near)
    if not best and not len(space.rows):
        return tuple(_illegal(space))[:NAMED]
    return tuple(best.values())[:NAMED] or _several(space)


def _several(space: Apart) -> tuple[Near, ...]:
    """Where every plan fails several requirements: the one that fails fewest, by the least."""
    known = [(row, plan) for row, plan in space.pieces.known.items() if plan.refused is not None]
    found = [
        Near(rule, space.rows.values(row), how, by)
        for row, plan in known
        for rule, how, by in (failing(space.judge, plan),)
    ]
    several = [(count, near) for near in found if (count := several_in(near.rule)) is not None]
    return tuple(near for _, near in sorted(several, key=lambda pair: (pair[0], pair[1].excess))[:1])


def _illegal(space: Apart) -> list[Near]:
    """A plan that each rule rejects alone."""
    own = (*space.asked, *rules(space.facts, [d.path for d in space.domains]))
    out = []
    for rule in own:
        others = [one for one in own if one is not rule]
        rows = legal(space.domains, fixed(space.facts), names(space.facts), others, Tally())
        if len(rows):
            out.append(Near(rule.name, rows.values(0), f"not so: {rule.about}"))
    return out


def _compiled(space: Apart, row: int, plan: Plan) -> Near | None:
    if plan.refused is None or plan.estimate is None:
        return None
    judge, values = space.judge, space.rows.values(row)
    failed = _failed(judge, plan)
    fits = plan.estimate.fits
    if plan.refused[0] == "memory" and not failed:
        return Near("memory", values, *_too_full(plan))
    if fits and not failed and plan.why:
        return Near(plan.refused[0], values, plan.why)
    if not fits or len(failed) != 1 or requirement_in(plan.refused[0]) is None:
        return None
    label, words, excess = failed[0]
    return Near(of_requirement(label), values, words, excess)


def _failed(judge: Judge, plan: Plan) -> list[tuple[str, str, float]]:
    """(label, words, share by which it fails) of the requirements that do not hold; those that ask for GPU ids are left out."""
    subject, out = judge.subject(plan), []
    for requirement in judge.requirements:
        test = requirement.test
        found = compare(test, lambda node: value(node, subject), Collector()) if plain_test(test) else None
        if found is None or found[2]:
            continue
        left, right, _ = found
        shown = percent if is_share(test) else lambda v, dim=left.dim: show(v, dim)
        excess = abs(left.value - right.value) / (abs(right.value) or 1.0)
        out.append((requirement.label, f"{shown(left.value)}, not {test.op} {shown(right.value)}", excess))
    return out
