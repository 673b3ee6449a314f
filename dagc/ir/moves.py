"""The cheapest chain of single moves between two shardings: Dijkstra over the sharding state.

A state is (ordered axes per dim, partial axes). A move is a slice (free), an all-gather, a reduce-scatter, an
all-to-all, an all-reduce or a permute, over one axis or a product of axes, each priced as itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from math import prod
from typing import Protocol

from ..base.collectives import COLLECTIVES, TRANSFERS, wire_bytes
from ..base.frozen import record
from ..base.traced import is_traced
from .cuts import Cuts, cut_layout, cut_mesh, trades, useful
from .mesh import GpuMap, Mesh
from .sharding import Axes, Move, Sharding

Price = Callable[[str, float, Axes], float]
"""(kind, payload bytes of the local input buffer, group axes) -> seconds."""


class Prices(Hashable, Protocol):
    """What moves cost on some machine; a pass gets one as an option and asks it for the prices on its mesh."""

    def of(self, mesh: Mesh) -> Price: ...


class PlainPrices:
    """Of no machine: one microsecond for each step of a ring, and the bytes that a rank sends in it at 100 GB/s."""

    def of(self, mesh: Mesh) -> Price:
        def price(kind: str, payload_B: float, axes: Axes) -> float:
            ranks = mesh.size(axes)
            return TRANSFERS[kind].steps(ranks) * 1e-6 + wire_bytes(kind, payload_B, ranks) / 100e9

        return price


PLAIN_PRICES = PlainPrices()


class Chains:
    """Cheapest chains on a mesh, each looked for once: plans of one mesh ask for the same ones."""

    def __init__(self, prices: Prices, mesh: Mesh) -> None:
        self.prices, self.mesh, self.price = prices, mesh, prices.of(mesh)
        self.known = _known(prices, mesh.atoms, mesh.gpus)

    def cheapest(self, source: Sharding, target: Sharding, shape: TensorSizes) -> Sequence[Move]:
        """As `cheapest`."""
        if any(is_traced(size) for size in shape.sizes):
            return cheapest(source, target, shape, self.mesh, self.price)
        key = source, target, shape
        found = self.known.get(key)
        if found is None:
            if len(self.known) >= MOST_CHAINS:
                self.known.clear()
            found = self.known[key] = tuple(cheapest(source, target, shape, self.mesh, self.price))
        return found

    def cuts(self, source: Sharding, target: Sharding, shape: TensorSizes) -> Cuts:
        """Cuts of axes that make the chain cheaper; mostly none."""
        found = useful(source, target, self.mesh)
        if not found:
            return {}
        finer = cut_mesh(self.mesh, found)
        ends = cut_layout(source, found), cut_layout(target, found)
        try:
            whole_s, _ = _search(source, target, shape, self.mesh, self.price)
            cut_s, _ = _search(*ends, shape, finer, self.prices.of(finer))
        except NoRoute:
            return {}
        return found if cut_s < whole_s - CALL_S else {}


MOST_CHAINS = 4096


@lru_cache(maxsize=64)
def _known(
    prices: Prices, atoms: tuple[tuple[str, int], ...], gpus: GpuMap | None
) -> dict[tuple[Sharding, Sharding, TensorSizes], tuple[Move, ...]]:
    return {}


MOST_MOVES = 1_000_000
"""Moves that one search looks at: graphs that were written by hand may have any number of axes."""
CALL_S = 1e-9
"""Added to every collective of a chain: of two chains that cost the same, the one with fewer calls wins."""
RANK_S = 1e-12
"""Added for every rank of a collective's group: of as many calls, the one among fewer ranks wins."""


@record
class TensorSizes:
    """Global sizes of a tensor. `ragged` dims (slots) split into unequal parts, so divisibility is not asked."""

    sizes: tuple[float, ...]
    element_B: float
    ragged: tuple[bool, ...]

    def local_bytes(self, sharding: Sharding, mesh: Mesh) -> float:
        parts = prod(mesh.size(axes) for axes in sharding.dims)
        return prod(self.sizes) / parts * self.element_B

    def splits(self, dim: int, parts: int) -> bool:
        return self.ragged[dim] or self.sizes[dim] % parts == 0


class NoRoute(ValueError):
    """No chain of moves leads from one layout to the other."""


def cheapest(source: Sharding, target: Sharding, shape: TensorSizes, mesh: Mesh, price: Price) -> list[Move]:
    """Moves from `source` to `target` (whose partial set must be a subset). Ties go to fewer moves. A partial softmax is merged
    in the first move, over all its axes."""
    if source.reduce != "softmax":
        return _search(source, target, shape, mesh, price)[1]
    payload = shape.local_bytes(source, mesh)
    chains = []
    for move in _reduced(source, source.partial, shape, mesh):
        cost, chain = _search(move.result, target, shape, mesh, price)
        cost += _tie_s(move, mesh) + price(move.kind, payload, move.axes)
        chains.append((cost, len(chain), [move, *chain]))
    return min(chains, key=lambda one: one[:2])[2]


