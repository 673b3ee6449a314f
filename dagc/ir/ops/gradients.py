"""Gradients of ops that products and sums do not transpose: a kind each, which reads the gradient of the op's result (`upstream`)
and then the op's own operands. What it must be, how it is split and what it reads follow from the record of the op itself."""

from __future__ import annotations

from collections.abc import Callable

from ...base.dtypes import DTYPE_BYTES
from ...base.frozen import replace
from ..mesh import Mesh
from ..op import Op
from ..routed_dims import rows_of
from ..segment import Segment
from ..sharding import Axes, Sharding
from . import attention, elementwise, experts, norms, recurrent, router_losses, rows, streams
from .attention_work import score_bytes, seen_bytes
from .attributes.attention import AttendAttrs, AttendGradAttrs
from .attributes.attrs import Attrs, schema, values
from .attributes.elementwise import OperandAttrs
from .attributes.experts import ExchangeAttrs, RouteGradAttrs
from .attributes.recurrent import DeltaGradAttrs
from .contraction import multiply_adds
from .experts import choices_at_home, rows_needed, tokens_needed
from .kind import (
    IN_EXPERTS,
    ROW_SUMS,
    Count,
    DtypeRule,
    LayoutRule,
    Misfit,
    OpKind,
    ReadRule,
    RowSum,
    ShareRule,
    Tokens,
    WholeRule,
    listed,
    operands,
    same_dims,
)
from .sequence import Array
from .sizes import by_loops, local_bytes, local_count

FORWARD = {
    kind.name: kind
    for family in (attention, elementwise, experts, norms, recurrent, router_losses, rows, streams)
    for kind in family.KINDS
}


def forward_op(segment: Segment, op: Op) -> Op:
    """The op whose operand's gradient this one is. In the place of an operand that it does not read is its own result, which has the dims."""
    kind = FORWARD[_KIND[op.kind]]
    known = schema(kind.attrs)
    attrs = kind.attrs(**{name: value for name, value in values(op.attrs).items() if name in known})
    inputs, unread = op.inputs[1:], unread_operand(op)
    if unread is not None:
        inputs = (*inputs[:unread], op.name, *inputs[unread:])
    return replace(op, kind=kind.name, inputs=inputs, dims=segment.dims_of(op.inputs[0]), attrs=attrs, more=())


def unread_operand(op: Op) -> int | None:
    """Which of its op's operands a gradient does not read: values of attention are not asked for their own."""
    attrs = op.attrs
    return attrs.operand if isinstance(attrs, AttendGradAttrs) and attrs.operand == 2 * attrs.pairs else None


def differentiated(op: Op) -> int:
    """Which of the op's own operands it is the gradient of."""
    fixed = _OPERAND[op.kind]
    if fixed is not None:
        return fixed
    assert isinstance(op.attrs, (AttendGradAttrs, DeltaGradAttrs, OperandAttrs))
    return op.attrs.operand


def _of_operand(segment: Segment, op: Op) -> None:
    """The upstream gradient has the dims of the op's result, the result those of the operand."""
    if len(op.inputs) < 2:
        raise Misfit("operands", len(op.inputs), "the upstream gradient, and the operands of the op")
    forward = forward_op(segment, op)
    if differentiated(op) >= len(forward.inputs):
        raise Misfit("operand", differentiated(op), f"one of {len(forward.inputs)}")
    FORWARD[forward.kind].dims(segment, forward)
    same_dims("result", op.dims, segment.dims_of(forward.inputs[differentiated(op)]))


