"""Functions of experts: who goes where, there, and back."""

from __future__ import annotations

from ...base.frozen import replace
from ...ir.naming import size_key
from ...ir.op import Op
from ...ir.ops.attributes.experts import RouteAttrs
from ...ir.requests import IDS
from ...ir.routed_dims import Rows, after_skipping, left_out, rows_of, slot_dim, stem
from .builder import Ref
from .call import BlockCall, Options


def route(call: BlockCall) -> Ref:
    """route(scores, top_k = n): the chosen experts of every token."""
    scores, options = call.operand(), call.options()
    if len(scores.dims) != 3 or scores.dims[:2] != ("batch", "seq"):
        call.fail(f"`route` needs scores [batch, seq, expert], not [{', '.join(scores.dims)}]")
    over = scores.dims[-1]
    empty = call.tensor("empty")
    inputs: tuple[Ref, ...] = (scores,) if empty is None else (scores, empty)
    bias = call.tensor("bias")
    if bias is not None:
        if bias.dims != (over,):
            call.fail(f"the bias [{', '.join(bias.dims)}] is one number for each of [{over}]")
        inputs = (*inputs, bias)
    top_k = options.get("top_k")
    if not isinstance(top_k, float):
        call.fail("`route` needs `top_k = ...`")
    experts = int(call.sizes[over])
    if not 1 <= top_k <= experts:
        call.fail(f"top_k {top_k:g} exceeds the {experts} experts")
    _check_groups(call, options, experts, top_k)
    if empty is not None:
        inputs = (*inputs, *_of_empty(call, options, scores, empty, bias))
        options["empty"] = True
    elif call.tensor("empty_bias") is not None:
        call.fail("`empty_bias` is of empty experts, and `route` has none", ("write `empty = ...`",))
    if by_token := _by_token(call, options, scores, bias is not None or empty is not None):
        inputs = (scores, *by_token)
        options["by_token"] = True
    slot, choice = call.make("slot", "choice")
    call.sizes[choice] = top_k
    _size_slots(call, over, slot, top_k, 0.0 if empty is None else call.sizes[empty.dims[-1]])
    use = call.block.builder.unit.phase.experts
    if use.skip:
        options |= {"skip": use.skip, "skip_below": use.skip_below}
    if capacity := call.block.builder.unit.spec.model.capacity:
        options |= {"capacity": capacity}
    return call.emit("route", inputs, (*scores.dims[:-1], choice), **options)


def _of_empty(call: BlockCall, options: Options, scores: Ref, empty: Ref, bias: Ref | None) -> tuple[Ref, ...]:
    """The bias of empty experts, where the others have one; what does not go with them is refused."""
    if empty.dims[:-1] != scores.dims[:-1] or len(empty.dims) != 3 or empty.dims == scores.dims:
        call.fail(f"`empty` has scores [batch, seq, ...] of experts of its own, not [{', '.join(empty.dims)}]")
    training = call.block.builder.unit.phase.training
    if training is not None and (training.aux_loss or training.z_loss):
        call.fail("losses of routers are not there yet where some experts do nothing", code="E18")
    for key, plain in (("groups", 1), ("score", "softmax")):
        if options.get(key, plain) != plain:
            given = f"{options[key]:g}" if isinstance(options[key], float) else options[key]
            call.fail(f"`{key} = {given}` and empty experts are not there together", code="E18")
    own = call.tensor("empty_bias")
    if (own is None) != (bias is None):
        call.fail("`bias` and `empty_bias` go together")
    if own is None:
        return ()
    if own.dims != empty.dims[-1:]:
        call.fail(f"the bias [{', '.join(own.dims)}] is one number for each of [{empty.dims[-1]}]")
    return (own,)


def _by_token(call: BlockCall, options: Options, scores: Ref, others: bool) -> tuple[Ref, ...]:
    """The token ids and the table of the experts of each, where these choose instead of the scores; none where they do not."""
    ids, table = call.tensor("tokens"), call.tensor("table")
    if ids is None and table is None:
        return ()
    builder = call.block.builder
    if ids is None or table is None:
        call.fail("`tokens` and `table` go together: the ids, and a row of experts for each")
    if builder.kind_of(ids.name) != IDS:
        call.fail(
            "`tokens` is the ids that the model is given",
            (f"take them beside the block's own tensor: `block {call.block.block}(x, {IDS})`",),
        )
    if not table.name.startswith("@") or len(table.dims) != 2 or call.sizes[table.dims[1]] != options["top_k"]:
        call.fail(f"`table` is a weight [rows, choices] of {options['top_k']:g} choices, not [{', '.join(table.dims)}]")
    call.need_row_for_each_id(table)
    for key, plain in (("groups", 1), ("jitter", 0)):
        if options.get(key, plain) != plain:
            call.fail(f"`{key} = {options[key]:g}` is of a choice by scores, and a table chooses", code="E18")
    if others or options.get("score") == "sparsemixer":
        what = "`score = sparsemixer`" if not others else "a bias or empty experts"
        call.fail(f"{what} and a table are not there together", code="E18")
    builder.weights[table.name] = replace(builder.weights[table.name], dtype=TABLE)
    return (ids, table)


