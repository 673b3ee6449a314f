"""expert_load: what the expert ranks of a layer have to do, from one routing distribution.

Every rank has its expected rows and distinct experts, scaled so that the largest is the expected largest: ranks wait for
the busiest one, whichever it is in a step (`dagc/cost/busiest.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from math import ceil, fsum, sqrt
from typing import Any

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from ..base.traced import called
from ..base.units import Quantity
from ..calib.expert_rows import ExpertRows
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.ops.op_set import OPS
from ..ir.routed_dims import NO_LIMIT, GroupLimit, Rows, empty_count, group_limit, routed, routers, skipped
from ..ir.segment import Segment
from ..ir.sharding import Axes
from ..spec.batching import Batching
from ..spec.rebalance import Rebalance
from ..spec.unit import Unit
from ..spec.workload import Routing
from .busiest import DRAWS, Skip
from .cached_experts import ALL_HELD, Held
from .expert_placement import place_layers
from .expert_work import RankWork
from .kept_work import kept_work
from .rank_work import Choices, works_of
from .records import Array, LayerLoad, WhenAsked
from .routing import expert_probabilities

Floats = NDArray[np.float64]
Slots = NDArray[np.int64]


@record(slots=False)
class ExpertLoad:
    """Work of the expert ranks, laid over the mesh: arrays of length 1 where all ranks are equal. `filled`: share of the
    batch's places that have a sequence. `each`: work in each of the `layers`, where their loads differ; `ranks` is the
    mean over them, busiest ranks with busiest ranks. `unplaced`: rows of the busiest rank over the mean in each layer, experts as they are
    numbered and without spare copies, where they are otherwise."""

    ranks: RankWork
    axes: tuple[str, ...]
    mesh: Mesh
    filled: float = 1.0
    layers: tuple[int, ...] = ()
    each: tuple[RankWork, ...] = ()
    unplaced: WhenAsked | None = None

    @property
    def numbered(self) -> float | WhenAsked:
        """The mean of `unplaced`."""
        return self.ranks.plain if self.unplaced is None else self.unplaced

    @cached_property
    def work(self) -> Array:
        """Rows over the mean of all ranks in a full batch."""
        return self.over_mesh(self.ranks.relative * self.filled)

    @cached_property
    def reads(self) -> Array:
        """Share of a rank's expert weights that it reads."""
        return self.over_mesh(self.ranks.read)

    @cached_property
    def missed(self) -> Array:
        """Share of a rank's expert weights that come from host memory."""
        return self.over_mesh(self.ranks.missed)

    @property
    def by_layer(self) -> Iterator[LayerLoad]:
        """Each layer's own load, where they differ."""
        plain = [work.plain for work in self.each] if self.unplaced is None else self.unplaced.each
        for layer, work, own in zip(self.layers, self.each, plain, strict=False):
            yield LayerLoad(layer, float(work.relative.max()), own)

    @property
    def most(self) -> float:
        """Rows of the busiest rank over the mean."""
        return float(self.ranks.relative.max())

    def over_mesh(self, values: Floats) -> Array:
        """A value for each expert rank, laid over the mesh; of length 1 where all are equal."""
        if np.ptp(values) <= 1e-12 * float(np.abs(values).max(initial=0.0)):
            return np.asarray(values.ravel()[:1].reshape([1] * len(self.mesh.atoms)))
        return self.in_mesh_order(values).reshape([n if name in self.axes else 1 for name, n in self.mesh.atoms])

    def in_mesh_order(self, values: Floats) -> Floats:
        """Expert axes are ordered as the op splits them; bring them to mesh order."""
        order = np.argsort([self.mesh.index[a] for a in self.axes])
        return np.asarray(values.reshape([self.mesh.sizes[a] for a in self.axes]).transpose(order).reshape(-1))

    @staticmethod
    def of(graph: Graph, segment: Segment, rows: Rows, unit: Unit) -> ExpertLoad:
        """The load that one router of a layer makes."""
        mesh = graph.the_mesh
        axes, slot = expert_axes(segment, rows)
        count, top_k = int(segment.sizes[rows.expert]), int(segment.sizes[rows.choice])
        tokens, filled = routed_tokens(segment, slot, mesh, unit.phase.batching)
        capacity = unit.spec.model.attributes.get("experts.capacity")
        full = float("inf")
        if isinstance(capacity, Quantity) and capacity.value:
            full = max(capacity.value, LEAST_CAPACITY) * top_k / (count + empty_count(segment, rows))
        layers = tuple(index for own, index in graph.layers if own is segment) if unit.routing.layers else ()
        strategy, draws = unit.phase.strategy, _draws(layers)
        limit, nodes = group_limit(segment, rows), mesh.group(axes).nodes
        routings = unit.routing.of_layers(layers, routed_layers(graph) if layers else ())
        given = count, top_k, mesh.size(axes), strategy.redundant
        limits = full, draws, limit, nodes
        held = Held.of(unit.phase.experts, count + strategy.redundant, mesh.size(axes))
        by_choice = tuple(skipped(segment, rows, skip) for skip in unit.phase.experts.by_choice)
        how = strategy.placing, by_choice or skipped(segment, rows), held
        if strategy.rebalance is not None:
            return _load_over_time(
                axes,
                mesh,
                layers,
                strategy.rebalance,
                rows_of_series(strategy.rebalance, layers, graph),
                given,
                limits,
                how,
                tokens,
                filled,
            )
        return _load(axes, mesh, layers, routings, given, limits, how, tokens, filled)


