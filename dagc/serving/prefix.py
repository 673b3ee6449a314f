"""The prefix cache of a rank: blocks of prompts by their ids, how many sequences hold each, the least recently used one first out."""

from __future__ import annotations

from collections import OrderedDict


class PrefixCache:
    """Blocks whose text is in the cache. One that no sequence holds stays until its room is wanted: of those the one that was let go
    first goes first, and of one sequence the tail before the head, so what is left of a prompt is always a head of it."""

    __slots__ = ("held", "idle")

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.idle: OrderedDict[int, None] = OrderedDict()

    def hits(self, blocks: tuple[int, ...], most: int) -> tuple[int, int]:
        """Leading blocks, at most `most`, that the cache has, and how many of them no sequence holds."""
        held, idle = self.held, self.idle
        count = free = 0
        for block in blocks:
            if count == most:
                break
            if block not in held:
                if block not in idle:
                    break
                free += 1
            count += 1
        return count, free

    def take(self, blocks: tuple[int, ...], count: int) -> None:
        """A sequence holds the first `count` blocks, all of them in the cache."""
        held, idle = self.held, self.idle
        for block in blocks[:count]:
            if block in held:
                held[block] += 1
            else:
                held[block] = 1
                del idle[block]

    def keep(self, block: int) -> bool:
        """A sequence has computed `block` and holds it. True: another one holds it too, so one copy goes."""
        held = self.held
        if block in held:
            held[block] += 1
            return True
        self.idle.pop(block, None)
        held[block] = 1
        return False

    def release(self, blocks: tuple[int, ...], count: int) -> int:
        """A sequence lets its first `count` blocks go. Returns how many nobody holds any more."""
        held, idle = self.held, self.idle
        freed = 0
        for block in reversed(blocks[:count]):
            left = held[block] - 1
            if left:
                held[block] = left
            else:
                del held[block]
                idle[block] = None
                freed += 1
        return freed

    def shrink(self, most: int) -> None:
        """Room is left for `most` idle blocks."""
        idle = self.idle
        while len(idle) > most:
            idle.popitem(last=False)
