"""Ops, the values and the weights that they read and make, and the streams on which they run."""

from __future__ import annotations

from typing import TypeVar

from ..base.collectives import ACROSS, is_token_exchange
from ..base.frozen import record, replace
from ..base.phase_kinds import SAMPLED, is_part
from .ops.attributes.attention import AttendAttrs
from .ops.attributes.attrs import NONE, Attrs
from .ops.attributes.copies import CopyAttrs
from .ops.attributes.moves import CollectiveAttrs
from .sharding import AT_EXPERTS, Axes, Sharding

A = TypeVar("A", bound=Attrs)
Loops = tuple[tuple[str, Axes], ...]

SCOPES = ("dense", "experts")
"""Scopes of weights. Ops may also be in that of a part of a mixed step, or of its sampled rows."""

COMPUTE, COMM = STREAMS = ("compute", "comm")
COPY = "copy"
"""The stream of copies between a GPU and its host, in graphs that have some."""
APART_STREAMS = (*STREAMS, *(f"{AT_EXPERTS} {own}" for own in STREAMS), *ACROSS)
TURNS_STREAMS = (*APART_STREAMS, *(f"{own} between" for own in STREAMS))

FORWARD, RECOMPUTE, BACKWARD, WEIGHT, UPDATE = CELLS = ("", "recompute", "backward", "weight", "update")
"""What a training step does in a layer: with each micro-batch its result, what of that is done anew, the gradient of what it was given
and those of its weights; and once, when these are added up, new weights. Any other pass is all forward."""


def is_scope(scope: str) -> bool:
    return scope in SCOPES or scope == SAMPLED or is_part(scope)


@record
class Weight:
    """A parameter tensor. `scope` is "experts" for routed experts, else "dense". `tied`: the weight of the first layer
    whose numbers it shares. `placed`: how routed experts are placed on ranks by their loads, where that is
    said."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    scope: str = "dense"
    sharding: Sharding | None = None
    tied: str = ""
    placed: str = ""


@record
class Value:
    """A result of an op."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    sharding: Sharding | None = None


@record
class Taken:
    """A value that an earlier layer handed on beside the residual stream. `kind`: of the op that made it."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    kind: str
    scope: str = "dense"
    sharding: Sharding | None = None


@record
class Op:
    """One op; its first result carries its name. Weights are inputs whose name starts with `@`.

    `more` are the results after the first: the other half of a pair, statistics of each row. They are small: prices
    and memory count the first alone. `loops` is what the strategy passes annotate: dimension -> mesh axes over which
    the op's iteration space is split. `axes` is the group of a collective. `sharding` is the result's layout, set by
    reshard. `on`: the ranks that it runs on, or that get what a collective takes across (see Sharding). `cell`: of CELLS. `kernel`: ops of one name that follow each other run as one;
    none: each by its kind."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    dims: tuple[str, ...]
    dtype: str
    block: str = ""
    scope: str = "dense"
    attrs: Attrs = NONE
    loops: Loops = ()
    axes: Axes = ()
    sharding: Sharding | None = None
    more: tuple[Value, ...] = ()
    on: str = ""
    cell: str = FORWARD
    kernel: str = ""

    @property
    def results(self) -> tuple[Value, ...]:
        return (Value(self.name, self.dims, self.dtype, self.sharding), *self.more)

    @property
    def made(self) -> tuple[Op | Value, ...]:
        """The same without a record for the first: the op has what a value has."""
        return (self, *self.more)

    @property
    def use(self) -> str:
        """The block, and where a layer has it more than once which time: `moe`, `moe2`."""
        stem = self.name.partition(".")[0]
        return stem if stem.startswith(self.block) and stem[len(self.block) :].isdigit() else self.block

    def of(self, record: type[A]) -> A:
        """The attributes as the record that the op's kind has."""
        assert isinstance(self.attrs, record), f"%{self.name} ({self.kind}) has no {record.__name__}"
        return self.attrs

    @property
    def ring(self) -> Axes:
        """Axes around which keys and values travel to this op; empty where none do."""
        return self.attrs.ring if isinstance(self.attrs, AttendAttrs) else ()

    def loop(self, dim: str) -> Axes:
        """Axes that split a loop dimension; empty when none do."""
        for name, axes in self.loops:
            if name == dim:
                return axes
        return ()

    def annotate(self, dim: str, axes: Axes) -> Op:
        """The op with `dim` split over `axes` (replacing the split of that dim)."""
        loops = tuple([(d, a) for d, a in self.loops if d != dim])
        if axes:
            loops = (*loops, (dim, axes))
        return self if loops == self.loops else replace(self, loops=loops)

    @property
    def is_collective(self) -> bool:
        return isinstance(self.attrs, CollectiveAttrs)

    @property
    def runtime_kind(self) -> str:
        """The kind under which runtimes, files and figures know the op: a ring turn is sent as permutes, a merge of
        softmax pieces as all-reduces."""
        return self.attrs.runtime_kind or self.kind

    @property
    def is_copy(self) -> bool:
        """Whether it is between the memories of a GPU and its host."""
        return isinstance(self.attrs, CopyAttrs)

    @property
    def is_ahead(self) -> bool:
        """Whether it is a copy for the layer behind: its own layer waits for that of the layer before."""
        return isinstance(self.attrs, CopyAttrs) and self.attrs.prefetch

    @property
    def is_token_exchange(self) -> bool:
        """A collective that takes tokens to their experts or back."""
        return is_token_exchange(self.kind, self.scope)

    @property
    def is_across(self) -> bool:
        """A collective from the ranks of one set to those of another."""
        return self.kind in ACROSS

    def is_at(self, on: str) -> bool:
        """Whether ranks of one set take part in it."""
        return self.is_across or self.on == on

    @property
    def stream(self) -> str:
        """What goes each way between two sets of ranks has a stream of its own, and so has each set."""
        if self.is_across:
            return self.kind
        own = COMM if self.is_collective else COPY if isinstance(self.attrs, CopyAttrs) else COMPUTE
        return f"{self.on} {own}" if self.on else own
