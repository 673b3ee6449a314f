"""Weights that GPUs have to fetch when a plan changes: from GPUs that still have them, else from storage.

Every weight is cut where any layout of either plan cuts it, experts one by one. A GPU fetches the pieces that the new plan wants on it
and that it does not hold yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from math import lcm, prod

import numpy as np

from ..base.arrays import NDArray
from ..base.dtypes import dtype
from ..base.frozen import record, replace
from ..cost.expert_load import expert_slots
from ..ir.entries import counts_tokens, group_of
from ..ir.op import Op, Weight
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS
from ..ir.routed_dims import routers, stem
from ..ir.segment import Segment
from ..plan.plan import CompiledPlan
from ..spec.hardware import Hardware

PARTS = 8
"""Parts of a run of equal layers whose lacking experts may go to different ranks."""
Bits = NDArray[np.bool_]
Gpu = tuple[str, int]
"""Its pool and its id there."""
Ids = NDArray[np.int64]


@record
class Moved:
    """Bytes of weights that all GPUs together fetch: over the links of a node, between nodes, between pools, and from storage, where no GPU that is
    left has them. `time_s`: of the GPU that takes longest, each fetching over its own links, from storage over the link
    of its host. `fetching`: GPUs that fetch anything. `experts`: (layer, expert) pairs that were on lost GPUs alone."""

    node_B: float = 0.0
    cluster_B: float = 0.0
    pools_B: float = 0.0
    storage_B: float = 0.0
    time_s: float = 0.0
    fetching: int = 0
    experts: int = 0

    @property
    def total_B(self) -> float:
        return self.node_B + self.cluster_B + self.pools_B + self.storage_B


def moved(
    before: CompiledPlan,
    after: CompiledPlan,
    lost: Mapping[str, Collection[int]],
    changed: Sequence[str],
    *,
    least: bool = False,
) -> Moved:
    """What the GPUs of the `changed` phases fetch. Experts go where the new plan's balanced placement has them; `least`: GPUs keep
    those that they have, and only experts that a group of expert ranks lacks go to the ranks with most room."""
    return _Moves(before, after, lost, tuple(changed), least).total()


def relaid(plan: CompiledPlan, before: str, after: str) -> Moved:
    """What the GPUs of a phase fetch of its weights where they hold those of another phase alone, as that one lays them out."""
    return moved(replace(plan, phases={before: plan.phases[before]}), plan, {}, (after,))


def cache_relaid(plan: CompiledPlan, before: str, after: str) -> Moved:
    """What the GPUs of a phase fetch of caches that another one has filled, for a token of cache: the mean over all ranks that share out
    sequences and tokens. States that do not grow with the context are left out."""
    found = _Caches(replace(plan, phases={before: plan.phases[before]}), plan, {}, (after,), least=False)
    whole = found.total()
    tokens = prod(found.sizes.values())
    return replace(
        whole, node_B=whole.node_B / tokens, cluster_B=whole.cluster_B / tokens, pools_B=whole.pools_B / tokens,
        storage_B=whole.storage_B / tokens, time_s=whole.time_s / tokens,
    )  # fmt: skip


class _Held:
    """One phase of a plan: where its ranks are, and which part of each weight they hold."""

    def __init__(self, plan: CompiledPlan, name: str) -> None:
        self.unit, self.graph, self.pool = plan.units[name], plan.phases[name].graph, plan.phases[name].hardware
        self.mesh = self.graph.the_mesh
        ranks = prod(self.mesh.shape)
        self.gpus = np.asarray(plan.phases[name].gpus, dtype=np.int64).reshape(self.mesh.stages, ranks)
        self.at = np.indices(self.mesh.shape).reshape(len(self.mesh.shape), ranks)
        self.bounds: dict[tuple[int, tuple[str, ...]], tuple[list[int], list[int]]] = {}
        self.experts: dict[tuple[str, str], Ids] = {}

    def place(self, layer: int) -> tuple[int, str]:
        """(stage, segment) of a layer, the embedding and the head counted."""
        at = 0
        for stage in self.graph.stages:
            for name, count in stage.layers:
                at += count
                if layer < at:
                    return stage.index, name
        raise IndexError(layer)

    def edges(self) -> list[int]:
        """Where runs of equal layers of a stage begin and end."""
        at = [0]
        for stage in self.graph.stages:
            for _, count in stage.layers:
                at.append(at[-1] + count)
        return at

    def parts(self, size: int, axes: tuple[str, ...]) -> tuple[list[int], list[int]]:
        """Where the part of each rank begins and ends, of a dimension split over some axes."""
        key = (size, axes)
        if key not in self.bounds:
            coordinates = [dict(zip(self.mesh.sizes, column, strict=True)) for column in self.at.T.tolist()]
            found = [self.mesh.part(size, axes, at) for at in coordinates]
            self.bounds[key] = ([s.start for s in found], [s.stop for s in found])
        return self.bounds[key]

    def slots(self, segment: Segment, dim: str) -> Ids:
        """Experts of each expert rank [ranks, slots]."""
        key = (segment.name, dim)
        if key not in self.experts:
            rows = next(r for r in routers(segment) if r.expert == dim)
            self.experts[key] = expert_slots(self.graph, segment, rows, self.unit)
        return self.experts[key]


class _View:
    """A weight, or a cache, as the ranks of one stage of a phase hold it: per dimension where the part of each begins and ends; of experts
    which ones each has [ranks, experts]. `sizes`: of dimensions that phases have in other sizes, one that all their cuts divide."""

    def __init__(
        self, one: _Held, stage: int, segment: Segment, weight: Weight | Op, sizes: Mapping[str, int] | None = None
    ) -> None:
        assert weight.sharding is not None
        self.gpus: list[Gpu] = [(one.pool, gpu) for gpu in one.gpus[stage].tolist()]
        self.bytes = dtype(weight.dtype).bytes
        self.sizes: list[int] = []
        self.ends: list[tuple[list[int], list[int]]] = []
        self.expert: int | None = None
        self.holds: Bits = np.zeros((0, 0), dtype=bool)
        self.rank = np.zeros(len(self.gpus), dtype=np.int64)
        self.each = 0
        for i, (dim, axes) in enumerate(zip(weight.dims, weight.sharding.dims, strict=True)):
            if weight.scope == "experts" and stem(dim) == "expert":
                slots = one.slots(segment, dim)
                self.expert, count, self.each = i, int(segment.sizes[dim]), slots.shape[1]
                for axis in axes:
                    self.rank = self.rank * one.mesh.sizes[axis] + one.at[one.mesh.index[axis]]
                has: Bits = np.zeros((len(slots), count), dtype=bool)
                np.put_along_axis(has, slots, True, axis=1)
                self.holds = has[self.rank]
                self.sizes.append(count)
                self.ends.append(([0], [count]))
                continue
            group = group_of(dim)
            if sizes and group is not None:  # an entry for so many tokens: of each its share
                self.bytes, dim = self.bytes / segment.size(group), "context"
            self.sizes.append((sizes or {}).get(dim) or int(segment.size(dim, weight.scope)))
            self.ends.append(one.parts(self.sizes[-1], axes))

    def over(self, cells: Sequence[Sequence[int]], holds: Bits | None = None) -> Bits:
        """The pieces that each rank has [ranks, pieces]; `holds`: other experts than its own."""
        out: Bits = np.ones((len(self.gpus), 1), dtype=bool)
        for i, edges in enumerate(cells):
            if i == self.expert:
                one = self.holds if holds is None else holds
            else:
                starts, ends = (np.asarray(found)[:, None] for found in self.ends[i])
                low, high = np.asarray(edges[:-1]), np.asarray(edges[1:])
                one = np.asarray((low >= starts) & (high <= ends))
            out = (out[:, :, None] & one[:, None, :]).reshape(len(self.gpus), -1)
        return out

    def keeping(self, cells: Sequence[Sequence[int]], own: Bits, turn: int) -> Bits:
        """Experts of each rank when it keeps those that it holds whole (`own` [ranks, pieces]) and its group takes in what none of
        its ranks has: to the rank with most room, or in the place of a copy; of equal ranks to one that follows from `turn`."""
        assert self.expert is not None
        count = self.sizes[self.expert]
        shape = [len(edges) - 1 for edges in cells]
        wanted = self.over(cells, np.ones_like(self.holds)).reshape(-1, *shape)
        lacks = np.moveaxis(wanted & ~own.reshape(-1, *shape), 1 + self.expert, 1).reshape(len(self.gpus), count, -1)
        kept: Bits = np.logical_not(np.any(lacks, axis=2))
        others = [
            tuple(found[r] for i, ends in enumerate(self.ends) for found in ends if i != self.expert and len(found) > 1)
            for r in range(len(self.gpus))
        ]
        groups: dict[tuple[object, ...], list[int]] = {}
        seen: dict[tuple[object, ...], int] = {}
        for r, e in enumerate(self.rank.tolist()):  # the next rank with the same experts is of the next group
            number = seen[others[r], e] = seen.get((others[r], e), -1) + 1
            groups.setdefault((others[r], number), []).append(r)
        for group in groups.values():
            self._fill(kept, np.roll(np.asarray(group), turn))
        return kept

    def _fill(self, kept: Bits, group: Ids) -> None:
        """Every expert on some rank of a group, no rank with more than it has slots."""
        for r in group[kept[group].sum(axis=1) > self.each]:
            for e in np.flatnonzero(kept[r])[::-1]:
                if kept[r].sum() > self.each and kept[group, e].sum() > 1:
                    kept[r, e] = False
        for e in np.flatnonzero(~kept[group].any(axis=0)):
            room = self.each - kept[group].sum(axis=1)
            r = group[int(room.argmax())]
            if room.max() <= 0:
                copies = kept[group].sum(axis=0) > 1
                r = group[int((kept[group] & copies).any(axis=1).argmax())]
                kept[r, int((kept[r] & copies).argmax())] = False
            kept[r, e] = True


class _Moves:
    """The sum over all weights of a plan that becomes another one."""

    def __init__(
        self,
        before: CompiledPlan,
        after: CompiledPlan,
        lost: Mapping[str, Collection[int]],
        changed: tuple[str, ...],
        least: bool,
    ) -> None:
        self.spec = before.spec
        self.least = least
        self.old = {name: _Held(before, name) for name in before.phases}
        self.new = [_Held(after, name) for name in changed]
        self.changed = changed
        everyone = [*self.old.values(), *self.new]
        self.ids: list[Gpu] = sorted({(one.pool, gpu) for one in everyone for gpu in one.gpus.ravel().tolist()})
        self.at = {gpu: i for i, gpu in enumerate(self.ids)}
        self.alive: Bits = np.asarray([gpu not in lost.get(pool, ()) for pool, gpu in self.ids])
        self.pools = {pool: self.hardware(pool) for pool, _ in self.ids}
        self.pool = np.asarray([list(self.pools).index(pool) for pool, _ in self.ids])
        node = [gpu // self.pools[pool].per_node for pool, gpu in self.ids]
        self.node = self.pool * (1 + max(node)) + np.asarray(node)
        self.fetched_B = np.zeros((len(self.kinds()), len(self.ids)))
        self.gone: dict[int, int] = {}

    def total(self) -> Moved:
        """Every weight of every run of equal layers."""
        bounds = {edge for one in (*self.old.values(), *self.new) for edge in one.edges()}
        if self.least:  # what many layers lack goes to other ranks in each of a few parts of them
            bounds |= {low + (high - low) * k // PARTS for low, high in pairwise(sorted(bounds)) for k in range(PARTS)}
        for low, high in pairwise(sorted(bounds)):
            for name in dict.fromkeys(
                name for one in self.new for name in self.names(one.graph.segment(one.place(low)[1]))
            ):
                self.fetch(name, low, high - low)
        own = [self.pools[pool] for pool, _ in self.ids]
        links = [
            [h.node.bandwidth_Bps for h in own], [h.cluster.bandwidth_Bps for h in own],
            [self.between(pool) for pool, _ in self.ids], [h.host_link.bandwidth_Bps for h in own],
        ]  # fmt: skip
        each_s = (self.fetched_B / np.asarray(links)).sum(axis=0)
        node_B, cluster_B, pools_B, storage_B = self.fetched_B.sum(axis=1).tolist()
        fetching = int((self.fetched_B.sum(axis=0) > 0).sum())
        return Moved(
            node_B, cluster_B, pools_B, storage_B, float(each_s.max(initial=0.0)), fetching, sum(self.gone.values())
        )  # fmt: skip

    @staticmethod
    def kinds() -> tuple[str, ...]:
        """Where a GPU may fetch from, the nearest first."""
        return ("node", "cluster", "pools", "storage")

    def hardware(self, pool: str) -> Hardware:
        return self.spec.pools[pool] if pool else self.spec.hardware

    def between(self, pool: str) -> float:
        """Bytes per second from other pools to a GPU of this one, over the slowest of the links."""
        return min((link.bandwidth_Bps for link in self.spec.pool_links if pool in link.pools), default=1.0)

    def names(self, segment: Segment) -> list[str]:
        """Of what a layer of the segment stores."""
        return [weight.name for weight in segment.weights]

    def view(self, one: _Held, layer: int, name: str) -> _View | None:
        """The weight of a layer in one phase; None where the phase has none of that name."""
        stage, kind = one.place(layer)
        segment = one.graph.segment(kind)
        weight = next((w for w in segment.weights if w.name == name), None)
        return None if weight is None else _View(one, stage, segment, weight)

    def fetch(self, name: str, layer: int, layers: int) -> None:
        """One weight of a run of equal layers."""
        held = {n: v for n, one in self.old.items() if (v := self.view(one, layer, name)) is not None}
        wanted = [v for one in self.new if (v := self.view(one, layer, name)) is not None]
        views = [*held.values(), *wanted]
        cells = [
            list(range(size + 1)) if i == views[0].expert else sorted({e for v in views for ends in v.ends[i] for e in ends})
            for i, size in enumerate(views[0].sizes)
        ]  # fmt: skip
        cell_B = np.asarray([views[0].bytes])
        for edges in cells:
            cell_B = (cell_B[:, None] * np.diff(edges)[None, :]).ravel()
        have: Bits = np.zeros((len(self.ids), len(cell_B)), dtype=bool)
        own = have.copy()
        for phase, view in held.items():
            rows, bits = self.rows(view), view.over(cells)
            have[rows] |= bits
            if phase in self.changed:
                own[rows] |= bits
        have &= self.alive[:, None]
        own &= self.alive[:, None]
        want: Bits = np.zeros_like(have)
        for view in wanted:
            rows = self.rows(view)
            kept = view.keeping(cells, have[rows], layer) if self.least and view.expert is not None else None
            want[rows] |= view.over(cells, kept)
        missing = want & ~have
        near, own_pool, joined = (np.zeros_like(have) for _ in range(3))
        for where, of in ((self.node, near), (self.pool, own_pool)):
            for value in set(where.tolist()):
                of[where == value] = have[where == value].any(axis=0)
        for one, pool in enumerate(self.pools):
            for other, name in enumerate(self.pools):
                if self.spec.pool_link(pool, name) is not None:
                    joined[self.pool == one] |= have[self.pool == other].any(axis=0)
        for kind, there in enumerate((near, own_pool, joined, np.ones_like(have))):
            self.fetched_B[kind] += layers * ((missing & there) @ cell_B)
            missing &= ~there
        if views[0].expert is not None:
            whole = np.asarray(own.any(axis=0)).reshape([len(edges) - 1 for edges in cells])
            others = tuple(i for i in range(whole.ndim) if i != views[0].expert)
            self.gone[layer] = max(self.gone.get(layer, 0), layers * int((~np.all(whole, axis=others)).sum()))

    def rows(self, view: _View) -> Ids:
        return np.asarray([self.at[gpu] for gpu in view.gpus])


class _Caches(_Moves):
    """The same of caches. Those of a layer go by their place in it: phases may call them otherwise."""

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Sequences and tokens that every cut of either phase divides."""
        out = {"batch": 1, "context": 1}
        for one in (*self.old.values(), *self.new):
            for segment in one.graph.segments:
                for op in _caches(segment):
                    assert op.sharding is not None
                    for dim, axes in zip(op.dims, op.sharding.dims, strict=True):
                        if dim in out:
                            out[dim] = lcm(out[dim], one.mesh.size(axes))
        return out

    def names(self, segment: Segment) -> list[str]:
        return [str(k) for k, _ in enumerate(_caches(segment))]

    def view(self, one: _Held, layer: int, name: str) -> _View | None:
        stage, kind = one.place(layer)
        segment = one.graph.segment(kind)
        found = _caches(segment)
        return _View(one, stage, segment, found[int(name)], self.sizes) if int(name) < len(found) else None


def _caches(segment: Segment) -> list[Op]:
    """Keys and values of each token or group of tokens, or what a layer keeps instead."""
    return [op for op in segment.ops if OPS[op.kind].tokens is Tokens.CACHE and any(map(counts_tokens, op.dims))]
