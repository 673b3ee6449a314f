"""Losses that keep a router's choices even and its scores small: each a number of every token, of which a step takes the mean."""

from __future__ import annotations

from ..op import Op
from ..segment import Segment
from .attributes.losses import LossAttrs, ScoreAttrs, ShareAttrs
from .elementwise import as_operand
from .experts import value_widths
from .kind import ROW_SUMS, DtypeRule, Misfit, OpKind, listed, operands

NEGLIGIBLE = "negligible beside the router's matrix product"


def _shares(segment: Segment, op: Op) -> None:
    (choice,) = operands(segment, op, "choice")
    kept = choice[:1] if op.of(ShareAttrs).sequences else ()
    if len(op.dims) != len(kept) + 1 or op.dims[:-1] != kept or len(choice) != 3:
        raise Misfit("result", listed(op.dims), listed((*kept, "expert")))


def _of_each_token(segment: Segment, op: Op) -> None:
    (scores,) = operands(segment, op, "scores")
    if op.dims != scores[:-1]:
        raise Misfit("result", listed(op.dims), listed(scores[:-1]))


KINDS = (
    OpKind(
        name="expert_share", about="the share of choices that each expert gets, of all tokens or of some sequences", attrs=ShareAttrs,
        dims=_shares, dtype=DtypeRule("fp32", lambda segment, op: "fp32", indices=lambda op: op.inputs[:1]), idle=NEGLIGIBLE,
    ),
    OpKind(
        name="expert_probs", about="the probability of each expert by its score", attrs=ScoreAttrs, dims=as_operand, dtype=ROW_SUMS,
        idle=NEGLIGIBLE, whole=value_widths,
    ),
    OpKind(
        name="router_z", about="square of the logarithm of the sum of a token's exponential scores", dims=_of_each_token, dtype=ROW_SUMS,
        idle=NEGLIGIBLE, whole=value_widths,
    ),
    OpKind(
        name="router_loss", about="what a number of each token counts in the loss of the step", attrs=LossAttrs, dims=as_operand,
        dtype=ROW_SUMS, idle=NEGLIGIBLE, fused=True,
    ),
    OpKind(
        name="router_loss_grad", about="gradient of each token's number: the same for all", attrs=LossAttrs, dims=as_operand, dtype=ROW_SUMS,
        idle=NEGLIGIBLE, fused=True, gradient_of="router_loss",
    ),
)  # fmt: skip
