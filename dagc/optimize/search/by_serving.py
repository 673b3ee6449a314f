"""by_serving: plans judged by how they serve requests: each that is legal is simulated, those first whose phases are best alone.

No bound of a simulated figure is known, so only a search that has simulated all of them is complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from time import perf_counter

from ...calib.accuracy import PhaseError
from ...lang.choices import SERVINGS
from ...lang.open_spec import OpenSpec
from ...plan.plan import CompiledPlan
from ...plan.searched import Error
from ...plan.subject import serving_metrics
from ...spec.choice import Choice
from ...view.facts.served_sureness import error_of
from .answer import Answer, Joined, Ranked, Searched
from .apart import Apart, Told
from .best_first import Found, dominates
from .domains import Unbounded
from .exact import Allowed
from .joint import AT_LEAST, placed
from .nearest import Reasons, near_of
from .objectives import TABLE, Objective
from .rules import GPUS
from .space import Domain, Word
from .together import Together
from .under_traffic import simulated

MOST = 5_000
"""Simulations of a search without a budget."""
ALL = 1 << 30


class TooMany(ValueError):
    """More plans than anybody waits for: `count` of them would be simulated."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count:,} plans would be simulated, more than {MOST:,}")
        self.count = count


@dataclass
class Served:
    """`spaces`: of each phase that is open; `serves`: servings that leave something open, with their domains."""

    spec: OpenSpec
    spaces: Mapping[str, Apart]
    serves: Mapping[str, tuple[Domain, ...]]
    until: float | None
    told: Told | None
    reasons: Reasons = field(default_factory=Reasons)

    def search(self, objectives: Sequence[Objective], top: int) -> Answer:
        """By figures of servings. Raises TooMany."""
        began = perf_counter()
        own = (TABLE["throughput_per_gpu"],)
        found = {name: space.search(own, ALL, self.until, self.told) for name, space in self.spaces.items()}
        stopped = any(s for _, s in found.values())
        lists = [outcome.found for outcome, _ in found.values()]
        settings = [*product(*(product(*(d.values for d in own)) for own in self.serves.values()))]
        count = prod(len(one) for one in lists) * len(settings)
        if count > MOST and self.until is None:
            raise TooMany(count)
        out: list[tuple[tuple[float, ...], Ranked]] = []
        tried = refused = 0
        errors: tuple[Error, ...] = ()
        whole = not stopped and all(outcome.certificate.complete for outcome, _ in found.values())
        try:
            for plans, given in self._pairs(lists, settings):
                if (stopped or (self.until is not None and perf_counter() > self.until)) and (out or tried >= AT_LEAST):
                    whole = False
                    break
                tried += 1
                values: dict[str, dict[str, Word | range]] = {
                    name: dict(p.values) for name, p in zip(self.spaces, plans, strict=True)
                }
                for (name, domains), chosen in zip(self.serves.items(), given, strict=True):
                    values[name] = dict(zip((d.path for d in domains), chosen, strict=True))
                plan = None
                if not self.divides or self._placed(plans, values):
                    plan = simulated(self.spec, values, self.allowed, {o.phase for o in objectives}, self.reasons)
                found_scores = None if plan is None else scores_of(plan, objectives)
                if plan is None or found_scores is None:
                    refused += 1
                    if plan is not None:
                        self.reasons.add("no figure", "too few requests end", float("inf"), values)
                    continue
                figures = tuple(o.shown(s) for o, s in zip(objectives, found_scores, strict=True))
                chosen_plans = {name: p.plan for name, p in zip(self.spaces, plans, strict=True)}
                gpus = len(
                    {
                        (plan.spec.phase(name).hardware, gpu)
                        for name in chosen_plans
                        for gpu in plan.spec.phase(name).gpus
                    }
                )
                out.append(
                    (found_scores, Ranked(values, figures, chosen_plans, gpus, served=metrics_of(plan, objectives)))
                )
                if min(out, key=lambda one: one[0]) is out[-1]:
                    errors = errors_of(plan, objectives)
        except KeyboardInterrupt:
            whole, stopped = False, True
        out.sort(key=lambda one: (one[0], one[1].gpus))
        if len(objectives) > 1:
            out = [one for one in out if not any(dominates(other[0], one[0]) for other in out)]
        searched = {
            name: Searched(name, own, self.spaces[name].domains, outcome, near_of(self.spaces[name], outcome))
            for name, (outcome, _) in found.items()
        }
        kept = [one for _, one in out][: top if len(objectives) == 1 else None]
        joined = Joined(
            tried,
            refused,
            whole,
            left=count - tried,
            reasons=self.reasons.counts,
            near=() if out else self.reasons.nearest,
        )
        return Answer(
            tuple(objectives),
            tuple(kept),
            searched,
            perf_counter() - began,
            joined,
            stopped,
            len(objectives) > 1,
            errors,
        )

    @property
    def allowed(self) -> Allowed | None:
        return next((space.allowed for space in self.spaces.values()), None)

    @property
    def divides(self) -> bool:
        """Whether prefill and decode both leave their number of GPUs open, so that each has GPUs of its own."""
        kinds = sorted(space.facts.phase.kind for space in self.spaces.values())
        return kinds == ["decode", "prefill"] and all(
            any(choice.path == GPUS for choice in self.spec.of(name)) for name in self.spaces
        )

    def _placed(self, plans: Sequence[Found], values: Mapping[str, dict[str, Word | range]]) -> bool:
        """Gives each phase GPUs of its own; false where there are not enough."""
        ids = placed(self.spec.spec, [one.plan.phase for one in plans])
        for name, own in zip(self.spaces, ids or (), strict=ids is not None):
            values[name][GPUS] = own
        if ids is None:
            wanted = sum(len(one.plan.phase.gpus) for one in plans)
            most = self.spec.spec.of(plans[0].plan.phase).hardware.gpus
            self.reasons.add("gpus", f"{wanted} GPUs for both, of {most}", wanted / most - 1, values)
        return ids is not None

    def _pairs(
        self, lists: Sequence[Sequence[Found]], settings: Sequence[tuple[tuple[Word, ...], ...]]
    ) -> Iterator[tuple[tuple[Found, ...], tuple[tuple[Word, ...], ...]]]:
        """Plans of the phases, the best together first, each under every setting of the servings."""
        if not all(lists):
            return
        scores = [[one.scores[0] for one in each] for each in lists]
        together = Together(self.spec, self.spaces, self.until, self.told)
        for _, places in together.pairs(scores, [each[0] for each in scores]):
            plans = tuple(each[k] for each, k in zip(lists, places, strict=True))
            for given in settings:
                yield plans, given


