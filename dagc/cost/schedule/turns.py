"""turns: the layers of a stage as sequences that repeat, so that layers that alternate are evaluated as often as equal ones."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

LONGEST = 24
"""Runs of equal layers in a sequence that repeats."""
LEAST = 4
"""Times that a sequence repeats at least: evaluating it twice says less."""

Layers = tuple[tuple[str, int], ...]
"""Runs of equal layers: (segment, how many)."""


class Turn(NamedTuple):
    """Runs of layers, `times` in a row."""

    layers: Layers
    times: int


@lru_cache(maxsize=256)
def turns(layers: Layers) -> tuple[Turn, ...]:
    """The layers in order: from the front, the sequence that covers most of what follows (of equal ones the shortest), if one repeats."""
    found: list[Turn] = []
    at, count = 0, len(layers)
    while at < count:
        best = Turn(layers[at : at + 1], 1)
        for period in range(2, min(LONGEST, (count - at) // LEAST) + 1):
            end = at + period
            while end < count and layers[end] == layers[end - period]:
                end += 1
            times = (end - at) // period
            if times >= LEAST and period * times > len(best.layers) * best.times:
                best = Turn(layers[at : at + period], times)
        found.append(best)
        at += len(best.layers) * best.times
    return tuple(found)
