"""What an op remembers of the tokens that it has seen, beside the KV cache: its size does not grow with the context."""

from __future__ import annotations

from ..graph import DTYPE_BYTES, Op, Segment
from ..mesh import Mesh
from ..sharding import Sharding

SEQUENTIAL = ("conv", "delta")
"""Ops that take the tokens of a sequence one after another: a rank needs all that come before its own."""


def state_of(segment: Segment, op: Op) -> Op | None:
    """The state as a cache: its dims, dtype and layout. `conv` keeps its last inputs, `delta` the matrix of each head."""
    if op.kind not in SEQUENTIAL:
        return None
    if op.kind == "conv":
        taps = segment.dims_of(op.inputs[1])[-1]
        dims, dtype = ("batch", taps, *(d for d in op.dims if d not in ("batch", "seq"))), op.dtype
    else:
        keys = segment.dims_of(op.inputs[1])[-1]
        dims, dtype = (*(d for d in op.dims[:-1] if d != "seq"), keys, op.dims[-1]), "fp32"
    layout = Sharding(tuple(op.loop(d) for d in dims))
    return Op(f"{op.name}.state", "cache", (op.name,), dims, dtype, op.block, sharding=layout)


def state_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Bytes that one rank holds of an op's state."""
    state = state_of(segment, op)
    if state is None or state.sharding is None:
        return 0.0
    total = DTYPE_BYTES[state.dtype]
    for dim, axes in zip(state.dims, state.sharding.dims, strict=True):
        total *= segment.size(dim) / mesh.size(axes)
    return total
