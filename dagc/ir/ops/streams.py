"""Several residual streams in place of one: copies of a value, pieces of a packed one, and weights of a mixing that neither grows nor
shrinks what it mixes."""

from __future__ import annotations

from math import prod

from ..op import Op
from ..segment import Segment
from .attributes.elementwise import PartAttrs, SinkhornAttrs
from .elementwise import as_operand
from .kind import AS_OPERAND, Count, Misfit, OpKind, listed, operands


def _repeated(segment: Segment, op: Op) -> None:
    """Every dim of the operand, and one more along which it is the same."""
    (value,) = operands(segment, op, "value")
    if not set(value) < set(op.dims) or len(op.dims) != len(value) + 1:
        raise Misfit("result", listed(op.dims), f"the dims of {listed(value)}, and one more")


def _part_of(segment: Segment, op: Op) -> None:
    """The dims of the operand but its last, of which the result's further ones are a run of entries, laid out row by row."""
    (value,) = operands(segment, op, "value")
    kept, new = op.dims[: len(value) - 1], op.dims[len(value) - 1 :]
    if not value or kept != value[:-1] or not new:
        raise Misfit("result", listed(op.dims), f"{listed(value[:-1])}, and the dims of the part")
    end = op.of(PartAttrs).first + prod(segment.size(d, op.scope) for d in new)
    if end > segment.size(value[-1], op.scope):
        raise Misfit("part", f"entries to {end:g}", f"at most {segment.size(value[-1], op.scope):g} of `{value[-1]}`")


def _of_a_run(segment: Segment, op: Op) -> set[str]:
    """Entries of one dim are not those of another."""
    value = segment.dims_of(op.inputs[0])
    return {value[-1], *op.dims[len(value) - 1 :]}


def _matrix(segment: Segment, op: Op) -> None:
    as_operand(segment, op)
    if len(op.dims) < 2:
        raise Misfit("result", listed(op.dims), "[..., rows, columns]")


def _rows_and_columns(segment: Segment, op: Op) -> set[str]:
    return set(op.dims[-2:])


def per_sweep(softmax: float, each: float) -> Count:
    """FLOPs of an element: the softmax, and a sum and a quotient each time that rows or columns are divided by their sum."""

    def flops(segment: Segment, op: Op) -> float:
        sweeps = 2 * op.of(SinkhornAttrs).iterations - 1
        return (softmax + each * sweeps) * segment.count(op.dims, op.scope)

    return flops


KINDS = (
    OpKind(
        name="repeat", about="the same numbers for every entry of a further dim", dims=_repeated, idle="it copies", linear=(0,),
        fused=True,
    ),
    OpKind(
        name="part", about="a run of entries of the last dim, as dims of its own", attrs=PartAttrs, dims=_part_of, dtype=AS_OPERAND,
        idle="it is a view", linear=(0,), whole=_of_a_run, local=True, fused=True, view=True,
    ),
    OpKind(
        name="sinkhorn", about="a matrix whose rows and columns sum to one, of scores", attrs=SinkhornAttrs, dims=_matrix,
        flops=per_sweep(5.0, 2.0), whole=_rows_and_columns, fused=True,
    ),
)  # fmt: skip
