"""What a kind of op is: one frozen record that answers whatever a pass, a price, an executor or the verifier asks of it.

A rule that finds an op wrong raises Misfit with what it found and what it wanted; the verifier adds the op and the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from ...base.dtypes import INDICES
from ...base.frozen import record
from ..mesh import Mesh
from ..op import Op
from ..segment import Segment
from ..sharding import Axes, Sharding
from .attributes.attrs import Attrs
from .attributes.experts import ExchangeAttrs
from .attributes.moves import CollectiveAttrs
from .sequence import Array

Dims = tuple[str, ...]


class Misfit(ValueError):
    """An op that its kind's record does not allow. The message says what was found and what was wanted."""

    def __init__(self, what: str, found: object, wanted: object) -> None:
        super().__init__(f"{what}: found {found}, wanted {wanted}")


def listed(dims: Iterable[str]) -> str:
    return f"[{', '.join(dims)}]"


def same_dims(what: str, found: Dims, wanted: Dims) -> None:
    if found != wanted:
        raise Misfit(what, listed(found), listed(wanted))


def operands(segment: Segment, op: Op, *roles: str) -> list[Dims]:
    """Dims of the operands, of which there are as many as roles. Raises Misfit."""
    if len(op.inputs) != len(roles):
        raise Misfit("operands", len(op.inputs), f"{len(roles)} ({', '.join(roles)})")
    return [segment.dims_of(name) for name in op.inputs]


def role(op: Op, name: str, what: str) -> str:
    """`operand 2 (keys) %gqa.k`"""
    return f"operand {op.inputs.index(name) + 1} ({what}) {name if name.startswith('@') else f'%{name}'}"


# -- rules ---------------------------------------------------------------------------------------

DimsRule = Callable[[Segment, Op], None]
"""Raises Misfit where the dims of operands and result are not those of the kind."""
Count = Callable[[Segment, Op], float]
"""FLOPs of one execution over all ranks, replicated work counted once."""
LayoutRule = Callable[[Segment, Op, str], tuple[Axes, ...]]
"""(segment, op, operand) -> the layout that the op needs of it, from its annotated loops."""
ResultRule = Callable[[Segment, Op], Sharding]
"""The layout of the result as the op leaves it, partial where a split loop still has to be reduced."""
WholeRule = Callable[[Segment, Op], set[str]]
"""Dimensions that tensor parallelism must not split."""
StateRule = Callable[[Segment, Op], tuple[Dims, str]]
"""Dims and dtype of what an op remembers of the tokens that it has seen, in addition to the KV cache."""
TouchRule = Callable[[Segment, Op], float]
"""Share of what an op remembers that a pass reads, and writes."""
ReadRule = Callable[[Segment, Op, str, Mesh], float]
"""Bytes that one rank reads of an operand."""
ShareRule = Callable[[Segment, Op, Mesh], Array | None]
"""FLOPs of each rank over the mean of ranks, by broadcasting over the mesh; None where all ranks have as many."""
KernelRule = Callable[[Segment, Op, Mesh], tuple[tuple[float, float], ...]]
"""(FLOPs, bytes) of one rank in each of the kernels that an op runs as; none: it is one kernel, of its FLOPs and its traffic."""
ScratchRule = Callable[[Segment, Op, Mesh], float]
"""Bytes on one rank that are there only while the op runs."""
CopyRule = Callable[[Segment, Op, Mesh], tuple[float, float]]
"""Bytes of one rank that come from its host's memory, and those that go there."""
MoveRule = Callable[[Segment, Op, Sharding, Sharding, Mesh], None]
"""(segment, op, layout before, layout after, mesh): raises Misfit where the op does not move the one to the other."""


class Tokens(Enum):
    """How an op treats the tokens of a sequence, which sequence parallelism splits."""

    EACH = "each for itself"
    ATTEND = "queries see a context of keys and values"
    CACHE = "they are added to those of their context"
    CHOOSE = "queries choose tokens of the whole context"
    IN_ORDER = "one after another: a rank needs all that come before its own"
    AT_HOME = "where their owners hold them, on their way to experts and back"


class Fuse(Enum):
    """Fused kernels of engines that do an op too where it is next to theirs, so that their measured times include it."""

    ATTENTION = "attention with what is between it and its projections"
    EXPERTS = "the feed-forward network of routed experts"
    RECURRENCE = "linear attention with what is between it and its projections"
    SPARSE = "latent attention to chosen tokens, with all projections"


def _no_operands(op: Op) -> tuple[str, ...]:
    return ()


def _of_operand(segment: Segment, op: Op) -> str:
    return segment.dtype_of(op.inputs[0])


