"""The cheapest chain of single moves between two shardings: Dijkstra over the sharding state.

A state is (ordered axes per dim, partial axes). A move is a slice (free), an all-gather, a reduce-scatter, an
all-to-all, an all-reduce or a permute, over one axis or a product of axes, each priced as itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import combinations
from math import inf, prod
from typing import TypeAlias

from ..base.axes import ENDS
from ..base.collectives import COLLECTIVES, FROM_EXPERTS, TO_EXPERTS
from ..base.frozen import record
from .cuts import trades
from .least import CALL_S, RANK_S, Calls, Price
from .mesh import Mesh
from .sharding import Axes, Move, Sharding

MOST_MOVES = 1_000_000
"""Moves that one search looks at: graphs that were written by hand may have any number of axes."""


@record
class TensorSizes:
    """Global sizes of a tensor. `ragged` dims (slots) split into unequal parts, so divisibility is not asked."""

    sizes: tuple[float, ...]
    element_B: float
    ragged: tuple[bool, ...]

    def of(self, sizes: tuple[float, ...]) -> TensorSizes:
        """Of other sizes."""
        return TensorSizes(sizes, self.element_B, self.ragged)

    def local_bytes(self, sharding: Sharding, mesh: Mesh) -> float:
        parts = prod(mesh.size(axes) for axes in sharding.dims)
        return prod(self.sizes) / parts * self.element_B

    def splits(self, dim: int, parts: int) -> bool:
        return self.ragged[dim] or self.sizes[dim] % parts == 0


class NoRoute(ValueError):
    """No chain of moves leads from one layout to the other."""


def cheapest(
    source: Sharding, target: Sharding, shape: TensorSizes, mesh: Mesh, price: Price, calls: Calls | None = None
) -> list[Move]:
    """Moves from `source` to `target` (whose partial set must be a subset). Ties go to fewer moves. A partial softmax is merged
    in the first move, over all its axes. `calls`: of the mesh, so that fewer chains are looked at."""
    if source.on != target.on:
        return _across(source, target, shape, mesh, price)
    if source.reduce != "softmax":
        return search_chain(source, target, shape, mesh, price, calls)[1]
    moves = _Moves(target, shape, mesh)
    payload = moves.local_bytes(source.dims)
    chains = []
    for step in moves.reduced((source.dims, source.partial, source.reduce), source.partial):
        (move,) = _as_moves((None, step), source.on)
        cost, chain = search_chain(move.result, target, shape, mesh, price, calls)
        cost += CALL_S + RANK_S * mesh.size(move.axes) + price(move.kind, payload, move.axes)
        chains.append((cost, len(chain), [move, *chain]))
    return min(chains, key=lambda one: one[:2])[2]


def search_chain(
    source: Sharding, target: Sharding, shape: TensorSizes, mesh: Mesh, price: Price, calls: Calls | None
) -> tuple[float, list[Move]]:
    """(seconds, moves) of the cheapest chain. With a bound on what is left (`calls`), states are left out that no chain passes
    which costs as little as one that was found; they change neither costs nor which of equal ways comes first. Raises NoRoute."""
    if source == target:
        return 0.0, []
    search = _Moves(target, shape, mesh)
    start, goal = (source.dims, source.partial, source.reduce), (target.dims, target.partial, target.reduce)
    left = None if calls is None or ENDS in source.partial else _Left(calls, search)
    most = inf if left is None else _most(start, goal, search, price, left)
    order = 0
    queue: list[tuple[float, int, int, State, Chain]] = [(0.0, 0, order, start, None)]
    done: set[State] = set()
    known: dict[State, tuple[float, int]] = {}
    while queue:
        cost, steps, _, state, chain = heapq.heappop(queue)
        if state == goal:
            return cost, _as_moves(chain, source.on)
        if state in done:
            continue
        done.add(state)
        for step, own in search.priced(state, price):
            result = step[2]
            if result in done:
                continue
            order += 1
            if order > MOST_MOVES:
                raise NoRoute(f"{source} -> {target}: the axes are too many to search for a chain")
            there = (cost if own is None else cost + own), steps + 1
            before = known.get(result)
            if before is None or there < before:  # of equal ways the first one is taken
                if left is not None:
                    if there[0] > most or there[0] + left(result) > most:
                        continue
                    if result == goal:
                        most = min(most, there[0] * ROUNDING)
                known[result] = there
                heapq.heappush(queue, (*there, order, result, (chain, step)))
    raise NoRoute(f"{source} -> {target}")


MOST_STEPS = 12
"""Of a chain that is tried for a start."""

ROUNDING = 1 + 1e-9
"""Of sums in another order."""


def _most(start: State, goal: State, search: _Moves, price: Price, left: _Left) -> float:
    """What some chain costs that always takes the move that seems best; infinite where that leads nowhere."""
    state, cost = start, 0.0
    seen = {start}
    while len(seen) <= MOST_STEPS:
        best: tuple[float, float, State] | None = None
        for (_, _, result, _, _), own in search.priced(state, price):
            there = cost if own is None else cost + own
            if result == goal:
                return there * ROUNDING
            if result in seen or (best is not None and there > best[0]):
                continue
            more = left(result)
            if best is None or (there + more, more) < best[:2]:
                best = there + more, there, result
        if best is None:
            break
        _, cost, state = best
        seen.add(state)
    return inf


class _Left:
    """Seconds from a state to the target at least."""

    def __init__(self, calls: Calls, search: _Moves) -> None:
        self.target = search.target.dims
        self.bits = {name: 1 << k for k, name in enumerate(search.atoms)}
        kept = self.axes(search.target.partial)
        self.split, self.stays = sum(map(self.axes, self.target)), ~kept
        self.table = calls.left(search.whole * search.shape.element_B, self.split, kept)
        self.sets: dict[tuple[int, Axes], tuple[int, int]] = {}
        self.known: dict[tuple[int, int, int], float] = {}

    def axes(self, axes: Axes) -> int:
        return sum([self.bits[axis] for axis in axes])

    def __call__(self, state: State) -> float:
        dims, still, _ = state
        split = astray = 0
        for dim, axes in enumerate(dims):
            if axes:
                own = self.sets.get((dim, axes))
                if own is None:
                    moved = self.axes(axes[_common(axes, self.target[dim]) :])
                    own = self.sets[dim, axes] = self.axes(axes), moved & self.split
                split |= own[0]
                astray |= own[1]
        key = split, astray, self.axes(still) & self.stays if still else 0
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = self.table(*key)
        return found


SEND_RESULT = frozenset(kind for kind, found in COLLECTIVES.items() if found.sends_result)

State = tuple[tuple[Axes, ...], Axes, str]
"""Dims, partial axes and reduction of a sharding: a search looks at thousands, of which a chain has a few."""

Step = tuple[str, Axes, State, int, int]
"""The fields of a move."""

Chain: TypeAlias = "tuple[Chain, Step] | None"
"""The steps to a state, the last one first."""


def _as_moves(chain: Chain, on: str) -> list[Move]:
    moves: list[Move] = []
    while chain is not None:
        chain, (kind, axes, result, source_dim, target_dim) = chain
        moves.append(Move(kind, axes, Sharding(*result, on), source_dim, target_dim))
    return moves[::-1]


def _across(source: Sharding, target: Sharding, shape: TensorSizes, mesh: Mesh, price: Price) -> list[Move]:
    """From one set of ranks to another: partial sums joined first, whole or each rank its part; then the ranks of the other set get
    their blocks, each at once or a part that they gather among themselves."""
    if source.reduce != "sum" or target.partial:
        raise NoRoute(f"{source} -> {target}: what goes to other ranks is whole")
    kind = TO_EXPERTS if target.on else FROM_EXPERTS
    every = tuple(name for name, _ in mesh.atoms)
    chains: list[tuple[float, int, list[Move]]] = []
    whole = source.resolved()
    leaving = [whole, *(_split(whole, shape, mesh, source.partial) if source.partial else ())]
    idle = tuple(a for a in mesh.on(target.on) if a not in target.used)
    parts = [axes for count in range(1, len(idle) + 1) for axes in combinations(idle, count)]
    for left in leaving:
        before_s, before = search_chain(source, left, shape, mesh, price, None)
        for landed in (target, *(one for axes in parts for one in _split(target, shape, mesh, axes))):
            after_s, after = search_chain(landed, target, shape, mesh, price, None)
            own_s = price(kind, shape.local_bytes(landed, mesh), every) + CALL_S
            chain = [*before, Move(kind, every, landed), *after]
            chains.append((before_s + own_s + after_s, len(chain), chain))
    return min(chains, key=lambda one: one[:2])[2]


def _split(layout: Sharding, shape: TensorSizes, mesh: Mesh, axes: Axes) -> Iterator[Sharding]:
    """The layout with one dim split over further axes."""
    for dim, held in enumerate(layout.dims):
        if shape.splits(dim, mesh.size((*held, *axes))):
            yield layout.with_dim(dim, (*held, *axes))


class _Moves:
    """The single moves between states, on the way to a target."""

    def __init__(self, target: Sharding, shape: TensorSizes, mesh: Mesh) -> None:
        self.target, self.shape, self.mesh = target, shape, mesh
        self.atoms = list(mesh.on(target.on))
        self.whole = prod(shape.sizes)
        self.sizes: dict[Axes, int] = {}
        self.divides: dict[tuple[int, Axes], bool] = {}
        self.known: dict[State, Sequence[tuple[Step, float | None]]] = {}

    def size(self, axes: Axes) -> int:
        found = self.sizes.get(axes)
        if found is None:
            found = self.sizes[axes] = self.mesh.size(axes)
        return found

    def local_bytes(self, dims: tuple[Axes, ...]) -> float:
        """As `TensorSizes.local_bytes`."""
        parts = prod([self.size(axes) for axes in dims])
        return self.whole / parts * self.shape.element_B

    def splits(self, dim: int, axes: Axes) -> bool:
        key = dim, axes
        found = self.divides.get(key)
        if found is None:
            found = self.divides[key] = bool(self.shape.splits(dim, self.size(axes)))
        return found

    def priced(self, state: State, price: Price) -> Sequence[tuple[Step, float | None]]:
        """The moves, and what each costs; of slices nothing."""
        known = self.known.get(state)
        if known is None:
            payload = self.local_bytes(state[0])
            known = self.known[state] = [(step, self.cost(step, payload, price)) for step in self.moves(state)]
        return known

    def cost(self, step: Step, payload_B: float, price: Price) -> float | None:
        kind, axes, (dims, _, _), _, _ = step
        if kind == "slice":
            return None
        sent_B = self.local_bytes(dims) if kind in SEND_RESULT else payload_B
        return CALL_S + RANK_S * self.size(axes) + price(kind, sent_B, axes)

    def moves(self, state: State) -> Iterator[Step]:
        dims, partial, reduce = state
        target = self.target.dims
        left = tuple(a for a in partial if a not in self.target.partial)
        if left:
            yield from self.reductions(state, left)
        used = {a for axes in dims for a in axes}.union(partial)
        idle = [axis for axis in self.atoms if axis not in used]
        for dim, axes in enumerate(dims):
            # A rank keeps its part of what it has whole, over any idle axis: also on another dim than the target's, or
            # over an axis that the target does not split by, since moving a part costs less than moving the whole.
            for axis in idle:
                joined = (*axes, axis)
                if self.splits(dim, joined):
                    yield "slice", (axis,), (_with(dims, dim, joined), partial, reduce), -1, dim
            keep = _common(axes, target[dim])
            for count in range(1, len(axes) - keep + 1):
                stay, moved = axes[:-count], axes[-count:]
                rest = _with(dims, dim, stay)
                yield "all_gather", moved, (rest, partial, reduce), dim, -1
                for other, held in enumerate(dims):
                    if other != dim and self.splits(other, (*held, *moved)):
                        for order in _orders(held, moved, target[other]):
                            there = _with(rest, other, (*held, *order))
                            yield "all_to_all", moved, (there, partial, reduce), dim, other
        if left:
            return
        if dims != target and self.contained(state):
            yield self.permute(state, target)
        sorted_dims = tuple(map(_wanted_first, dims, target))
        if sorted_dims not in (dims, target):
            yield self.permute(state, sorted_dims)
        for x, y in trades(Sharding(*state), self.target, self.mesh):
            if self.mesh.sizes[x] == self.mesh.sizes[y]:
                swapped = tuple(tuple({x: y, y: x}.get(axis, axis) for axis in axes) for axes in dims)
                if swapped != target:
                    yield self.permute(state, swapped)

    def reductions(self, state: State, left: Axes) -> Iterator[Step]:
        for count in range(1, len(left) + 1):
            for axes in combinations(left, count):
                if ENDS in axes:  # ranks of two stages have a group of their own, and each its copy of the result
                    if count == 1:
                        yield "all_reduce", axes, _resolved(state, axes), -1, -1
                elif state[2] == "sum":
                    yield from self.reduced(state, axes)
                else:
                    yield "all_reduce", axes, _resolved(state, axes), -1, -1

    def reduced(self, state: State, axes: Axes) -> Iterator[Step]:
        """Partial values joined on every rank, or each rank its part."""
        dims, still, then = _resolved(state, axes)
        yield "all_reduce", axes, (dims, still, then), -1, -1
        for dim, held in enumerate(dims):
            joined = (*held, *axes)
            if self.splits(dim, joined):
                yield "reduce_scatter", axes, (_with(dims, dim, joined), still, then), -1, dim

    def permute(self, state: State, dims: tuple[Axes, ...]) -> Step:
        changed = [a for s, t in zip(state[0], dims, strict=True) if s != t for a in (*s, *t)]
        return "permute", self.mesh.sort(tuple(dict.fromkeys(changed))), (dims, *state[1:]), -1, -1

    def contained(self, state: State) -> bool:
        """Every target block is inside one block that some rank has now: each rank sends one block and receives its own.
        (As many ranks have a block as need a part of it, so one round of messages is enough.)"""
        inside = all(self.size(t) % self.size(s) == 0 for s, t in zip(state[0], self.target.dims, strict=True))
        return inside and state[1] == self.target.partial


def _resolved(state: State, axes: Axes) -> State:
    dims, partial, reduce = state
    still = tuple(a for a in partial if a not in axes)
    return dims, still, reduce if still else "sum"


def _with(dims: tuple[Axes, ...], index: int, axes: Axes) -> tuple[Axes, ...]:
    return (*dims[:index], axes, *dims[index + 1 :])


def _orders(held: Axes, moved: Axes, want: Axes) -> Iterator[Axes]:
    """Orders that exchanged axes may get: unchanged, or as in the target. Whatever the order, each
    rank sends one part to every other."""
    yield moved
    wanted = want[len(held) : len(held) + len(moved)]
    if want[: len(held)] == held and wanted != moved and sorted(wanted) == sorted(moved):
        yield wanted


def _wanted_first(have: Axes, want: Axes) -> Axes:
    """The axes of a dim with those that the target keeps made major, so that the others can leave as minor ones."""
    return (*(a for a in want if a in have), *(a for a in have if a not in want))


def _common(have: Axes, want: Axes) -> int:
    """Length of the common major prefix: those axes need not move."""
    count = 0
    while count < min(len(have), len(want)) and have[count] == want[count]:
        count += 1
    return count
