"""Gradients of rows by plain arithmetic, alike on every backend: those of norms, also where the width is split and the sums of
whole rows come as operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..ir.ops.attributes.elementwise import NormAttrs
from .dispatcher import OpCall, Rule
from .values import Array


class Arrays(Protocol):
    """What is asked of a backend's module of functions on arrays."""

    def aligned(self, x: Any, dims: tuple[str, ...], out: tuple[str, ...], /) -> Any: ...

    def reduced(self, x: Any, dims: tuple[str, ...], out: tuple[str, ...], /) -> Any: ...

    def row_sum(self, x: Any, /) -> Any: ...

    def row_square_sum(self, x: Any, /) -> Any: ...

    def rms_norm(self, x: Any, squares: Any, width: int, eps: float, /) -> Any: ...

    def layer_norm(self, x: Any, squares: Any, values: Any, width: int, eps: float, /) -> Any: ...


def row_gradients(k: Arrays) -> Mapping[str, Rule]:
    """The rules on the arrays that `k` is for."""

    def rms_norm(call: OpCall, x: Sequence[Array]) -> Array:
        upstream, value, gain, sums, width = _parts(call, x)
        scaled = upstream * gain
        squares, dot = sums or (k.row_square_sum(value), k.row_sum(scaled * value))
        root = (squares / width + call.op.of(NormAttrs).eps) ** -0.5
        return root[..., None] * scaled - value * (root**3 * dot / width)[..., None]

    def rms_norm_gain(call: OpCall, x: Sequence[Array]) -> Array:
        upstream, value, _, sums, width = _parts(call, x)
        (squares,) = sums or (k.row_square_sum(value),)
        normed = k.rms_norm(value, squares, width, call.op.of(NormAttrs).eps)
        return k.reduced(upstream * normed, call.dims[0], call.out)

    def layer_norm(call: OpCall, x: Sequence[Array]) -> Array:
        upstream, value, gain, sums, width = _parts(call, x)
        scaled = upstream * gain
        if not sums:
            sums = [k.row_square_sum(value), k.row_sum(value), k.row_sum(scaled * value), k.row_sum(scaled)]
        squares, total, dot, upstream_total = sums
        mean = total / width
        root = (squares / width - mean * mean + call.op.of(NormAttrs).eps) ** -0.5
        along = root * (dot - mean * upstream_total)
        normed = (value - mean[..., None]) * root[..., None]
        return root[..., None] * (scaled - (upstream_total / width)[..., None] - normed * (along / width)[..., None])

    def layer_norm_gain(call: OpCall, x: Sequence[Array]) -> Array:
        upstream, value, _, sums, width = _parts(call, x)
        squares, total = sums or (k.row_square_sum(value), k.row_sum(value))
        normed = k.layer_norm(value, squares, total, width, call.op.of(NormAttrs).eps)
        return k.reduced(upstream * normed, call.dims[0], call.out)

    def row_dot(call: OpCall, x: Sequence[Array]) -> Array:
        product = x[0]
        for value, dims in zip(x[1:], call.dims[1:], strict=True):
            product = product * k.aligned(value, dims, call.dims[0])
        return k.row_sum(product)

    return {
        "rms_norm_grad": rms_norm,
        "rms_norm_gain_grad": rms_norm_gain,
        "layer_norm_grad": layer_norm,
        "layer_norm_gain_grad": layer_norm_gain,
        "row_dot": row_dot,
        "sum_dims": lambda call, x: k.reduced(x[0], call.dims[0], call.out),
    }


def _parts(call: OpCall, x: Sequence[Array]) -> tuple[Array, Array, Array, list[Array], int]:
    """(upstream, value, gain or one, sums of each row that it was given, width)."""
    has_gain = len(call.op.inputs) > 2 and call.segment.is_weight(call.op.inputs[2])
    width = int(call.segment.size(call.dims[1][-1]))
    return x[0], x[1], x[2] if has_gain else 1.0, list(x[2 + has_gain :]), width