@called
def _load(
    axes: Axes, mesh: Mesh, layers: tuple[int, ...], routings: tuple[Routing, ...], given: tuple[int, int, int, int],
    limits: tuple[float, int, GroupLimit, int], how: tuple[str, Skip, Held], tokens: float, filled: float,
) -> ExpertLoad:  # fmt: skip
    """`given`: experts, top_k, ranks and redundant experts; `limits` and `how`, with the share that is skipped: as `layer_work` takes them."""
    each = layer_work(routings, *given, tokens, *limits, *how)
    unplaced = None
    experts, top_k, ranks, redundant = given
    placing, *others = how
    if (redundant or (placing or "linear") != "linear") and experts % ranks == 0:
        unplaced = WhenAsked(_numbered, (routings, experts, top_k, ranks, 0, tokens, *limits, "linear", *others))
    return ExpertLoad(mean_work(each), axes, mesh, filled, layers, each if len(each) > 1 else (), unplaced)


def _numbered(*given: Any) -> tuple[float, ...]:
    """Of layers the rows of the busiest rank over the mean. `given`: as `layer_work` takes it."""
    return tuple(work.plain for work in layer_work(*given))


@called
def _load_over_time(
    axes: Axes, mesh: Mesh, layers: tuple[int, ...], plan: Rebalance, rows: tuple[int, ...], given: tuple[int, int, int, int],
    limits: tuple[float, int, GroupLimit, int], how: tuple[str, Skip, Held], tokens: float, filled: float,
) -> ExpertLoad:  # fmt: skip
    """The same where loads change, and experts are placed anew: of every layer the mean over time."""
    from .rebalancing import work_over_time

    full, _, limit, nodes = limits
    found = work_over_time(plan, rows, given, max(1, ceil(tokens - 1e-9)), full, limit, nodes, *how)
    each = tuple(mean_work(windows) for windows in found)
    return ExpertLoad(mean_work(each), axes, mesh, filled, layers, each if len(each) > 1 else ())


def rows_of_series(plan: Rebalance, layers: tuple[int, ...], graph: Graph) -> tuple[int, ...]:
    """The rows of each window that have the loads of some layers."""
    series = plan.series
    if len(series.windows[0]) == 1:
        return (0,)
    place = {number: row for row, number in enumerate(series.numbers or routed_layers(graph))}
    return tuple(place[layer] for layer in layers)


def expert_slots(graph: Graph, segment: Segment, rows: Rows, unit: Unit) -> Slots:
    """Experts that each rank of the routed experts holds [ranks, slots], for the loads of all layers together."""
    mesh, s = graph.the_mesh, unit.phase.strategy
    axes, slot = expert_axes(segment, rows)
    tokens, _ = routed_tokens(segment, slot, mesh, unit.phase.batching)
    count, top_k = int(segment.sizes[rows.expert]), int(segment.sizes[rows.choice])
    limit, nodes = group_limit(segment, rows), mesh.group(axes).nodes
    whole = max(1, ceil(tokens - 1e-9))
    given = count, top_k, mesh.size(axes), s.redundant, whole, limit.groups, nodes, s.placing
    return np.asarray(placed_layers((unit.routing,), *given)[1][0])


def expert_axes(segment: Segment, rows: Rows) -> tuple[Axes, Axes]:
    """Axes that split the experts of a router, and those over which its rows differ."""
    own = [op for op in segment.ops if op.scope == "experts" and not op.is_collective and routed(segment, op) == rows]
    grouped = next((op for op in own if OPS[op.kind].product), own[0])
    return grouped.loop(rows.expert), grouped.loop(rows.slot)


def routed_layers(graph: Graph) -> tuple[int, ...]:
    """Numbers of the layers that have routed experts, the first transformer layer 0."""
    sparse = {segment.name for segment in graph.segments if routers(segment)}
    return tuple(index for segment, index in graph.layers if segment.name in sparse)


