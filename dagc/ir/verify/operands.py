"""Verification of an op by its kind's record: attributes, dtypes, dims of operands and result."""

from __future__ import annotations

from ...base.dtypes import DTYPE_BYTES
from ..entries import group_of
from ..op import SCOPES, Op, is_scope
from ..ops.attributes.read_record import check_values
from ..ops.kind import Misfit
from ..ops.op_set import OPS
from ..segment import Segment


def _follows(segment: Segment, dim: str) -> bool:
    """Whether a dimension is one of groups whose size others have."""
    return group_of(dim) is not None and all(n in segment.sizes for n in ("seq", "context", group_of(dim)))


def verify_op(segment: Segment, op: Op) -> None:
    """Raises Misfit, or AttributeFault."""
    kind = OPS.get(op.kind)
    if kind is None:
        raise Misfit("kind", op.kind, "one of the op set")
    if op.dtype not in DTYPE_BYTES:
        raise Misfit("dtype", f"unknown dtype {op.dtype}", "a dtype")
    if not is_scope(op.scope):
        raise Misfit("scope", f"unknown scope {op.scope}", " or ".join(SCOPES))
    if type(op.attrs) is not kind.attrs:
        raise Misfit("attributes", type(op.attrs).__name__, kind.attrs.__name__)
    check_values(op.attrs)
    own = segment.within(op.scope)
    for i, dim in enumerate(op.dims):
        if dim not in own.sizes and not _follows(own, dim):
            raise Misfit("result", f"dimension {dim} without a size", "sizes of all dims")
        if dim in op.dims[:i]:
            raise Misfit("result", f"dimension {dim} twice", "each once")
    kind.dims(own, op)
    kind.dtype.check(segment, op)