def _of_norm(segment: Segment, op: Op) -> None:
    """As of any op, and behind its operands the sums of each row where its width is split."""
    if not op.inputs:
        raise Misfit("operands", 0, "the upstream gradient, and the operands of the op")
    gain = len(op.inputs) > 2 and segment.is_weight(op.inputs[2])
    sums = OPS_ROW_SUMS[op.kind]
    apart = op.sharding is not None or len(op.inputs) > 2 + gain
    read = len(sums) if apart and op.loop(segment.dims_of(op.inputs[0])[-1]) else 0
    named = ["upstream", "value", *["gain"] * gain, *["sums of each row"] * read]
    upstream, value, *rest = operands(segment, op, *named)
    same_dims("operand 1 (upstream)", upstream, value)
    for dims in rest[:gain]:
        same_dims("operand 3 (gain)", dims, value[-1:])
    for dims in rest[gain:]:
        same_dims("sums of each row", dims, value[:-1])
    if _OPERAND[op.kind] == 1 and not gain:
        raise Misfit("operand 3 (gain)", "none", "a weight")
    same_dims("result", op.dims, segment.dims_of(op.inputs[1 + (_OPERAND[op.kind] or 0)]))


def _indices(forward: OpKind) -> Callable[[Op], tuple[str, ...]]:
    def rule(op: Op) -> tuple[str, ...]:
        return forward.dtype.indices(replace(op, inputs=op.inputs[1:]))

    return rule


def _attend_indices(op: Op) -> tuple[str, ...]:
    return op.inputs[-1:] if op.of(AttendAttrs).chosen else ()


def _whole(forward: OpKind) -> WholeRule:
    def rule(segment: Segment, op: Op) -> set[str]:
        return forward.whole(segment, forward_op(segment, op))

    return rule


