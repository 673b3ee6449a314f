"""Routed experts: who goes where, there, and back."""

from __future__ import annotations

from ...base.dtypes import DTYPE_BYTES
from ..mesh import Mesh
from ..op import Op
from ..routed_dims import dim_like, routed, rows_of, skipped, stem
from ..segment import Segment
from ..sharding import Axes, Sharding
from .attributes.copies import ExpertCopyAttrs
from .attributes.experts import CombineAttrs, DispatchAttrs, ExchangeAttrs, RouteAttrs
from .elementwise import per_element
from .kind import AS_OPERAND, IN_EXPERTS, DtypeRule, Misfit, OpKind, Tokens, listed, operands, same_dims
from .sizes import by_loops, local_bytes, local_count


def _routed(segment: Segment, op: Op) -> None:
    if op.of(RouteAttrs).empty:
        _routed_with_empty(segment, op)
        return
    if op.of(RouteAttrs).by_token:
        _routed_by_token(segment, op)
        return
    bias = ["bias"] if len(op.inputs) > 1 else []
    scores, *rest = operands(segment, op, "scores", *bias)
    _makes_choices(op, scores)
    for dims in rest:
        same_dims("operand 2 (bias)", dims, scores[-1:])


def _makes_choices(op: Op, scores: tuple[str, ...]) -> None:
    if op.dims[:-1] != scores[:-1] or stem(op.dims[-1]) != "choice":
        raise Misfit("result", listed(op.dims), listed((*scores[:-1], "choice")))


def _routed_with_empty(segment: Segment, op: Op) -> None:
    """Empty experts follow the others, with scores and biases of their own."""
    biases = ["bias", "bias of empty experts"] if len(op.inputs) > 2 else []
    scores, empty, *rest = operands(segment, op, "scores", "scores of empty experts", *biases)
    _makes_choices(op, scores)
    same_dims("operand 2 (scores of empty experts)", empty[:-1], scores[:-1])
    for place, (dims, of) in enumerate(zip(rest, (scores, empty), strict=False), start=3):
        same_dims(f"operand {place} (bias)", dims, of[-1:])


def _routed_by_token(segment: Segment, op: Op) -> None:
    """The table has a row of experts for every id."""
    scores, ids, table = operands(segment, op, "scores", "token ids", "table")
    _makes_choices(op, scores)
    same_dims("operand 2 (token ids)", ids, scores[:-1])
    if len(table) != 2 or segment.size(table[1]) != segment.size(op.dims[-1]):
        raise Misfit("operand 3 (table)", listed(table), f"[rows, {op.dims[-1]}]")


def _ids_and_table(op: Op) -> tuple[str, ...]:
    return op.inputs[1:] if op.of(RouteAttrs).by_token else ()


def _routers_whole(segment: Segment, op: Op) -> set[str]:
    """The scores of all experts, and every row of a table: a token may have any id."""
    if not op.of(RouteAttrs).by_token:
        return value_widths(segment, op)
    scores, _, table = (segment.dims_of(name) for name in op.inputs)
    return {scores[-1], *table}


def _routers_read(segment: Segment, op: Op, name: str, mesh: Mesh) -> float:
    """Of a table one row for a token."""
    if op.of(RouteAttrs).by_token and name == op.inputs[2]:
        return (
            local_count(segment, op.dims, by_loops(op, op.dims), mesh, op.scope) * DTYPE_BYTES[segment.dtype_of(name)]
        )
    return local_bytes(segment, name, by_loops(op, segment.dims_of(name)), mesh)


def value_widths(segment: Segment, op: Op) -> set[str]:
    """More is needed of the operands' last dimension than sums over it: it stays whole on a rank."""
    return {segment.dims_of(name)[-1] for name in op.inputs if not segment.is_weight(name)}


def _choice(op: Op) -> tuple[str, ...]:
    return op.inputs[1:2]


def _dispatched(segment: Segment, op: Op) -> None:
    value, choice, weights = operands(segment, op, "tokens", "choice", "weights")
    rows = rows_of(op.dims)
    if rows is None:
        raise Misfit("result", listed(op.dims), "[expert, slot, width]")
    same_dims("last dim of operand 2 (choice)", choice[-1:], (rows.choice,))
    same_dims("operand 3 (weights)", weights, choice)
    same_dims("result", op.dims, (rows.expert, rows.slot, value[-1]))
    exchanged(segment, op)


def _combined(segment: Segment, op: Op) -> None:
    value, choice, weights = operands(segment, op, "rows", "choice", "weights")
    rows = rows_of(value)
    if rows is None:
        raise Misfit("operand 1 (rows)", listed(value), "[expert, slot, width]")
    same_dims("last dim of operand 2 (choice)", choice[-1:], (rows.choice,))
    same_dims("operand 3 (weights)", weights, choice)
    same_dims("operand 1 (rows)", value, (rows.expert, rows.slot, op.dims[-1]))
    exchanged(segment, op)


