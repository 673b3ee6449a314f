"""together: plans of several phases, put together best first from what each can be alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from time import perf_counter

from ...lang.open_spec import OpenSpec
from .answer import Answer, Joined, Ranked, Searched
from .apart import Apart, Told
from .best_first import Found
from .joint import Joint, gpus_of
from .nearest import near_of
from .objectives import Objective

FIRST = 8
"""Plans of each phase that are put together at first."""
MORE = 4
"""Times as many, where those do not suffice."""


@dataclass
class Together:
    """`spaces`: of each phase that is searched, in the order of the spec."""

    spec: OpenSpec
    spaces: Mapping[str, Apart]
    until: float | None
    told: Told | None

    def __post_init__(self) -> None:
        self.joint = Joint(self.spec, self.spaces, self.until)

    def beside(self, wanted: Mapping[str, Sequence[Objective]], top: int) -> Answer:
        """The best of each phase by its own objective; where they share GPUs or a requirement asks both, the pairs whose figures are best
        together: by the product of their ratios to the best alone."""
        began, joint = perf_counter(), self.joint
        objectives = tuple(one for name in self.spaces for one in wanted[name][:1])
        count = max(FIRST, top)
        while True:
            found = {}
            for name, space, until in joint.turns():
                found[name], stopped = space.search(wanted[name][:1], count, until, self.told)
                joint.stopped |= stopped
            lists = {name: outcome.found[:count] for name, outcome in found.items()}
            whole = all(len(outcome.found) < count for outcome in found.values())
            ranked, sure = self.joined(lists, objectives, top, whole=whole)
            if sure or whole or joint.stopped or joint.late:
                break
            count *= MORE
        searched = {
            name: Searched(
                name, tuple(wanted[name][:1]), self.spaces[name].domains, outcome, near_of(self.spaces[name], outcome)
            )
            for name, outcome in found.items()
        }
        joined = Joined(
            joint.tried,
            joint.refused,
            sure and not joint.broken,
            joint.broken,
            reasons=joint.reasons.counts,
            near=() if ranked else joint.reasons.nearest,
        )
        return Answer(objectives, tuple(ranked), searched, perf_counter() - began, joined, joint.stopped)

    def joined(
        self, lists: Mapping[str, Sequence[Found]], objectives: Sequence[Objective], top: int, *, whole: bool
    ) -> tuple[list[Ranked], bool]:
        """The best so many, and whether no other can be better. `whole`: the lists have all plans."""
        if not all(lists.values()):
            return [], whole
        names = list(lists)
        best = [lists[name][0].scores[0] for name in names]
        out: list[tuple[float, Ranked]] = []
        joint = self.joint
        # What the first plan outside a list could reach together with the best of all others.
        edge = min(
            (self.worse([*best[:k], lists[name][-1].scores[0], *best[k + 1 :]], best) for k, name in enumerate(names)),
            default=0.0,
        )
        for total, places in self.pairs([[f.scores[0] for f in lists[name]] for name in names], best):
            if len(out) >= top and total > sorted(t for t, _ in out)[top - 1] + 1e-12:
                return self.cut(out, top), True
            if not whole and total > edge:
                break
            if joint.enough(len(out)):
                return self.cut(out, top), False
            chosen = {name: lists[name][k] for name, k in zip(names, places, strict=True)}
            try:
                plans = joint.compiled({name: (one.plan.phase, dict(one.values)) for name, one in chosen.items()})
            except KeyboardInterrupt:
                joint.stopped = True
                return self.cut(out, top), False
            if plans is None:
                continue
            scores = [self.spaces[name].judge.score(o, plans[name]) for o, name in zip(objectives, names, strict=True)]
            exact = self.worse(scores, best)
            if exact < total - 1e-9:
                joint.broken += 1
            figures = tuple(o.shown(s) for o, s in zip(objectives, scores, strict=True))
            values = {name: dict(one.values) for name, one in chosen.items()}
            out.append((exact, Ranked(values, figures, plans, gpus_of(plans))))
        return self.cut(out, top), whole or len(out) >= top

    @staticmethod
    def cut(out: Sequence[tuple[float, Ranked]], top: int) -> list[Ranked]:
        return [one for _, one in sorted(out, key=lambda pair: (pair[0], pair[1].gpus))[:top]]

    @staticmethod
    def worse(scores: Sequence[float], best: Sequence[float]) -> float:
        """How much worse than each alone, in logarithms."""
        return sum(log(s / b if b > 0 else b / s) if s and b else abs(s - b) for s, b in zip(scores, best, strict=True))

    def pairs(
        self, scores: Sequence[Sequence[float]], best: Sequence[float]
    ) -> Iterator[tuple[float, tuple[int, ...]]]:
        """Places in the lists, the best together first."""
        start = (0,) * len(scores)
        heap = [(self.worse([own[0] for own in scores], best), start)]
        seen = {start}
        while heap:
            total, places = heapq.heappop(heap)
            yield total, places
            for k in range(len(places)):
                after = (*places[:k], places[k] + 1, *places[k + 1 :])
                if after[k] < len(scores[k]) and after not in seen:
                    seen.add(after)
                    heapq.heappush(
                        heap, (self.worse([own[i] for own, i in zip(scores, after, strict=True)], best), after)
                    )
