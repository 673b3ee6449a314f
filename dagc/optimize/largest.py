"""The largest whole number at which something still fits, with few looks at it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache


def largest(share: Callable[[int], float], start: int, most: int) -> int:
    """The largest k of 1..`most` whose `share(k)` is at most 1, where shares do not fall; 0 where there is none. `start`: where to look
    first. Shares are nearly linear, so the next look is where the line through both ends of what is left meets 1."""
    look = cache(share)
    low, high, step = 0, most + 1, 1
    start = min(max(start, 1), most)
    if look(start) <= 1:
        low = start
        while low < most:  # outwards, ever further
            further = min(most, low + step)
            if look(further) > 1:
                high = further
                break
            low, step = further, step * 4
    else:
        high = start
    turn = 0
    while high - low > 1:
        middle = (low + high) // 2
        if turn % 3 and low and high <= most:  # every third look halves what is left, whatever the line says
            rise = look(high) - look(low)
            line = low + int((1 - look(low)) / rise * (high - low)) if 0 < rise < float("inf") else middle
            middle = min(max(line, low + 1), high - 1)
        turn += 1
        for k in (middle, middle + 1):
            if not low < k < high:
                continue
            if look(k) <= 1:
                low = k
            else:
                high = k
                break
    return low
