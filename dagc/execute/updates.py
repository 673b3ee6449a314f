"""What each optimizer makes of a weight and its gradient, alike on every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..ir.ops.attributes.training import AdamAttrs
from .dispatcher import OpCall, Rule
from .values import Array


def updates(old: Callable[[OpCall], Array]) -> Mapping[str, Rule]:
    """`old`: the rank's part of the weight before the step, the optimizer's own copy."""

    def adamw(call: OpCall, x: Sequence[Array]) -> Array:
        """The first step: the means are the gradient and its square, their bias corrected (arXiv 1711.05101, algorithm 2)."""
        attrs, before = call.op.of(AdamAttrs), old(call)
        mean, square = (1.0 - attrs.mean) * x[0], (1.0 - attrs.square) * x[0] ** 2
        mean, square = mean / (1.0 - attrs.mean), square / (1.0 - attrs.square)
        return before - attrs.rate * (mean / (square**0.5 + attrs.eps) + attrs.decay * before)

    def sgd(call: OpCall, x: Sequence[Array]) -> Array:
        return old(call) - call.op.of(AdamAttrs).rate * x[0]

    return {"adamw": adamw, "sgd": sgd}
