"""Nodes of a trace as patterns with numbers of a row in them: a layer's nodes once, and a row of numbers for each layer."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from ...base.frozen import field, record
from .ranks import Hole

Refs = tuple[int, ...]
"""Nodes: 0 and up within the layer, below 0 what the layer is given from outside (-1 the first of it)."""

ID, LAYER, MICROBATCH, TAG, DURATION = range(-1, 4)
"""What a number of a row is."""


@record
class Words:
    """Text with numbers of the row between its parts: what each is, and for an id of which node."""

    parts: tuple[str, ...]
    numbers: tuple[tuple[int, int], ...] = ()


@record
class Tensor:
    """What a node reads or writes, and its bytes on this rank."""

    name: Words
    size_B: int


@record
class TraceNode:
    """`name`: as the placed graph's id. `attributes`: encoded, without what changes from row to row. `hole`: the attribute that
    is a rank's own. `tag`: of a message, counted from the first of its row. It takes `share` of the time of the op `timed`. `layered`,
    `batched`: it is of one layer, of one micro-batch."""

    name: Words
    kind: int
    stream: str
    data: Refs
    control: Refs
    timed: tuple[str, str] | None
    lane: int
    attributes: bytes
    hole: Hole | None = None
    tag: int | None = None
    share: float = 1.0
    layered: bool = False
    batched: bool = True
    reads: tuple[Tensor, ...] = ()
    writes: tuple[Tensor, ...] = ()


Kept = tuple[tuple[str, Refs], ...]
"""Nodes by what they made: values of a layer that other rows of it need."""


@record
class Context:
    """Nodes to wait for: those that bring each lane's value, the last ones of each stream, and those that made what else is read."""

    values: tuple[Refs, ...]
    compute: Refs
    comm: Refs
    kept: Kept = ()

    @property
    def flat(self) -> Refs:
        found = [*self.values, self.compute, self.comm, *(refs for _, refs in self.kept)]
        return tuple(r for refs in found for r in refs)

    @property
    def shape(self) -> tuple[object, ...]:
        own = (*(len(refs) for refs in self.values), len(self.compute), len(self.comm))
        return (*own, *((name, len(refs)) for name, refs in self.kept)) if self.kept else own

    def numbered(self) -> Context:
        """The same with -1, -2, .. in place of the nodes."""
        at = iter(range(-1, -1 - len(self.flat), -1))
        values = tuple(tuple(next(at) for _ in refs) for refs in self.values)
        compute, comm = tuple(next(at) for _ in self.compute), tuple(next(at) for _ in self.comm)
        return Context(values, compute, comm, tuple((name, tuple(next(at) for _ in refs)) for name, refs in self.kept))


@record(slots=False)
class Pattern:
    """The nodes of a layer, and what the next one waits for. `tags`: how many its messages take. `made`: by op, in the first lane."""

    nodes: tuple[TraceNode, ...]
    exit: Context
    tags: int = 0
    made: Mapping[str, Refs] = field(default_factory=dict)


@record
class TraceLayer:
    """One layer of a micro-batch: the id of its first node, and the ids of what it is given."""

    pattern: Pattern
    base: int
    outside: tuple[int, ...]
    layer: int
    microbatch: int
    tag: int

    def absolute(self, refs: Refs) -> Refs:
        return tuple(self.base + r if r >= 0 else self.outside[-1 - r] for r in refs)

    @property
    def exit(self) -> Context:
        e = self.pattern.exit
        return Context(tuple(map(self.absolute, e.values)), self.absolute(e.compute), self.absolute(e.comm))


def message_size(payload_B: float) -> int:
    return max(1, ceil(payload_B - 1e-6))


def joined(words: Words, text: str) -> Words:
    """Words with more text behind them."""
    return Words((*words.parts[:-1], words.parts[-1] + text), words.numbers)


def tensor(ref: int, size_B: float) -> Tensor:
    """What a node makes, called by its id: a name must be written once in a file."""
    return Tensor(Words(("%", ""), ((ID, ref),)), ceil(size_B - 1e-6))
