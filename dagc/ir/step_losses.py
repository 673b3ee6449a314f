"""What a training step minimises, as ops in front of which there is nothing to hand back: cross entropies of the head, and losses of
routers in the layers that have some."""

from __future__ import annotations

from ..base.frozen import record, replace
from .graph import Graph
from .graph_pass import PassError
from .op import Op
from .ops.attributes.attrs import NONE, Attrs
from .ops.attributes.experts import RouteAttrs
from .ops.attributes.losses import LabelsAttrs, LossAttrs, RowMaxAttrs, ScoreAttrs, ShareAttrs
from .ops.further import further_results
from .segment import Segment

LABELS = "labels"
ROWS = ("batch", "seq")
ROOTS = ("cross_entropy", "router_loss")
"""Kinds whose results are losses: gradients begin there."""


@record
class RouterLosses:
    """Factors of the loss that evens out choices (`balance`) and of the one that keeps scores small (`z`); 0: without. `sequences`: over
    how many the shares of experts are taken, 0: all of a micro-batch."""

    balance: float = 0.0
    z: float = 0.0
    sequences: int = 0


def tokens_of(segment: Segment, graph: Graph) -> int:
    """Of a step."""
    return int(segment.size("batch") * segment.size("seq") * graph.microbatches * graph.lanes)


def with_loss(head: Segment, graph: Graph, further: float = 0.0) -> Segment:
    """The head with the cross entropy of its logits in place of the choice of a token; and of those of each further token, the next but
    one first. Raises PassError."""
    last = head.by_name[head.output]
    if last.kind != "argmax":
        raise PassError(
            "a training step needs a head that ends with `argmax(logits)`", at="kind", where=(head.name, last.name)
        )
    choices = [last, *(op for op in head.ops if op.kind == "argmax" and op is not last)]
    if len(head.dims_of(last.inputs[0])) != 3 or last.dims != ROWS:
        raise PassError("a training step needs logits [batch, seq, vocab]", at="kind", where=(head.name, last.name))
    tokens = tokens_of(head, graph)
    kept = tuple(op for op in head.ops if all(op is not one for one in choices))
    losses = [loss_of(op, k, tokens, 1.0 if op is last else further) for k, op in enumerate(choices, start=1)]
    total = losses[0][-1]
    made = [op for ops in losses for op in ops]
    for ops in losses[1:]:
        total = Op(f"{ops[-1].name}.total", "add", (total.name, ops[-1].name), ROWS, "fp32", ops[-1].block)
        made.append(total)
    return replace(head, ops=(*kept, *made), output=total.name)


def loss_of(choice: Op, ahead: int, tokens: int, factor: float) -> tuple[Op, ...]:
    """The ops of the cross entropy of logits, in place of their largest; the loss is the last of them."""
    logits, block = choice.inputs[0], choice.block
    stem = f"{choice.name.rpartition('.')[0]}." if block else ""

    def row(name: str, kind: str, inputs: tuple[str, ...], attrs: Attrs = NONE, dtype: str = "fp32") -> Op:
        op = Op(f"{stem}{name}", kind, inputs, ROWS, dtype, block, attrs=attrs)
        return replace(op, more=further_results(op, None))

    labels = row(LABELS, LABELS, (), LabelsAttrs(ahead), dtype="int32")
    largest = row("largest", "row_max", (logits,), RowMaxAttrs())
    total = row("total", "row_exp_sum", (logits, largest.name))
    picked = row("picked", "pick", (logits, labels.name))
    found = (largest.name, total.name, picked.name)
    loss = row("loss", "cross_entropy", found, LossAttrs(tokens, factor))
    return labels, largest, total, picked, loss


def with_router_losses(segment: Segment, graph: Graph, losses: RouterLosses) -> Segment:
    """The layer with the losses of its routers. Of each token, `balance` x experts x the sum over experts of the share of choices that
    one gets times its probability for the token: in the mean of tokens that of arXiv 2101.03961 (equation 4), shares being of choices;
    and `z` x the square of the logarithm of the sum of its exponential scores (arXiv 2202.08906, equation 5)."""
    ops: list[Op] = []
    for op in segment.ops:
        ops.append(op)
        if isinstance(op.attrs, RouteAttrs):
            ops += losses_of(op, segment, tokens_of(segment, graph), losses)
    return segment if len(ops) == len(segment.ops) else replace(segment, ops=tuple(ops))


def losses_of(route: Op, segment: Segment, tokens: int, losses: RouterLosses) -> list[Op]:
    """The ops of a router's losses."""
    scores, attrs = route.inputs[0], route.of(RouteAttrs)
    dims = segment.dims_of(scores)
    stem, expert, made = route.name, dims[-1], []

    def add(name: str, kind: str, inputs: tuple[str, ...], own: tuple[str, ...], given: Attrs = NONE) -> str:
        made.append(Op(f"{stem}.{name}", kind, inputs, own, "fp32", route.block, attrs=given))
        return made[-1].name

    if losses.balance:
        shared = (dims[0], expert) if losses.sequences else (expert,)
        share = add("share", "expert_share", (route.name,), shared, ShareAttrs(losses.sequences))
        probs = add("probs", "expert_probs", (scores,), dims, ScoreAttrs(score=attrs.score))
        uneven = add("uneven", "contract", (probs, share), dims[:-1])
        factor = losses.balance * segment.size(expert)
        add("balance", "router_loss", (uneven,), dims[:-1], LossAttrs(tokens, factor))
    if losses.z:
        squares = add("squares", "router_z", (scores,), dims[:-1])
        add("z", "router_loss", (squares,), dims[:-1], LossAttrs(tokens, losses.z))
    return made
