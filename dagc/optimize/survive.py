"""The plans that go on after GPUs were lost: each legal, compiled, judged and compared with the plan before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from math import isfinite

import numpy as np

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.frozen import field, mutable, record, replace
from ..lang.open_spec import OpenSpec
from ..lang.rewrite_phase import with_changed_phases
from ..pipeline import pools
from ..pipeline.changed import Changes, Held, with_phases
from ..pipeline.compile import compile_spec
from ..pipeline.moved import Moved, moved
from ..plan.plan import CompiledPlan
from ..plan.require import Verdict, judged, owners
from ..spec.phase import Phase
from ..spec.requirement import Requirement
from ..spec.spec import Spec
from .fewest import Fewest, fewest
from .largest import largest
from .layouts import layout_words
from .room import Fit
from .survivors import RELAY, SHRINK, Engine, Survivor, engines, spare_for, spare_nodes, unplaced

OF_EACH = 6
"""Plans of one engine that are combined with those of others, where several lost GPUs."""
COMBINED = 64
SHOWN = 8
"""Plans that are told."""
SERVED = 3
"""Plans whose servings are simulated, where a requirement asks for them."""
MOST_GPUS = 16_384
"""Of a phase."""
SPARE_EXPERTS = "spare experts"


@record
class Lost:
    """What a phase loses at once. `sequences` (of `of`): whose cache was on a lost GPU, wholly or in part; `kv_B`: bytes of cache on the
    lost GPUs; `restarted`: sequences that begin anew, those included: of ranks that stop, for which there is no place any more, or all
    where caches are laid out anew."""

    phase: str
    sequences: int
    of: int
    kv_B: float
    restarted: int


@record(slots=False)
class Kept:
    """A plan that goes on. `kept`: throughput of each phase that lost GPUs, over that before; `least_moved`: weights that GPUs fetch when
    they keep the experts that they have, `moved`: with experts balanced as the plan is priced; `broken`: requirements that held and do not any
    more, `unsaid`: those that cannot be asked of it; `idle`: GPUs of the phases that it leaves unused."""

    kind: str
    phases: tuple[Phase, ...]
    plan: CompiledPlan = field(repr=False)
    kept: Mapping[str, float]
    headroom: float
    lost: tuple[Lost, ...]
    verdicts: tuple[Verdict, ...] = field(repr=False)
    broken: tuple[str, ...]
    unsaid: tuple[str, ...]
    idle: tuple[int, ...] = ()
    served: bool = False
    moved: Moved = Moved()
    least_moved: Moved = Moved()

    @property
    def share(self) -> float:
        """Of the throughput, what the phase that loses most keeps."""
        return min(self.kept.values())

    @property
    def rank(self) -> tuple[float, ...]:
        """The smaller, the better: requirements first, then throughput."""
        return (len(self.broken) + len(self.unsaid), -round(self.share, 9), -round(sum(self.kept.values()), 9))


@record(slots=False)
class Stopped:
    """Phases that cannot go on: what each kind of plan was refused for, and the fewest GPUs that would hold them."""

    phases: tuple[str, ...]
    left: int
    refused: tuple[tuple[str, str], ...]
    fewest: Fewest | None


@record(slots=False)
class Survival:
    """`lost`: ids by pool; `unused`: those of them that no phase uses; `plans`: the best first, none where some phases stopped."""

    spec: Spec = field(repr=False)
    before: CompiledPlan = field(repr=False)
    lost: Mapping[str, tuple[int, ...]]
    unused: Mapping[str, tuple[int, ...]]
    touched: tuple[str, ...]
    headroom: float
    verdicts: tuple[Verdict, ...]
    plans: tuple[Kept, ...]
    stopped: tuple[Stopped, ...]
    tried: int

    @property
    def unchanged(self) -> bool:
        """No phase lost anything."""
        return not self.touched


def survive(opened: OpenSpec, lost: Mapping[str, frozenset[int]], *, top: int = SHOWN) -> Survival:
    """How a spec goes on without some GPUs: ids by pool. `top`: plans that are told, at most. Raises SpecError where it does not compile."""
    return _Survive(opened, lost, min(top, SHOWN)).answer()


def written(opened: OpenSpec, phases: Sequence[Phase]) -> str:
    """The spec of a plan that goes on. Raises SpecError where a phase is in an imported file."""
    return with_changed_phases(opened, phases)


@mutable
class _Survive:
    opened: OpenSpec
    lost: Mapping[str, frozenset[int]]
    top: int
    spec: Spec = field(init=False)
    before: CompiledPlan = field(init=False)
    changes: Changes = field(init=False)
    held: tuple[Requirement, ...] = ()
    tried: int = 0
    refused: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)
    compilations: dict[tuple[object, ...], CompiledPlan] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec = self.opened.spec
        self.before = compile_spec(replace(self.spec, requirements=(), serves=()), Collector())
        self.changes = Changes(self.before.spec, self.before.phases)

    def compiled(self, phases: tuple[Phase, ...], *, placed: bool = False) -> CompiledPlan:
        """The plan with some phases changed: these are compiled, with those that share a GPU with them before or after; once. In
        the default order of ranks, unless they are to be `placed` best where they say so. Raises SpecError."""
        key = (placed, *((p.name, p.gpus, p.sequences, p.strategy) for p in phases))
        found = self.compilations.get(key)
        if found is not None:
            return found
        spec = with_phases(self.spec, [self.changes.with_engine(phase) for phase in phases])
        if not placed:
            spec = replace(spec, phases=tuple(unplaced(phase) for phase in spec.phases))
        mine = {phase.name for phase in phases}
        near = [
            p.name for p in self.spec.phases
            if p.name in mine or any(p.shares(one) or p.shares(self.spec.phase(one.name)) for one in phases)
        ]  # fmt: skip
        part = compile_spec(replace(spec, requirements=(), serves=()), Collector(), near)
        order = [phase.name for phase in self.spec.phases]
        results = {name: part.phases.get(name) or self.before.phases[name] for name in order}
        units = {name: part.units.get(name) or self.before.units[name] for name in order}
        plan = replace(part, phases=results, units=units, pools=pools.run(results))
        self.compilations[key] = plan
        return plan

    def answer(self) -> Survival:
        """Raises SpecError with E09 where there are more GPUs than their pieces of weights can be counted for."""
        for phase in self.before.spec.phases:
            if len(phase.gpus) > MOST_GPUS:
                message = f"phase `{phase.name}` has {len(phase.gpus):,} GPUs: what is fetched is counted for up to {MOST_GPUS:,}"
                raise SpecError([Diagnostic("E09", message, phase.span)])
        found = engines(self.before, self.lost)
        touched = tuple(name for names in found for name in names)
        unused = {pool: tuple(sorted(own)) for pool, ids in self.lost.items() if (own := ids - self.used(pool))}
        verdicts = tuple(v for r in self.of_phases() if (v := self.judge(self.before, r)) is not None)
        self.held = tuple(v.requirement for v in verdicts if v.passed)
        plans: list[Kept] = []
        stopped: list[Stopped] = []
        if found:
            options = {names: self.of_engine(self.engine(names)) for names in found}
            stopped = [self.why_stopped(self.engine(names)) for names, own in options.items() if not own]
            if not stopped:
                ranked = sorted(self.combined(options), key=lambda one: one.rank)
                if any(phase.strategy.best for one in ranked for phase in one.phases):
                    ranked = sorted(map(self.placed, ranked[: self.top]), key=lambda one: one.rank)
                plans = [self.with_moves(one) for one in self.with_servings(ranked)[: self.top]]
        return Survival(
            self.spec, self.before, {pool: tuple(sorted(ids)) for pool, ids in self.lost.items()}, unused, touched, self.headroom(self.before, touched), verdicts,
            tuple(plans), tuple(stopped), self.tried,
        )  # fmt: skip

    def used(self, pool: str) -> frozenset[int]:
        """GPUs of a pool that some phase uses."""
        return frozenset(g for r in self.before.phases.values() if r.hardware == pool for g in r.gpus)

    def engine(self, names: tuple[str, ...]) -> Engine:
        """Phases on the same GPUs, with what they lost and what could take its place."""
        pool = self.before.phases[names[0]].hardware
        hardware, lost, used = self.spec.of(self.spec.phase(names[0])).hardware, self.lost[pool], self.used(pool)
        spare = tuple(g for g in range(hardware.gpus) if g not in used and g not in lost)
        to = spare_for(sorted(lost & used), spare, hardware.per_node)
        to_nodes = spare_nodes(lost & used, used, set(spare), hardware.per_node)
        return Engine(self.before, names, lost, to, to_nodes, spare)

    # -- one engine ------------------------------------------------------------------------------------

    def of_engine(self, engine: Engine) -> list[tuple[float, Survivor]]:
        """What its phases may do, what keeps most first; of equal figures, the first kind."""
        found: list[tuple[float, Survivor]] = []
        for survivor in engine.survivors():
            found += self.batches(survivor, engine.names)
        if not found:
            found += self.last_resort(engine)
        return sorted(found, key=lambda pair: -pair[0])

    def share(self, one: Survivor, names: tuple[str, ...]) -> float | None:
        """Of the throughput of its phases, what the one that loses most keeps; None where it does not compile or fit."""
        self.tried += 1
        try:
            plan = self.compiled(one.phases)
        except SpecError as error:
            self.refused.setdefault(names, {}).setdefault(one.kind, f"{words(one)}: {error.diagnostics[0].message}")
            return None
        mine = {phase.name for phase in one.phases}
        over = [pool for pool in plan.pools if mine & set(pool.phases) and not pool.fits]
        if over or not all(plan.phases[name].memory.fits for name in mine):
            why = max(over, key=lambda pool: pool.fraction) if over else None
            text = (
                f"{why.peak_B / 1e9:.4g} GB of {why.capacity_B / 1e9:.4g} GB on the fullest GPU"
                if why
                else "it does not fit"
            )
            self.refused.setdefault(names, {}).setdefault(one.kind, f"{words(one)}: {text}")
            return None
        return min(self.ratio(plan, name) for name in mine)

    def ratio(self, plan: CompiledPlan, name: str) -> float:
        before = self.before.phases[name].throughput_tok_s
        found = plan.phases[name].throughput_tok_s / before if before else 1.0
        return found if isfinite(found) else 0.0

    def batches(self, one: Survivor, names: tuple[str, ...]) -> Iterator[tuple[float, Survivor]]:
        """With the sequences as written, and with as many for each rank of the batch as before; where neither fits, the most that do."""
        scaled = replace(one, phases=tuple(self.scaled(phase) for phase in one.phases))
        options = [one] if scaled.phases == one.phases else [one, scaled]
        found = [(kept, option) for option in options if (kept := self.share(option, names)) is not None]
        if not found:
            most = self.most(scaled)
            found = [] if most is None or (kept := self.share(most, names)) is None else [(kept, most)]
        yield from found

    def scaled(self, phase: Phase) -> Phase:
        """A batch that gives every rank as many sequences as it had."""
        if phase.parts:
            return phase
        old = self.before.spec.phase(phase.name)
        ranks = phase.batching.ranks / old.batching.ranks
        return replace(phase, sequences=max(1, min(old.sequences, int(old.sequences * ranks + 1e-9))))

    def most(self, one: Survivor) -> Survivor | None:
        """The same share of every batch, the largest that fits; None where not even one sequence each does."""
        if any(phase.parts for phase in one.phases):
            return None
        most = max(phase.sequences for phase in one.phases)

        def of(k: int) -> tuple[Phase, ...]:
            return tuple(replace(p, sequences=max(1, p.sequences * k // most)) for p in one.phases)

        def share(k: int) -> float:
            held = self.changes.held(of(k))
            return held.fraction if isinstance(held, Held) else float("inf")

        k = largest(share, most, most)
        return replace(one, phases=of(k)) if k else None

    def last_resort(self, engine: Engine) -> Iterator[tuple[float, Survivor]]:
        """The fewest of the GPUs left that hold the phases with one sequence each, with as many as fit there."""
        alive = sorted(engine.alive)
        if not alive:
            return
        found = fewest(Fit(self.spec), engine.names, sequences=1, ids=alive)
        if not found.layout:
            return
        wanted = {p.name: p.sequences for p in self.before.spec.phases}
        one = Survivor(RELAY, tuple(replace(p, sequences=wanted[p.name]) for p in found.layout), keeps=False)
        yield from self.batches(one, engine.names)

    def why_stopped(self, engine: Engine) -> Stopped:
        """Phases for which nothing was found."""
        names = engine.names
        gpus = self.before.phases[names[0]].gpus
        need = fewest(Fit(self.spec), names, sequences=1, ids=[*gpus, *engine.spare])
        return Stopped(names, len(engine.alive), tuple(self.refused.get(names, {}).items()), need)

    # -- all of them -----------------------------------------------------------------------------------

    def combined(self, options: Mapping[tuple[str, ...], Sequence[tuple[float, Survivor]]]) -> list[Kept]:
        """Every engine's plans with the others'."""
        each = OF_EACH if len(options) > 1 else SHOWN * 2
        found = []
        for chosen in islice(product(*(own[:each] for own in options.values())), COMBINED):
            phases = tuple(phase for _, one in chosen for phase in one.phases)
            try:
                plan = self.compiled(phases)
            except SpecError:
                continue
            if all(pool.fits for pool in plan.pools if {p.name for p in phases} & set(pool.phases)):
                found.append(self.kept([one for _, one in chosen], phases, plan))
        return found

    def placed(self, one: Kept) -> Kept:
        """The plan with its ranks where they are best, for phases that say so."""
        return self.told(one.kind, one.phases, self.compiled(one.phases, placed=True), one.lost)

    def kept(self, chosen: Sequence[Survivor], phases: tuple[Phase, ...], plan: CompiledPlan) -> Kept:
        """Everything that is told of a plan but for the weights that move."""
        lost = tuple(self.lost_of(phase, keeps=one.keeps) for one in chosen for phase in one.phases)
        return self.told(" and ".join(dict.fromkeys(one.kind for one in chosen)), phases, plan, lost)

    def told(self, kind: str, phases: tuple[Phase, ...], plan: CompiledPlan, lost: tuple[Lost, ...]) -> Kept:
        """What is judged and compared."""
        names = [phase.name for phase in phases]
        verdicts = {r: self.judge(plan, r) for r in self.held}
        idle = (
            self.places(self.before, names)
            - self.places(plan, list(plan.phases))
            - {(pool, gpu) for pool, ids in self.lost.items() for gpu in ids}
        )
        return Kept(
            kind, phases, plan, {name: self.ratio(plan, name) for name in names},
            self.headroom(plan, names), lost, tuple(v for v in verdicts.values() if v is not None),
            tuple(r.label for r, v in verdicts.items() if v is not None and not v.passed),
            tuple(r.label for r, v in verdicts.items() if v is None), tuple(gpu for _, gpu in sorted(idle)),
        )  # fmt: skip

    @staticmethod
    def places(plan: CompiledPlan, names: Sequence[str]) -> set[tuple[str, int]]:
        """(pool, GPU) of some phases."""
        return {(plan.phases[name].hardware, gpu) for name in names for gpu in plan.phases[name].gpus}

    def with_moves(self, one: Kept) -> Kept:
        """The plan with the weights that GPUs fetch for it, and its kind by that."""
        names = [phase.name for phase in one.phases]
        balanced = moved(self.before, one.plan, self.lost, names)
        least = moved(self.before, one.plan, self.lost, names, least=True)
        spared = any(p.strategy.redundant < self.before.spec.phase(p.name).strategy.redundant for p in one.phases)
        by_copies = spared and not least.experts and not least.total_B
        kind = one.kind.replace(SHRINK, SPARE_EXPERTS) if by_copies else one.kind
        return replace(one, kind=kind, moved=balanced, least_moved=least)

    def lost_of(self, phase: Phase, *, keeps: bool) -> Lost:
        """Sequences of the ranks that had a lost GPU in any stage."""
        old, result = self.before.spec.phase(phase.name), self.before.phases[phase.name]
        mesh = result.graph.the_mesh
        gone = np.isin(mesh.ids, list(self.lost.get(result.hardware, ())))
        away = gone | ~np.isin(mesh.ids, phase.gpus)
        others = tuple(i for i in range(gone.ndim) if i == 0 or mesh.atoms[i - 1][0] not in mesh.batch_axes)
        room = old.batching
        of = sum(part.sequences for part in old.parts) if old.parts else old.sequences
        places = sum(-(-p.sequences // room.ranks) for p in old.parts) if old.parts else room.places // room.ranks
        lost, stopped = (min(of, int(ranks.any(axis=others).sum()) * places) for ranks in (gone, away))
        now = sum(part.sequences for part in phase.parts) if phase.parts else phase.sequences
        kv_B = sum(stage.kv_cache_B * int(gone[i].sum()) for i, stage in enumerate(result.memory.stages))
        return Lost(phase.name, lost, of, kv_B, max(stopped, of - now) if keeps else of)

    def headroom(self, plan: CompiledPlan, names: Sequence[str]) -> float:
        """Of what the fullest GPU of some phases may hold, what is free; of all phases where none is named."""
        pools = [pool for pool in plan.pools if not names or set(names) & set(pool.phases)]
        return 1.0 - max(pool.fraction for pool in pools)

    # -- requirements ----------------------------------------------------------------------------------

    def of_phases(self) -> list[Requirement]:
        """Requirements that ask for no serving."""
        served = {serve.name for serve in self.spec.serves}
        return [r for r in self.spec.requirements if not owners(r) & served]

    def judge(self, plan: CompiledPlan, requirement: Requirement) -> Verdict | None:
        """None where it cannot be asked of the plan, such as one on a rank that it does not have."""
        try:
            found = judged(plan.subject(), [requirement])
        except (SpecError, ArithmeticError, ValueError, KeyError):
            return None
        return found[0] if found else None

    def with_servings(self, plans: list[Kept]) -> list[Kept]:
        """The best plan whose servings keep what is required of them too, of a few that are simulated where a requirement asks for
        one; then the others."""
        served = {serve.name for serve in self.spec.serves}
        asked = [r for r in self.spec.requirements if owners(r) & served]
        if not asked:
            return plans
        held = {v.requirement.label for v in self.simulated(self.spec, asked) if v.passed}
        found: list[Kept] = []
        for one in plans[:SERVED]:
            verdicts = self.simulated(self.reread(one.phases), asked)
            said = {v.requirement.label for v in verdicts}
            broken = tuple(v.requirement.label for v in verdicts if not v.passed and v.requirement.label in held)
            unsaid = tuple(sorted(held - said))
            found.append(
                replace(
                    one, verdicts=(*one.verdicts, *verdicts), broken=(*one.broken, *broken),
                    unsaid=(*one.unsaid, *unsaid), served=True,
                )
            )  # fmt: skip
            if not broken and not unsaid:
                break  # no other one is better
        return [*sorted(found, key=lambda one: one.rank), *plans[len(found) :]]

    def simulated(self, spec: Spec, asked: Sequence[Requirement]) -> tuple[Verdict, ...]:
        """Verdicts on servings; none where they cannot run."""
        try:
            return compile_spec(replace(spec, requirements=tuple(asked)), Collector()).requirements
        except SpecError:
            return ()

    def reread(self, phases: Sequence[Phase]) -> Spec:
        """The spec as it is written, since defaults of servings follow from phases; where it cannot be written, with the phases."""
        from ..base.source import Source
        from ..lang.open_spec import load_open

        try:
            text = written(self.opened, phases)
            reader = self.opened.reader.statements.reach
            return load_open(Source(self.opened.source.name, text), Collector(), base_dir=reader.base).spec
        except SpecError:
            return with_phases(self.spec, [self.changes.with_engine(phase) for phase in phases])


def words(one: Survivor) -> str:
    """`decode: 143 GPUs, attention { dp = 143 }, experts { ep = 143 }, redundant = 30`"""
    return "; ".join(f"{p.name}: {phase_words(p)}" for p in one.phases)


def phase_words(phase: Phase) -> str:
    """`143 GPUs, attention { dp = 143 }, experts { ep = 143 }`"""
    return f"{len(phase.gpus)} GPU{'s' if len(phase.gpus) > 1 else ''}, {layout_words(phase)}"
