"""What is left of a chain of moves costs at least: a bound for the search of the cheapest one (`moves.py`).

Which dims axes split, and in what order, is left out here; so a tensor is known by the axes that split it and those over which it is
partial. Slices are free and calls of fewer bytes never dearer, so slices go first, reductions next and gathers last. Sets of axes are
numbers, a bit for each atom of the mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from math import inf

from .mesh import Mesh
from .sharding import Axes

Price = Callable[[str, float, Axes], float]
"""(kind, payload bytes of the local input buffer, group axes) -> seconds. More bytes never take less."""

CALL_S = 1e-9
"""Added to every collective of a chain: of two chains that cost the same, the one with fewer calls wins."""
RANK_S = 1e-12
"""Added for every rank of a collective's group: of as many calls, the one among fewer ranks wins."""
MOST_ATOMS = 8
"""Of meshes that are bounded: a table of more has too many sets of axes."""
MOST_TABLES = 4096
MOVING = ("all_gather", "all_to_all", "permute")
REDUCING = ("all_reduce", "reduce_scatter")


class Calls:
    """What calls among the ranks of a mesh cost, the same for every mesh of equal sizes on the same GPUs."""

    def __init__(self, price: Price, mesh: Mesh) -> None:
        names = [name for name, _ in mesh.atoms]
        self.every = (1 << len(names)) - 1
        self.axes = [tuple(name for i, name in enumerate(names) if one >> i & 1) for one in range(self.every + 1)]
        self.ranks = [mesh.size(axes) for axes in self.axes]
        self.price = price
        self.known: dict[tuple[str, float], list[float]] = {}
        self.tables: dict[tuple[float, int, int], Left] = {}

    def row(self, kind: str, payload_B: float) -> list[float]:
        """Seconds by axes, as far as somebody asked; others are below zero."""
        key = kind, payload_B
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = [-1.0] * (self.every + 1)
        return found

    def ask(self, kind: str, payload_B: float, axes: int) -> float:
        """Into its row."""
        own_s = CALL_S + RANK_S * self.ranks[axes] + self.price(kind, payload_B, self.axes[axes])
        self.row(kind, payload_B)[axes] = own_s
        return own_s

    @cached_property
    def moving(self) -> list[float]:
        """For each set of axes, seconds of the cheapest calls of no bytes in which each of them takes part."""
        every = range(1, self.every + 1)
        least = [0.0, *(min(self.ask(kind, 0.0, axes) for kind in MOVING) for axes in every)]
        out = [0.0]
        for axes in every:
            out.append(min(least[one] + out[axes & ~one] for one in every if one & axes))
        return out

    def left(self, whole_B: float, target: int, kept: int) -> Left:
        """`whole_B`: of the tensor on all ranks; `target`: axes that split it in the end; `kept`: those it is partial over then."""
        key = whole_B, target, kept
        found = self.tables.get(key)
        if found is None:
            if len(self.tables) >= MOST_TABLES:
                self.tables.clear()
                self.known.clear()
            found = self.tables[key] = Left(self, *key)
        return found


class Left:
    """Seconds that are left at least until a tensor is split over the axes of a target. Of a tensor: `split`, the axes that split it;
    `astray`, those of them that the target has too but that have to move; `partial`, those over which it is and must not stay so."""

    def __init__(self, calls: Calls, whole_B: float, target: int, kept: int) -> None:
        self.calls, self.whole_B, self.target = calls, whole_B, target
        self.every = calls.every & ~kept
        self.found: dict[tuple[int, int, int], float] = {}
        self.gathers: dict[tuple[int, int], float] = {}

    def __call__(self, split: int, astray: int, partial: int) -> float:
        split |= self.target & ~partial  # slices over these do no harm
        key = split, astray, partial
        found = self.found.get(key)
        if found is None:
            if partial or split & ~self.target:
                idle = self.every & ~split & ~partial & ~self.target
                found = min(self.sliced(split | more, astray, partial) for more in _subsets(idle))
            else:
                found = self.calls.moving[astray] if astray else 0.0
            self.found[key] = found
        return found

    def sliced(self, split: int, astray: int, partial: int) -> float:
        """The same where no slice comes next."""
        if not partial:
            return self.gathered(split, astray)
        calls, payload_B, best = self.calls, self.whole_B / self.calls.ranks[split], inf
        rows = [(kind, calls.row(kind, payload_B)) for kind in REDUCING]
        axes = partial
        while axes:
            for kind, row in rows:
                cost = row[axes]
                if cost < 0:
                    cost = calls.ask(kind, payload_B, axes)
                if cost < best:
                    after = split if kind == "all_reduce" else split | axes
                    best = min(best, cost + self(after, astray, partial & ~axes))
            axes = (axes - 1) & partial
        return best

    def gathered(self, split: int, astray: int) -> float:
        """The same where only gathers come next, or one permute into the target."""
        calls, wrong = self.calls, split & ~self.target
        if not wrong:
            return calls.moving[astray] if astray else 0.0
        key = split, astray
        found = self.gathers.get(key)
        if found is None:
            payload_B, found = self.whole_B / calls.ranks[split], inf
            row = calls.row("all_gather", payload_B)
            for axes in _subsets(split):
                if axes & wrong:
                    cost = row[axes] if row[axes] >= 0 else calls.ask("all_gather", payload_B, axes)
                    if cost < found:  # a part of what was gathered may be split again
                        some = (split & ~gone for gone in _subsets(axes & wrong) if gone)
                        found = min(found, *(cost + self.gathered(one, astray & ~axes) for one in some))
            if calls.ranks[self.target] % calls.ranks[wrong] == 0:  # whichever axes of the target split it by then
                result_B, moved = self.whole_B / calls.ranks[self.target], wrong | astray
                row = calls.row("permute", result_B)
                for more in _subsets(self.every & ~moved):
                    cost = row[moved | more]
                    found = min(found, cost if cost >= 0 else calls.ask("permute", result_B, moved | more))
            self.gathers[key] = found
        return found


def _subsets(axes: int) -> Iterator[int]:
    """All sets of some axes, the whole one first and none last."""
    one = axes
    while one:
        yield one
        one = (one - 1) & axes
    yield 0
