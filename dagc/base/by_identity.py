"""What was found of objects, kept by which object it is of: for those that have no hash, or one that takes as long as finding it anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ByIdentity(Generic[K, V]):
    """`find` of each object, called once. Objects are kept with what was found of them, so that no other gets the id of one; they must not
    change. Where there are `most` of them all are dropped; None: there are few."""

    def __init__(self, find: Callable[[K], V], most: int | None = None) -> None:
        self.find, self.most = find, most
        self.kept: dict[int, tuple[K, V]] = {}

    def __call__(self, of: K) -> V:
        found = self.kept.get(id(of))
        if found is None:
            if self.most is not None and len(self.kept) >= self.most:
                self.kept.clear()
            found = self.kept[id(of)] = of, self.find(of)
        return found[1]
