"""Functions of experts: who goes where, there, and back."""

from __future__ import annotations

from .call import Call, Options
from .names import Ref


def route(call: Call) -> Ref:
    """route(scores, top_k = n): the chosen experts of every token."""
    scores, options = call.operand(), call.options()
    if len(scores.dims) != 3 or scores.dims[:2] != ("batch", "seq"):
        call.fail(f"`route` needs scores [batch, seq, expert], not [{', '.join(scores.dims)}]")
    over = scores.dims[-1]
    inputs: tuple[Ref, ...] = (scores,)
    bias = call.tensor("bias")
    if bias is not None:
        if bias.dims != (over,):
            call.fail(f"the bias [{', '.join(bias.dims)}] is one number for each of [{over}]")
        inputs = (scores, bias)
    top_k = options.get("top_k")
    if not isinstance(top_k, float):
        call.fail("`route` needs `top_k = ...`")
    experts = int(call.sizes[over])
    if not 1 <= top_k <= experts:
        call.fail(f"top_k {top_k:g} of {experts} experts")
    _check_groups(call, options, experts, top_k)
    call.sizes["choice"] = top_k
    _size_slots(call, over, top_k)
    return call.emit("route", inputs, (*scores.dims[:-1], "choice"), **options)


def _check_groups(call: Call, options: Options, experts: int, top_k: float) -> None:
    """Group-limited routing: equal groups, and enough experts in those that a token may use."""
    groups, limit = (int(options.get(key, 1)) for key in ("groups", "groups_limit"))
    if experts % groups:
        call.fail(f"{experts} experts do not divide into {groups} groups")
    if limit > groups:
        call.fail(f"groups_limit {limit} of {groups} groups")
    if groups > 1 and top_k > experts // groups * limit:
        call.fail(f"top_k {top_k:g} of the {experts // groups * limit} experts in {limit} of {groups} groups")


def _size_slots(call: Call, over: str, top_k: float) -> None:
    """Physical experts hold `redundant` copies; a slot is the mean number of tokens an expert gets."""
    sizes = call.sizes
    physical = sizes[over] + call.block.draft.unit.phase.strategy.redundant
    sizes[f"experts:{over}"] = physical
    sizes["slot"] = sizes["batch"] * sizes["seq"] * top_k / physical


def dispatch(call: Call) -> Ref:
    """dispatch(x, choice): a slot of an expert for every choice of a token."""
    x, choice = call.operands(2)
    if "slot" not in call.sizes:
        call.fail("`dispatch` needs the result of `route` first")
    call.need_dims(x, "batch", "seq")
    _need_route(call, choice)
    return call.emit("dispatch", (x, choice), ("expert", "slot", x.dims[-1]), **call.options())


def combine(call: Call) -> Ref:
    """combine(y, choice): the tokens back from their experts, weighted and summed."""
    y, choice = call.operands(2)
    call.need_dims(y, "expert", "slot")
    _need_route(call, choice)
    return call.emit("combine", (y, choice), ("batch", "seq", y.dims[-1]), **call.options())


def _need_route(call: Call, ref: Ref) -> None:
    """The result of `route` over experts."""
    ops = {op.name: op for op in call.block.draft.ops}
    chosen = ops.get(ref.name)
    scores = ops.get(chosen.inputs[0]) if chosen is not None and chosen.kind == "route" else None
    if scores is None or scores.dims[-1] != "expert":
        call.fail(f"`{call.name}` needs the result of `route` over [batch, seq, expert]")
