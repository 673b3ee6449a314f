"""The functions of the language: each with its keywords and the ops that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, prod
from typing import TYPE_CHECKING

from ...base.diagnostics import did_you_mean
from ...base.frozen import record
from ...base.number_texts import numbers_of
from ...base.schema.attribute import Attribute
from ...base.schema.model import ROPE
from ...base.syntax import ast
from ...base.units import Quantity
from ...ir.entries import group_of
from ...ir.ops.attention import rotated
from ...ir.ops.attributes.attention import AttendAttrs, PoolAttrs, RopeAttrs, SelectAttrs, TemperAttrs
from ...ir.ops.attributes.attrs import keywords
from ...ir.ops.attributes.elementwise import ClampAttrs, NormAttrs, PartAttrs, SinkhornAttrs
from ...ir.ops.attributes.experts import CombineAttrs, DispatchAttrs, RouteAttrs
from ...ir.ops.attributes.recurrent import DeltaAttrs
from ...ir.ops.elementwise import ACTIVATIONS
from ...ir.requests import IDS
from .attention import attend, cache, conv, delta, pool, select
from .builder import Ref
from .call import BlockCall
from .experts import combine, dispatch, empty_weight, route
from .scope import PHASE_DIMS
from .statement_rules import listed

if TYPE_CHECKING:
    from .block import Block


def each(call: BlockCall) -> Ref:
    """A function of one number at a time."""
    x = call.operand()
    return call.emit(call.name, (x,), x.dims, **call.options())


def norm(call: BlockCall) -> Ref:
    """A norm over the last dimension, with a gain of that width unless `gain = false`."""
    x, options, block = call.operand(), call.options(), call.block
    if not x.dims or x.dims[-1] in PHASE_DIMS:
        call.fail(f"`{call.name}` goes over the last dimension of {listed(x.dims)}, which is not a width")
    options.setdefault("eps", block.lookup_number("norm_eps") or 0.0)
    inputs: tuple[Ref, ...] = (x,)
    if options.pop("gain", True):
        stem = block.fresh(f"{call.stem}_gain").split(".", 1)[1]
        inputs = (x, block.weight(stem, x.dims[-1:], call.expr))
    return call.emit(call.name, inputs, x.dims, **options)


def rope(call: BlockCall) -> Ref:
    """The model's `rope` section, and the call's keywords over it."""
    x = call.operand()
    attributes = call.block.builder.unit.spec.model.attributes
    section = {k: attributes[f"rope.{k}"] for k in ROPE if f"rope.{k}" in attributes}
    options = {k: v.value if isinstance(v, Quantity) else v for k, v in section.items()} | call.options()
    if group_of(x.dims[1] if len(x.dims) > 2 else "") is None:
        call.need_dims(x, "seq")
    else:
        call.without_branches()
    width = call.sizes[x.dims[-1]]
    turned = rotated(width, float(options.get("fraction", 1.0)))
    if turned < 2 or turned % 2:
        call.fail(f"`rope` rotates pairs of numbers, not {turned} of {width:g} in `{x.dims[-1]}`")
    stretch = str(options.get("stretch", ""))
    try:
        numbers = len(numbers_of(stretch))
    except ValueError as error:
        call.fail(f'`stretch` is a text of {error}, such as "1 1.5 4"')
    if numbers and options.get("scaling", "none") not in ("none", "default"):
        call.fail(f"`stretch` and `scaling = {options['scaling']}` are two ways to lay frequencies out: write one")
    if numbers not in (0, turned // 2):
        call.fail(f"`stretch` has {numbers} numbers, and `{x.dims[-1]}` has {turned // 2} pairs that turn")
    factors = call.tensor("factors")
    if factors is None:
        return call.emit("rope", (x,), x.dims, **options, **call.tree())
    if len(factors.dims) != 1 or call.sizes[factors.dims[0]] != turned // 2 or options.get("scaling") == "proportional":
        call.fail(f"`factors` {listed(factors.dims)} are one number for each of the {turned // 2} pairs that turn")
    if call.block.builder.unit.phase.training is not None:
        call.fail("training is not there yet where rotary frequencies are learned", code="E18")
    return call.emit("rope", (x, factors), x.dims, **options, **call.tree())


def temper(call: BlockCall) -> Ref:
    """A factor that grows with the token's position."""
    x = call.operand()
    call.need_dims(x, "seq")
    return call.emit("temper", (x,), x.dims, **call.options(), **call.tree())


def clamp(call: BlockCall) -> Ref:
    x, options = call.operand(), call.options()
    low, high = (float(options.get(key, default)) for key, default in (("low", -inf), ("high", inf)))
    if low > high:
        call.fail(f"`clamp` between {low:g} and {high:g}")
    return call.emit("clamp", (x,), x.dims, **options)


