"""optimum: the best plan of an open spec: of one phase, of several together, and of prefill and decode that divide their GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from time import perf_counter

from ...base.frozen import record
from ...lang.open_spec import OpenSpec
from .answer import Answer, Joined, Ranked, Searched
from .apart import Apart, Told
from .best_first import Found
from .by_serving import Served, domains_of
from .exact import Allowed, closed_phases
from .nearest import near_of
from .objectives import NoObjective, Objective, check_given, objective, of_serving, of_system, usual
from .rules import GPUS, HARDWARE
from .together import Together
from .workers import Run, Text, running


class Nothing(ValueError):
    """A spec that leaves nothing open."""


@record
class Asked:
    """What is searched for. `phases`: these alone (none: all that are open). `budget_s`: seconds after which the best so far will do. `workers`: processes
    that cost plans; `on`: a cluster that does instead, `dask://HOST:PORT` or `ray://HOST:PORT`. `allowed`: who else must run a plan, such as
    an engine."""

    objectives: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    top: int = 3
    budget_s: float | None = None
    workers: int = 1
    on: str = ""
    allowed: Allowed | None = None


def search(spec: OpenSpec, asked: Asked, told: Told | None = None, text: Text | None = None) -> Answer:
    """The best plans. `text`: the spec as other processes can read it; without one this process costs all. Raises ClusterError, Nothing, NoObjective, Unbounded, TooLarge, Wrong, and SpecError where the spec itself is wrong."""
    began = perf_counter()
    until = None if asked.budget_s is None else began + asked.budget_s
    with running(asked.workers, asked.on) as run:
        return _over_alternatives(spec, asked, Time(began, until), told, text, run)


@record
class Time:
    """When a search began, and when it stops."""

    began: float
    until: float | None


def _over_alternatives(
    spec: OpenSpec, asked: Asked, time: Time, told: Told | None, text: Text | None, run: Run | None
) -> Answer:
    answers: list[Answer] = []
    choices = spec.alternatives
    for names in product(*choices.values()):
        picked = dict(zip(choices, names, strict=True))
        own = spec.under(picked) if picked else spec
        same = None if text is None else replace(text, picked=tuple(picked.items()))
        parts: dict[str, Answer] = {}
        for label, part in _by_pools(own, asked):
            parts[label] = _one(part, asked, time.until, told, same, run)
            if parts[label].interrupted:
                break
        found = _merged(list(parts.values()), asked, 0.0, list(parts))
        ranked = (replace(one, picked=picked, text=_text(own, one)) for one in found.ranked)
        answers.append(replace(found, ranked=tuple(ranked)))
    return _merged(answers, asked, perf_counter() - time.began)


def _by_pools(spec: OpenSpec, asked: Asked) -> Iterator[tuple[str, OpenSpec]]:
    """Where phases that divide GPUs leave their pools open, every way to choose these: how many GPUs are left for one follows from the
    pool of the other."""
    names = [p.name for p in spec.spec.phases if not asked.phases or p.name in asked.phases]
    divided = [name for name in names if any(choice.path == GPUS for choice in spec.of(name))]
    free = (
        {name: c.values for name in divided for c in spec.of(name) if c.path == HARDWARE} if len(divided) == 2 else {}
    )
    for pools in product(*free.values()):
        chosen = dict(zip(free, pools, strict=True))
        phases = {
            name: one if name not in chosen else replace(one, choices=tuple(
                replace(c, values=(chosen[name],)) if c.path == HARDWARE else c for c in one.choices
            ))
            for name, one in spec.phases.items()
        }  # fmt: skip
        yield " ".join(map(str, pools)), replace(spec, phases=phases) if chosen else spec


def _text(spec: OpenSpec, one: Ranked) -> str:
    return spec.text({name: dict(values) for name, values in one.values.items()})


def _merged(answers: Sequence[Answer], asked: Asked, seconds: float, labels: Sequence[str] = ()) -> Answer:
    """The best of several spaces, which alternatives make, or pools, which `labels` name."""
    first = answers[0]
    if len(answers) == 1:
        return replace(first, seconds=seconds)
    signs = [1 if o.better == "lower" else -1 for o in first.objectives]
    every = [one for answer in answers for one in answer.ranked]
    scores = {id(one): tuple(s * v for s, v in zip(signs, one.figures, strict=True)) for one in every}
    every.sort(key=lambda one: (scores[id(one)], one.gpus, one.slow_B))
    if len(signs) > 1:
        kept: list[Ranked] = []
        for one in every:
            if not any(
                all(a <= b for a, b in zip(scores[id(o)], scores[id(one)], strict=True))
                and scores[id(o)] != scores[id(one)]
                for o in kept
            ):
                kept.append(one)
        every = kept
    said = labels or [
        " ".join(next(iter(a.ranked)).picked.values()) if a.ranked else str(k) for k, a in enumerate(answers)
    ]
    searched = {
        f"{name} ({label})": one for label, a in zip(said, answers, strict=True) for name, one in a.searched.items()
    }
    cut = every if len(signs) > 1 else every[: asked.top]
    return Answer(
        first.objectives, tuple(cut), searched, seconds, _joined(answers), any(a.interrupted for a in answers)
    )


def _joined(answers: Sequence[Answer]) -> Joined | None:
    found = [answer.joined for answer in answers if answer.joined is not None]
    if not found:
        return None
    tried, refused, broken = (sum(getattr(one, what) for one in found) for what in ("tried", "refused", "broken"))
    return Joined(tried, refused, all(one.complete for one in found), broken)


def _one(
    spec: OpenSpec, asked: Asked, until: float | None, told: Told | None, text: Text | None, run: Run | None
) -> Answer:
    known = [p.name for p in spec.spec.phases]
    free = {name for name in known if spec.of(name) or name in spec.spec.alternatives}
    open_ = [name for name in known if name in free and (not asked.phases or name in asked.phases)]
    if not open_ and not spec.spec.alternatives and not any(spec.of(name) for name in spec.serves):
        raise Nothing
    kinds = {name: spec.spec.phase(name).kind for name in open_}
    serves = [*spec.serves] if not asked.phases else []
    served = [one for word in asked.objectives if (one := of_serving(word, serves)) is not None]
    settings = {name: domains_of(spec.of(name)) for name in serves if spec.of(name)}
    if served and len(served) < len(asked.objectives):
        raise NoObjective(asked.objectives[0], "objectives of servings and of phases cannot be combined")
    if settings and not served:
        raise NoObjective(
            "of a phase",
            f"`{next(iter(settings))}` leaves choices open: search by one of its figures, such as `{next(iter(settings))}.goodput`",
        )
    others = closed_phases(spec)
    merged = not served and asked.allowed is None
    spaces = {
        name: Apart(spec, name, others, asked.within, open_, merged=merged, text=text, run=run, allowed=asked.allowed)
        for name in open_
    }
    if served:
        check_given(served, spec.spec.pools)
        return Served(spec, spaces, settings, until, told).search(served, asked.top)
    divided = [name for name in open_ if any(choice.path == "gpus" for choice in spec.of(name))]
    system = [of_system(word) for word in asked.objectives or ("throughput_per_gpu",)]
    if (
        len(open_) == len(divided) == 2
        and {*kinds.values()} == {"prefill", "decode"}
        and all(one is not None for one in system)
    ):
        found = tuple(one for one in system if one is not None)
        return Together(spec, spaces, until, told).divided(found, asked.top)
    wanted: dict[str, list[Objective]] = {}
    for word in asked.objectives:
        one = objective(word, kinds)
        wanted.setdefault(one.phase, []).append(one)
        if "." not in word:  # of every phase that has such a figure
            for name, kind in kinds.items():
                if name != one.phase and one.name not in ("ttft", "tpot", "step_time"):
                    wanted.setdefault(name, []).append(objective(word, {name: kind}))
    for name, kind in kinds.items():
        wanted.setdefault(name, [usual(name, kind)])
    for name in open_:
        check_given(wanted[name], spaces[name].facts.pools)
    if len(open_) == 1:
        return _alone(spaces[open_[0]], wanted[open_[0]], asked.top, until, told)
    return Together(spec, spaces, until, told).beside(wanted, asked.top)


def _alone(space: Apart, objectives: Sequence[Objective], top: int, until: float | None, told: Told | None) -> Answer:
    began = perf_counter()
    outcome, stopped = space.search(objectives, top, until, told)
    chosen = outcome.front if len(objectives) > 1 else ordered(outcome.found, top)
    ranked = tuple(ranked_one(space.name, one, objectives) for one in chosen)
    searched = Searched(space.name, tuple(objectives), space.domains, outcome, near_of(space, outcome))
    return Answer(tuple(objectives), ranked, {space.name: searched}, perf_counter() - began, None, stopped)


MOST_ALIKE = 24
"""Plans of equal figures whose bytes on the slowest links are compared."""


def ordered(found: Sequence[Found], top: int) -> list[Found]:
    """The best so many; of equals those on fewer GPUs, then with fewer bytes on the slowest links, then in the order of the space."""
    ranked = sorted(found, key=lambda one: (one.scores, len(one.plan.phase.gpus), one.row))
    out: list[Found] = []
    while ranked and len(out) < top:
        same = [
            one
            for one in ranked
            if (one.scores, len(one.plan.phase.gpus)) == (ranked[0].scores, len(ranked[0].plan.phase.gpus))
        ]
        ranked = ranked[len(same) :]
        if len(same) > 1:
            few = sorted(same[:MOST_ALIKE], key=lambda one: (slow_B(one), one.row))
            same = [*few, *same[MOST_ALIKE:]]
        out += same
    return out[:top]


def slow_B(one: Found) -> float:
    """Bytes that a GPU sends over the outermost links in a pass."""
    estimate = one.plan.the_estimate
    slowest = estimate.unit.spec.hardware.tiers[-1].name
    return sum(call.level_B.get(slowest, 0.0) for call in estimate.result.collectives)


def ranked_one(name: str, one: Found, objectives: Sequence[Objective]) -> Ranked:
    figures = tuple(o.shown(s) for o, s in zip(objectives, one.scores, strict=True))
    return Ranked({name: dict(one.values)}, figures, {name: one.plan}, len(one.plan.phase.gpus), slow_B(one))