def scores_of(plan: CompiledPlan, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """None where it has no such figure."""
    out = []
    for one in objectives:
        found = serving_metrics(plan.subject().of(one.phase)).get(one.name)
        if found is None:
            return None
        out.append(found.value if one.better == "lower" else -found.value)
    return tuple(out)


def metrics_of(plan: CompiledPlan, objectives: Sequence[Objective]) -> dict[str, dict[str, float]]:
    """Every figure of the servings that are asked, in SI units."""
    names = dict.fromkeys(one.phase for one in objectives)
    return {name: {k: v.value for k, v in serving_metrics(plan.subject().of(name)).items()} for name in names}


def errors_of(plan: CompiledPlan, objectives: Sequence[Objective]) -> tuple[Error, ...]:
    """Of each serving the largest error of the figures that are asked; nothing where one of them has none."""
    found = [(one, error_of(plan, one.phase, one.name)) for one in objectives]
    if any(error is None for _, error in found):
        return ()
    worst: dict[str, PhaseError] = {}
    for one, error in found:
        if error is not None and (one.phase not in worst or worst[one.phase].median < error.median):
            worst[one.phase] = error
    return tuple(Error(name, error.median, error.cases, "") for name, error in worst.items())


def domains_of(choices: Sequence[Choice]) -> tuple[Domain, ...]:
    """Of the choices of a serving. Raises Unbounded."""
    found = []
    for choice in choices:
        attribute = SERVINGS.attribute(choice.path)
        values: tuple[Word, ...] = choice.values or ((False, True) if attribute.kind == "flag" else attribute.words)
        if not values:
            raise Unbounded(choice)
        found.append(Domain(choice.path, values))
    return tuple(found)
