"""Layouts in which phases may go on without the GPUs that they lost: on spare GPUs, without what depended on the lost ones, or anew."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..base.arrays import NDArray
from ..base.axes import DATA, EXPERT, EXPERT_REPLICA, REPLICA, SEQUENCE, STAGES, TENSOR
from ..base.frozen import record
from ..ir.mesh import axis_coordinates
from ..pipeline.changed import Changes, unbalanced
from ..plan.plan import CompiledPlan
from ..spec.factors import factorisations
from ..spec.phase import Phase
from ..spec.strategy import Fold, Strategy
from .layouts import LeastMemory, filling, layouts, relaid

if TYPE_CHECKING:
    from ..pipeline.estimates import Estimate

RE_PLACE, DRAIN, SHRINK, RELAY = "re-place", "drain", "shrink", "lay out anew"
TRIED = 30
"""New layouts of one engine on one number of GPUs that are estimated at most."""
MOST_LAYOUTS = 50_000
"""Of one number of GPUs that are looked at."""
BEST = 3
"""New layouts of one engine that are proposed for their throughput; one fewer are for their time."""
Ids = NDArray[np.int64]


@record
class Survivor:
    """Phases as they would go on, of one `kind`. `keeps`: whether sequences of ranks that lost no GPU go on; else all caches are
    laid out anew."""

    kind: str
    phases: tuple[Phase, ...]
    keeps: bool = True


@dataclass(slots=True)
class Engine:
    """Phases on the same GPUs, some of which are `lost`. `spare`: GPUs that no phase uses; `to`: one of them for each lost one, as far as
    there are; `to_nodes`: for each GPU of a node that lost one, that of a node that nobody uses."""

    plan: CompiledPlan
    names: tuple[str, ...]
    lost: frozenset[int]
    to: Mapping[int, int]
    to_nodes: Mapping[int, int]
    spare: tuple[int, ...] = ()
    changes: Changes = field(init=False)

    def __post_init__(self) -> None:
        self.changes = Changes(self.plan.spec, self.plan.phases)

    @property
    def phases(self) -> list[Phase]:
        return [unbalanced(self.plan.spec.phase(name)) for name in self.names]

    @property
    def alive(self) -> list[int]:
        """Its GPUs that are left, and spare ones where there are too few to take the place of the lost."""
        own = [gpu for gpu in self.plan.phases[self.names[0]].gpus if gpu not in self.lost]
        return own if self.replaceable else [*own, *self.spare]

    @property
    def replaceable(self) -> bool:
        """Whether there is a spare GPU for each lost one."""
        return all(gpu in self.to for gpu in self.plan.phases[self.names[0]].gpus if gpu in self.lost)

    def survivors(self) -> Iterator[Survivor]:
        """Everything that no rule forbids, the same layout once."""
        seen: list[tuple[Phase, ...]] = []
        for found in (self.re_placed(), self.drained(), self.shrunk(), self.relaid()):
            for one in found:
                if one.phases not in seen and all(self.changes.refusal(phase) is None for phase in one.phases):
                    seen.append(one.phases)
                    yield one

    # -- on spare GPUs ---------------------------------------------------------------------------------

    def re_placed(self) -> Iterator[Survivor]:
        """Every lost GPU gives its ranks to a spare one; or all GPUs of its node do, to a node that nobody uses."""
        for to in (self.to, self.to_nodes):
            if all(gpu in to for gpu in self.plan.phases[self.names[0]].gpus if gpu in self.lost):
                moved = []
                for phase in self.phases:
                    mesh = self.plan.phases[phase.name].graph.the_mesh
                    ids = np.asarray([to.get(gpu, gpu) for gpu in mesh.ids.ravel().tolist()])
                    moved.append(on(ids, replace(phase, strategy=replace(phase.strategy, place=None, ids=()))))
                yield Survivor(RE_PLACE, tuple(moved))

    # -- without what depended on them -----------------------------------------------------------------

    def coordinates(self, name: str) -> tuple[Ids, dict[str, Ids]]:
        """GPU ids of a phase [stages, ranks], and the coordinate of each along every axis."""
        mesh = self.plan.phases[name].graph.the_mesh
        sides = factorisations(self.plan.spec.phase(name).strategy)
        found = axis_coordinates(mesh, sides[0])
        ranks = prod(mesh.shape)
        return mesh.ids.reshape(-1, ranks), {axis: value.reshape(-1, ranks) for axis, value in found.items()}

    def drained(self) -> Iterator[Survivor]:
        """Copies of everything (replicas, dp of a flat strategy, expert replicas with the attention ranks on them) that had a lost GPU stop."""
        for axis in (REPLICA, DATA, EXPERT_REPLICA):
            phases = [self.without(phase, axis) for phase in self.phases]
            if all(phase is not None for phase in phases):
                found = tuple(phase for phase in phases if phase is not None)
                if len({frozenset(phase.gpus) for phase in found}) == 1:
                    yield Survivor(DRAIN, found)

    def without(self, phase: Phase, axis: str) -> Phase | None:
        """A phase without the indices of an axis that had a lost GPU; None where the axis does not hold all there is, or
        nothing is left."""
        s = phase.strategy
        ids, at = self.coordinates(phase.name)
        lost = np.isin(ids, list(self.lost))
        if axis not in at:
            return None
        gone = set(at[axis][lost].tolist())
        whole = int(at[axis].max()) + 1
        left = whole - len(gone)
        if not left or whole == 1:
            return None
        if axis == REPLICA:
            changed = replace(s, replicas=left)
        elif axis == DATA and s.attention is None:
            changed = replace(s, dp=left)
        elif axis == EXPERT_REPLICA and s.attention is not None:
            degrees = dict(s.attention.degrees)
            if degrees[DATA] * left % whole:
                return None
            changed = replace(s, attention=_fold(degrees | {DATA: degrees[DATA] * left // whole}))
        else:
            return None
        kept = ids[~np.isin(at[axis], list(gone))]
        return on(kept, replace(phase, strategy=replace(changed, place=None, ids=())))

    def shrunk(self) -> Iterator[Survivor]:
        """Fewer attention ranks share the experts anew: as many as there are GPUs for, or fewer, where experts divide better."""
        for stop in range(4):
            options = [list(self.smaller(phase, stop)) for phase in self.phases]
            for found in zip(*options, strict=False):
                if len({frozenset(phase.gpus) for phase in found}) == 1:
                    yield Survivor(SHRINK, tuple(found))

    def smaller(self, phase: Phase, stop: int) -> Iterator[Phase]:
        """A phase with fewer attention ranks, whose experts have spare copies or none: `stop` chooses how many ranks."""
        s, model = phase.strategy, self.plan.spec.model
        routed = model.count("experts.count", 0)
        ids, at = self.coordinates(phase.name)
        batch = at[DATA] if s.attention is not None else at[DATA] * s.ep + at.get(EXPERT, np.zeros_like(ids))
        if s.replicas > 1 or not routed:
            return
        whole = int(batch.max()) + 1
        attention = (
            dict(s.attention.degrees) if s.attention is not None else {DATA: whole, SEQUENCE: s.sp, TENSOR: s.tp}
        )
        experts = dict(s.experts.degrees) if s.experts is not None else {EXPERT: s.ep, TENSOR: s.tp}
        counts = self.counts(min(whole - 1, len(self.alive) // (ids.size // whole)), routed)
        if stop >= len(counts):
            return
        dp = counts[stop]
        kept = self.healed(ids, batch, dp)
        stage = dp * attention[SEQUENCE] * attention[TENSOR]
        per_rank = -(-(routed + s.redundant) // experts[EXPERT])
        for ep in self.expert_ranks(stage, experts[EXPERT], experts[TENSOR], routed):
            spare = dict.fromkeys(n for n in (per_rank * ep - routed, filling(routed, s.redundant, ep), -routed % ep))
            for redundant in spare:
                if 0 <= redundant <= routed * (ep - 1):
                    folds = _fold(attention | {DATA: dp}), _fold({EXPERT: ep, TENSOR: experts[TENSOR]})
                    changed = replace(
                        s,
                        attention=folds[0],
                        experts=folds[1],
                        redundant=redundant,
                        place=None,
                        ids=(),
                        dp=1,
                        ep=1,
                        sp=1,
                        tp=1,
                    )
                    yield on(kept, replace(phase, strategy=changed))

    def healed(self, ids: Ids, batch: Ids, count: int) -> Ids:
        """GPUs of so many attention ranks, stage by stage: of those that lost none first, then of those that lost fewest, whose ranks
        without a GPU get one of the attention ranks that stop."""
        lost = np.isin(ids, list(self.lost))
        holes = np.bincount(batch[lost], minlength=int(batch.max()) + 1)
        chosen = np.argsort(holes, kind="stable")[:count]
        mine = np.isin(batch, chosen)
        free = [gpu for gpu in self.alive if gpu not in set(ids[mine].tolist())]
        size, out = self.plan.spec.of(self.phases[0]).hardware.per_node, ids.copy()
        for at in zip(*np.nonzero(lost & mine), strict=True):
            gpu = min(free, key=lambda g: (g // size != int(ids[at]) // size, g))
            free.remove(gpu)
            out[at] = gpu
        return np.asarray(out[mine])

    @staticmethod
    def counts(left: int, routed: int) -> list[int]:
        """Attention ranks to go on with: all that are left; the most over which experts divide; whole powers of two."""
        even = next((n for n in range(left, 0, -1) if routed % n == 0), 0)
        power = 1 << (left.bit_length() - 1) if left else 0
        return list(dict.fromkeys(n for n in (left, even, power) if n))

    @staticmethod
    def expert_ranks(stage: int, ep: int, etp: int, routed: int) -> list[int]:
        """How many ranks to spread experts over: as many as there are, half of them, and the most that are no more than before."""
        whole = [n for n in range(1, stage // etp + 1) if stage % (n * etp) == 0 and n <= routed]
        no_more = [n for n in whole if n <= ep]
        return list(dict.fromkeys([*whole[-1:], *no_more[-1:], *whole[-2:-1]]))

    # -- anew ------------------------------------------------------------------------------------------

    def relaid(self) -> Iterator[Survivor]:
        """The fastest layouts on the GPUs that are left, or on a rounder number of them: of all degrees, by estimate, those tried first
        whose ranks of the batch are most like those before."""
        from ..base.diagnostics import SpecError
        from ..pipeline.estimates import Estimates

        alive, model = self.alive, self.plan.spec.model
        hardware = self.plan.spec.of(self.phases[0]).hardware
        size = hardware.per_node
        counts = dict.fromkeys(
            n
            for n in (len(alive), len(alive) // size * size, 1 << max(0, len(alive).bit_length() - 1))
            if 0 < n <= len(alive)
        )
        bounds = [LeastMemory(self.changes, phase) for phase in self.phases]
        limit_B = hardware.memory_B - hardware.reserve_B
        estimates = Estimates(self.plan.spec)
        found: list[tuple[float, float, tuple[Phase, ...]]] = []
        for count in counts:
            ids = tuple(sorted(alive)[:count])
            ranked = sorted(
                (self.unlike(s), max(b.of(s) for b in bounds), k, s)
                for k, s in enumerate(islice(layouts(self.phases[0], count, model), MOST_LAYOUTS))
            )
            laid_out = (self.laid_out(s, ids) for _, bound_B, _, s in ranked if bound_B <= limit_B)
            legal = (phases for phases in laid_out if all(self.changes.refusal(phase) is None for phase in phases))
            best: dict[str, tuple[float, float, Phase]] = {}
            for phases in islice(legal, TRIED):
                try:
                    rows = [(*self.against(estimates(unplaced(phase))), phase) for phase in phases]
                except (SpecError, ArithmeticError, ValueError):
                    continue
                found.append((min(row[0] for row in rows), max(row[1] for row in rows), phases))
                for row in rows:
                    best[row[2].name] = max(best.get(row[2].name, row), row, key=lambda one: one[0])
            if len(best) > 1:  # each in the layout that is best for itself
                own = [best[phase.name] for phase in self.phases]
                found.append((min(row[0] for row in own), max(row[1] for row in own), tuple(row[2] for row in own)))
        by_throughput = sorted(found, key=lambda one: -one[0])[:BEST]
        by_time = sorted(found, key=lambda one: one[1])[: BEST - 1]  # requirements may ask for that
        for _, _, phases in (*by_throughput, *by_time):
            yield Survivor(RELAY, phases, keeps=False)

    def against(self, one: Estimate) -> tuple[float, float]:
        """(throughput, time) of a phase over those before."""
        before = self.plan.phases[one.phase.name]
        return one.throughput_tok_s / before.throughput_tok_s, one.time_s / before.time_s

    def unlike(self, s: Strategy) -> int:
        """How many degrees of a layout within a rank of the batch are not as written."""
        own = self.phases[0].strategy
        return sum(a != b for a, b in zip(_inside(own), _inside(s), strict=True))

    def laid_out(self, s: Strategy, ids: tuple[int, ...]) -> tuple[Phase, ...]:
        """The phases in a layout: with the spare copies of experts that they had, or a few more."""
        return tuple(replace(phase, gpus=ids, strategy=relaid(phase.strategy, s)) for phase in self.phases)


def _inside(s: Strategy) -> tuple[int, ...]:
    """Degrees that say how one rank of the batch is laid out: pp, sp, tp, and tp of the experts."""
    if s.attention is None or s.experts is None:
        return s.pp, s.sp, s.tp, s.tp
    attention, experts = dict(s.attention.degrees), dict(s.experts.degrees)
    return s.pp, attention[SEQUENCE], attention[TENSOR], experts[TENSOR]


def _fold(degrees: Mapping[str, int]) -> Fold:
    return Fold(tuple(degrees.items()))


def on(ids: Ids, phase: Phase) -> Phase:
    """A phase on these GPUs, stage by stage, ranks in mesh order: listed so that its `order` of axes gives each rank its own."""
    s = phase.strategy
    side = factorisations(s)[0]
    sizes = {STAGES: s.pp, **dict(side)}
    at = dict(zip(sizes, np.indices(tuple(sizes.values())), strict=True))
    index = np.zeros(tuple(sizes.values()), dtype=np.int64)
    for axis in dict.fromkeys((REPLICA, *s.order, *sizes)):
        if axis in sizes:
            index = index * sizes[axis] + at[axis]
    listed = np.empty(ids.size, dtype=np.int64)
    listed[index.ravel()] = ids.ravel()
    return replace(phase, gpus=tuple(listed.tolist()))


def unplaced(phase: Phase) -> Phase:
    """The phase with its ranks in the default order of axes, where the best is to be searched for."""
    return replace(phase, strategy=replace(phase.strategy, best=False)) if phase.strategy.best else phase


def engines(plan: CompiledPlan, lost: Mapping[str, frozenset[int]]) -> list[tuple[str, ...]]:
    """Phases by the GPUs that they use, of those that lost one. `lost`: ids by pool."""
    groups: dict[tuple[str, frozenset[int]], list[str]] = {}
    for name, result in plan.phases.items():
        groups.setdefault((result.hardware, frozenset(result.gpus)), []).append(name)
    return [tuple(names) for (pool, gpus), names in groups.items() if gpus & lost.get(pool, frozenset())]


def spare_nodes(lost: Collection[int], used: Collection[int], spare: Collection[int], per_node: int) -> dict[int, int]:
    """For every GPU in use of a node that lost some, the same place in a node whose GPUs are all spare; none where these are too few."""
    damaged = sorted({gpu // per_node for gpu in lost})
    whole = [
        n for n in sorted({g // per_node for g in spare}) if all(n * per_node + k in spare for k in range(per_node))
    ]
    if len(whole) < len(damaged):
        return {}
    to = dict(zip(damaged, whole, strict=False))
    return {g: to[g // per_node] * per_node + g % per_node for g in sorted(used) if g // per_node in to}


def spare_for(lost: Sequence[int], spare: Sequence[int], per_node: int) -> dict[int, int]:
    """A GPU that no phase uses for each lost one, of its node where there is one, as far as they go."""
    left = list(spare)
    out = {}
    for gpu in lost[: len(left)]:
        out[gpu] = min(left, key=lambda g: (g // per_node != gpu // per_node, g))
        left.remove(out[gpu])
    return out
