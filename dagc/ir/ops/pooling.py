"""Groups of tokens that become one entry each: a sum weighted by a softmax over the group's gates and biases.

Source of the form: DeepSeek-V4 report, sections 2.3.1 (groups that overlap) and 2.3.2.
"""

from __future__ import annotations

from ..entries import AGAIN, PAIR, pooled_of
from ..op import Op
from ..segment import Segment
from .attributes.attention import PoolAttrs
from .kind import Dims, Misfit, OpKind, Tokens, listed, operands, same_dims


def pooled_dims(op: Op, bias: Dims) -> tuple[str, str | None, Dims]:
    """(dimension of the tokens of a group, that of the groups that an entry is of, dimensions of an entry)."""
    group, *rest = bias
    return (group, rest[0], tuple(rest[1:])) if op.of(PoolAttrs).overlap else (group, None, tuple(rest))


def _pools(segment: Segment, op: Op) -> None:
    value, gate, bias = operands(segment, op, "contents", "gates", "biases")
    same_dims("operand 2 (gates)", gate, value)
    if value[:2] != ("batch", "seq") or len(bias) < 2 + op.of(PoolAttrs).overlap:
        raise Misfit("operand 1 (contents)", listed(value), "[batch, seq, ...]")
    same_dims("operand 3 (biases), but for the group", bias[1:], value[2:])
    group, _, own = pooled_dims(op, bias)
    same_dims("result", op.dims, ("batch", pooled_of(group), *own))


def _whole(segment: Segment, op: Op) -> set[str]:
    group, series, _ = pooled_dims(op, segment.dims_of(op.inputs[2]))
    return {group} | ({series} if series is not None else set())


def groups_of_entry(segment: Segment, op: Op) -> float:
    """How many groups an entry is of: 1, or as many as the dimension says that tells them apart."""
    series = pooled_dims(op, segment.dims_of(op.inputs[2]))[1]
    return 1.0 if series is None else segment.size(series)


def _rows(segment: Segment, op: Op) -> tuple[Dims, str]:
    """Contents and gates of the group that is not full, and of those that it overlaps with."""
    group, series, own = pooled_dims(op, segment.dims_of(op.inputs[2]))
    of_groups = (group,) if series is None else (f"{AGAIN}.{series}", group, series)
    return ("batch", PAIR, *of_groups, *own), "fp32"


def _touched(segment: Segment, op: Op) -> float:
    """A pass writes the rows of its tokens, and reads those of the groups that it fills."""
    tokens = segment.size(segment.dims_of(op.inputs[2])[0]) * groups_of_entry(segment, op)
    return min(1.0, segment.size("seq") / tokens)


def _pool_flops(segment: Segment, op: Op) -> float:
    """Of each number of a group and entry: bias, exponential, sum of the weights, product and its sum."""
    tokens = segment.size(segment.dims_of(op.inputs[2])[0]) * groups_of_entry(segment, op)
    return 5.0 * tokens * segment.count(op.dims)


KINDS = (
    OpKind(
        name="pool", about="an entry of each group of tokens: their sum, weighted by a softmax of gates and biases",
        attrs=PoolAttrs, dims=_pools, flops=_pool_flops, whole=_whole, tokens=Tokens.IN_ORDER, state=_rows, touched=_touched,
    ),
)  # fmt: skip