@record
class DtypeRule:
    """The dtype of a result: that of the model's activations, or `expanded`, which is a dtype, or "cache" for that of the KV
    cache. The verifier takes any dtype of numbers, or the one that `exact` says. `indices`: the operands that have whole
    numbers; the others have numbers, except where the op only moves them (`moves`)."""

    expanded: str = ""
    exact: Callable[[Segment, Op], str] | None = None
    indices: Callable[[Op], tuple[str, ...]] = _no_operands
    moves: bool = False

    def check(self, segment: Segment, op: Op) -> None:
        """Raises Misfit."""
        if self.exact is not None:
            wanted = self.exact(segment, op)
            if op.dtype != wanted:
                raise Misfit("dtype", op.dtype, wanted)
        elif op.dtype in INDICES:
            raise Misfit("dtype", op.dtype, "a dtype of numbers, not of indices")
        if self.moves:
            return
        whole = self.indices(op)
        for name in op.inputs:
            dtype = segment.dtype_of(name)
            if (dtype in INDICES) != (name in whole):
                raise Misfit(f"dtype of operand {name}", dtype, "int32 or int64" if name in whole else "numbers")


NUMBERS = DtypeRule()
ROW_SUMS = DtypeRule("fp32", lambda segment, op: "fp32")
"""As kernels keep their accumulators."""
AS_OPERAND = DtypeRule(exact=_of_operand, moves=True)


@record
class RowSum:
    """A sum over each row: the kind of op, and which operands of the op that needs it (those that it has) it is of."""

    kind: str
    operands: tuple[int, ...] = (0,)


# -- the record ----------------------------------------------------------------------------------


def no_flops(segment: Segment, op: Op) -> float:
    return 0.0


def nothing_whole(segment: Segment, op: Op) -> set[str]:
    return set()


@record(kw_only=True)
class OpKind:
    """One kind of op.

    - `about`: one line of documentation. `attrs`: the record of its attributes.
    - `dims`, `dtype`: what operands and results must be; they raise Misfit.
    - `flops`; where there are none, `idle` says why. `uses_tensor_cores`: the peak that they run at.
    - `needs`, `makes`: layouts of operands and result where they do not follow from the loops alone. `reduce`: how partial
      results of a split loop are joined.
    - `linear`: positions of operands whose partial sum may pass through. `jointly`: all operands together, or none.
    - `whole`: dimensions that must not be split. `row_sums`: the sums of a row that it reads where that row is split.
    - `tokens`: how it treats a split sequence. `over_heads`: tensor parallelism should split it, by heads.
    - `state`: what it remembers in addition to the KV cache; `touched`: how much of it a pass reads and writes. `share`: where ranks differ in FLOPs.
    - `reads`: bytes of an operand where not all of it is read. `reads_rows`: of a weight only as many rows as the result has.
      `appends`: only what is new is written. `local`: no memory traffic. `fused`: no kernel of its own.
      `view`: of its operand, without memory of its own. `by_position`: where a token is in its sequence matters.
    - `kept`: kernels of its gradient read its result, too. `gradient_of`: the kind whose operand's gradient it is; see `gradients`.
    - `rides_in`: fused kernels that do it too. `on_rows`: it works on rows of routed experts. `product`: a product whose
      weights may be quantised.
    - `kernels`: where it runs as several; `scratch`: what these leave to each other.
    - `move`: verifies what a move does; only moves have it. `copies`: what copies between a GPU and its host bring and take; only
      these have it.
    """

    name: str
    about: str
    dims: DimsRule
    dtype: DtypeRule = NUMBERS
    attrs: type[Attrs] = Attrs
    flops: Count = no_flops
    idle: str = ""
    uses_tensor_cores: bool = False
    needs: LayoutRule | None = None
    makes: ResultRule | None = None
    reduce: str = "sum"
    linear: tuple[int, ...] = ()
    jointly: bool = False
    whole: WholeRule = nothing_whole
    row_sums: tuple[RowSum, ...] = ()
    tokens: Tokens = Tokens.EACH
    over_heads: bool = False
    state: StateRule | None = None
    touched: TouchRule | None = None
    share: ShareRule | None = None
    reads: ReadRule | None = None
    reads_rows: bool = False
    appends: bool = False
    local: bool = False
    fused: bool = False
    view: bool = False
    by_position: bool = False
    rides_in: frozenset[Fuse] = frozenset()
    on_rows: bool = False
    product: bool = False
    kept: bool = False
    gradient_of: str = ""
    move: MoveRule | None = None
    copies: CopyRule | None = None
    kernels: KernelRule | None = None
    scratch: ScratchRule | None = None

    @property
    def is_collective(self) -> bool:
        return issubclass(self.attrs, CollectiveAttrs)

    @property
    def checked_by_layout(self) -> bool:
        """Whether its operands, or what it may exchange, follow from how loops are split: `dims` reads layouts then."""
        return bool(self.row_sums) or issubclass(self.attrs, ExchangeAttrs)

    @property
    def of_each_token(self) -> bool:
        """Whether it treats every token alike, whatever sequence it is of and wherever in it."""
        return self.tokens in (Tokens.EACH, Tokens.AT_HOME) and not self.by_position

    @property
    def runtime_kind(self) -> str:
        """The kind under which runtimes, files and figures know the op."""
        return self.attrs.runtime_kind or self.name


IN_EXPERTS = frozenset({Fuse.EXPERTS})
IN_ATTENTION = frozenset({Fuse.ATTENTION, Fuse.SPARSE})
IN_BOTH = IN_EXPERTS | IN_ATTENTION
IN_RECURRENCE = IN_EXPERTS | {Fuse.RECURRENCE, Fuse.SPARSE}
