"""Sizes of a segment that tell which of them somebody asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class NotedSizes(Mapping[str, float]):
    """`note`: hears of each dimension that is asked for, whether or not it is there; to name them all asks for none."""

    __slots__ = ("note", "sizes")

    def __init__(self, sizes: Mapping[str, float], note: Callable[[str], None]) -> None:
        self.sizes, self.note = sizes, note

    def __getitem__(self, dim: str) -> float:
        self.note(dim)
        return self.sizes[dim]

    def get(self, dim: str, default: Any = None) -> Any:
        self.note(dim)
        return self.sizes.get(dim, default)

    def __contains__(self, dim: object) -> bool:
        return dim in self.sizes

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


def with_others(sizes: Mapping[str, float], others: Mapping[str, float]) -> Mapping[str, float]:
    """Some of the sizes others, told to the same."""
    if isinstance(sizes, NotedSizes):
        return NotedSizes({**sizes.sizes, **others}, sizes.note)
    return {**sizes, **others}
