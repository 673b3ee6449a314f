"""`place = best`: which GPU every rank of a phase is, found by pricing the ways that differ.

Ways are ranked by what the collectives of the default order's graph take in them, then compiled, best first, to the exact time;
where times are equal, fewer bytes count, the outermost links first, then fewer groups that straddle a domain which could hold them,
then the default order. Lowering and prices ask a mesh for the shapes of groups and for the sends of stages alone, so a way
that gives the same answers as one that was compiled costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from math import prod

import numpy as np

from ..base.axes import ATTENTION_SIDE, AXES, REPLICA, STAGES
from ..base.diagnostics import Collector, SpecError
from ..base.frozen import record
from ..cost import chunks
from ..cost.order_costs import OrderCosts
from ..cost.price import price
from ..cost.records import Costs
from ..cost.schedule.scheduler import schedule
from ..ir.graph import Graph
from ..ir.graph_pass import GraphPass
from ..ir.groups import GroupShape
from ..ir.mesh import GpuMap, Mesh, MeshError, refine
from ..ir.orders import SMALL, Way, even_counts, shares, ways
from ..ir.sharding import Axes
from ..passes.mesh import MakeMesh
from ..plan.placement import LevelBytes, Placement
from ..plan.result import PhaseResult
from ..plan.totals import collective_totals
from ..spec.factors import factorisations
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .analyse import check, cost_graph, of_size
from .lower import passes_of, unverified
from .run_passes import run

PRICED = 24
"""Ways that are compiled, where more than a few GPUs have so many that differ."""
MOST_WAYS = 4096
MOST_CROSSING = 240
"""Ways that are looked at: whose axes end together with domains, and of others."""
SAME = 1e-12
"""Relative difference of two costs that are sums of the same terms."""

Key = tuple[float, ...]
Shapes = tuple[GroupShape, ...]
Asked = tuple[tuple[Axes, ...], ...]
"""Of each phase, the axes whose groups its lowering and prices ask for."""


def best(spec: Spec, phase: Phase) -> Phase:
    """A phase of a spec, or one in the place of that of its name, with the GPU of every rank as `place = best` finds it; in its
    default order where it cannot be lowered."""
    own = _with(phase, ())
    others = tuple(own if p.name == own.name else p for p in spec.phases)
    known = any(p is own for p in others)
    return placed(replace(spec, phases=others if known else (*others, own)))[0].phase(own.name)


def placed(spec: Spec) -> tuple[Spec, Mapping[str, Placement]]:
    """The spec with the GPUs of all phases that are to be placed best, and how these lie. A phase that cannot be lowered is left
    in its default order: compiling it says why."""
    found: dict[str, Placement] = {}
    for names in _groups(spec):
        group = [spec.phase(name) for name in names]
        try:
            new, placements = Search(spec, group).run()
        except (SpecError, MeshError):
            new, placements = {p.name: _with(p, (), best=False) for p in group}, {}
        spec = replace(spec, phases=tuple(new.get(p.name, p) for p in spec.phases))
        found |= placements
    return spec, found


def _groups(spec: Spec) -> list[list[str]]:
    """Phases that are placed together: on the same GPUs, with the same stages and replicas."""
    groups: dict[object, list[str]] = {}
    for phase in spec.phases:
        s = phase.strategy
        if s.best and not s.ids:
            groups.setdefault((phase.hardware, tuple(sorted(phase.gpus)), s.pp, s.replicas), []).append(phase.name)
    return list(groups.values())


def _with(phase: Phase, ids: tuple[int, ...], *, best: bool = True) -> Phase:
    return replace(phase, strategy=replace(phase.strategy, ids=ids, best=best))


def _last(passes: Sequence[GraphPass], graph: Graph) -> Graph:
    """The graph behind the last of the passes."""
    *_, (_, last) = run(passes, graph)
    return last


def default_ids(phase: Phase) -> tuple[int, ...]:
    """The GPU of every rank as `order` deals them out. Raises MeshError."""
    s = phase.strategy
    sides = factorisations(s)
    mesh = replace(refine(sides, {}), stages=s.pp)
    return MakeMesh(sides=sides, stages=s.pp, order=s.order, gpus=phase.gpus).ids(mesh)


class Trial:
    """One phase: its graph up to the mesh, and what it costs on any GPUs."""

    def __init__(self, spec: Spec, phase: Phase) -> None:
        from ..lang.expand import expand

        self.default = default_ids(phase)
        self.unit = Unit(spec, _with(phase, self.default), Collector())
        passes = passes_of(self.unit)
        cut = next(i for i, one in enumerate(passes) if isinstance(one, MakeMesh)) + 1
        self.rest = passes[cut:]
        self.graph = _last(passes[:cut], expand.run(self.unit))
        self.base = self.lowered(self.default)
        check(self.base, self.unit)
        self.base_s, self.base_costs = self.cost(self.base)
        self.orders = OrderCosts(self.base, self.unit)
        self.shapes: dict[tuple[Axes, tuple[int, ...]], GroupShape] = {}
        self.sends: dict[tuple[int, ...], Shapes] = {}
        self.seconds: dict[object, float] = {}

    def unit_on(self, ids: tuple[int, ...]) -> Unit:
        return replace(self.unit, phase=_with(self.unit.phase, ids))

    def mesh(self, ids: tuple[int, ...]) -> Mesh:
        mesh = self.graph.the_mesh
        known = mesh.the_gpus
        return replace(mesh, gpus=GpuMap(ids, known.per_node, known.beyond, known.nics))

    def lowered(self, ids: tuple[int, ...]) -> Graph:
        return _last(self.rest, replace(self.graph, mesh=self.mesh(ids)))

    def cost(self, graph: Graph) -> tuple[float, Costs]:
        """Seconds of the phase, and the costs of its largest pass: what `compile` finds."""
        unit, phase = self.unit_on(graph.the_mesh.the_gpus.ids), self.unit.phase
        total, whole = 0.0, None
        for size in chunks.sizes(phase):
            own = of_size(graph, phase, size)
            costs = price(own, unit)
            total += size.count * schedule(own, costs).period_s
            whole = costs if own is graph else whole
        if phase.drafter != "none":
            from .drafts import draft_units

            for count, drafted in draft_units(unit, graph):
                draft = unverified(drafted)
                total += count * schedule(draft, price(draft, drafted)).period_s
        per_step = 1.0 if phase.parts or not graph.generates else phase.tokens_per_step
        return total / per_step, price(graph, unit) if whole is None else whole

    def level_B(self, graph: Graph, costs: Costs) -> tuple[float, ...]:
        """Bytes that one device of every stage sends on the links of each tier in one pass, innermost first."""
        totals = collective_totals(graph, costs)
        return tuple(sum(t.level_B.get(tier.name, 0.0) for t in totals) for tier in self.unit.spec.hardware.tiers)

    def straddling(self, graph: Graph) -> tuple[int, ...]:
        """Groups of its collectives that touch more domains of a level than as many ranks need, outermost level first."""
        mesh = graph.the_mesh
        used = sorted({op.axes for s in graph.segments for op in s.ops if op.is_collective})
        sizes = (mesh.the_gpus.per_node, *mesh.the_gpus.beyond)
        out = []
        for size in reversed(sizes):
            count = 0
            for axes in used:
                domains = np.sort(mesh.groups(axes) // size, axis=1)
                touched = 1 + (domains[:, 1:] != domains[:, :-1]).sum(axis=1)
                count += int((touched > -(-domains.shape[1] // size)).sum())
            out.append(count)
        return tuple(out)


@record(slots=False)
class Candidate:
    """`way`: None is the default order."""

    number: int
    way: Way | None
    meshes: dict[int, Mesh] = field(default_factory=dict, compare=False, repr=False)

    def ids(self, trial: Trial) -> tuple[int, ...]:
        return trial.default if self.way is None else self.way.ids


@dataclass(slots=True)
class Tried:
    """A way that was compiled: `key` is smaller where it is better. `alike`: ways that cost the same."""

    candidate: Candidate
    key: Key
    alike: list[Candidate] = field(default_factory=list)


class Search:
    """Of phases that are placed together."""

    def __init__(self, spec: Spec, phases: Sequence[Phase]) -> None:
        self.spec = spec
        self.trials = [Trial(spec, phase) for phase in phases]
        self.hardware = hardware = self.trials[0].unit.spec.hardware
        inner = [(tier.name, tier.gpus) for tier in hardware.tiers[:-1]]
        nics = hardware.nics
        self.domains = [(name, gpus) for name, gpus in inner if gpus is not None]
        if nics is not None and nics[0] == 1:
            at = sum(size < nics[1] for _, size in self.domains)
            self.domains.insert(at, ("NIC", nics[1]))
        edges = {mesh.stride(a) for mesh in self._meshes() for a, _ in mesh.atoms}
        ranks = len(phases[0].gpus) // phases[0].strategy.pp
        bounds = sorted({*edges, 1, ranks})
        if any(high % low for low, high in pairwise(bounds)):
            raise MeshError("the phases' axes do not nest")
        self.bounds = list(
            reversed(list(pairwise(bounds)))
        )  # [low, high) of every dimension but the stages, outermost first
        self.dims = (phases[0].strategy.pp, *(high // low for low, high in self.bounds))
        self.cut = False

    def _meshes(self) -> list[Mesh]:
        return [trial.graph.the_mesh for trial in self.trials]

    def run(self) -> tuple[dict[str, Phase], dict[str, Placement]]:
        found, left = self.compiled()
        chosen, held_back = self.chosen(found)
        alike = sum(len(tried.alike) for tried in found)
        priced = len(found)
        phases, placements = {}, {}
        together = tuple(trial.unit.phase.name for trial in self.trials)
        for trial in self.trials:
            ids = chosen.ids(trial)
            graph = trial.lowered(ids)
            after_s, costs = trial.cost(graph)
            before_B, after_B = trial.level_B(trial.base, trial.base_costs), trial.level_B(graph, costs)
            tiers = [tier.name for tier in self.hardware.tiers]
            levels = tuple(LevelBytes(*row) for row in zip(tiers, before_B, after_B, strict=True))
            inside = self.inside(trial, ids)
            phases[trial.unit.phase.name] = _with(trial.unit.phase, ids)
            placements[trial.unit.phase.name] = Placement(
                inside, levels, trial.base_s, after_s, priced + alike + left, priced, alike, held_back, together,
                moved=ids != trial.default, every=len(ids) <= SMALL, cut=self.cut,
            )  # fmt: skip
        return phases, placements

    def candidates(self) -> list[Candidate]:
        out = [Candidate(0, None)]
        counts = {True: 0, False: 0}
        most = {True: MOST_WAYS, False: MOST_WAYS if len(self.trials[0].default) <= SMALL else MOST_CROSSING}
        for way in ways(self.dims, self.trials[0].default, self.domains, self.usual(), self.hardware.nics):
            kind = bool(way.levels)
            counts[kind] += 1
            if counts[kind] > most[kind]:
                self.cut = True
                if not kind:
                    break
                continue
            out.append(Candidate(len(out), way))
        return out

    def usual(self) -> list[int]:
        """Dimensions outermost first as engines have them: where any order will do, it is theirs."""
        mesh, axes = self.trials[0].graph.the_mesh, [STAGES, REPLICA, *AXES]
        names = [STAGES, *(self.axis(mesh, low) for low, _ in self.bounds)]
        return sorted(
            range(len(names)), key=lambda dim: (axes.index(names[dim]) if names[dim] in axes else len(axes), dim)
        )

    # -- what ways cost ----------------------------------------------------------------------------

    def compiled(self) -> tuple[list[Tried], int]:
        """The ways that were compiled, and how many were not that may cost something else."""
        every = self.candidates()
        known: dict[Asked, dict[object, Tried]] = {}
        found: list[Tried] = []
        left = 0
        most = len(every) if len(self.trials[0].default) <= SMALL else PRICED
        for candidate in sorted(every, key=lambda c: (c.number > 0, self.quick(c), c.number)):
            same = next(filter(None, (of.get(self.signature(candidate, asked)) for asked, of in known.items())), None)
            if same is not None:
                same.alike.append(candidate)
            elif len(found) == most:
                left += 1
            else:
                tried, asked = self.tried(candidate)
                found.append(tried)
                known.setdefault(asked, {})[self.signature(candidate, asked)] = tried
        return found, left

    def tried(self, candidate: Candidate) -> tuple[Tried, Asked]:
        score, total_B, asked = 0.0, np.zeros(len(self.hardware.tiers)), []
        for trial in self.trials:
            graph = trial.base if candidate.way is None else trial.lowered(candidate.ids(trial))
            time_s, costs = (trial.base_s, trial.base_costs) if candidate.way is None else trial.cost(graph)
            score += time_s / trial.base_s if trial.base_s else 0.0
            total_B += trial.level_B(graph, costs)
            asked.append(graph.the_mesh.asked)
        return Tried(candidate, (score, *reversed(total_B.tolist()))), tuple(asked)

    def mesh(self, candidate: Candidate, t: int) -> Mesh:
        if t not in candidate.meshes:
            candidate.meshes[t] = self.trials[t].mesh(candidate.ids(self.trials[t]))
        return candidate.meshes[t]

    def dims_of(self, t: int, axes: Axes) -> frozenset[int]:
        """Dimensions of ways that make up some axes of a phase."""
        mesh = self.trials[t].graph.the_mesh
        spans = [(mesh.stride(a), mesh.stride(a) * mesh.sizes[a]) for a in axes]
        return frozenset(
            1 + i for i, (low, high) in enumerate(self.bounds) if any(a <= low and high <= b for a, b in spans)
        )

    def shape(self, candidate: Candidate, t: int, axes: Axes) -> GroupShape:
        """Of the groups over some axes; ways with equal digits inside domains share it."""
        trial, way = self.trials[t], candidate.way
        if way is None or not way.levels:
            return self.mesh(candidate, t).group(axes)
        key = (axes, way.inside(self.dims_of(t, axes)))
        if key not in trial.shapes:
            trial.shapes[key] = self.mesh(candidate, t).group(axes)
        return trial.shapes[key]

    def sends(self, candidate: Candidate, t: int) -> Shapes:
        """Shapes of the sends from each stage to the next, and from the last to the first."""
        if self.dims[0] == 1:
            return ()
        trial, way = self.trials[t], candidate.way
        if way is None or not way.levels:
            return self._sends(candidate, t)
        key = way.inside(frozenset((0,)))
        if key not in trial.sends:
            trial.sends[key] = self._sends(candidate, t)
        return trial.sends[key]

    def _sends(self, candidate: Candidate, t: int) -> Shapes:
        mesh = self.mesh(candidate, t)
        ids = mesh.ids.reshape(mesh.stages, -1)
        return tuple(mesh.shape_of(np.stack(pair, axis=1)) for pair in zip(ids, np.roll(ids, -1, axis=0), strict=True))

    def signature(self, candidate: Candidate, asked: Asked) -> object:
        """All that a lowering which asks for such groups, and its prices, know of the GPUs."""
        return tuple(
            (tuple(self.shape(candidate, t, axes) for axes in own), self.sends(candidate, t))
            for t, own in enumerate(asked)
        )

    def quick(self, candidate: Candidate) -> float:
        """What the collectives of the default order's graph take, over its time, added up over the phases."""
        total = 0.0
        for t, trial in enumerate(self.trials):
            own = 0.0
            for axes in trial.orders.ops:
                key = (axes, self.shape(candidate, t, axes))
                if key not in trial.seconds:
                    trial.seconds[key] = trial.orders.over(axes, self.mesh(candidate, t))
                own += trial.seconds[key]
            if self.dims[0] > 1:
                sends = self.sends(candidate, t)
                if sends not in trial.seconds:
                    trial.seconds[sends] = trial.orders.sends(self.mesh(candidate, t))
                own += trial.seconds[sends]
            total += own / trial.base_s if trial.base_s else 0.0
        return total

    # -- the choice --------------------------------------------------------------------------------

    def chosen(self, found: Sequence[Tried]) -> tuple[Candidate, int]:
        """The best way that stores no weights a second time, and how many better ones do."""
        guard = Guard(self.spec, self.trials)
        for held_back, candidate in enumerate(self.preferred(found)):
            if candidate.way is None or guard.keeps(candidate):
                return candidate, held_back
        raise AssertionError("the default order is among the ways")

    def preferred(self, found: Sequence[Tried]) -> Iterator[Candidate]:
        """Best first."""
        ranked = sorted(found, key=lambda tried: tried.key)
        while ranked:
            ties = [tried for tried in ranked if _same(tried.key, ranked[0].key)]
            ranked = [tried for tried in ranked if not _same(tried.key, ranked[0].key)]
            equal = [c for tried in ties for c in (tried.candidate, *tried.alike)]
            yield from sorted(islice(equal, MOST_CROSSING), key=lambda c: (self.straddling(c), c.number))

    def straddling(self, candidate: Candidate) -> tuple[int, ...]:
        graphs = (trial.lowered(candidate.ids(trial)) for trial in self.trials)
        each = [trial.straddling(graph) for trial, graph in zip(self.trials, graphs, strict=True)]
        return tuple(map(sum, zip(*each, strict=True)))

    def inside(self, trial: Trial, ids: tuple[int, ...]) -> tuple[tuple[str, Mapping[str, int]], ...]:
        """Where the axes of a phase lie, innermost level first; empty where not all domains have the same of them."""
        counts = even_counts(ids, self.domains)
        if counts is None:
            return ()
        sizes, outermost = dict(self.domains), self.hardware.tiers[-1].name
        mesh = trial.graph.the_mesh
        names = [STAGES, *(self.axis(mesh, low) for low, _ in self.bounds)]
        before, out = [1] * len(self.dims), []
        for name, count in counts:
            within = shares(ids, self.dims, sizes[name]) if name else self.dims
            if within is None or prod(within) != count or any(b % a for a, b in zip(before, within, strict=True)):
                return ()
            axes: dict[str, int] = {}
            for axis, inner, outer in zip(names, before, within, strict=True):
                if outer > inner:
                    axes[axis] = axes.get(axis, 1) * (outer // inner)
            out.append((name or outermost, axes))
            before = list(within)
        return tuple(out)

    def axis(self, mesh: Mesh, stride: int) -> str:
        """The name of the axis that has a stride: of attention, in a folded strategy."""
        atom = next(a for a, size in mesh.atoms if mesh.stride(a) <= stride < mesh.stride(a) * size)
        order = (REPLICA, *ATTENTION_SIDE, *AXES)
        return next((name for name in order if atom in mesh.of(name)), atom)


def _same(a: Key, b: Key) -> bool:
    return all(abs(x - y) <= SAME * max(abs(x), abs(y)) for x, y in zip(a, b, strict=True))


class Guard:
    """Whether a way stores weights no more often than the default order: phases that use the same GPUs have most in common."""

    def __init__(self, spec: Spec, trials: Sequence[Trial]) -> None:
        self.trials = trials
        own = {trial.unit.phase.name for trial in trials}
        self.others: dict[str, PhaseResult] = {}
        for phase in spec.phases:
            if phase.name not in own and any(phase.shares(trial.unit.phase) for trial in trials):
                default = phase.strategy.ids or (default_ids(phase) if phase.strategy.best else ())
                unit = Unit(spec, _with(phase, default, best=phase.strategy.best), Collector())
                try:
                    self.others[phase.name] = cost_graph(unverified(unit), unit)
                except SpecError:
                    continue
        shared = self.others or len(trials) > 1
        self.results = {t.unit.phase.name: cost_graph(t.base, t.unit) for t in trials} if shared else {}
        self.before_B = self._held(self.results)

    def _held(self, results: Mapping[str, PhaseResult]) -> float:
        """Weights on the fullest GPU."""
        from . import pools

        return max((pool.weights_B for pool in pools.run({**self.others, **results})), default=0.0) if results else 0.0

    def keeps(self, candidate: Candidate) -> bool:
        if not self.results:
            return True
        moved = {}
        for trial in self.trials:
            name, ids = trial.unit.phase.name, candidate.ids(trial)
            moved[name] = replace(self.results[name], graph=trial.lowered(ids), gpus=ids)
        return self._held(moved) <= self.before_B * (1 + SAME)
