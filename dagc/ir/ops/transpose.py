"""How each kind of op hands the gradient of its result on to its operands: one rule per kind, of the ops that a layer may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from ..op import Op
from ..segment import Segment
from .attributes.attention import AttendAttrs, AttendGradAttrs, RopeAttrs
from .attributes.attrs import NONE, Attrs, values
from .attributes.elementwise import DropoutAttrs, DropoutGradAttrs, OperandAttrs, ScaleAttrs
from .attributes.experts import OF_CHOICE, CombineAttrs, DispatchAttrs, ExchangeAttrs, RouteAttrs, RouteGradAttrs
from .attributes.losses import LossAttrs
from .attributes.recurrent import DeltaGradAttrs
from .gradients import KINDS
from .norms import gain_grad


class Emitter(Protocol):
    """What rules write to: a layer under differentiation."""

    @property
    def segment(self) -> Segment: ...

    def emit(self, kind: str, inputs: tuple[str, ...], dims: tuple[str, ...], dtype: str, attrs: Attrs, of: str) -> str:
        """Adds an op of the gradient of the value `of`; its name."""


Gradient = tuple[str, str]
"""(value or weight, the name of a contribution to its gradient)."""
Rule = Callable[[Emitter, Op, str], Iterator[Gradient]]
"""(layer, op, gradient of its first result, or of the weights of choices) -> gradients of operands."""


def _piece(layer: Emitter, op: Op, kind: str, inputs: tuple[str, ...], of: str, attrs: Attrs = NONE) -> Gradient:
    """A contribution with the dims and the dtype of the operand."""
    s = layer.segment
    return of, layer.emit(kind, inputs, s.dims_of(of), s.dtype_of(of), attrs, of)


def _contract(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """Of each factor the product of the upstream gradient with the other one."""
    a, b = op.inputs
    for of, other in ((a, b), (b, a)):
        yield _product(layer, op, upstream, other, of)


def _product(layer: Emitter, op: Op, upstream: str, other: str, of: str) -> Gradient:
    """Summed over what the operand does not have."""
    dims, wanted = layer.segment.dims_of, layer.segment.dims_of(of)
    known = {*dims(upstream), *dims(other)}
    missing = [d for d in wanted if d not in known]
    if missing:
        raise NoGradient(op, f"it sums `{missing[0]}` of one factor alone")
    kind = "multiply" if known == set(wanted) else "contract"
    return _piece(layer, op, kind, (upstream, other), of)


def _add(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    for of in op.inputs:
        yield _passed(layer, op, upstream, of)


def _passed(layer: Emitter, op: Op, upstream: str, of: str) -> Gradient:
    """The upstream gradient itself, summed over what the operand does not have."""
    if layer.segment.dims_of(of) == op.dims:
        return of, upstream
    return _piece(layer, op, "sum_dims", (upstream,), of)


def _scale(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    yield _piece(layer, op, "scale", (upstream,), op.inputs[0], op.of(ScaleAttrs))


def _same(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    yield op.inputs[0], upstream


def _rename(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    yield _piece(layer, op, "rename", (upstream,), op.inputs[0])


def _by_kind(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """A kind of its own for the first operand."""
    yield _piece(layer, op, f"{op.kind}_grad", (upstream, *op.inputs), op.inputs[0], op.attrs)


def _norm(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    yield _piece(layer, op, f"{op.kind}_grad", (upstream, *op.inputs), op.inputs[0], op.attrs)
    if len(op.inputs) > 1:
        yield _piece(layer, op, gain_grad(op.kind), (upstream, *op.inputs), op.inputs[1], op.attrs)


def _rope(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    yield _piece(layer, op, "rope", (upstream,), op.inputs[0], op.of(RopeAttrs).but(inverse=True))


def _temper(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    yield _piece(layer, op, "temper", (upstream,), op.inputs[0], op.attrs)


def _repeat(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    yield _piece(layer, op, "sum_dims", (upstream,), op.inputs[0])


def _sum_dims(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """The same for each entry that was summed, one dim after the other."""
    of = op.inputs[0]
    wanted, have = layer.segment.dims_of(of), set(op.dims)
    for dim in (d for d in wanted if d not in op.dims):
        have.add(dim)
        dims = tuple(d for d in wanted if d in have)
        upstream = layer.emit("repeat", (upstream,), dims, layer.segment.dtype_of(of), NONE, of)
    yield of, upstream


def _cache(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    yield _piece(layer, op, "uncache", (upstream,), op.inputs[0])


def _attend(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """Of queries, keys, values and sinks; a choice of tokens has none."""
    given = values(op.of(AttendAttrs))
    numbers = op.inputs[: len(op.inputs) - bool(op.of(AttendAttrs).chosen)]
    for place, of in enumerate(numbers):
        attrs = AttendGradAttrs(**given, operand=place)
        read = op.inputs if place != 2 * attrs.pairs else (*op.inputs[:place], *op.inputs[place + 1 :])
        yield _piece(layer, op, "attend_grad", (upstream, *read), of, attrs)


def _each_operand(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    for place, of in enumerate(op.inputs):
        yield _piece(layer, op, f"{op.kind}_grad", (upstream, *op.inputs), of, OperandAttrs(operand=place))


def _delta(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    for place, of in enumerate(op.inputs):
        attrs = DeltaGradAttrs(**values(op.attrs), operand=place)
        yield _piece(layer, op, "delta_grad", (upstream, *op.inputs), of, attrs)


def _route(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """The choice itself has none; a bias shifts the choice alone. Scores of empty experts have theirs."""
    attrs = RouteGradAttrs(**{name: value for name, value in values(op.attrs).items() if name not in OF_CHOICE})
    scores = op.inputs[:2] if op.of(RouteAttrs).empty else op.inputs[:1]
    for place, of in enumerate(scores):
        own = attrs.but(operand=place, empty=True) if len(scores) > 1 else attrs
        yield _piece(layer, op, "route_grad", (upstream, *scores, op.name), of, own)


def _empty_weight(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """Of the weights of choices that are of empty experts."""
    choice, weights = op.inputs
    yield _piece(layer, op, "empty_weight_grad", (upstream, choice), weights)


def _dispatch(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """Rows go back to their token as the rows of its experts do."""
    tokens, choice, weights = op.inputs
    weighted = op.of(DispatchAttrs).weighted
    yield _piece(layer, op, "combine", (upstream, choice, weights), tokens, CombineAttrs(weighted=weighted))
    if weighted:
        yield _piece(layer, op, "choice_dot", (upstream, tokens, choice), weights, ExchangeAttrs())


def _combine(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """Tokens go to their rows as they do on their way to the experts."""
    rows, choice, weights = op.inputs
    weighted = op.of(CombineAttrs).weighted
    skips = layer.segment.by_name[choice].of(RouteAttrs).empty
    yield _piece(
        layer, op, "dispatch", (upstream, choice, weights), rows, DispatchAttrs(weighted=weighted, skips=skips)
    )
    if weighted:
        yield _piece(layer, op, "choice_dot", (rows, upstream, choice), weights, ExchangeAttrs())


def _choice_rows(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    weights, choice = op.inputs
    yield _piece(layer, op, "choice_back", (upstream, choice), weights, ExchangeAttrs())


def _lookup(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    ids, table = op.inputs
    yield _piece(layer, op, "lookup_grad", (upstream, ids), table)


def _dropout(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    attrs = DropoutGradAttrs(op.of(DropoutAttrs).rate)
    yield _piece(layer, op, "dropout_grad", (upstream, op.more[0].name), op.inputs[0], attrs)


def _router_loss(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    yield _piece(layer, op, "router_loss_grad", op.inputs, op.inputs[0], op.of(LossAttrs))


def _constant(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """Of choices, which are whole numbers."""
    return iter(())


def _cross_entropy(layer: Emitter, op: Op, upstream: str) -> Iterator[Gradient]:
    """Straight to the logits: the largest of a row, its sum and the number picked are all theirs."""
    largest, total, picked = op.inputs
    logits, labels = layer.segment.by_name[picked].inputs
    yield _piece(layer, op, "cross_entropy_grad", (logits, labels, largest, total), logits, op.of(LossAttrs))


TRANSPOSE: Mapping[str, Rule] = {
    "contract": _contract,
    "multiply": _contract,
    "add": _add,
    "scale": _scale,
    "shift": _same,
    "quantise": _same,
    "rename": _rename,
    "repeat": _repeat,
    "sum_dims": _sum_dims,
    **dict.fromkeys(
        (k.gradient_of for k in KINDS if k.gradient_of and k.fused and not k.row_sums and k.name != "uncache"), _by_kind
    ),
    "rms_norm": _norm,
    "layer_norm": _norm,
    "rope": _rope,
    "temper": _temper,
    "cache": _cache,
    "attend": _attend,
    "conv": _each_operand,
    "delta": _delta,
    "route": _route,
    "empty_weight": _empty_weight,
    "dispatch": _dispatch,
    "combine": _combine,
    "choice_rows": _choice_rows,
    "lookup": _lookup,
    "dropout": _dropout,
    "cross_entropy": _cross_entropy,
    "router_loss": _router_loss,
    "expert_share": _constant,
    **dict.fromkeys(("expert_probs", "router_z"), _by_kind),
}

NO_GRADIENT: Mapping[str, str] = {
    "select": "it chooses tokens",
    "pool": "training is not there yet where tokens are kept in groups",
    "argmax": "it chooses a token",
    "last": "a training step has a loss for every token",
    "labels": "it is data",
    **dict.fromkeys(("row_max", "row_exp_sum", "pick"), "cross_entropy hands its gradient to the logits"),
    **dict.fromkeys(("unpack", "pack"), "a training step is not mixed"),
    **dict.fromkeys(("stay", "rejoin"), "no sequence leaves a training step early"),
}
"""Kinds without a rule, and why."""


class NoGradient(ValueError):
    """An op through which no gradient goes."""

    def __init__(self, op: Op, why: str) -> None:
        super().__init__(f"%{op.name} ({op.kind}): {why}")
        self.op = op
