"""deployed: prefill and decode as one deployment: pairs of plans, judged by what both keep up with on all their GPUs, or by figures of each.

A figure of a pair gets no worse when one of its plans has more throughput on no more GPUs. So the best pairs, as many as are asked for, are found
among plans of each phase that fewer others than this are better than in both (its band). Pairs are compiled in the order of what their
plans are alone; each that turns out to be refused, or worse, takes one such promise away, and then the band is searched wider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from ...base.diagnostics import Collector
from ...base.frozen import record
from ...lang.open_spec import OpenSpec
from ...spec.hardware import Hardware
from ...spec.phase import Phase
from .answer import Answer, Joined, Ranked, Searched
from .apart import Apart, Told
from .best_first import LEFT, SLACK, Found, Outcome
from .exact import Plan
from .joint import Joint, gpus_of, placed
from .nearest import near_of
from .objectives import TABLE, Floats, Objective, Split, System, product_of, rate
from .rules import GPUS
from .space import Flags, Ints, Word

MORE = 4
"""Times as wide, where a band does not suffice."""
Asked = Objective | System


@record(slots=False)
class Side:
    """Plans of one phase: requests per second and scores by objective (as far as they are its own), and a place in `phases`, of which there is
    one for each set of GPUs."""

    found: Sequence[Found]
    rate: Floats
    scores: Mapping[int, Floats]
    at: Ints
    phases: Sequence[Phase]


@record(slots=False)
class Pairs:
    """Every pair of plans of two sides, flat. `scores`: of each objective, less is better; `gpus`: of both. `fits`: there are enough GPUs."""

    scores: Sequence[Floats]
    gpus: Floats
    fits: Flags
    width: int

    def places(self, flat: int) -> tuple[int, int]:
        return divmod(flat, self.width)


@dataclass
class Deployed:
    """`spaces`: of the two phases. `divides`: both leave their number of GPUs open, so each has GPUs of its own. `front`: pairs that no
    other is better than in all objectives; else of several objectives the product of their ratios counts."""

    spec: OpenSpec
    spaces: Mapping[str, Apart]
    asked: Sequence[Asked]
    until: float | None
    told: Told | None
    divides: bool
    front: bool
    joint: Joint = field(init=False)

    def __post_init__(self) -> None:
        self.joint = Joint(self.spec, self.spaces, self.until)

    def search(self, top: int) -> Answer:
        began, joint = perf_counter(), self.joint
        band = 1 if self.front else top
        done: dict[tuple[int, int], Ranked | None] = {}
        while True:
            found: dict[str, Outcome] = {}
            for name, space, until in joint.turns():
                found[name], stopped = space.search(self.wanted(name), band, until, self.told, band)
                joint.stopped |= stopped
            sides = [self.side(name, found[name].front) for name in self.spaces]
            ranked, doubts = self.tried(sides, top, done)
            whole = all(len(o.front) == len(o.found) and not o.certificate.bounded for o in found.values())
            sure = doubts < band or whole
            if sure or joint.stopped or joint.late:
                break
            band = max(MORE * band, doubts + 1)
        looked_at = all(outcome.certificate.complete for outcome in found.values())
        searched = {
            name: Searched(name, tuple(self.wanted(name)), self.spaces[name].domains, outcome, near_of(self.spaces[name], outcome))
            for name, outcome in found.items()
        }  # fmt: skip
        gap = None if sure and looked_at else self.gap(found, ranked)
        joined = Joined(
            joint.tried,
            joint.refused,
            sure and not joint.broken,
            joint.broken,
            gap,
            reasons=joint.reasons.counts,
            near=() if ranked else joint.reasons.nearest,
        )
        objectives = tuple(one.as_objective if isinstance(one, System) else one for one in self.asked)
        return Answer(
            objectives, tuple(ranked), searched, perf_counter() - began, joined, joint.stopped, front=self.front
        )

    def wanted(self, name: str) -> list[Objective]:
        """What makes a plan of one phase better for a pair."""
        own = [one for one in self.asked if isinstance(one, Objective) and one.phase == name]
        system = any(isinstance(one, System) for one in self.asked)
        known = {one.name for one in own}
        more = [*(["throughput"] if system else []), *(["gpus"] if self.is_open(name) else [])]
        added = [one for one in more if one not in known] or ([] if own else ["throughput_per_gpu"])
        return [*own, *(replace(TABLE[one], phase=name) for one in added)]

    def is_open(self, name: str) -> bool:
        return any(choice.path == GPUS for choice in self.spec.of(name))

    def tokens(self, name: str) -> int:
        """Of a request, in this phase."""
        facts = self.spaces[name].facts
        return facts.new if facts.phase.kind == "prefill" else self.spec.spec.workload.output

    # -- pairs -------------------------------------------------------------------------------------

    def side(self, name: str, found: Sequence[Found]) -> Side:
        sets: dict[tuple[str, Sequence[int]], int] = {}
        phases: list[Phase] = []
        at = []
        for one in found:
            phase = one.plan.phase
            key = phase.hardware, tuple(phase.gpus)
            if key not in sets:
                sets[key] = len(phases)
                phases.append(phase)
            at.append(sets[key])
        names = [objective.name for objective in self.wanted(name)]
        scores = {
            k: np.array([one.scores[names.index(o.name)] for one in found], dtype=np.float64)
            for k, o in enumerate(self.asked)
            if isinstance(o, Objective) and o.phase == name
        }
        rates = np.array([one.plan.the_estimate.throughput_tok_s for one in found], dtype=np.float64)
        return Side(found, rates / self.tokens(name), scores, np.array(at, dtype=np.int64), phases)

    def pairs(self, first: Side, second: Side) -> Pairs:
        """What every pair would be, if each plan were what it is alone."""
        sets = [[self.split(one, other) for other in second.phases] for one in first.phases]
        rows, columns = first.at[:, None], second.at[None, :]
        fits = np.array([[s is not None for s in row] for row in sets], dtype=bool)[rows, columns]
        shared, gpus, price, power = (
            np.array([[nothing if s is None else s[k] for s in row] for row in sets])[rows, columns]
            for k, nothing in enumerate((False, np.nan, np.nan, np.nan))
        )
        both = rate(first.rate[:, None], second.rate[None, :], shared)
        split = Split(both, gpus, float(self.spec.spec.workload.output), price, power)
        shape = len(first.found), len(second.found)
        scores = []
        for k, one in enumerate(self.asked):
            if isinstance(one, System):
                score = np.asarray(one.score(split))
            else:
                score = first.scores[k][:, None] if k in first.scores else second.scores[k][None, :]
            scores.append(np.broadcast_to(score, shape).ravel())
        return Pairs(scores, gpus.ravel(), fits.ravel(), shape[1])

    def split(self, one: Phase, other: Phase) -> tuple[bool, float, float, float] | None:
        """Of GPUs of two phases: whether they share some, how many there are, their price and power; None: there are not enough."""
        if self.divides:
            if placed(self.spec.spec, [one, other]) is None:
                return None
            shared, sizes = False, [(p.hardware, len(p.gpus)) for p in (one, other)]
        else:
            shared = one.shares(other)
            more = len(set(other.gpus) - set(one.gpus)) if one.hardware == other.hardware else len(other.gpus)
            sizes = [(one.hardware, len(one.gpus)), (other.hardware, more)]
        price, power = self.price_and_power(sizes)
        return shared, float(sum(count for _, count in sizes)), price, power

    def price_and_power(self, sizes: Sequence[tuple[str, int]]) -> tuple[float, float]:
        """Per second and in watts, of so many GPUs of pools."""
        price, power = (
            sum(count * _given(self.pool(name), what) for name, count in sizes) for what in ("price_per_s", "power_W")
        )
        return price, power

    def pool(self, name: str) -> Hardware:
        spec = self.spec.spec
        return spec.pools.get(name, spec.hardware)

    # -- pairs that are compiled -------------------------------------------------------------------

    def tried(
        self, sides: Sequence[Side], top: int, done: dict[tuple[int, int], Ranked | None]
    ) -> tuple[list[Ranked], int]:
        """The best pairs, and how many turned out to be less than they promised, or were compiled before as many were found. `done`: what was
        compiled already, by rows."""
        first, second = sides
        if not first.found or not second.found:
            return [], 0
        pairs = self.pairs(first, second)
        if not pairs.fits.any():
            self.too_few(first, second)
        try:
            if self.front:
                return self.best_front(sides, pairs, done)
            return self.best(sides, pairs, top, done)
        except KeyboardInterrupt:
            self.joint.stopped = True
            return self.ordered([one for one in done.values() if one is not None], top), len(pairs.gpus)

    def too_few(self, first: Side, second: Side) -> None:
        """No pair has GPUs of its own: the one that asks fewest."""
        one, other = (min(side.found, key=lambda found: len(found.plan.phase.gpus)) for side in (first, second))
        wanted = len(one.plan.phase.gpus) + len(other.plan.phase.gpus)
        pool = self.pool(one.plan.phase.hardware)
        chosen = {name: dict(found.values) for name, found in zip(self.spaces, (one, other), strict=True)}
        self.joint.reasons.add("gpus", f"{wanted} GPUs for both, of {pool.gpus}", wanted / pool.gpus - 1, chosen)

    def best(
        self, sides: Sequence[Side], pairs: Pairs, top: int, done: dict[tuple[int, int], Ranked | None]
    ) -> tuple[list[Ranked], int]:
        total = np.asarray(product_of(self.asked, pairs.scores))
        order = np.flatnonzero(pairs.fits & np.isfinite(total))
        order = order[np.lexsort((order, pairs.gpus[order], total[order]))]
        out: list[tuple[float, Ranked]] = []
        last = float("inf")
        counted = 0
        for flat in order.tolist():
            if total[flat] >= last:
                break
            if self.joint.enough(len(out)):
                return self.ordered([one for _, one in out], top), len(order)
            counted += 1
            one = self.at(sides, pairs, flat, done)
            if one is None:
                continue
            out.append((self.total_of(one), one))
            if len(out) >= top:
                last = sorted(t for t, _ in out)[top - 1]
        doubts = sum(1 for flat in order[:counted].tolist() if total[flat] < last - abs(last) * SLACK) if len(out) >= top else len(order)  # fmt: skip
        return self.ordered([one for _, one in out], top), doubts

    def best_front(
        self, sides: Sequence[Side], pairs: Pairs, done: dict[tuple[int, int], Ranked | None]
    ) -> tuple[list[Ranked], int]:
        out: list[tuple[tuple[float, ...], Ranked]] = []
        columns = np.stack(pairs.scores, axis=1)
        left = pairs.fits & np.all(np.isfinite(columns), axis=1)
        doubts = 0
        while left.any():
            for scores, _ in out:
                left &= ~np.all(columns >= np.asarray(scores), axis=1)
            at = np.flatnonzero(left)
            edge = at[undominated(columns[at], pairs.gpus[at])]
            for flat in edge.tolist():
                if self.joint.enough(len(out)):
                    return _front(out), len(left)
                left[flat] = False
                one = self.at(sides, pairs, flat, done)
                if one is not None:
                    out.append((self.scores_of(one), one))
                if one is None or any(
                    a > b + abs(b) * SLACK for a, b in zip(out[-1][0], columns[flat].tolist(), strict=True)
                ):
                    doubts += 1
        return _front(out), doubts

    def at(
        self, sides: Sequence[Side], pairs: Pairs, flat: int, done: dict[tuple[int, int], Ranked | None]
    ) -> Ranked | None:
        """The pair compiled, each phase beside the other; None where they do not fit or fail a requirement."""
        chosen = [side.found[place] for side, place in zip(sides, pairs.places(flat), strict=True)]
        key = chosen[0].row, chosen[1].row
        if key not in done:
            done[key] = one = self.compiled(dict(zip(self.spaces, chosen, strict=True)))
            if one is not None and any(
                a < b - abs(b) * SLACK
                for a, b in zip(self.scores_of(one), (float(s[flat]) for s in pairs.scores), strict=True)
            ):
                self.joint.broken += 1
        return done[key]

    def compiled(self, chosen: Mapping[str, Found]) -> Ranked | None:
        values: dict[str, dict[str, Word | range]] = {name: dict(one.values) for name, one in chosen.items()}
        phases = {name: one.plan.phase for name, one in chosen.items()}
        if self.divides:
            ids = placed(self.spec.spec, list(phases.values()))
            assert ids is not None
            for name, own in zip(phases, ids, strict=True):
                values[name][GPUS] = own
                phase = self.spec.phase(name, values[name], Collector())
                if phase is None:
                    return None
                phases[name] = phase
        plans = self.joint.compiled({name: (phase, values[name]) for name, phase in phases.items()})
        if plans is None:
            return None
        figures = tuple(self.figures(plans))
        return Ranked(values, figures, plans, gpus_of(plans))

    def figures(self, plans: Mapping[str, Plan]) -> Iterator[float]:
        one, other = (plan.phase for plan in plans.values())
        rates = [float(plan.the_estimate.throughput_tok_s) / self.tokens(name) for name, plan in plans.items()]
        more = set(other.gpus) - set(one.gpus) if one.hardware == other.hardware else set(other.gpus)
        sizes = [(one.hardware, len(one.gpus)), (other.hardware, len(more))]
        price, power = self.price_and_power(sizes)
        both = float(rate(rates[0], rates[1], one.shares(other)))
        split = Split(both, float(gpus_of(plans)), float(self.spec.spec.workload.output), price, power)
        for asked in self.asked:
            if isinstance(asked, System):
                yield float(asked.figure(split))
            else:
                yield asked.shown(self.spaces[asked.phase].judge.score(asked, plans[asked.phase]))

    # -- what is better ----------------------------------------------------------------------------

    def scores_of(self, one: Ranked) -> tuple[float, ...]:
        return tuple(f if o.better == "lower" else -f for o, f in zip(self.asked, one.figures, strict=True))

    def total_of(self, one: Ranked) -> float:
        return float(product_of(self.asked, self.scores_of(one)))

    def ordered(self, found: Sequence[Ranked], top: int) -> list[Ranked]:
        if self.front:
            return _front([(self.scores_of(one), one) for one in found])
        return sorted(found, key=lambda one: (self.total_of(one), one.gpus))[:top]

    # -- what was not looked at --------------------------------------------------------------------

    def gap(self, found: Mapping[str, Outcome], ranked: Sequence[Ranked]) -> float | None:
        """By which share of the best figure a pair could be better at most, by the bounds of what was not looked at; None: that is not known."""
        if not ranked or len(self.asked) > 1 or not isinstance(self.asked[0], System):
            return None
        sides = [self.optimistic(name, outcome) for name, outcome in found.items()]
        if not all(len(side.rate) for side in sides):
            return None
        pairs = self.pairs(sides[0], sides[1])
        possible = pairs.scores[0][pairs.fits]
        best = self.total_of(ranked[0])
        least = float(possible.min()) if len(possible) else best
        return None if not np.isfinite(least) or not best else max(0.0, best - least) / abs(best)

    def optimistic(self, name: str, outcome: Outcome) -> Side:
        """The most throughput that a plan on each set of GPUs has, or could have."""
        space = self.spaces[name]
        rows = np.flatnonzero(outcome.fates.code == LEFT)
        (bound,) = space.pieces.bound((TABLE["throughput"],))
        most: dict[tuple[str, Sequence[int]], tuple[float, Phase]] = {}
        for one in outcome.found:
            phase, own = one.plan.phase, float(one.plan.the_estimate.throughput_tok_s)
            key = phase.hardware, tuple(phase.gpus)
            most[key] = max(most.get(key, (0.0, phase)), (own, phase), key=lambda pair: pair[0])
        counts = np.broadcast_to(space.rows.number(GPUS), (len(space.rows),))[rows]
        for count in np.unique(counts).tolist():
            here = rows[counts == count]
            best = int(here[np.argmin(bound[here])])
            read = self.spec.phase(name, space.rows.values(best), Collector())
            if read is not None:
                key = read.hardware, tuple(read.gpus)
                most[key] = max(most.get(key, (0.0, read)), (-float(bound[best]), read), key=lambda pair: pair[0])
        tokens = self.tokens(name)
        rates = np.array([own / tokens for own, _ in most.values()], dtype=np.float64)
        nothing: list[Found] = [None] * len(most)  # type: ignore[list-item]
        return Side(nothing, rates, {}, np.arange(len(most)), [phase for _, phase in most.values()])


def _given(pool: Hardware, what: str) -> float:
    value: float | None = getattr(pool, what)
    return float("nan") if value is None else value


def undominated(columns: Floats, gpus: Floats) -> Ints:
    """Places of the rows that no other is at least as good as in all columns; of equals the one on fewest GPUs; best of the first first."""
    order = np.lexsort((gpus, *columns.T[::-1]))
    out = []
    while len(order):
        first = order[0]
        out.append(int(first))
        order = order[~np.all(columns[order] >= columns[first], axis=1)]
    return np.array(out, dtype=np.int64)


def _front(found: Sequence[tuple[tuple[float, ...], Ranked]]) -> list[Ranked]:
    out: list[tuple[tuple[float, ...], Ranked]] = []
    for scores, one in sorted(found, key=lambda pair: (pair[0], pair[1].gpus)):
        if not any(all(a <= b for a, b in zip(other, scores, strict=True)) for other, _ in out):
            out.append((scores, one))
    return [one for _, one in out]
