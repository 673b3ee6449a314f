"""pools: what GPUs hold that several phases share, GPU by GPU.

Phases take turns on a GPU. A weight that they lay out in the same way there is stored once, otherwise once per
layout. Of cache and of work space the larger counts: a cache that one phase fills the next one reads, and what a pass
needs is free again for the next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from ..base.arrays import NDArray
from ..base.diagnostics import Collector
from ..base.units import BYTES, show
from ..cost.footprint import StageMemory
from ..cost.memory import capacity, weight_size
from ..ir.mesh import Mesh
from ..ir.op import Weight
from ..ir.segment import Segment
from ..plan.pools import SAME, Pool, listed, text
from ..plan.result import PhaseResult
from ..spec.unit import Unit

Ids = NDArray[np.int64]
BLOCKS = 1 << 32
"""More blocks than any weight is cut into."""


def run(phases: Mapping[str, PhaseResult], alternating: Collection[frozenset[str]] = ()) -> tuple[Pool, ...]:
    """A pool for each set of phases that some GPUs serve, in the order of their first GPU. Every GPU in use is in one. `alternating`: phases
    that take turns, whose GPUs store the weights of one of them at a time."""
    if not phases:
        return ()
    sharing = Sharing(list(phases.values()), alternating)
    by_phases: dict[tuple[tuple[str, ...], str], list[Pool]] = {}
    for pool in sharing.alike():
        by_phases.setdefault((pool.phases, pool.hardware), []).append(pool)
    return tuple(sorted((_merged(parts) for parts in by_phases.values()), key=sharing.place))


def _merged(parts: Sequence[Pool]) -> Pool:
    """GPUs of the same phases at other stages of them: the fullest represents them all."""
    fullest = max(parts, key=lambda pool: pool.fraction)
    room = {key: min(p.room_B[key] for p in parts if key in p.room_B) for part in parts for key in part.room_B}
    return Pool(
        fullest.phases,
        tuple(sorted(chain.from_iterable(part.gpus for part in parts))),
        fullest.fullest,
        fullest.weights_B,
        fullest.copies_B,
        fullest.kv_cache_B,
        fullest.work_B,
        fullest.reserve_B,
        fullest.capacity_B,
        room,
        fullest.hardware,
    )


class Seats(NamedTuple):
    """Of phases: the hardware sections, the ids of one of them, and as in `Sharing`; `together`: (stage of each phase, GPUs)."""

    hardware: tuple[str, ...]
    span: int
    gpus: Ids
    stage: Ids
    rank: Ids
    together: tuple[tuple[Ids, Ids], ...]


@lru_cache(maxsize=64)
def _seats(phases: tuple[tuple[tuple[str, tuple[int, ...]], ...], ...]) -> Seats:
    """`phases`: hardware section and GPUs of each stage of each; the same for all sizes of one plan."""
    hardware = tuple(dict.fromkeys(own for stages in phases for own, _ in stages))
    span = 1 + max(max(gpus) for stages in phases for _, gpus in stages)
    starts = {own: span * k for k, own in enumerate(hardware)}
    every: Ids = _distinct(
        np.concatenate([starts[own] + np.asarray(gpus, dtype=np.int64) for stages in phases for own, gpus in stages])
    )
    stage: Ids = np.full((len(phases), len(every)), -1)
    rank: Ids = np.full_like(stage, -1)
    for i, stages in enumerate(phases):
        for k, (own, gpus) in enumerate(stages):
            at = np.searchsorted(every, starts[own] + np.asarray(gpus, dtype=np.int64))
            stage[i, at] = k
            rank[i, at] = np.arange(len(gpus))
    which: Ids = np.zeros(len(every), dtype=np.int64)  # of all combinations of stages, in their order
    for own_stage in stage:
        codes = which * (len(every) + 2) + own_stage + 1
        which = np.searchsorted(_distinct(codes), codes)
    parts = [np.flatnonzero(which == k) for k in range(int(which.max(initial=-1)) + 1)]
    return Seats(hardware, span, every, stage, rank, tuple((stage[:, at[0]], at) for at in parts))


def _distinct(numbers: Ids) -> Ids:
    """Each once, in order: np.unique would import numpy.ma, a twentieth of a whole compilation."""
    ordered = np.sort(numbers)
    found: Ids = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    return found


class Sharing:
    """Where phases sit: `stage` and `rank` of every phase on every GPU in use [phases, gpus], -1 where it is not there. `gpus`: ids
    of all hardware sections in a row, those of section i from i * `span` on."""

    def __init__(self, results: Sequence[PhaseResult], alternating: Collection[frozenset[str]] = ()) -> None:
        self.results = results
        self.alternating = alternating
        seats = _seats(tuple(tuple((seat.hardware, seat.ids) for seat in r.seats) for r in results))
        self.hardware, self.span, self.gpus, self.stage, self.rank, self.together = seats
        self.kinds: dict[tuple[object, ...], int] = {}
        self.kind_B: list[float] = []
        self.blocks: dict[tuple[int, str, str], dict[tuple[bool, str], Ids]] = {}

    def alike(self) -> list[Pool]:
        """A pool for each combination of phases and their stages on a GPU."""
        return [self.pool(stages, at) for stages, at in self.together]

    def place(self, pool: Pool) -> tuple[int, int]:
        """In the order of hardware sections and of the first GPU."""
        return self.hardware.index(pool.hardware), pool.gpus[0]

    def pool(self, stages: Ids, at: Ids) -> Pool:
        """What the GPUs `self.gpus[at]` hold: stage `stages[i]` of phase i."""
        here = [i for i, stage in enumerate(stages) if stage >= 0]
        needs = {i: self.results[i].memory.stages[stages[i]] for i in here}
        own_B = max(need.weights_B for need in needs.values())
        layouts = sorted({self.layout[i] for i in here})
        weights_B = np.full(len(at), own_B)
        names = {self.results[i].name for i in here}
        if len(layouts) > 1 and not any(names <= turns for turns in self.alternating):
            drafters_B = [max(n.drafter_B for i, n in needs.items() if self.layout[i] == own) for own in layouts]
            weights_B = self.weights(layouts, stages, at) + sum(drafters_B)  # each layout has its own copy
        fullest = int(weights_B.argmax())
        work_B = max(n.peak_B - n.weights_B - n.kv_cache_B - n.reserve_B for n in needs.values())
        reserve_B = max(need.reserve_B for need in needs.values())
        cache_B = max(need.kv_cache_B for need in needs.values())
        held = StageMemory(-1, float(weights_B[fullest]), cache_B, work_B, 0.0, reserve_B, 0.0)
        memories = [(m := self.results[i].memory, m.total_at(stages[i])) for i in here]
        limit_B = min(capacity(held, total_B, m.engine) if m.engine is not None else total_B for m, total_B in memories)
        return Pool(
            tuple(self.results[i].name for i in here),
            tuple((self.gpus[at] % self.span).tolist()),
            int(self.gpus[at[fullest]] % self.span),
            float(weights_B[fullest]),
            max(0.0, float(weights_B[fullest]) - own_B),
            cache_B,
            work_B,
            reserve_B,
            limit_B,
            {(self.results[i].name, int(stages[i])): limit_B - held.peak_B + cache_B for i in here},
            self.results[here[0]].seats[stages[here[0]]].hardware,
        )

    @cached_property
    def layout(self) -> list[int]:
        """Of every phase, the first that lays all weights as it does."""
        numbers: dict[object, int] = {}
        out = []
        for i, result in enumerate(self.results):
            graph = result.graph
            weights = tuple(
                tuple((w.name, w.dtype, w.dims, w.sharding, w.placed) for w in s.weights) for s in graph.segments
            )
            sizes = tuple(tuple(s.size(d, w.scope) for w in s.weights for d in w.dims) for s in graph.segments)
            key = (
                result.hardware,
                result.gpus,
                graph.the_mesh.atoms,
                graph.the_mesh.apart,
                tuple(s.layers for s in graph.stages),
                weights,
                sizes,
            )
            out.append(numbers.setdefault(key, i))
        return out

    def weights(self, layouts: Sequence[int], stages: Ids, at: Ids) -> NDArray[np.float64]:
        """Bytes of weights on each GPU, every block of a weight counted once."""
        total = np.zeros(len(at))
        tables: dict[str, list[Ids]] = {}
        layers = [_layers(self.results[i], int(stages[i])) for i in layouts]
        bounds = sorted({edge for runs in layers for start, end, _ in runs for edge in (start, end)})
        counts: dict[tuple[tuple[int, str], ...], int] = {}
        for low, high in pairwise(bounds):
            names = [next((n for start, end, n in runs if start <= low < end), "") for runs in layers]
            held = tuple((i, name) for i, name in zip(layouts, names, strict=True) if name)
            counts[held] = counts.get(held, 0) + high - low
        for held, count in counts.items():
            found: dict[str, list[Ids]] = {}
            for i, name in held:
                on = self.results[i].memory.stages[stages[i]].on
                for (tied, weight), blocks in self.held(i, name, on).items():
                    (tables if tied else found).setdefault(weight, []).append(blocks[self.rank[i, at]])
            total += count * sum(self.distinct(blocks) for blocks in found.values())
        return total + sum(self.distinct(blocks) for blocks in tables.values())

    def held(self, phase: int, segment: str, on: str) -> dict[tuple[bool, str], Ids]:
        """(whether the model has it once for several layers, name) of a weight -> the block of it on each of the ranks `on`."""
        key = (phase, segment, on)
        if key not in self.blocks:
            graph = self.results[phase].graph
            shared = {w.tied for s in graph.segments for w in s.weights if w.tied}
            mesh, found = graph.the_mesh, graph.segment(segment)
            shape = mesh.side_shape(on)
            coordinates = np.indices(shape).reshape(len(shape), prod(shape))
            first = segment == graph.embedding.name
            out: dict[tuple[bool, str], Ids] = {}
            for weight in found.weights:
                if weight.sharding is not None and weight.sharding.on != on:
                    continue
                name = weight.tied or weight.name
                tied = bool(weight.tied) or (first and name in shared)
                out[tied, name] = self.block(found, weight, mesh, coordinates)
            self.blocks[key] = out
        return self.blocks[key]

    def block(self, segment: Segment, weight: Weight, mesh: Mesh, coordinates: Ids) -> Ids:
        """A number for the block of a weight on each rank, the same in all phases."""
        assert weight.sharding is not None
        dims = sorted(zip(weight.dims, weight.sharding.dims, strict=True))
        cut = tuple((d, segment.size(d, weight.scope), mesh.size(axes)) for d, axes in dims)
        kind = self.kinds.setdefault((weight.tied or weight.name, weight.dtype, weight.placed, cut), len(self.kinds))
        if kind == len(self.kind_B):
            self.kind_B.append(0.0)
        # Of phases that hold some of the experts and such that hold all, all are there.
        self.kind_B[kind] = max(self.kind_B[kind], weight_size(segment, weight, mesh))
        index = np.zeros(coordinates.shape[1], dtype=np.int64)
        for _, axes in dims:
            for axis in axes:
                index = index * mesh.sizes[axis] + coordinates[mesh.index[axis]]
        out: Ids = index + kind * BLOCKS
        return out

    def distinct(self, blocks: Sequence[Ids]) -> NDArray[np.float64]:
        """Bytes of the different blocks on each GPU."""
        stacked = np.sort(np.stack(blocks), axis=0)
        sizes = np.asarray(self.kind_B)[stacked // BLOCKS]
        sizes[1:][stacked[1:] == stacked[:-1]] = 0.0
        total: NDArray[np.float64] = sizes.sum(axis=0)
        return total


def _layers(result: PhaseResult, stage: int) -> list[tuple[int, int, str]]:
    """Runs of equal layers of a stage: (first layer, the one after the last, kind)."""
    stage %= len(result.graph.stages)
    at = sum(count for before in result.graph.stages[:stage] for _, count in before.layers)
    out = []
    for name, count in result.graph.stages[stage].layers:
        out.append((at, at + count, name))
        at += count
    return out


def check(
    pools: Sequence[Pool],
    phases: Mapping[str, PhaseResult],
    units: Mapping[str, Unit],
    out: Collector,
    cures: Callable[[Pool], tuple[str, ...]] | None = None,
) -> None:
    """W06 where phases lay weights out differently on the same GPUs; E04 where what each alone has room for does not fit
    together, with help by `cures`."""
    for pool in pools:
        if not pool.shared:
            continue
        span = units[pool.phases[-1]].phase.span
        quoted = listed([f"`{name}`" for name in pool.phases])
        gpus = f"{len(pool.gpus)} GPU{'s' if len(pool.gpus) > 1 else ''}"
        if pool.copies_B > SAME * pool.weights_B:
            out.add(
                "W06",
                f"{quoted} share {gpus} and lay weights out differently: {show(pool.copies_B, BYTES)} of second copies on each",
                span,
                because=(text(pool),),
                help=("equal pp, ep, tp and placement in all of them keep one copy",),
            )
        if not pool.fits and all(phases[name].memory.fits for name in pool.phases):
            excess = show(pool.peak_B - pool.capacity_B, BYTES)
            out.add(
                "E04",
                f"{quoted} do not fit together on the {gpus.removeprefix('1 ')} that they share: {excess} too much",
                span,
                because=(f"GPU {pool.fullest}: {text(pool)}",),
                help=cures(pool) if cures is not None else (),
            )
