"""joint: plans of several phases compiled beside each other, and the time that their searches have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from ...lang.open_spec import OpenSpec
from ...plan.require import owners
from ...spec.metrics.metric import HARDWARE
from ...spec.phase import Phase
from ...spec.spec import Spec
from .apart import Apart
from .exact import Judge, Plan
from .nearest import Reasons, failing
from .space import Word

PATIENCE_S = 1.0
"""Seconds in which a phase that was not searched yet may still have a first plan after an interrupt."""
AT_LEAST = 8
"""Combinations that are tried even where the time is up, while none was found."""


@dataclass
class Joint:
    """`spaces`: of each phase that is searched, in the order of the spec. `tried`: combinations that were compiled; `refused`: of them, those that do
    not fit or fail a requirement together; `broken`: those that are better than their parts are alone. `stopped`: somebody interrupted."""

    spec: OpenSpec
    spaces: Mapping[str, Apart]
    until: float | None
    tried: int = 0
    refused: int = 0
    broken: int = 0
    stopped: bool = False
    reasons: Reasons = field(default_factory=Reasons)
    apart: dict[tuple[str, tuple[tuple[str, Word | range], ...]], Plan] = field(default_factory=dict)
    """What was compiled of phases that share no GPU with another, by their values."""

    @property
    def late(self) -> bool:
        return self.until is not None and perf_counter() > self.until

    def enough(self, found: int) -> bool:
        """Whether no further combination is compiled, with so many found."""
        return (self.late or self.stopped) and (found > 0 or self.tried >= AT_LEAST)

    def turns(self) -> Iterator[tuple[str, Apart, float | None]]:
        """Each space with the moment until which it is searched: what time there is is shared, with those that follow and with what puts
        plans together. After an interrupt a space is looked at only long enough to have a plan."""
        for k, (name, space) in enumerate(self.spaces.items()):
            now = perf_counter()
            left = None if self.until is None else max(0.0, self.until - now) / (len(self.spaces) - k + 1)
            yield name, space, now + PATIENCE_S if self.stopped else None if left is None else now + left

    def compiled(self, chosen: Mapping[str, tuple[Phase, Mapping[str, Word | range]]]) -> dict[str, Plan] | None:
        """Plans of several phases together, each beside the others; None where they do not fit or fail a requirement."""
        phases = {name: phase for name, (phase, _) in chosen.items()}
        base = self.spec.spec
        spec = replace(
            base,
            phases=tuple(phases.get(p.name, p) for p in base.phases if p.name in phases or not self.spec.of(p.name)),
        )
        self.tried += 1
        first = next(iter(self.spaces.values()))
        others, allowed = first.others, first.allowed
        plans: dict[str, Plan] = {}
        shared = any(phases[a].shares(phases[b]) for a in phases for b in phases if a != b)
        for name, (phase, values) in chosen.items():
            key = name, tuple(values.items())
            plan = None if shared else self.apart.get(key)
            if plan is None:
                plan = Judge(spec, name, others, unknown=frozenset(phases) - {name}, allowed=allowed).plan(phase)
            if not shared:
                self.apart[key] = plan
            if plan.refused is not None:
                judge = Judge(spec, name, others, unknown=frozenset(phases) - {name}, allowed=allowed)
                self.refuse(*failing(judge, plan), chosen)
                return None
            plans[name] = plan
        last = list(phases)[-1]
        wide = {HARDWARE, *spec.pools}
        crossing = any(len(owners(r) & phases.keys()) > 1 or owners(r) & wide for r in spec.requirements)
        if shared or crossing:
            results = {name: plan.the_estimate.result for name, plan in plans.items() if name != last}
            judge = Judge(spec, last, {**others, **results}, allowed=allowed)
            judged = judge.judged(plans[last])
            if judged.refused is not None:
                self.refuse(*failing(judge, judged), chosen)
                return None
        return plans

    def refuse(
        self, rule: str, words: str, excess: float, chosen: Mapping[str, tuple[Phase, Mapping[str, Word | range]]]
    ) -> None:
        """Counts a combination that is refused."""
        self.refused += 1
        self.reasons.add(rule, words, excess, {name: values for name, (_, values) in chosen.items()})


def gpus_of(plans: Mapping[str, Plan]) -> int:
    """Different GPUs of all phases."""
    return len({(plan.phase.hardware, gpu) for plan in plans.values() for gpu in plan.phase.gpus})


def placed(spec: Spec, phases: Sequence[Phase]) -> list[range] | None:
    """Ids of as many GPUs for each phase as it has, one after the other in its pool; None where there are not enough."""
    used: dict[str, int] = {}
    out = []
    for phase in phases:
        begin = used.get(phase.hardware, 0)
        end = begin + len(phase.gpus)
        if end > spec.of(phase).hardware.gpus:
            return None
        out.append(range(begin, end))
        used[phase.hardware] = end
    return out
