"""moments: when something happens, as a number where all ranks run alike, and as an array over the dimensions of the mesh where they
differ. Most layers are simulated on numbers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np

from ..records import Array, index_at

RESOLUTION_S = 1e-13
"""Entry states closer than this count as equal."""

Moment: TypeAlias = "float | Array"
"""A float, or an array of more than one number."""
Rank = tuple[int, ...]
Node = tuple[str, int]
"""(op, lane)."""


class State(NamedTuple):
    """When each lane's input is ready and each stream of the graph is free."""

    ready: tuple[Moment, ...]
    streams: tuple[Moment, ...]


def moment(array: Array) -> Moment:
    return float(array.item()) if array.size == 1 else array


def later(a: Moment, b: Moment) -> Moment:
    if isinstance(a, float) and isinstance(b, float):
        return a if a >= b else b
    found: Array = np.maximum(a, b)
    return found


def last_s(found: Moment) -> float:
    """Of the rank that is last."""
    return found if isinstance(found, float) else float(found.max())


def latest_s(moments: tuple[Moment, ...]) -> float:
    """Of all of them on all ranks."""
    return max([last_s(each) for each in moments])


def shifted(state: State, by: float) -> State:
    """The same state, later."""
    if by == 0.0:
        return state
    ready, streams = state
    return State(tuple([each + by for each in ready]), tuple([each + by for each in streams]))


def state_key(state: State) -> tuple[object, ...]:
    """States that differ by less than the resolution, or by how long a stream has been idle, have one. Shapes tell states apart."""
    ready, streams = state
    least = min([each if isinstance(each, float) else float(each.min()) for each in ready])
    return tuple([_rounded(each) for each in (*ready, *[later(each, least) for each in streams])])


def _rounded(found: Moment) -> object:
    if isinstance(found, float):
        return round(found / RESOLUTION_S)
    return found.shape, (np.rint(found / RESOLUTION_S) + 0.0).tobytes()  # adding zero makes -0.0 and 0.0 one


def at_rank(found: Moment, rank: Rank) -> float:
    if isinstance(found, float):
        return found
    assert isinstance(found, np.ndarray)
    return found.item(_index(rank, found.shape))


_index = lru_cache(maxsize=4096)(index_at)


class Moments(Mapping[Node, Array]):
    """Moments of the nodes of a layer as arrays of `ndim` dimensions, made when they are asked for. `own`: of each node by its place in
    `places`."""

    __slots__ = ("ndim", "own", "places")

    def __init__(self, own: list[Moment], places: Mapping[Node, int], ndim: int) -> None:
        self.own, self.places, self.ndim = own, places, ndim

    def __getitem__(self, node: Node) -> Array:
        found = self.own[self.places[node]]
        return np.full((1,) * self.ndim, found) if isinstance(found, float) else found

    def of(self, node: Node) -> Moment:
        """As it is kept."""
        return self.own[self.places[node]]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def moved(self, before: Moments, times: int) -> Moments:
        """What follows after `times` steps as large as that from `before`."""
        own = [b + times * (b - a) for a, b in zip(before.own, self.own, strict=True)]
        return Moments(own, self.places, self.ndim)
