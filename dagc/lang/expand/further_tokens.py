"""Layers that predict further tokens (MTP) in a training step: a branch of the head, since their losses are of the same step.

Source of the form: DeepSeek-V3 report, arXiv 2412.19437, section 2.2. As in Megatron, they are where the head is, with a copy of the
embedding's table if the first layer is elsewhere.
"""

from __future__ import annotations

from ...base.frozen import replace
from ...ir.op import Op, Weight
from ...ir.ops.attributes.losses import LabelsAttrs
from ...ir.segment import Segment
from ...spec.unit import Unit
from .block import Block
from .builder import BlockBuilder, Ref

RESIDUAL = ("batch", "seq", "hidden")
MTP = "mtp"
SIDE = "mtp_side"
"""The stock block that projects one of both: the state of the layers before, and the embedding of the token that follows."""


def predicts_further(unit: Unit) -> bool:
    """Whether the phase trains layers that predict further tokens."""
    training = unit.phase.training
    return training is not None and training.mtp_loss > 0


def with_side(unit: Unit) -> Unit:
    """The phase, where it trains such layers of a model that has the stock block, too."""
    if not predicts_further(unit):
        return unit
    from .. import library

    model, key = unit.spec.model, (SIDE, None)
    return replace(
        unit, spec=replace(unit.spec, model=replace(model, blocks={**model.blocks, key: library.stock()[key]}))
    )


def further_tokens(builder: BlockBuilder, unit: Unit, *, head: bool) -> None:
    """Adds the ops of all these layers to those of the head, if the phase trains them: of each the choice of its token. The k-th takes the state of the one before
    it, or of the stack, and the k-th token ahead."""
    if not head or not predicts_further(unit):
        return
    model = unit.spec.model
    state = builder.entry
    for k in range(1, model.count("mtp_layers") + 1):
        stem = MTP if k == 1 else f"{MTP}{k}"
        name = f"{stem}_ids.following"
        builder.ops.append(Op(name, "labels", (), RESIDUAL[:2], "int32", SIDE, attrs=LabelsAttrs(k)))
        token = blocks(builder, model.stack[0].blocks, f"{stem}_", Ref(name, RESIDUAL[:2]))
        sides = [blocks(builder, (SIDE,), f"{stem}_{of}_", value) for of, value in (("state", state), ("token", token))]
        joined = Op(f"{stem}_join.x", "add", tuple(one.name for one in sides), RESIDUAL, model.dtype, SIDE)
        builder.ops.append(joined)
        state = blocks(builder, model.stack[-2].blocks, f"{stem}_", Ref(joined.name, RESIDUAL))
        blocks(builder, model.stack[-1].blocks, f"{stem}_", state, head=True)


def blocks(builder: BlockBuilder, names: tuple[str, ...], stem: str, value: Ref, *, head: bool = False) -> Ref:
    """A sequence of blocks, whose values and weights are called after `stem`."""
    used: dict[str, int] = {}
    for i, name in enumerate(names):
        used[name] = used.get(name, 0) + 1
        own = Block(builder, name, f"{stem}{name}" if used[name] == 1 else f"{stem}{name}{used[name]}")
        own.last_of_layer = True if head and i == len(names) - 1 else None
        value = own.expand(value)
    return value


def with_shared(segments: tuple[Segment, ...], unit: Unit) -> tuple[Segment, ...]:
    """The model's layers, whose head has no tables but those of the first one."""
    return (*segments[:-1], shared(segments[-1], segments[0], unit)) if predicts_further(unit) else segments


def shared(head: Segment, first: Segment, unit: Unit) -> Segment:
    """The head with the tables of the first layer, and its own matrices, in place of those that these layers would have: all but gains
    of norms, which each has for itself."""
    model = unit.spec.model
    named: dict[str, str] = {}
    tied: dict[str, str] = {}
    for weight in head.weights:
        stem, _, rest = weight.name[1:].partition("_")
        if not stem.startswith(MTP):
            continue
        own = f"@{rest}"
        if own in first.weight and rest.partition(".")[0] in model.stack[0].blocks:
            table = next((w.name for w in head.weights if w.tied == own), "")
            named[weight.name] = table or f"@{MTP}_{rest}"
            if not table:
                tied[f"@{MTP}_{rest}"] = own
        elif own in head.weight and len(weight.dims) > 1:
            named[weight.name] = own
    ops = tuple(replace(op, inputs=tuple(named.get(name, name) for name in op.inputs)) for op in head.ops)
    kept = (w for w in head.weights if named.get(w.name, w.name) == w.name)
    return replace(head, ops=ops, weights=tuple(as_table(w, first, tied) for w in kept))


def as_table(weight: Weight, first: Segment, tied: dict[str, str]) -> Weight:
    """A weight that is one of the first layer's in the order of its dims, which a look-up needs."""
    own = tied.get(weight.name, weight.tied)
    return replace(weight, tied=own, dims=first.weight[own].dims) if own else weight