def _needs(forward: OpKind) -> LayoutRule | None:
    rule = forward.needs
    if rule is None:
        return None

    def needs(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
        if name == op.inputs[0]:
            return tuple(op.loop(d) for d in segment.dims_of(name))
        return rule(segment, forward_op(segment, op), name)

    return needs


def _reads(forward: OpKind) -> ReadRule | None:
    rule = forward.reads
    if rule is None:
        return None

    def reads(segment: Segment, op: Op, name: str, mesh: Mesh) -> float:
        if name == op.inputs[0]:
            return local_bytes(segment, name, tuple(op.loop(d) for d in segment.dims_of(name)), mesh)
        return rule(segment, forward_op(segment, op), name, mesh)

    return reads


def _share(forward: OpKind) -> ShareRule | None:
    rule = forward.share
    if rule is None:
        return None

    def share(segment: Segment, op: Op, mesh: Mesh) -> Array | None:
        if _of_sinks(op):
            return None  # every rank sums as many rows, whatever its mask lets through
        return rule(segment, forward_op(segment, op), mesh)

    return share


def times(factor: float) -> Callable[[OpKind], Count]:
    """So many times the FLOPs of the op."""

    def of(forward: OpKind) -> Count:
        return lambda segment, op: factor * forward.flops(segment, forward_op(segment, op))

    return of


def _of_sinks(op: Op) -> bool:
    return differentiated(op) > 2 * op.of(AttendAttrs).pairs


def _attend_flops(forward: OpKind) -> Count:
    """One product for the queries and one for the keys; for the values theirs, and the gradient of the weights that both others
    read. In all twice the op. What a kernel computes anew is not counted."""

    def flops(segment: Segment, op: Op) -> float:
        own, pairs = forward_op(segment, op), op.of(AttendAttrs).pairs
        which = differentiated(op)
        width = segment.size(segment.dims_of(own.inputs[min(which, 2 * pairs)])[-1])
        every = segment.size(own.dims[-1]) + sum(segment.size(segment.dims_of(q)[-1]) for q in own.inputs[:pairs])
        if _of_sinks(op):  # a sum over the rows
            return 2.0 * segment.count(own.dims[:-1])
        return (2.0 if which == 2 * pairs else 1.0) * forward.flops(segment, own) * width / every

    return flops


def _attend_grad_kernels(segment: Segment, op: Op, mesh: Mesh) -> tuple[tuple[float, float], ...]:
    """What stored scores make of it: the gradient of their softmax is written and read by all others, those of queries first have it made.
    With one pair scores are moved seven times, beside four ahead."""
    attrs, which = op.of(AttendAttrs), differentiated(op)
    if attrs.kernel == "flash" or _of_sinks(op):
        return ()
    own, pairs = forward_op(segment, op), attrs.pairs
    scores_B = score_bytes(segment, own, mesh)
    count = scores_B / DTYPE_BYTES[own.dtype]

    def moved(name: str) -> float:
        return seen_bytes(segment, own, name, mesh)

    upstream_B = local_bytes(segment, op.inputs[0], by_loops(op, own.dims), mesh)
    value = own.inputs[2 * pairs]
    found: list[tuple[float, float]] = []
    if which == 0:
        width = segment.size(own.dims[-1])
        found += [(2.0 * count * width, upstream_B + moved(value) + scores_B), (0.0, 3.0 * scores_B)]
    other_B = upstream_B if which == 2 * pairs else moved(own.inputs[(which + pairs) % (2 * pairs)])
    result_B = local_count(segment, op.dims, by_loops(op, op.dims), mesh, op.scope) * DTYPE_BYTES[op.dtype]
    found.append((2.0 * count * segment.size(op.dims[-1]), scores_B + other_B + result_B))
    return tuple(found)


def _attend_grad_scratch(segment: Segment, op: Op, mesh: Mesh) -> float:
    """The gradient of the softmax and that of the scores; the softmax itself is kept."""
    if op.of(AttendAttrs).kernel == "flash":
        return 0.0
    return 2.0 * score_bytes(segment, forward_op(segment, op), mesh) / mesh.size(op.ring)


def gradient_of(
    name: str, about: str, *, flops: Callable[[OpKind], Count], suffix: str = "grad", operand: int | None = 0,
    attrs: type[Attrs] | None = None, indices: Callable[[Op], tuple[str, ...]] | None = None,
    row_sums: tuple[RowSum, ...] = (), idle: str = "",
) -> OpKind:  # fmt: skip
    """The kind of the gradient of an operand; without `operand`, of the one that the attributes name."""
    forward = FORWARD[name]
    own = f"{name}_{suffix}"
    _KIND[own], _OPERAND[own] = name, operand
    return OpKind(
        name=own, about=about, attrs=attrs or forward.attrs, gradient_of=name,
        dims=_of_norm if row_sums else _of_operand,
        dtype=DtypeRule(indices=indices or _indices(forward)),
        flops=flops(forward), idle=idle, uses_tensor_cores=forward.uses_tensor_cores,
        needs=_needs(forward), linear=(0,) if forward.tokens is Tokens.EACH and not row_sums and not idle else (),
        whole=_whole(forward), row_sums=row_sums, tokens=forward.tokens, share=_share(forward), reads=_reads(forward),
        reads_rows=forward.reads_rows, fused=forward.fused, by_position=forward.by_position,
        rides_in=forward.rides_in & IN_EXPERTS, on_rows=forward.on_rows,
    )  # fmt: skip


_KIND: dict[str, str] = {}
_OPERAND: dict[str, int | None] = {}


def _rope_back(segment: Segment, op: Op) -> None:
    (value,) = operands(segment, op, "upstream")
    same_dims("result", op.dims, value)


def _uncached(segment: Segment, op: Op) -> None:
    (value,) = operands(segment, op, "upstream")
    same_dims("operand 1 (upstream)", value, tuple("context" if d == "seq" else d for d in op.dims))


def _own_tokens(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    return tuple(op.loop("seq" if d == "context" else d) for d in segment.dims_of(name))


def _left(segment: Segment, op: Op) -> Sharding:
    return Sharding(tuple(op.loop(d) for d in op.dims))


def _summed(segment: Segment, op: Op) -> None:
    (value,) = operands(segment, op, "value")
    if not set(op.dims) <= set(value):
        raise Misfit("result", listed(op.dims), f"dims of {listed(value)}")


def _of_scores(segment: Segment, op: Op) -> None:
    more = ("scores of empty experts",) if op.of(RouteGradAttrs).empty else ()
    upstream, *scores, choice = operands(segment, op, "upstream", "scores", *more, "choice")
    same_dims("operand 1 (upstream)", upstream, choice)
    same_dims(f"operand {len(op.inputs)} (choice)", choice[:-1], scores[0][:-1])
    same_dims("result", op.dims, scores[op.of(RouteGradAttrs).operand])


def _of_empty(segment: Segment, op: Op) -> None:
    """Of each choice the gradient of the token's sum, or nothing."""
    upstream, choice = operands(segment, op, "upstream", "choice")
    same_dims("operand 1 (upstream)", upstream, choice[:-1])
    same_dims("result", op.dims, choice)


def _dotted(segment: Segment, op: Op) -> None:
    found, value, choice = operands(segment, op, "rows", "tokens", "choice")
    made = rows_of(found)
    if made is None:
        raise Misfit("operand 1 (rows)", listed(found), "[expert, slot, width]")
    same_dims("operand 1 (rows)", found, (made.expert, made.slot, value[-1]))
    same_dims("operand 3 (choice)", choice, (*value[:-1], made.choice))
    same_dims("result", op.dims, choice)
    experts.exchanged(segment, op)


def _rows_of_choices(segment: Segment, op: Op) -> None:
    weights, choice = operands(segment, op, "weights", "choice")
    same_dims("operand 2 (choice)", choice, weights)
    _rows_and_choice(op.dims, choice, "result")
    experts.exchanged(segment, op)


def _choices_of_rows(segment: Segment, op: Op) -> None:
    found, choice = operands(segment, op, "rows", "choice")
    same_dims("result", op.dims, choice)
    _rows_and_choice(found, choice, "operand 1 (rows)")
    experts.exchanged(segment, op)


def _rows_and_choice(found: tuple[str, ...], choice: tuple[str, ...], what: str) -> None:
    made = rows_of(found)
    if made is None or found != (made.expert, made.slot) or choice[-1] != made.choice:
        raise Misfit(what, listed(found), "[expert, slot]")


def _second(op: Op) -> tuple[str, ...]:
    return op.inputs[1:2]


def _dot_flops(segment: Segment, op: Op) -> float:
    """A multiply-add for each number of each choice's row."""
    return 2.0 * segment.count(op.dims) * segment.size(segment.dims_of(op.inputs[1])[-1])


def _of_table(segment: Segment, op: Op) -> None:
    """Of a row for each id; the table itself is not read."""
    upstream, ids = operands(segment, op, "upstream", "token ids")
    if len(op.dims) != 2:
        raise Misfit("result", listed(op.dims), "[rows, width]")
    same_dims("operand 1 (upstream)", upstream, (*ids, op.dims[-1]))


def _added_rows(segment: Segment, op: Op, name: str, mesh: Mesh) -> float:
    """What is added to a row reads and writes it, too; the result is written once before, with nothing."""
    size = local_bytes(segment, name, tuple(op.loop(d) for d in segment.dims_of(name)), mesh)
    return 3 * size if name == op.inputs[0] else size


def _last(op: Op) -> tuple[str, ...]:
    return op.inputs[-1:]


def _third(op: Op) -> tuple[str, ...]:
    return op.inputs[2:3]


def _of_tokens(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    if name == op.inputs[0]:
        return rows_needed(segment, op, name)
    return tokens_needed(segment, op, name)


NORM_SUMS = (RowSum("row_square_sum", (1,)),)
LAYER_SUMS = (RowSum("row_square_sum", (1,)), RowSum("row_sum", (1,)))

KINDS = (
    *(
        gradient_of(name, f"gradient through {name}", flops=times(2.0))
        for name in (*elementwise.ACTIVATIONS, "clamp", "rsqrt")
    ),
    gradient_of(
        "rms_norm", "gradient through rms_norm", flops=times(2.0), row_sums=(*NORM_SUMS, RowSum("row_dot", (0, 1, 2))),
    ),
    gradient_of(
        "rms_norm", "gradient of the gain of rms_norm", suffix="gain_grad", operand=1, flops=times(1.0), row_sums=NORM_SUMS,
    ),
    gradient_of(
        "layer_norm", "gradient through layer_norm", flops=times(2.0),
        row_sums=(*LAYER_SUMS, RowSum("row_dot", (0, 1, 2)), RowSum("row_dot", (0, 2))),
    ),
    gradient_of(
        "layer_norm", "gradient of the gain of layer_norm", suffix="gain_grad", operand=1, flops=times(1.0), row_sums=LAYER_SUMS,
    ),
    replace(
        gradient_of(
        "attend", "gradient of queries, keys or values, scores computed anew", operand=None, attrs=AttendGradAttrs, flops=_attend_flops,
        indices=_attend_indices,),
        kernels=_attend_grad_kernels, scratch=_attend_grad_scratch,
    ),
    OpKind(
        name="route_grad", about="gradient of the scores from that of the chosen weights", attrs=RouteGradAttrs, dims=_of_scores,
        dtype=DtypeRule(indices=_last), idle="negligible beside the router's matrix product", whole=experts.value_widths,
        gradient_of="route",
    ),
    OpKind(
        name="empty_weight_grad", about="gradient of the weights of choices, of those of empty experts", dims=_of_empty,
        dtype=DtypeRule(indices=_second), idle="it only picks", whole=lambda segment, op: {op.dims[-1]}, gradient_of="empty_weight",
    ),
    *(
        gradient_of(name, f"gradient of the scores through {name}", flops=times(0.0), idle=router_losses.NEGLIGIBLE)
        for name in ("expert_probs", "router_z")
    ),
    gradient_of("part", "gradient of what a run of entries is of", flops=times(0.0), idle="it only copies"),
    gradient_of("sinkhorn", "gradient of scores through sinkhorn, its sweeps computed anew", flops=times(3.0)),
    OpKind(
        name="lookup_grad", about="gradient of a table: rows added where they were read", dims=_of_table, dtype=DtypeRule(indices=_second),
        idle="it only adds", reads=_added_rows, gradient_of="lookup",
    ),
    gradient_of("conv", "gradient of the input or the taps of conv", operand=None, attrs=OperandAttrs, flops=times(1.0)),
    gradient_of("delta", "gradient of an operand of delta, back through the tokens", operand=None, attrs=DeltaGradAttrs, flops=times(0.4)),
    OpKind(
        name="uncache", about="gradient of the new tokens from that of the context", dims=_uncached, idle="it only keeps", linear=(0,),
        needs=_own_tokens, makes=_left, fused=True, gradient_of="cache",
    ),
    OpKind(
        name="row_dot", about="sum of each row of a product", dims=norms.dotted, dtype=ROW_SUMS, flops=multiply_adds,
        rides_in=IN_EXPERTS, on_rows=True,
    ),
    OpKind(
        name="sum_dims", about="summed over the dims that the result does not have", dims=_summed, flops=multiply_adds, linear=(0,),
        fused=True, rides_in=IN_EXPERTS, on_rows=True,
    ),
    OpKind(
        name="choice_rows", about="the router's weight of each row of an expert", attrs=ExchangeAttrs, dims=_rows_of_choices,
        dtype=DtypeRule(indices=_second), idle="it only moves", needs=tokens_needed, makes=experts.rows_at_home, tokens=Tokens.AT_HOME,
        rides_in=IN_EXPERTS, fused=True,
    ),
    OpKind(
        name="choice_back", about="a number of each row back at the choice that it is of", attrs=ExchangeAttrs, dims=_choices_of_rows,
        dtype=DtypeRule(indices=_second), idle="it only moves", linear=(0,), needs=_of_tokens, makes=choices_at_home,
        tokens=Tokens.AT_HOME, fused=True,
    ),
    OpKind(
        name="choice_dot", about="of each choice of a token its row times the token", attrs=ExchangeAttrs, dims=_dotted,
        dtype=DtypeRule(indices=_third), flops=_dot_flops, needs=_of_tokens, makes=choices_at_home, tokens=Tokens.AT_HOME,
        whole=experts.value_widths,
    ),
)  # fmt: skip

OPS_ROW_SUMS = {kind.name: kind.row_sums for kind in KINDS}