def lookup(call: BlockCall) -> Ref:
    """lookup(tokens, table): a row of the table for every token."""
    tokens, table = call.operands(2)
    made = call.block.builder.op(tokens.name)
    if (
        (call.block.builder.kind_of(tokens.name) != IDS and getattr(made, "kind", "") != "labels")
        or len(table.dims) != 2
        or not table.name.startswith("@")
    ):
        call.fail(
            "`lookup` takes the token ids that the model is given, and a weight [rows, width]",
            (f"blocks of other layers take the ids beside their own tensor: `block {call.block.block}(x, {IDS})`",),
        )
    call.need_row_for_each_id(table)
    return call.emit("lookup", (tokens, table), (*tokens.dims, table.dims[-1]))


def rename(call: BlockCall) -> Ref:
    """rename(x): the same tensor with the dimensions that are written on the left."""
    x, written = call.operand(), call.block.at
    if not isinstance(written, ast.TensorAssign) or written.value is not call.expr or written.dims is None:
        call.fail(
            "`rename` stands alone behind `=`, and the new dimensions before it: `y[batch, seq, inner] = rename(x)`"
        )
    dims = tuple(call.block.dim(d, written.span) for d in written.dims)
    if [d for d in dims if d in PHASE_DIMS] != [d for d in x.dims if d in PHASE_DIMS]:
        call.fail("`rename` leaves `batch`, `seq` and `context` as they are")
    if [call.sizes[d] for d in x.dims] != [call.sizes[d] for d in dims]:
        call.fail(f"`rename` makes {listed(dims)} of {listed(x.dims)}: as many dimensions of the same sizes, in order")
    return call.emit("rename", (x,), dims)


def written_dims(call: BlockCall, example: str) -> tuple[str, ...]:
    """The dimensions before `=`, behind which the call stands alone."""
    written = call.block.at
    if not isinstance(written, ast.TensorAssign) or written.value is not call.expr or written.dims is None:
        call.fail(f"`{call.name}` stands alone behind `=`, and the dimensions of its result before it: `{example}`")
    return tuple(call.block.dim(d, written.span) for d in written.dims)


def repeat(call: BlockCall) -> Ref:
    """repeat(x): the same for every entry of the dimension that only the left side has."""
    x = call.operand()
    dims = written_dims(call, "y[batch, seq, stream, hidden] = repeat(x)")
    more = [d for d in dims if d not in x.dims]
    if not set(x.dims) <= set(dims) or len(more) != 1 or more[0] in PHASE_DIMS:
        call.fail(
            f"`repeat` makes {listed(dims)} of {listed(x.dims)}: all of its dimensions, and one more of the model"
        )
    return call.emit("repeat", (x,), dims)


def summed(call: BlockCall) -> Ref:
    """sum_dims(x): over the dimensions that the left side lacks."""
    x = call.operand()
    dims = written_dims(call, "y[batch, seq, hidden] = sum_dims(x)")
    gone = [d for d in x.dims if d not in dims]
    if not set(dims) <= set(x.dims) or not gone or any(d in PHASE_DIMS for d in gone):
        call.fail(
            f"`sum_dims` makes {listed(dims)} of {listed(x.dims)}: some of its dimensions, and all that are the phase's"
        )
    return call.emit("sum_dims", (x,), dims)


def part(call: BlockCall) -> Ref:
    """part(x): entries of the last dimension, from `first` on, as many as the dimensions on the left have."""
    x, options = call.operand(), call.options()
    dims = written_dims(call, "y[batch, seq, n] = part(x, first = 4)")
    kept, new = dims[: len(x.dims) - 1], dims[len(x.dims) - 1 :]
    if not x.dims or x.dims[-1] in PHASE_DIMS or kept != x.dims[:-1] or not new or any(d in PHASE_DIMS for d in new):
        call.fail(
            f"`part` makes {listed(dims)} of {listed(x.dims)}: other dimensions of the model in place of the last"
        )
    first, width = float(options.get("first", 0)), call.sizes[x.dims[-1]]
    end = first + prod(call.sizes[d] for d in new)
    if end > width:
        call.fail(f"`part` takes entries {first:g} to {end:g} of {width:g} in `{x.dims[-1]}`")
    return call.emit("part", (x,), dims, **options)


def sinkhorn(call: BlockCall) -> Ref:
    """sinkhorn(scores): of each matrix of the last two dimensions one whose rows and columns sum to one."""
    x = call.operand()
    if len(x.dims) < 2 or any(d in PHASE_DIMS for d in x.dims[-2:]):
        call.fail(f"`sinkhorn` goes over the last two dimensions of {listed(x.dims)}, which are not those of a matrix")
    return call.emit("sinkhorn", (x,), x.dims, **call.options())


