"""optimum: the best plan of an open spec: of one phase, of several together, and of prefill and decode that divide their GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from time import perf_counter

from ...base.frozen import record, replace
from ...base.phase_kinds import TRAIN
from ...lang.open_spec import OpenSpec
from ...plan.require import owners
from .answer import Answer, Joined, Ranked, Searched
from .apart import Apart, Told
from .best_first import Found, dominates
from .by_serving import Served, domains_of
from .deployed import Deployed
from .exact import Allowed, closed_phases
from .nearest import NAMED, near_of
from .objectives import (
    TOGETHER,
    NoObjective,
    Objective,
    System,
    check_given,
    objective,
    of_serving,
    of_system,
    product_of,
    scored,
    usual,
)
from .rules import GPUS, HARDWARE
from .space import Word
from .together import Together
from .under_traffic import UnderTraffic
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
    """Of a deployment whose phases leave their pools open, every way to choose these: what GPUs are left for one phase, and what those of
    both cost, follows from the pool of the other."""
    kinds = _open(spec, asked)
    free: dict[str, tuple[Word, ...]] = {}
    if not _served(spec, asked) and deployment(spec, asked, kinds) is not None:
        free = {name: c.values for name in kinds for c in spec.of(name) if c.path == HARDWARE}
    for pools in product(*free.values()):
        chosen = dict(zip(free, pools, strict=True))
        phases = {
            name: one if name not in chosen else replace(one, choices=tuple(
                replace(c, values=(chosen[name],)) if c.path == HARDWARE else c for c in one.choices
            ))
            for name, one in spec.phases.items()
        }  # fmt: skip
        yield " ".join(map(str, pools)), replace(spec, phases=phases) if chosen else spec


def _open(spec: OpenSpec, asked: Asked) -> dict[str, str]:
    """Kinds of the phases that are searched, by name."""
    return {
        p.name: p.kind
        for p in (*spec.spec.phases, *spec.spec.trainings)
        if (spec.of(p.name) or p.name in spec.spec.alternatives) and (not asked.phases or p.name in asked.phases)
    }


def _cut_by_compiler(spec: OpenSpec, name: str) -> bool:
    """Whether a phase that trains leaves its stages or its GPUs to the compiler, or may."""
    s = spec.spec.phase(name).strategy
    return (
        s.balanced
        or s.best
        or any(c.path == "stages" and "balanced" in (c.values or ("balanced",)) for c in spec.of(name))
    )


def _served(spec: OpenSpec, asked: Asked) -> list[Objective]:
    """Objectives that are figures of servings. Raises NoObjective."""
    serves = [*spec.serves] if not asked.phases else []
    return [one for word in asked.objectives if (one := of_serving(word, serves)) is not None]


Deployment = tuple[list[Objective | System], bool, bool]
"""Objectives of prefill and decode, whether their front is sought, and whether both leave their GPUs open."""


def deployment(spec: OpenSpec, asked: Asked, kinds: Mapping[str, str]) -> Deployment | None:
    """What is asked of prefill and decode together; None where other phases are open, or each is asked for a figure of its own on GPUs that
    are given. Raises NoObjective."""
    if sorted(kinds.values()) != ["decode", "prefill"]:
        return None
    goals: dict[tuple[str, str], Objective | System] = {}
    serves = [*spec.serves] if not asked.phases else []
    for word in asked.objectives or ("throughput_per_gpu",):
        one = of_system(word) or objective(word, kinds, serves)
        goals[one.phase if isinstance(one, Objective) else TOGETHER, one.name] = one
    own = [one for one in goals.values() if isinstance(one, Objective)]
    divides = all(any(choice.path == GPUS for choice in spec.of(name)) for name in kinds)
    front = len(goals) > 1 and (len(own) < len(goals) or len({one.phase for one in own}) < len(own))
    if own and not front:
        if not divides:
            return None
        named = {one.phase: one for one in own}
        return [named.get(name) or usual(name, kind) for name, kind in kinds.items()], False, True
    return [*goals.values()], front, divides


def _text(spec: OpenSpec, one: Ranked) -> str:
    return spec.text({name: dict(values) for name, values in one.values.items()})


def _merged(answers: Sequence[Answer], asked: Asked, seconds: float, labels: Sequence[str] = ()) -> Answer:
    """The best of several spaces, which alternatives make, or pools, which `labels` name."""
    first = answers[0]
    if len(answers) == 1:
        return replace(first, seconds=seconds)
    every = [one for answer in answers for one in answer.ranked]
    scores = {id(one): scored(first.objectives, one.figures) for one in every}
    if first.front:
        every.sort(key=lambda one: (scores[id(one)], one.gpus, one.slow_B))
        kept: list[Ranked] = []
        for one in every:
            if not any(dominates(scores[id(o)], scores[id(one)]) for o in kept):
                kept.append(one)
        every = kept
    else:
        every.sort(key=lambda one: (product_of(first.objectives, scores[id(one)]), one.gpus, one.slow_B))
    said = labels or [
        " ".join(next(iter(a.ranked)).picked.values()) if a.ranked else str(k) for k, a in enumerate(answers)
    ]
    searched = {
        f"{name} ({label})": one for label, a in zip(said, answers, strict=True) for name, one in a.searched.items()
    }
    cut = every if first.front else every[: asked.top]
    return Answer(
        first.objectives,
        tuple(cut),
        searched,
        seconds,
        _joined(answers),
        any(a.interrupted for a in answers),
        first.front,
    )


def _joined(answers: Sequence[Answer]) -> Joined | None:
    found = [answer.joined for answer in answers if answer.joined is not None]
    if not found:
        return None
    tried, refused, broken = (sum(getattr(one, what) for one in found) for what in ("tried", "refused", "broken"))
    reasons = sum((Counter(one.reasons) for one in found), Counter[str]())
    nearest = sorted((near for one in found for near in one.near), key=lambda near: near.excess)
    near = () if any(answer.ranked for answer in answers) else tuple(nearest[:NAMED])
    gaps = [one.gap for one in found if one.gap is not None]
    return Joined(
        tried,
        refused,
        all(one.complete for one in found),
        broken,
        max(gaps, default=None),
        sum(one.left for one in found),
        dict(reasons),
        near,
    )


def _one(
    spec: OpenSpec, asked: Asked, until: float | None, told: Told | None, text: Text | None, run: Run | None
) -> Answer:
    kinds, began = _open(spec, asked), perf_counter()
    open_ = [*kinds]
    if not open_ and not spec.spec.alternatives and not any(spec.of(name) for name in spec.serves):
        raise Nothing
    serves = [*spec.serves] if not asked.phases else []
    served = _served(spec, asked)
    settings = {name: domains_of(spec.of(name)) for name in serves if spec.of(name)}
    if served and len(served) < len(asked.objectives):
        other = next(word for word in asked.objectives if of_serving(word, serves) is None)
        metric = other.rpartition(".")[2] if other.count(".") == 1 else other
        why = f"`{other}` is no figure of a serving, and a search is by those or by those of phases"
        raise NoObjective(
            other, f"figures of servings: {', '.join(f'`{one}.{metric}`' for one in serves[:8])}, if that is meant", why
        )
    if settings and not served:
        name = next(iter(settings))
        raise NoObjective(
            name,
            f"search by one of its figures, such as `{name}.goodput`",
            f"the serving `{name}` leaves choices open, and no figure of it is asked for",
        )
    trained = next((name for name, kind in kinds.items() if kind == TRAIN.name), None)
    if trained is not None and len(open_) > 1:
        why = f"phase `{trained}` trains, and is searched alone; {len(open_)} phases are open"
        raise NoObjective(trained, f"search it alone: `--phase {trained}`", why)
    if trained is not None and asked.allowed is not None:
        help_ = "leave `--engine` out"
        raise NoObjective(trained, help_, f"phase `{trained}` trains: `--engine` is for inference alone")
    if trained is not None and _cut_by_compiler(spec, trained):
        help_ = "leave it out, and write it into the plan that is found"
        raise NoObjective(
            trained,
            help_,
            f"phase `{trained}` trains: a search has equal stages in the order of its axes, no `stages = balanced` or `place = best`",
        )
    others = closed_phases(spec)
    merged = not served and asked.allowed is None
    spaces: dict[str, Apart] = {}
    for name in open_:
        when = began if any(one.stopped for one in spaces.values()) else until  # Ctrl-C is for all of them
        spaces[name] = Apart(
            spec,
            name,
            others,
            asked.within,
            open_,
            merged=merged,
            text=text,
            run=run,
            allowed=asked.allowed,
            until=when,
        )
    if served:
        check_given(served, spec.spec.pools)
        return Served(spec, spaces, settings, until, told).search(served, asked.top)
    asks = any(owners(r) & {*serves} for r in spec.spec.requirements)
    kept = UnderTraffic(spec, asked.allowed, until).best if asks else lambda find, top: find(top)
    if (pair := deployment(spec, asked, kinds)) is not None:
        goals, front, divides = pair
        check_given([one for one in goals if not isinstance(one, Objective)], spec.spec.pools)
        for name in open_:
            check_given(
                [one for one in goals if isinstance(one, Objective) and one.phase == name], spaces[name].facts.pools
            )
        return kept(
            lambda top: Deployed(spec, spaces, goals, until, told, divides=divides, front=front).search(top), asked.top
        )
    wanted: dict[str, list[Objective]] = {}
    for word in asked.objectives:
        one = objective(word, kinds, serves)
        wanted.setdefault(one.phase, []).append(one)
        if "." not in word:  # of every phase that has such a figure
            for name, kind in kinds.items():
                if name != one.phase and one.name not in ("ttft", "tpot", "step_time"):
                    wanted.setdefault(name, []).append(objective(word, {name: kind}))
    for name, kind in kinds.items():
        wanted.setdefault(name, [usual(name, kind)])
    wanted = {name: list(dict.fromkeys(own)) for name, own in wanted.items()}
    for name in open_:
        check_given(wanted[name], spaces[name].facts.pools)
    if len(open_) > 1 and (several := next((own for own in wanted.values() if len(own) > 1), None)) is not None:
        help_ = f"search `{several[0].phase}` alone: `--phase {several[0].phase}`"
        raise NoObjective(
            f"{several[1].phase}.{several[1].name}",
            help_,
            f"a front is of one phase, or of prefill and decode; {len(open_)} phases are open",
        )
    if len(open_) == 1:
        return kept(lambda top: _alone(spaces[open_[0]], wanted[open_[0]], top, until, told), asked.top)
    return kept(lambda top: Together(spec, spaces, until, told).beside(wanted, top), asked.top)


def _alone(space: Apart, objectives: Sequence[Objective], top: int, until: float | None, told: Told | None) -> Answer:
    began = perf_counter()
    outcome, stopped = space.search(objectives, top, until, told)
    chosen = outcome.front if len(objectives) > 1 else ordered(outcome.found, top)
    ranked = tuple(ranked_one(space.name, one, objectives) for one in chosen)
    searched = Searched(space.name, tuple(objectives), space.domains, outcome, near_of(space, outcome))
    return Answer(
        tuple(objectives), ranked, {space.name: searched}, perf_counter() - began, None, stopped, len(objectives) > 1
    )


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
    return one.plan.costed.slow_B


def ranked_one(name: str, one: Found, objectives: Sequence[Objective]) -> Ranked:
    figures = tuple(o.shown(s) for o, s in zip(objectives, one.scores, strict=True))
    return Ranked({name: dict(one.values)}, figures, {name: one.plan}, len(one.plan.phase.gpus), slow_B(one))