def _draws(layers: tuple[int, ...]) -> int:
    """Random steps of each layer: their means even out over the layers too."""
    return max(FEWEST_DRAWS, DRAWS // max(1, len(layers)))


FEWEST_DRAWS = 32


def mean_work(each: tuple[RankWork, ...]) -> RankWork:
    """Mean over layers with loads of their own. Every layer waits for its own busiest rank, whichever that is: ranks are
    taken in the order of their work in each layer, and the means put on the ranks in the order of all layers' work."""
    if len(each) == 1:
        return each[0]
    orders = [np.argsort(-work.relative, kind="stable") for work in each]
    place = np.argsort(np.argsort(-np.sum([work.relative for work in each], axis=0), kind="stable"))

    def mean(arrays: Iterable[Floats]) -> Floats:
        found = np.mean([array[order] for array, order in zip(arrays, orders, strict=True)], axis=0)
        return np.asarray(found[place])

    kernel = ExpertRows(*(mean(work.kernel[part] for work in each) for part in range(len(each[0].kernel))))
    return RankWork(
        relative=mean(work.relative for work in each),
        read=mean(work.read for work in each),
        missed=mean(work.missed for work in each),
        slot_rows=mean(work.slot_rows for work in each),
        kernel=kernel,
        distinct=_fmean([work.distinct for work in each]),
        plain=_fmean([work.plain for work in each]),
        dropped=_fmean([work.dropped for work in each]),
        error=sqrt(sum(work.error**2 for work in each)) / len(each),
    )


def _fmean(values: Sequence[float]) -> float:
    """As `statistics.fmean`, whose module imports exact and decimal arithmetic."""
    return fsum(values) / len(values)


def routed_tokens(segment: Segment, slot: Axes, mesh: Mesh, batching: Batching) -> tuple[float, float]:
    """Tokens of the fullest group of ranks that route together (`slot`: the axes over which groups differ), and their share
    of what the group has room for: empty places of the batch send nothing to experts."""
    share = batching.share(mesh.size(tuple(a for a in slot if a in mesh.batch_axes)))
    return segment.sizes["batch"] * segment.sizes["seq"] / mesh.size(slot) * share, share


LEAST_CAPACITY = 1e-9
"""Less drops every token as well, and what is left is divided by."""


def rank_work(
    routing: Routing, experts: int, top_k: int, ranks: int, redundant: int, tokens: float, full: float = float("inf"),
    draws: int = DRAWS, limit: GroupLimit = NO_LIMIT, nodes: int = 1, how: str = "", skip: Skip = 0.0,
    held: Held = ALL_HELD,
) -> RankWork:  # fmt: skip
    """One layer of `layer_work`."""
    return layer_work((routing,), experts, top_k, ranks, redundant, tokens, full, draws, limit, nodes, how, skip, held)[
        0
    ]


@lru_cache(maxsize=1024)
def layer_work(
    routings: tuple[Routing, ...], experts: int, top_k: int, ranks: int, redundant: int, tokens: float, full: float = float("inf"),
    draws: int = DRAWS, limit: GroupLimit = NO_LIMIT, nodes: int = 1, how: str = "", skip: Skip = 0.0,
    held: Held = ALL_HELD,
) -> tuple[RankWork, ...]:  # fmt: skip
    """Of layers with these loads. `tokens` that choose among the experts; `full`: rows for each of them that an expert takes at most; `draws`: random
    steps at most; `limit`: groups of experts that a token may use, which a placement by loads keeps on one of the `nodes`; `how` experts
    are placed; `skip`: share of the choices that are left out; `held`: experts that GPUs have there. Sensitivities and searches ask for the same work again and again."""
    given = routings, experts, top_k, ranks, redundant, tokens, full, draws, limit, nodes, how, skip, held
    return kept_work(given, _layer_work)


def _layer_work(
    routings: tuple[Routing, ...], experts: int, top_k: int, ranks: int, redundant: int, tokens: float, full: float, draws: int,
    limit: GroupLimit, nodes: int, how: str, skip: Skip, held: Held,
) -> tuple[RankWork, ...]:  # fmt: skip
    whole = max(1, ceil(tokens - 1e-9))  # where ranks have unequal numbers of tokens, the group with most of them
    how = how or ("eplb" if redundant else "linear")
    wanted, slots = placed_layers(routings, experts, top_k, ranks, redundant, whole, limit.groups, nodes, how)
    return works_of(wanted, slots, Choices(whole, top_k, full, draws, limit, skip, held))


@lru_cache(maxsize=256)
def placed_layers(
    routings: tuple[Routing, ...], experts: int, top_k: int, ranks: int, redundant: int, tokens: int, groups: int, nodes: int, how: str
) -> tuple[Floats, Slots]:  # fmt: skip
    """Of layers with these loads: the chance that a token picks each expert [layers, experts], and the expert in each slot
    [layers, ranks, slots]."""
    in_order = how == "linear" and experts % ranks == 0
    p = np.stack([
        expert_probabilities(routing, experts, top_k, tokens=tokens, ranks=ranks if in_order else 1) for routing in routings
    ])  # fmt: skip
    return p, _placed(p.tobytes(), p.shape, ranks, redundant, groups, nodes, how)


@lru_cache(maxsize=16)
def _placed(
    chances: bytes, shape: tuple[int, int], ranks: int, redundant: int, groups: int, nodes: int, how: str
) -> Slots:
    """Most loads are the same for every number of tokens."""
    return place_layers(np.frombuffer(chances).reshape(shape), ranks, redundant, groups, nodes, how)
