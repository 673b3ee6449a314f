"""Moves between layouts by their meaning: which elements of a tensor each rank has, and whose sums are in them.

Shares nothing with the compiler but the record of a layout, which `World.state` converts to index sets.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, count, permutations, product
from math import prod

from dagc.ir.sharding import Axes, Move, Sharding

Elements = frozenset[tuple[int, ...]]
Rank = tuple[Elements, frozenset[int]]
"""Indices that a rank has, and the ranks of the source whose contributions are summed in them."""
State = tuple[Rank, ...]

ELEMENT_B = 4.0


def wire(kind: str, payload_B: float, ranks: int) -> float:
    """Bytes that a device sends: ring algorithms; a permute passes its block on once."""
    share = (ranks - 1) / ranks
    factor = {"all_reduce": 2 * share, "all_gather": ranks - 1, "permute": 1.0, "slice": 0.0}
    return payload_B * factor.get(kind, share)


@dataclass(frozen=True)
class World:
    """Ranks on a mesh and a tensor. `partial`: axes over which the source is partial."""

    mesh: tuple[tuple[str, int], ...]
    shape: tuple[int, ...]
    partial: Axes

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        return dict(self.mesh)

    @cached_property
    def ranks(self) -> list[dict[str, int]]:
        names = [name for name, _ in self.mesh]
        return [dict(zip(names, at, strict=True)) for at in product(*(range(n) for _, n in self.mesh))]

    def divides(self, dims: Sequence[Axes]) -> bool:
        return all(n % prod(self.sizes[a] for a in axes) == 0 for n, axes in zip(self.shape, dims, strict=True))

    def state(self, layout: Sharding) -> State:
        """A rank has the block that its coordinates name, major axis first, and the sum over all but `partial`."""
        return tuple((self._block(layout.dims, rank), self._summed(layout.partial, rank)) for rank in self.ranks)

    def _block(self, dims: Sequence[Axes], rank: Mapping[str, int]) -> Elements:
        ranges = []
        for size, axes in zip(self.shape, dims, strict=True):
            start, length = 0, size
            for axis in axes:
                length //= self.sizes[axis]
                start += rank[axis] * length
            ranges.append(range(start, start + length))
        return frozenset(product(*ranges))

    def _summed(self, partial: Axes, rank: Mapping[str, int]) -> frozenset[int]:
        """One contribution per coordinate along the partial axes, named by the first rank that has it."""
        named = [i for i, r in enumerate(self.ranks) if all(r[a] == 0 for a in self.sizes if a not in self.partial)]
        return frozenset(i for i in named if all(self.ranks[i][a] == rank[a] for a in partial))

    def groups(self, axes: Axes) -> list[list[int]]:
        """Ranks that differ along `axes` only, in the order of their coordinates, major axis first."""
        found: dict[tuple[int, ...], list[int]] = {}
        for i in sorted(range(len(self.ranks)), key=lambda i: [self.ranks[i][a] for a in axes]):
            found.setdefault(tuple(v for a, v in self.ranks[i].items() if a not in axes), []).append(i)
        return list(found.values())

    # -- the moves: the state that each leaves, or None where it means nothing ---------------------

    def move(self, kind: str, state: State, axes: Axes, dim: int = -1) -> State | None:
        out = list(state)
        for group in self.groups(axes):
            after = self._group(kind, [state[i] for i in group], dim)
            if after is None:
                return None
            for i, rank in zip(group, after, strict=True):
                out[i] = rank
        return tuple(out)

    def _group(self, kind: str, held: list[Rank], dim: int) -> list[Rank] | None:
        sets, sums = [h for h, _ in held], [s for _, s in held]
        apart = sum(map(len, sets)) == len(frozenset().union(*sets))
        alike, same_sums = len(set(sets)) == 1, len(set(sums)) == 1
        if kind in ("all_reduce", "reduce_scatter"):
            total = frozenset().union(*sums)
            if not alike or len(total) != sum(map(len, sums)):
                return None
            if kind == "all_reduce":
                return [(sets[0], total)] * len(held)
            parts = pieces(sets[0], dim, len(held))
            return [(part, total) for part in parts] if parts else None
        if not same_sums:
            return None
        if kind == "slice":
            parts = pieces(sets[0], dim, len(held)) if alike else None
            return [(part, sums[0]) for part in parts] if parts else None
        if not apart:
            return None
        if kind == "all_gather":
            return _boxes([frozenset().union(*sets)] * len(held), sums[0])
        if len({d for d in range(len(self.shape)) if len({_side(s, d) for s in sets}) > 1}) > 1:
            return None  # an all-to-all takes from one dim
        cut = [pieces(s, dim, len(held)) for s in sets]
        if any(c is None for c in cut):
            return None
        place = [
            sorted(map(min, sets)).index(min(s)) for s in sets
        ]  # the rank with the first block takes the first piece
        return _boxes([frozenset().union(*(c[i] for c in cut if c)) for i in place], sums[0])

    def permute(self, state: State, target: State, axes: Axes) -> bool:
        """Each rank gets its block from one member of its group, and no member sends twice."""
        for group in self.groups(axes):
            for held in {state[i] for i in group}:
                holders = sum(state[i] == held for i in group)
                takers = sum(target[i][1] == held[1] and target[i][0] <= held[0] for i in group)
                if takers > holders:
                    return False
            if not all(any(target[i][0] <= state[j][0] and target[i][1] == state[j][1] for j in group) for i in group):
                return False
        return True

    # -- chains ----------------------------------------------------------------------------------

    def permuted(self, layout: tuple[Axes, ...], anywhere: bool) -> list[tuple[Axes, ...]]:
        """Layouts that a permute is tried to: every order within the dims of a layout; or by every whole axis."""
        names = tuple(self.sizes)
        if not anywhere:
            return list(product(*(tuple(permutations(axes)) for axes in layout)))
        found = {}
        for homes, order in product(product(range(-1, len(self.shape)), repeat=len(names)), permutations(names)):
            dims = tuple(tuple(a for a in order if homes[names.index(a)] == d) for d in range(len(self.shape)))
            if self.divides(dims):
                found[dims] = None
        return list(found)

    def steps(self, state: State, permuted: Sequence[tuple[Axes, ...]]) -> Iterator[tuple[State, float]]:
        """Every state that one move leads to, with its wire bytes."""
        payload = len(state[0][0]) * ELEMENT_B
        names = tuple(self.sizes)
        for axes in (c for n in range(1, len(names) + 1) for c in combinations(names, n)):
            size = prod(self.sizes[a] for a in axes)
            for kind in ("all_gather", "all_reduce"):
                after = self.move(kind, state, axes)
                if after is not None:
                    yield after, wire(kind, payload, size)
            for kind in ("reduce_scatter", "all_to_all", "slice"):
                for dim in range(len(self.shape)):
                    after = self.move(kind, state, axes, dim)
                    if after is not None:
                        yield after, wire(kind, payload, size)
        for dims in permuted:
            target = tuple((self._block(dims, r), s) for r, (_, s) in zip(self.ranks, state, strict=True))
            if target != state and self.permute(state, target, names):
                yield target, wire("permute", len(target[0][0]) * ELEMENT_B, len(self.ranks))

    def least(self, source: Sharding, target: Sharding, *, anywhere: bool = False) -> float:
        """Wire bytes of the cheapest chain of moves, by trying all. A permute keeps the axes of a dim together, as
        the source or the target has them, or goes anywhere."""
        permuted = [*self.permuted(source.dims, anywhere), *self.permuted(target.dims, anywhere)]
        goal, tie = self.state(target), count()
        queue = [(0.0, next(tie), self.state(source))]
        done: set[State] = set()
        while queue:
            cost, _, state = heapq.heappop(queue)
            if state == goal:
                return cost
            if state in done:
                continue
            done.add(state)
            for after, step in self.steps(state, permuted):
                if after not in done:
                    heapq.heappush(queue, (cost + step, next(tie), after))
        raise AssertionError("no chain leads there")

    def follow(self, source: Sharding, chain: Sequence[Move]) -> tuple[State, float]:
        """The state that a chain really leads to, move by move, and its wire bytes."""
        state, total = self.state(source), 0.0
        for move in chain:
            if move.kind == "permute":
                after: State | None = self.state(move.result)
                assert after is not None and self.permute(state, after, move.axes), f"{move} is no permute"
                payload = len(after[0][0])
            else:
                after, payload = self.move(move.kind, state, move.axes, move.target_dim), len(state[0][0])
            assert after is not None, f"{move} is not allowed here"
            assert after == self.state(move.result), f"{move} leads elsewhere"
            state, total = after, total + wire(move.kind, payload * ELEMENT_B, prod(self.sizes[a] for a in move.axes))
        return state, total


@cache
def pieces(held: Elements, dim: int, parts: int) -> tuple[Elements, ...] | None:
    """Equal contiguous parts along a dim."""
    at = sorted({index[dim] for index in held})
    if len(at) % parts:
        return None
    length = len(at) // parts
    cut = [set(at[i * length : (i + 1) * length]) for i in range(parts)]
    return tuple(frozenset(index for index in held if index[dim] in part) for part in cut)


@cache
def _side(held: Elements, dim: int) -> frozenset[int]:
    return frozenset(index[dim] for index in held)


@cache
def is_box(held: Elements) -> bool:
    """Contiguous along every dim: what a layout can describe."""
    sides = [sorted({index[d] for index in held}) for d in range(len(next(iter(held))))]
    return len(held) == prod(map(len, sides)) and all(s[-1] - s[0] == len(s) - 1 for s in sides)


def _boxes(sets: list[Elements], sums: frozenset[int]) -> list[Rank] | None:
    return [(s, sums) for s in sets] if all(map(is_box, sets)) else None
