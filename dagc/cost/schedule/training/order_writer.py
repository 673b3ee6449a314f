"""order_writer: writes the order of a GPU kind by kind: micro-batches of a kind follow each other, so nobody numbers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ....base.frozen import field, mutable
from .cell_orders import Cell, Entry, Kind, Loop, Order, Overlap, Part

Step = Kind | tuple[Kind, Kind]
"""One kind, or a forward and a backward kind that overlap."""


def forward(chunk: int = 0) -> Kind:
    return Kind(chunk, Part.FORWARD)


def backward(chunk: int = 0) -> Kind:
    return Kind(chunk, Part.BACKWARD)


def inputs(chunk: int = 0) -> Kind:
    return Kind(chunk, Part.INPUT)


def weights(chunk: int = 0) -> Kind:
    return Kind(chunk, Part.WEIGHT)


@mutable
class OrderWriter:
    """`first`: by chunk, the number of its first micro-batch where it is not 0."""

    first: Mapping[int, int] = field(default_factory=dict)
    loops: list[Loop] = field(default_factory=list)
    done: Counter[Kind] = field(default_factory=Counter)
    split: dict[int, list[range]] = field(default_factory=dict)

    def repeat(self, times: int, *steps: Step) -> None:
        """`times` runs of the steps. All kinds among them occur equally often, so that a run is the one before, shifted."""
        if times <= 0:
            return
        kinds = [kind for step in steps for kind in ((step,) if isinstance(step, Kind) else step)]
        counts = Counter(kinds)
        (each,) = set(counts.values()) if times > 1 else {1}
        begin = {kind: self._begin(kind) for kind in counts if kind.part is not Part.WEIGHT}
        for kind, number in begin.items():
            if kind.part is Part.INPUT:
                self.split.setdefault(kind.chunk, []).append(range(number, number + counts[kind] * times))
        seen: Counter[Kind] = Counter()
        body: list[Entry] = []
        for step in steps:
            if isinstance(step, Kind):
                body.append(self._cell(step, begin, seen))
            else:
                body.append(Overlap(self._cell(step[0], begin, seen), self._cell(step[1], begin, seen)))
        self.loops.append(Loop(tuple(body), times, each))
        for kind, count in counts.items():
            self.done[_counted(kind)] += count * times

    def each(self, kinds: Sequence[Kind]) -> None:
        """One cell of each, in a row."""
        if kinds:
            self.repeat(1, *kinds)

    def order(self) -> Order:
        return tuple(self.loops)

    def _begin(self, kind: Kind) -> int:
        return self.first.get(kind.chunk, 0) + self.done[_counted(kind)]

    def _cell(self, kind: Kind, begin: Mapping[Kind, int], seen: Counter[Kind]) -> Cell:
        at = seen[kind]
        seen[kind] += 1
        if kind.part is not Part.WEIGHT:
            return Cell(begin[kind] + at, kind.chunk, kind.part)
        at += self.done[kind]
        for numbers in self.split[kind.chunk]:
            if at < len(numbers):
                return Cell(numbers[at], kind.chunk, kind.part)
            at -= len(numbers)
        raise ValueError(f"chunk {kind.chunk} has more gradients of weights than of inputs")


def _counted(kind: Kind) -> Kind:
    """Whole gradients and those of inputs alone are numbered together."""
    return Kind(kind.chunk, Part.BACKWARD) if kind.part is Part.INPUT else kind