def last(call: BlockCall) -> Ref:
    """The last token of every sequence."""
    x = call.operand()
    if "seq" not in x.dims:
        call.fail(f"`last` takes the last token of `seq`, which {listed(x.dims)} does not have")
    return call.emit("last", (x,), tuple(d for d in x.dims if d != "seq"))


def argmax(call: BlockCall) -> Ref:
    """Where the last dimension is largest."""
    x = call.operand()
    if len(x.dims) < 2 or x.dims[-1] in PHASE_DIMS:
        call.fail(f"`argmax` goes over the last dimension of {listed(x.dims)}, which is not a width")
    return call.emit("argmax", (x,), x.dims[:-1])


@record
class Function:
    """The keywords that a function takes, what makes its ops, and its operands as they are written. What it computes is said
    by the op of its name."""

    keywords: Mapping[str, Attribute]
    build: Callable[[BlockCall], Ref]
    operands: str = "x"


_GAIN = Attribute("has a gain of the last dimension's width", "flag")
_SINKS = Attribute("a score that no token gets, one number per head", "tensor")
_ENTRIES = Attribute("keys of groups of tokens, from `pool`, which are seen beside tokens", "tensor")
_ENTRY_VALUES = Attribute("their values, where these are not the keys", "tensor")
_SELECTED = Attribute("the only tokens that are seen, from `select`", "tensor")
_BIAS = Attribute("shifts the choice and not the weights, one number per expert", "tensor")
_EMPTY = Attribute(
    "scores of experts that do nothing but give their input back, which are chosen beside the others", "tensor"
)
_TOKENS = Attribute("the ids of the tokens, which choose the experts instead of the scores", "tensor")
_TABLE = Attribute("the experts of each id, whole numbers [rows, choices] that nothing trains", "tensor")
_EMPTY_BIAS = Attribute("the same as `bias`, one number per empty expert", "tensor")
_FACTORS = Attribute("what each frequency is multiplied by, one number for each pair that turns", "tensor")
_TOP_K = Attribute("tokens, or blocks of them, that are selected", "count", low=1, high=1e9, open_low=False)

FUNCTIONS: dict[str, Function] = {
    **{name: Function({}, each) for name in (*ACTIVATIONS, "rsqrt")},
    "rms_norm": Function({**keywords(NormAttrs), "gain": _GAIN}, norm),
    "layer_norm": Function({**keywords(NormAttrs), "gain": _GAIN}, norm),
    "clamp": Function(keywords(ClampAttrs), clamp),
    "rope": Function({**keywords(RopeAttrs), "factors": _FACTORS}, rope),
    "temper": Function(keywords(TemperAttrs), temper, "q"),
    "cache": Function({}, cache, "k"),
    "attend": Function(
        {
            **keywords(AttendAttrs),
            "entries": _ENTRIES,
            "entry_values": _ENTRY_VALUES,
            "sinks": _SINKS,
            "selected": _SELECTED,
        },
        attend,
        "q, k, v",
    ),
    "select": Function({"top_k": _TOP_K, **keywords(SelectAttrs)}, select, "q, k, w"),
    "pool": Function(keywords(PoolAttrs), pool, "x, gate, B"),
    "conv": Function({}, conv, "x, W"),
    "delta": Function(keywords(DeltaAttrs), delta, "q, k, v, decay, rate"),
    "route": Function(
        {
            **keywords(RouteAttrs),
            "bias": _BIAS,
            "empty": _EMPTY,
            "empty_bias": _EMPTY_BIAS,
            "tokens": _TOKENS,
            "table": _TABLE,
        },
        route,
        "scores",
    ),
    "empty_weight": Function({}, empty_weight, "r"),
    "dispatch": Function(keywords(DispatchAttrs), dispatch, "x, r"),
    "combine": Function(keywords(CombineAttrs), combine, "y, r"),
    "lookup": Function({}, lookup, "tokens, W"),
    "last": Function({}, last),
    "rename": Function({}, rename),
    "repeat": Function({}, repeat),
    "sum_dims": Function({}, summed),
    "part": Function(keywords(PartAttrs), part),
    "sinkhorn": Function(keywords(SinkhornAttrs), sinkhorn, "scores"),
    "argmax": Function({}, argmax),
}


def call(block: Block, expr: ast.CallExpr, stem: str) -> Ref:
    """The ops of a call, and its result."""
    name = expr.func.text
    function = FUNCTIONS.get(name)
    if function is None:
        near = did_you_mean(name, FUNCTIONS)
        block.fail(expr, f"unknown function `{name}`", (f"did you mean `{near}`?",) if near else (), "E02")
    made = BlockCall(block, expr, function.keywords, stem)
    made.check_keywords()
    return function.build(made)
