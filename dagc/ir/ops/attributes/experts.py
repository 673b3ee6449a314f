"""Attributes of routers, and of what takes tokens to experts and back."""

from __future__ import annotations

from ....base.schema.phase import PLACINGS
from ....base.schema.phase_sections import MOST_SKIPPED
from ...sharding import Axes
from .attrs import Attrs, axes_field, count_field, flag_field, number_field, word_field

SCORES = ("softmax", "sigmoid", "sparsemixer", "sqrtsoftplus")


class RouterAttrs(Attrs):
    """How scores become choices of experts and their weights."""

    top_k: int = count_field("experts per token", high=1e6)
    score: str = word_field("router score", *SCORES, default="softmax")
    normalize: bool = flag_field("the chosen weights sum to one", default=True)
    groups: int = count_field("expert groups of group-limited routing", default=1, high=1e6)
    groups_limit: int = count_field("groups that a token may use", default=1, high=1e6)
    group_score: str = word_field(
        "strength of a group: its best expert or its two best", "best", "best_two", default="best_two"
    )
    scale: float = number_field("factor of the chosen weights", default=1.0)
    eps: float = number_field("added to the sum that the chosen weights are divided by", open_low=False, default=0.0)
    jitter: float = number_field(
        "sparsemixer: half the distance from the best within which a score counts", open_low=False, default=0.0
    )


class RouteAttrs(RouterAttrs):
    """Of the choice itself."""

    chosen_by: str = word_field(
        "what the largest are chosen of, bias included: scores, or the numbers that these are made of",
        "scores",
        "logits",
        default="scores",
    )
    skip: float = number_field(
        "share of the choices that are left out", open_low=False, high=MOST_SKIPPED, made=True, default=0.0
    )
    skip_below: float = number_field(
        "those of less than this share of the token's largest weight", open_low=False, high=1.0, made=True, default=0.0
    )
    capacity: float = number_field(
        "what an expert takes of the tokens of a rank, in times the mean; 0: all",
        open_low=False,
        made=True,
        default=0.0,
    )
    empty: bool = flag_field("some experts do nothing: their scores are the second operand", made=True, default=False)
    by_token: bool = flag_field(
        "a token's id chooses: operands 2 and 3 are the ids, and a table of the experts of each",
        made=True,
        default=False,
    )


OF_CHOICE = ("skip", "skip_below", "capacity", "empty", "by_token", "chosen_by")
"""What is chosen, and which choices count: that is constant to gradients."""


class RouteGradAttrs(RouterAttrs):
    """Of the gradient of its weights: of the scores, or of two operands of scores the one that it is of."""

    empty: bool = flag_field("some experts do nothing: their scores are the third operand", made=True, default=False)
    operand: int = count_field("operand of the router, counted from 0", low=0, high=1, made=True, default=0)


_WEIGHTED = "rows are multiplied by the router's weights"


_EXCHANGE = "axes over which tokens are exchanged between their owners and the experts"


class ExchangeAttrs(Attrs):
    """Of the ops between tokens at home and rows of experts."""

    exchange: Axes = axes_field(_EXCHANGE, default=())


class DispatchAttrs(ExchangeAttrs):
    weighted: bool = flag_field(_WEIGHTED, default=False)
    skips: bool = flag_field("choices whose weight is 0 are left out", made=True, default=False)
    placed: str = word_field("how the experts that rows go to are placed on ranks", *PLACINGS, made=True, default="")


class CombineAttrs(ExchangeAttrs):
    weighted: bool = flag_field(_WEIGHTED, default=True)
