"""A phase that is to be placed: its graph up to the mesh, and what it costs on any GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ..base.diagnostics import Collector
from ..base.frozen import replace
from ..cost import chunks
from ..cost.kept_costs import KeptCosts
from ..cost.order_costs import OrderCosts
from ..cost.price import price
from ..cost.records import Costs
from ..cost.schedule.period import period_s
from ..ir.chains import Prices
from ..ir.graph import Graph
from ..ir.graph_pass import GraphPass
from ..ir.groups import GroupShape
from ..ir.least import Price
from ..ir.mesh import GpuMap, Mesh, refine
from ..ir.sharding import Axes
from ..passes.ep import ExpertParallel
from ..passes.mesh import MakeMesh
from ..passes.reshard import Reshard
from ..passes.sp import SequenceParallel
from ..passes.tp import TensorParallel
from ..plan.totals import collective_totals
from ..spec.factors import factorisations
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .analyse import check, of_size
from .lower import passes_of, unverified
from .run_passes import run

Shapes = tuple[GroupShape, ...]
PRICED = (ExpertParallel, Reshard)
"""Passes that ask for prices."""
UNPLACED = (TensorParallel, SequenceParallel)
"""Passes after the mesh that do not look at its GPUs: once for all placements."""
KEPT = 64
"""Placements whose graphs and costs are kept: those of one that was tried are asked for again when it is chosen."""


class Asks:
    """Axes whose prices a lowering asked for."""

    def __init__(self) -> None:
        self.priced: set[Axes] = set()

    def of(self, graph: Graph) -> tuple[Axes, ...]:
        """And those whose groups the costs of its graph asked for: with its stages all that it knows of where GPUs are."""
        return tuple(sorted({*self.priced, *graph.the_mesh.asked}))


class Asking:
    """Prices that note what they are asked. Each is other prices than all before: nothing that is kept of these answers for it."""

    noted: ClassVar[bool] = True

    def __init__(self, prices: Prices, asks: Asks) -> None:
        self.prices, self.asks = prices, asks

    def of(self, mesh: Mesh) -> Price:
        price = self.prices.of(mesh)

        def noted(kind: str, payload_B: float, axes: Axes) -> float:
            self.asks.priced.add(axes)
            return price(kind, payload_B, axes)

        return noted


def with_ids(phase: Phase, ids: tuple[int, ...], *, best: bool = True) -> Phase:
    """The phase on these GPUs, stage by stage, ranks in mesh order; none: in its default order."""
    return replace(phase, strategy=replace(phase.strategy, ids=ids, best=best))


def default_ids(phase: Phase) -> tuple[int, ...]:
    """The GPU of every rank as `order` deals them out. Raises MeshError."""
    s = phase.strategy
    sides = factorisations(s)
    mesh = replace(refine(sides, {}), stages=s.pp)
    return MakeMesh(sides=sides, stages=s.pp, order=s.order, gpus=phase.gpus).ids(mesh)


def _last(passes: Sequence[GraphPass], graph: Graph) -> Graph:
    """The graph behind the last of the passes."""
    *_, (_, last) = run(passes, graph)
    return last


class Trial:
    """One phase: its graph up to the mesh, and what it costs on any GPUs."""

    def __init__(self, spec: Spec, phase: Phase) -> None:
        from ..lang.expand import expand

        self.default = default_ids(phase)
        self.kept = KeptCosts()
        self.unit = Unit(spec, with_ids(phase, self.default), Collector())
        passes = passes_of(self.unit)
        cut = next(i for i, one in enumerate(passes) if isinstance(one, MakeMesh)) + 1
        while type(passes[cut]) in UNPLACED:
            cut += 1
        self.rest = passes[cut:]
        self.graph = _last(passes[:cut], expand.run(self.unit))
        self.graphs: dict[tuple[int, ...], Graph] = {}
        self.costs: dict[tuple[int, ...], tuple[float, Costs]] = {}
        self.base, self.asks = self.asking(self.default)
        check(self.base, self.unit)
        self.base_s, self.base_costs = self.cost(self.base)
        self.orders = OrderCosts(self.base, self.unit)
        self.dims: dict[Axes, frozenset[int]] = {}
        self.shapes: dict[tuple[Axes, tuple[int, ...]], GroupShape] = {}
        self.sends: dict[tuple[int, ...], Shapes] = {}
        self.seconds: dict[object, float] = {}

    def unit_on(self, ids: tuple[int, ...]) -> Unit:
        return replace(self.unit, phase=with_ids(self.unit.phase, ids))

    def mesh(self, ids: tuple[int, ...]) -> Mesh:
        mesh = self.graph.the_mesh
        known = mesh.the_gpus
        return replace(mesh, gpus=GpuMap(ids, known.per_node, known.beyond, known.nics))

    def lowered(self, ids: tuple[int, ...]) -> Graph:
        known = self.graphs.get(ids)
        return _last(self.rest, replace(self.graph, mesh=self.mesh(ids))) if known is None else known

    def asking(self, ids: tuple[int, ...]) -> tuple[Graph, Asks]:
        """The same, and the axes whose groups were asked for on the way."""
        asks = Asks()
        passes = [
            replace(one, prices=Asking(one.prices, asks)) if isinstance(one, PRICED) else one for one in self.rest
        ]
        graph = _last(passes, replace(self.graph, mesh=self.mesh(ids)))
        if len(self.graphs) < KEPT:
            self.graphs[ids] = graph
        return graph, asks

    def cost(self, graph: Graph) -> tuple[float, Costs]:
        """Seconds of the phase, and the costs of its largest pass: what `compile` finds."""
        ids = graph.the_mesh.the_gpus.ids
        if self.graphs.get(ids) is not graph:
            return self._cost(graph)
        if ids not in self.costs:
            self.costs[ids] = self._cost(graph)
        return self.costs[ids]

    def _cost(self, graph: Graph) -> tuple[float, Costs]:
        unit, phase = self.unit_on(graph.the_mesh.the_gpus.ids), self.unit.phase
        total, whole = 0.0, None
        for size in chunks.sizes(phase):
            own = of_size(graph, phase, size)
            costs = price(own, unit, kept=self.kept)
            total += size.count * period_s(own, costs)
            whole = costs if own is graph else whole
        if phase.drafter != "none":
            from .drafts import draft_units

            for count, drafted in draft_units(unit, graph):
                draft = unverified(drafted)
                total += count * period_s(draft, price(draft, drafted))
        per_step = 1.0 if phase.parts or not graph.generates else phase.tokens_per_step
        return total / per_step, price(graph, unit, kept=self.kept) if whole is None else whole

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
