"""together: plans of several phases, put together best first from what each can be alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import log
from time import perf_counter

from ...base.diagnostics import Collector
from ...lang.open_spec import OpenSpec
from ...plan.require import owners
from ...spec.metrics import HARDWARE
from ...spec.phase import Phase
from .answer import Answer, Joined, Ranked, Searched
from .apart import Apart, Told
from .best_first import Found
from .exact import Judge, Plan
from .nearest import near_of
from .objectives import TABLE, Objective, Split, System
from .space import Word

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
    tried: int = 0
    refused: int = 0
    broken: int = 0

    @property
    def late(self) -> bool:
        return self.until is not None and perf_counter() > self.until

    # -- phases beside each other ----------------------------------------------------------------

    def beside(self, wanted: Mapping[str, Sequence[Objective]], top: int) -> Answer:
        """The best of each phase by its own objective; where they share GPUs or a requirement asks both, the pairs whose figures are best
        together: by the product of their ratios to the best alone."""
        began = perf_counter()
        objectives = tuple(one for name in self.spaces for one in wanted[name][:1])
        count = max(FIRST, top)
        while True:
            found = {
                name: space.search(wanted[name][:1], count, self.until, self.told)
                for name, space in self.spaces.items()
            }
            stopped = any(s for _, s in found.values())
            lists = {name: outcome.found[:count] for name, (outcome, _) in found.items()}
            whole = all(len(outcome.found) < count for outcome, _ in found.values())
            ranked, sure = self.joined(lists, objectives, top, whole=whole)
            if sure or whole or stopped or self.late:
                break
            count *= MORE
        searched = {
            name: Searched(
                name, tuple(wanted[name][:1]), self.spaces[name].domains, outcome, near_of(self.spaces[name], outcome)
            )
            for name, (outcome, _) in found.items()
        }
        joined = Joined(self.tried, self.refused, sure and not self.broken, self.broken)
        return Answer(objectives, tuple(ranked), searched, perf_counter() - began, joined, stopped)

    def joined(
        self, lists: Mapping[str, Sequence[Found]], objectives: Sequence[Objective], top: int, *, whole: bool
    ) -> tuple[list[Ranked], bool]:
        """The best so many, and whether no other can be better. `whole`: the lists have all plans."""
        if not all(lists.values()):
            return [], whole
        names = list(lists)
        best = [lists[name][0].scores[0] for name in names]
        out: list[tuple[float, Ranked]] = []
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
            if self.late:
                return self.cut(out, top), False
            chosen = {name: lists[name][k] for name, k in zip(names, places, strict=True)}
            plans = self.compiled({name: (one.plan.phase, dict(one.values)) for name, one in chosen.items()})
            if plans is None:
                continue
            scores = [self.spaces[name].judge.score(o, plans[name]) for o, name in zip(objectives, names, strict=True)]
            exact = self.worse(scores, best)
            if exact < total - 1e-9:
                self.broken += 1
            figures = tuple(o.shown(s) for o, s in zip(objectives, scores, strict=True))
            values = {name: dict(one.values) for name, one in chosen.items()}
            out.append((exact, Ranked(values, figures, plans, _gpus(plans))))
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
        for name, phase in phases.items():
            plan = Judge(spec, name, others, unknown=frozenset(phases) - {name}, allowed=allowed).plan(phase)
            if plan.refused is not None:
                self.refused += 1
                return None
            plans[name] = plan
        last = list(phases)[-1]
        shared = any(spec.phase(a).shares(spec.phase(b)) for a in phases for b in phases if a != b)
        wide = {HARDWARE, *spec.pools}
        crossing = any(len(owners(r) & phases.keys()) > 1 or owners(r) & wide for r in spec.requirements)
        if shared or crossing:
            results = {name: plan.the_estimate.result for name, plan in plans.items() if name != last}
            judge = Judge(spec, last, {**others, **results}, allowed=allowed)
            if judge.plan(phases[last]).refused is not None:
                self.refused += 1
                return None
        return plans

    # -- phases that divide the GPUs ---------------------------------------------------------------

    def divided(self, system: Sequence[System], top: int) -> Answer:
        """Prefill and decode on GPUs of their own that they divide among themselves, joined by the requests that both keep up with."""
        began = perf_counter()
        each = (TABLE["gpus"], TABLE["throughput"])
        found = {name: space.search(each, 1, self.until, self.told) for name, space in self.spaces.items()}
        stopped = any(s for _, s in found.values())
        names = list(self.spaces)
        tokens = {
            name: self.spaces[name].facts.new if self.spaces[name].facts.phase.kind == "prefill" else self.output
            for name in names
        }
        ids = self.placed
        options: list[tuple[tuple[float, ...], Split, dict[str, Found]]] = []
        for pair in product(*(found[name][0].front for name in names)):
            chosen = dict(zip(names, pair, strict=True))
            phases = {name: one.plan.phase for name, one in chosen.items()}
            if ids(phases) is None:
                continue
            split = Split(
                min(-one.scores[1] / tokens[name] for name, one in chosen.items()),
                float(sum(len(phase.gpus) for phase in phases.values())),
                float(self.output),
            )
            options.append((tuple(o.score(split) for o in system), split, chosen))
        options.sort(key=lambda option: (option[0], option[1].gpus))
        out: list[tuple[tuple[float, ...], Ranked]] = []
        sure = True
        for scores, _, chosen in options:
            if len(system) == 1 and len(out) >= top and scores > sorted(s for s, _ in out)[top - 1]:
                break
            if len(system) > 1 and any(all(a <= b for a, b in zip(s, scores, strict=True)) for s, _ in out):
                continue
            if self.late:
                sure = False
                break
            one = self.at(chosen, system, tokens)
            if one is None:
                continue
            if any(a < b - abs(b) * 1e-9 for a, b in zip(one[0], scores, strict=True)):
                self.broken += 1
            out.append(one)
        if len(system) > 1:
            out = [
                o
                for o in out
                if not any(
                    p is not o and p[0] != o[0] and all(a <= b for a, b in zip(p[0], o[0], strict=True)) for p in out
                )
            ]
        out.sort(key=lambda pair: (pair[0], pair[1].gpus))
        objectives = tuple(one.as_objective for one in system)
        searched = {
            name: Searched(name, each, self.spaces[name].domains, outcome, near_of(self.spaces[name], outcome))
            for name, (outcome, _) in found.items()
        }
        joined = Joined(self.tried, self.refused, sure and not self.broken, self.broken)
        kept = [one for _, one in out][: top if len(system) == 1 else None]
        return Answer(objectives, tuple(kept), searched, perf_counter() - began, joined, stopped)

    @property
    def output(self) -> int:
        return self.spec.spec.workload.output

    def placed(self, phases: Mapping[str, Phase]) -> dict[str, range] | None:
        """Ids of as many GPUs for each phase as it has, one after the other in its pool; None where there are not enough."""
        used: dict[str, int] = {}
        out = {}
        for name, phase in phases.items():
            size = len(phase.gpus)
            begin = used.get(phase.hardware, 0)
            if begin + size > self.spec.spec.of(phase).hardware.gpus:
                return None
            out[name] = range(begin, begin + size)
            used[phase.hardware] = begin + size
        return out

    def at(
        self, chosen: Mapping[str, Found], system: Sequence[System], tokens: Mapping[str, int]
    ) -> tuple[tuple[float, ...], Ranked] | None:
        """The pair on GPUs of its own."""
        ids = self.placed({name: one.plan.phase for name, one in chosen.items()})
        assert ids is not None
        values: dict[str, dict[str, Word | range]] = {
            name: {**one.values, "gpus": ids[name]} for name, one in chosen.items()
        }
        phases: dict[str, tuple[Phase, Mapping[str, Word | range]]] = {}
        for name, own in values.items():
            phase = self.spec.phase(name, own, Collector())
            if phase is None:
                return None
            phases[name] = phase, own
        plans = self.compiled(phases)
        if plans is None:
            return None
        rate = min(float(plan.the_estimate.throughput_tok_s) / tokens[name] for name, plan in plans.items())
        split = Split(rate, float(_gpus(plans)), float(self.output))
        scores = tuple(float(o.score(split)) for o in system)
        return scores, Ranked(
            values, tuple(o.shown(s) for o, s in zip(system, scores, strict=True)), plans, _gpus(plans)
        )


def _gpus(plans: Mapping[str, Plan]) -> int:
    """Different GPUs of all phases."""
    return len({(plan.phase.hardware, gpu) for plan in plans.values() for gpu in plan.phase.gpus})
