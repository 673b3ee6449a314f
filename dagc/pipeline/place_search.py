"""The search for the GPUs of phases that are placed together.

Ways are ranked by what the collectives of the default order's graph take in them, then compiled, best first, to the exact time;
where times are equal, fewer bytes count, the outermost links first, then fewer groups that straddle a domain which could hold them,
then the default order. Lowering and prices ask a mesh for the shapes of groups and for the sends of stages alone, so a way
that gives the same answers as one that was compiled costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from math import prod

import numpy as np

from ..base.axes import ATTENTION_SIDE, AXES, ENDS, REPLICA, STAGES
from ..base.frozen import field, mutable, record
from ..ir.groups import GroupShape
from ..ir.mesh import Mesh, MeshError
from ..ir.orders import SMALL, Way, even_counts, shares, ways
from ..ir.sharding import Axes
from ..plan.placement import LevelBytes, Placement
from ..spec.phase import Phase
from ..spec.spec import Spec
from .place_trial import Shapes, Trial, with_ids
from .place_weights import SAME, Guard
from .placed_step import trial_of

ALL = 24
PRICED = 16
"""Ways of which all are compiled, and how many are where there are more: a compile is to take no more than twenty times as long."""
MOST_WAYS = 4096
MOST_CROSSING = 240
"""Ways that are looked at: whose axes end together with domains, and of others."""

Key = tuple[float, ...]
Asked = tuple[tuple[Axes, ...], ...]
"""Of each phase, the axes whose groups its lowering and prices ask for."""


@record
class Candidate:
    """`way`: None is the default order."""

    number: int
    way: Way | None

    def ids(self, trial: Trial) -> tuple[int, ...]:
        return trial.default if self.way is None else self.way.ids()


@mutable
class Tried:
    """A way that was compiled: `key` is smaller where it is better. `alike`: ways that cost the same."""

    candidate: Candidate
    key: Key
    alike: list[Candidate] = field(default_factory=list)


class Search:
    """Of phases that are placed together."""

    def __init__(self, spec: Spec, phases: Sequence[Phase]) -> None:
        self.spec = spec
        self.trials = [trial_of(spec, phase) for phase in phases]
        self.hardware = hardware = self.trials[0].unit.spec.hardware
        inner = [(tier.name, tier.gpus) for tier in hardware.tiers[:-1]]
        nics = hardware.nics
        self.domains = [(name, gpus) for name, gpus in inner if gpus is not None]
        self.uneven_nics = nics is not None and nics[0] > 1
        if nics is not None and nics[0] == 1:
            at = sum(size < nics[1] for _, size in self.domains)
            self.domains.insert(at, ("NIC", nics[1]))
        edges = {mesh.stride(a) for mesh in self._meshes() for a, _ in mesh.atoms}
        ranks = len(phases[0].gpus) // phases[0].strategy.pp
        bounds = sorted({*edges, 1, ranks})
        if any(high % low for low, high in pairwise(bounds)):
            raise MeshError("the phases' axes do not nest")
        self.bounds = list(pairwise(bounds))[::-1]
        """[low, high) of the strides of every dimension but the stages, outermost first."""
        self.dims = (phases[0].strategy.pp, *(high // low for low, high in self.bounds))
        self.cut = False
        self.last: tuple[int, dict[int, Mesh]] = (-1, {})

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
            phases[trial.unit.phase.name] = with_ids(trial.unit.phase, ids)
            placements[trial.unit.phase.name] = Placement(
                inside, () if inside else self.order(trial, chosen.way), levels, trial.base_s, after_s, priced + alike + left, priced, alike, held_back, together,
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
        few = len(every) <= ALL or len(self.trials[0].default) <= SMALL
        most = len(every) if few else PRICED
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
            default = candidate.way is None
            graph, asks = (trial.base, trial.asks) if default else trial.asking(candidate.ids(trial))
            time_s, costs = (trial.base_s, trial.base_costs) if default else trial.cost(graph)
            score += time_s / trial.base_s if trial.base_s else 0.0
            total_B += trial.level_B(graph, costs)
            asked.append(asks.of(graph))
        return Tried(candidate, (score, *reversed(total_B.tolist()))), tuple(asked)

    def mesh(self, candidate: Candidate, t: int) -> Mesh:
        """Kept for the last candidate that was asked for: all of them would be too many."""
        number, meshes = self.last
        if number != candidate.number:
            meshes = {}
            self.last = candidate.number, meshes
        if t not in meshes:
            meshes[t] = self.trials[t].mesh(candidate.ids(self.trials[t]))
        return meshes[t]

    def dims_of(self, t: int, axes: Axes) -> frozenset[int]:
        """Dimensions of ways that make up some axes of a phase."""
        trial = self.trials[t]
        if axes not in trial.dims:
            mesh = trial.graph.the_mesh
            spans = [(mesh.stride(a), mesh.stride(a) * mesh.sizes[a]) for a in axes]
            trial.dims[axes] = frozenset(
                1 + i for i, (low, high) in enumerate(self.bounds) if any(a <= low and high <= b for a, b in spans)
            )
        return trial.dims[axes]

    def shape(self, candidate: Candidate, t: int, axes: Axes) -> GroupShape:
        """Of the groups over some axes; ways with equal digits inside domains share it."""
        trial, way = self.trials[t], candidate.way
        if way is None or not way.levels or ENDS in axes:
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
        if way is None or not way.levels or self.uneven_nics:
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
            if candidate.way is None or guard.keeps(candidate.ids):
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

    def order(self, trial: Trial, way: Way | None) -> tuple[str, ...]:
        """Axes outermost first, as a way counts; none of the default order, nor where every assignment of GPUs is a way."""
        if way is None or len(way.gpus) <= SMALL:
            return ()
        names = [STAGES, *(self.axis(trial.graph.the_mesh, low) for low, _ in self.bounds)]
        axes = [names[dim] for dim, size in way.digits if size > 1]
        return tuple(axis for axis, before in zip(axes, ["", *axes], strict=False) if axis != before)

    def axis(self, mesh: Mesh, stride: int) -> str:
        """The name of the axis that has a stride: of attention, in a folded strategy."""
        atom = next(a for a, size in mesh.atoms if mesh.stride(a) <= stride < mesh.stride(a) * size)
        order = (REPLICA, *ATTENTION_SIDE, *AXES)
        return next((name for name in order if atom in mesh.of(name)), atom)


def _same(a: Key, b: Key) -> bool:
    return all(abs(x - y) <= SAME * max(abs(x), abs(y)) for x, y in zip(a, b, strict=True))