TABLE = "int32"
"""Numbers of experts by token id: a frozen table, which nothing quantises."""


def _check_groups(call: BlockCall, options: Options, experts: int, top_k: float) -> None:
    """Group-limited routing: equal groups, and enough experts in those that a token may use."""
    groups, limit = (int(options.get(key, 1)) for key in ("groups", "groups_limit"))
    if experts % groups:
        call.fail(f"{experts} experts do not divide into {groups} groups")
    if limit > groups:
        call.fail(f"groups_limit {limit} exceeds the {groups} groups")
    if groups > 1 and top_k > experts // groups * limit:
        call.fail(f"top_k {top_k:g} exceeds the {experts // groups * limit} experts in {limit} of {groups} groups")


def _size_slots(call: BlockCall, over: str, slot: str, top_k: float, empty: float) -> None:
    """Physical experts include `redundant` copies; a slot is the mean number of tokens that an expert gets."""
    sizes = call.sizes
    phase = call.block.builder.unit.phase
    physical = sizes[over] + phase.strategy.redundant
    sizes[size_key("experts", over)] = physical
    share = left_out(phase.experts.skip, sizes[over], empty)
    sizes[slot] = sizes["batch"] * sizes["seq"] * after_skipping(top_k, share) / physical


def dispatch(call: BlockCall) -> Ref:
    """dispatch(x, choice): a slot of an expert for every choice of a token."""
    x, choice = call.operands(2)
    rows = _routed_rows(call, choice)
    if len(x.dims) != 3 or x.dims[:2] != ("batch", "seq"):
        call.fail(f"`dispatch` needs a tensor [batch, seq, width], not [{', '.join(x.dims)}]")
    route = call.block.builder.op(choice.name)
    assert route is not None
    skips = {"skips": True} if call.block.builder.unit.phase.experts.skip or route.of(RouteAttrs).empty else {}
    made = (rows.expert, rows.slot, x.dims[-1])
    return call.emit("dispatch", (x, choice, _weights(call, choice)), made, **call.options(), **skips)


def combine(call: BlockCall) -> Ref:
    """combine(y, choice): the tokens back from their experts, weighted and summed."""
    y, choice = call.operands(2)
    rows = _routed_rows(call, choice)
    if rows_of(y.dims) not in (None, rows):
        call.fail("`combine` needs the rows and the choice of one router")
    if len(y.dims) != 3 or y.dims[:2] != (rows.expert, rows.slot):
        call.fail(f"`combine` needs a tensor [expert, slot, width], not [{', '.join(y.dims)}]")
    return call.emit("combine", (y, choice, _weights(call, choice)), ("batch", "seq", y.dims[-1]), **call.options())


def empty_weight(call: BlockCall) -> Ref:
    """empty_weight(choice): the sum of the weights of a token's choices of empty experts, each of which gives its input back."""
    choice = call.operand()
    router = _router(call, choice)
    if not router.of(RouteAttrs).empty:
        call.fail("this `route` has no empty experts", ("give it their scores: `empty = ...`",))
    return call.emit("empty_weight", (choice, _weights(call, choice)), choice.dims[:-1])


def _weights(call: BlockCall, choice: Ref) -> Ref:
    """The router's weights of its choice."""
    router = call.block.builder.op(choice.name)
    assert router is not None
    return Ref(router.more[0].name, choice.dims)


def _routed_rows(call: BlockCall, ref: Ref) -> Rows:
    """The rows that a router's choice makes."""
    chosen = _router(call, ref)
    over = call.block.builder.dims_of(chosen.inputs[0])[-1]
    if stem(over) != "expert":
        call.fail(f"`{call.name}` needs a route over [batch, seq, expert]; this one goes over `{over}`")
    return Rows(over, slot_dim(ref.dims[-1]))


def _router(call: BlockCall, ref: Ref) -> Op:
    """The router of a choice."""
    chosen = call.block.builder.op(ref.name)
    if chosen is None or not isinstance(chosen.attrs, RouteAttrs) or chosen.name != ref.name:
        call.fail(f"`{call.name}` needs the result of `route`")
    return chosen