def _search(
    source: Sharding, target: Sharding, shape: TensorSizes, mesh: Mesh, price: Price
) -> tuple[float, list[Move]]:
    """(seconds, moves) of the cheapest chain."""
    if source == target:
        return 0.0, []
    order = 0
    queue: list[tuple[float, int, int, Sharding, tuple[Move, ...]]] = [(0.0, 0, order, source, ())]
    done: set[Sharding] = set()
    known: dict[Sharding, tuple[float, int]] = {}
    while queue:
        cost, steps, _, state, chain = heapq.heappop(queue)
        if state == target:
            return cost, list(chain)
        if state in done:
            continue
        done.add(state)
        payload = shape.local_bytes(state, mesh)
        for move in _moves(state, target, shape, mesh):
            if move.result in done:
                continue
            order += 1
            if order > MOST_MOVES:
                raise NoRoute(f"{source} -> {target}: the axes are too many to search for a chain")
            sent = shape.local_bytes(move.result, mesh) if move.kind in SEND_RESULT else payload
            step = 0.0 if move.kind == "slice" else _tie_s(move, mesh) + price(move.kind, sent, move.axes)
            there, before = (cost + step, steps + 1), known.get(move.result)
            if before is None or there < before:  # of equal ways the first one is taken
                known[move.result] = there
                heapq.heappush(queue, (*there, order, move.result, (*chain, move)))
    raise NoRoute(f"{source} -> {target}")


SEND_RESULT = frozenset(kind for kind, found in COLLECTIVES.items() if found.sends_result)


def _tie_s(move: Move, mesh: Mesh) -> float:
    return CALL_S + RANK_S * mesh.size(move.axes)


def _moves(state: Sharding, target: Sharding, shape: TensorSizes, mesh: Mesh) -> Iterator[Move]:
    partial = tuple(a for a in state.partial if a not in target.partial)
    yield from _reductions(state, partial, shape, mesh)
    used = state.used
    idle = [axis for axis, _ in mesh.atoms if axis not in used]
    for dim, axes in enumerate(state.dims):
        yield from _slices(state, dim, idle, shape, mesh)
        keep = _common(axes, target.dims[dim])
        for count in range(1, len(axes) - keep + 1):
            stay, moved = axes[:-count], axes[-count:]
            yield Move("all_gather", moved, state.with_dim(dim, stay), source_dim=dim)
            for other, held in enumerate(state.dims):
                joined = (*held, *moved)
                if other != dim and shape.splits(other, mesh.size(joined)):
                    rest = state.with_dim(dim, stay)
                    for order in _orders(held, moved, target.dims[other]):
                        yield Move("all_to_all", moved, rest.with_dim(other, (*held, *order)), dim, other)
    if partial:
        return
    if state.dims != target.dims and _contained(state, target, mesh):
        yield _permute(state, target.dims, mesh)
    for x, y in trades(state, target, mesh):
        if mesh.sizes[x] == mesh.sizes[y]:
            swapped = tuple(tuple({x: y, y: x}.get(axis, axis) for axis in axes) for axes in state.dims)
            if swapped != target.dims:
                yield _permute(state, swapped, mesh)
    sorted_dims = tuple(_wanted_first(s, t) for s, t in zip(state.dims, target.dims, strict=True))
    if sorted_dims not in (state.dims, target.dims):
        yield _permute(state, sorted_dims, mesh)


def _orders(held: Axes, moved: Axes, want: Axes) -> Iterator[Axes]:
    """Orders that exchanged axes may get: unchanged, or as in the target. Whatever the order, each
    rank sends one part to every other."""
    yield moved
    wanted = want[len(held) : len(held) + len(moved)]
    if want[: len(held)] == held and wanted != moved and sorted(wanted) == sorted(moved):
        yield wanted


def _permute(state: Sharding, dims: tuple[Axes, ...], mesh: Mesh) -> Move:
    changed = [a for s, t in zip(state.dims, dims, strict=True) if s != t for a in (*s, *t)]
    return Move("permute", mesh.sort(tuple(dict.fromkeys(changed))), replace(state, dims=dims))


def _wanted_first(have: Axes, want: Axes) -> Axes:
    """The axes of a dim with those that the target keeps made major, so that the others can leave as minor ones."""
    return (*(a for a in want if a in have), *(a for a in have if a not in want))


def _reductions(state: Sharding, partial: Axes, shape: TensorSizes, mesh: Mesh) -> Iterator[Move]:
    for count in range(1, len(partial) + 1):
        for axes in combinations(partial, count):
            if state.reduce == "sum":
                yield from _reduced(state, axes, shape, mesh)
            else:
                yield Move("all_reduce", axes, state.resolved(axes))


def _reduced(state: Sharding, axes: Axes, shape: TensorSizes, mesh: Mesh) -> Iterator[Move]:
    """Partial values joined on every rank, or each rank its part."""
    reduced = state.resolved(axes)
    yield Move("all_reduce", axes, reduced)
    for dim, held in enumerate(state.dims):
        joined = (*held, *axes)
        if shape.splits(dim, mesh.size(joined)):
            yield Move("reduce_scatter", axes, reduced.with_dim(dim, joined), target_dim=dim)


def _slices(state: Sharding, dim: int, idle: list[str], shape: TensorSizes, mesh: Mesh) -> Iterator[Move]:
    """A rank keeps its part of what it has whole, over any idle axis: also on another dim than the target's, or
    over an axis that the target does not split by, since moving a part costs less than moving the whole."""
    for axis in idle:
        joined = (*state.dims[dim], axis)
        if shape.splits(dim, mesh.size(joined)):
            yield Move("slice", (axis,), state.with_dim(dim, joined), target_dim=dim)


def _common(have: Axes, want: Axes) -> int:
    """Length of the common major prefix: those axes need not move."""
    count = 0
    while count < min(len(have), len(want)) and have[count] == want[count]:
        count += 1
    return count


def _contained(state: Sharding, target: Sharding, mesh: Mesh) -> bool:
    """Every target block is inside one block that some rank has now: each rank sends one block and receives its own.
    (As many ranks have a block as need a part of it, so one round of messages is enough.)"""
    inside = all(mesh.size(t) % mesh.size(s) == 0 for s, t in zip(state.dims, target.dims, strict=True))
    return inside and state.partial == target.partial
