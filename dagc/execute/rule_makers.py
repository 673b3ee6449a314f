"""Rules that every backend has alike, made from the backend's own functions on arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..ir.entries import counts_tokens, group_of, pooled_of
from ..ir.ops.attributes.attention import LeavingAttrs
from ..ir.ops.attributes.elementwise import NormAttrs
from ..ir.ops.leaving import EVERY, STILL
from ..ir.ops.packing import unpacked_shape
from ..ir.routed_dims import stem
from ..ir.sharding import Axes
from .dispatcher import OpCall, Rule

Array = Any
"""A NumPy array or a torch tensor."""
Dims = tuple[str, ...]


def contracted(product: Callable[..., Array]) -> Rule:
    """`product(a, its dims, b, its dims, dims of the result)`."""
    return lambda call, x: product(x[0], call.dims[0], x[1], call.dims[1], call.out)


def each(function: Callable[[Array], Array]) -> Rule:
    """One operand, element by element or row by row."""
    return lambda call, x: function(x[0])


def delta_layouts(dims: Sequence[Dims], rows: Dims) -> list[Dims]:
    """How the operands of `delta` are laid out for it: queries, keys, values, decay and rate, each with all `rows`."""
    width = dims[1][-1]
    decay = (*rows, width) if width in dims[3] else rows
    return [*((*rows, own[-1]) for own in dims[:3]), decay, rows]


def reached(call: OpCall, exchange: Axes) -> range:
    """The ranks of experts that a rank may send rows to: all but those that a rank with the same tokens selects for itself. `exchange`: axes
    over which tokens are exchanged."""
    rows = call.shards.rows(call.segment, call.op.name)
    stay = tuple(a for a in call.op.loop(rows.expert) if a not in exchange)
    return range(len(rows.slots))[call.shards.part(len(rows.slots), stay, call.rank)]


def tokens_of(dims: Dims) -> str:
    """The dimension of a tensor that counts tokens of this pass, or groups of them."""
    return next(d for d in dims if d == "seq" or group_of(d) is not None)


def along_context(dims: Dims) -> str:
    """The dimension of a cache that counts tokens of the context, or groups of them."""
    return next(filter(counts_tokens, dims))


def new_rows(call: OpCall) -> int:
    """Of a cache those that a pass writes: its tokens, or the groups that these are in."""
    group = group_of(along_context(call.out))
    return int(call.segment.size("seq" if group is None else pooled_of(group)))


def normed(function: Callable[..., Array], sums: Sequence[Callable[[Array], Array]]) -> Rule:
    """By the row sums that a split width was given, else by those of the row itself."""

    def rule(call: OpCall, x: Sequence[Array]) -> Array:
        weights = [call.segment.is_weight(name) for name in call.op.inputs]
        row_sums = [v for v, is_weight in zip(x[1:], weights[1:], strict=True) if not is_weight]
        width = int(call.segment.size(call.op.dims[-1]))
        result = function(x[0], *(row_sums or [total(x[0]) for total in sums]), width, call.op.of(NormAttrs).eps)
        gain = next((v for v, is_weight in zip(x, weights, strict=True) if is_weight), None)
        return result if gain is None else result * gain

    return rule


def fetched(stack: Callable[[list[Array], int], Array]) -> Rule:
    """A weight as the rank stores it; of experts all of its own as one, for collectives."""

    def rule(call: OpCall, x: Sequence[Any]) -> Array:
        if not isinstance(x[0], Mapping):
            return x[0]
        axis = next(at for at, dim in enumerate(call.op.dims) if stem(dim) == "expert")
        return stack([x[0][expert] for expert in sorted(x[0])], axis)

    return rule


def unpacked(call: OpCall, x: Sequence[Any]) -> Any:
    """The rows of one part, a sequence each."""
    first, end, shape = unpacked_shape(call.segment, call.op, tuple(x[0].shape))
    return x[0][:, first:end].reshape(shape)


def stayed(call: OpCall, x: Sequence[Any]) -> Any:
    """The first rows of each rank's sequences, as many as have not left."""
    groups, _, still = _rows(call, x[0])
    return x[0].reshape(groups, -1, *x[0].shape[1:])[:, :still].reshape(groups * still, *x[0].shape[1:])


def rejoined(join: Callable[..., Any]) -> Rule:
    """`join(values, 1)`: these rows as they are now, and the others as they were."""

    def rule(call: OpCall, x: Sequence[Any]) -> Any:
        groups, _, still = _rows(call, x[0])
        every, now = (v.reshape(groups, -1, *v.shape[1:]) for v in x)
        return join([now, every[:, still:]], 1).reshape(x[0].shape)

    return rule


def _rows(call: OpCall, every: Any) -> tuple[int, int, int]:
    """(ranks whose sequences this rank has, sequences of each, those that are still there)."""
    whole, still = (int(call.segment.sizes[dim]) for dim in (EVERY, STILL))
    groups = call.op.of(LeavingAttrs).groups
    return groups * every.shape[0] // whole, whole // groups, still // groups


def packed(join: Callable[..., Any]) -> Callable[[OpCall, Sequence[Any]], Any]:
    """`join(values, 1)`: rows of all parts, one after the other."""

    def rule(call: OpCall, x: Sequence[Any]) -> Any:
        ranks = int(call.segment.sizes["batch"]) // call.shards.mesh.size(call.op.loop("batch"))
        widths = (len(call.out) - 2) * (slice(None),)
        rows = [v.reshape(ranks, -1, *v.shape[len(v.shape) - len(widths) :]) for v in x]
        return join(rows, 1)

    return rule