def exchanged(segment: Segment, op: Op) -> None:
    """Tokens are exchanged over axes that split experts. Raises Misfit."""
    rows, exchange = routed(segment, op), op.of(ExchangeAttrs).exchange
    splits = op.loop(rows.expert) if rows is not None else ()
    if not set(exchange) <= set(splits):
        raise Misfit("exchange", exchange, f"axes that split experts, {splits}")


def _weighted_sum(segment: Segment, op: Op) -> float:
    """Rows that were skipped are not added."""
    rows, whole = routed(segment, op), _EACH(segment, op)
    skip = 0.0 if rows is None else skipped(segment, rows)
    return whole * (1.0 - skip) if skip else whole


_EACH = per_element(2.0)


def _width(segment: Segment, op: Op) -> set[str]:
    return {op.dims[-1]}


def _summed(segment: Segment, op: Op) -> None:
    choice, weights = operands(segment, op, "choice", "weights")
    same_dims("operand 2 (weights)", weights, choice)
    same_dims("result", op.dims, choice[:-1])


def _at_home(op: Op, dims: tuple[str, ...]) -> tuple[Axes, ...]:
    """Layout of routed rows on the ranks that own the tokens: before dispatch's exchange, after combine's.

    The exchange axes are minor in `slot`, so that one all_to_all moves them to `expert` and back.
    """
    home = op.of(ExchangeAttrs).exchange
    stay = tuple(a for a in op.loop(dim_like(dims, "expert") or "") if a not in home)
    split = {"expert": stay, "slot": (*op.loop(dim_like(dims, "slot") or ""), *home)}
    return tuple(split.get(stem(d), op.loop(d)) for d in dims)


def tokens_needed(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    dims = segment.dims_of(name)
    return tuple(op.loop(d) if d in ("batch", "seq", op.dims[-1]) else () for d in dims)


def rows_needed(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    return _at_home(op, segment.dims_of(name)) if name == op.inputs[0] else tokens_needed(segment, op, name)


def rows_at_home(segment: Segment, op: Op) -> Sharding:
    return Sharding(_at_home(op, op.dims))


def choices_at_home(segment: Segment, op: Op) -> Sharding:
    """Partial over the axes whose ranks hold only some of a token's experts and did not exchange tokens."""
    rows, exchange = routed(segment, op), op.of(ExchangeAttrs).exchange
    experts = op.loop(rows.expert) if rows is not None else ()
    return Sharding(by_loops(op, op.dims), tuple(a for a in experts if a not in exchange))


def _from_host(segment: Segment, op: Op) -> None:
    asked = () if op.of(ExpertCopyAttrs).prefetch else ("choice that asks for it",)
    weight, *_ = operands(segment, op, "weight", *asked)
    same_dims("result", op.dims, weight)


def as_it_is(segment: Segment, op: Op, name: str) -> tuple[Axes, ...]:
    """A choice is only waited for: whichever part of it a rank has will do."""
    own = segment.sharding_of(name)
    return own.dims if own is not None else tuple(() for _ in segment.dims_of(name))


def _lacking(segment: Segment, op: Op, mesh: Mesh) -> tuple[float, float]:
    """All experts of a rank that its GPU may lack; how many of them it does, in the mean, is a matter of their loads."""
    return local_bytes(segment, op.inputs[0], by_loops(op, op.dims), mesh) * op.of(ExpertCopyAttrs).share, 0.0


KINDS = (
    OpKind(
        name="expert_copy", about="experts that a rank needs and its GPU does not hold, from host memory", attrs=ExpertCopyAttrs,
        dims=_from_host, dtype=AS_OPERAND, idle="it only moves", fused=True, local=True, view=True, needs=as_it_is,
        rides_in=IN_EXPERTS, copies=_lacking,
    ),
    OpKind(
        name="route", about="the experts of every token, by its scores", attrs=RouteAttrs, dims=_routed,
        dtype=DtypeRule("int64", lambda segment, op: "int64", indices=_ids_and_table), idle="negligible beside the router's matrix product",
        whole=_routers_whole, reads=_routers_read,
    ),
    OpKind(
        name="empty_weight", about="the sum of the weights of a token's choices of experts that give their input back", dims=_summed,
        dtype=DtypeRule("fp32", lambda segment, op: "fp32", indices=lambda op: op.inputs[:1]), idle="negligible beside the router's matrix product", whole=value_widths,
    ),
    OpKind(
        name="dispatch", about="a row of an expert for every choice of a token", attrs=DispatchAttrs, dims=_dispatched,
        dtype=DtypeRule(indices=_choice), idle="it only moves", linear=(0,), needs=tokens_needed, makes=rows_at_home, whole=_width,
        tokens=Tokens.AT_HOME, rides_in=IN_EXPERTS, on_rows=True,
    ),
    OpKind(
        name="combine", about="the rows of a token back from its experts, weighted and summed", attrs=CombineAttrs, dims=_combined,
        dtype=DtypeRule(indices=_choice), flops=_weighted_sum, linear=(0,), needs=rows_needed, makes=choices_at_home, whole=_width,
        tokens=Tokens.AT_HOME, rides_in=IN_EXPERTS,
    ),
)  # fmt: skip
