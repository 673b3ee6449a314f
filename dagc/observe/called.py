"""A collective as PyTorch's dispatcher saw it, where no library wrote metadata of its own: gloo's. Source: pytorch,
torch/csrc/distributed/c10d/Ops.cpp (schemas of `c10d::*`). The group is not among its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan, prod
from typing import Any

from .nccl_metadata import BYTES
from .rank_trace import Call

PREFIX = "c10d::"
OPS: Mapping[str, tuple[str, int | None, int | None]] = {
    "allreduce_": ("all_reduce", 0, 0),
    "_allgather_base_": ("all_gather", 1, 0),
    "allgather_": ("all_gather", 1, None),
    "allgather_into_tensor_coalesced_": ("all_gather", 1, 0),
    "_reduce_scatter_base_": ("reduce_scatter", 1, 0),
    "reduce_scatter_": ("reduce_scatter", None, 0),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", 1, 0),
    "alltoall_base_": ("all_to_all", 1, 0),
    "alltoall_": ("all_to_all", None, None),
    "send": ("send_recv", 0, None),
    "recv_": ("send_recv", None, 0),
    "recv_any_source_": ("send_recv", None, 0),
    "broadcast_": ("broadcast", 0, 0),
    "reduce_": ("reduce", 0, 0),
    "gather_": ("gather", 1, None),
    "scatter_": ("scatter", None, 0),
}
"""Op -> kind, and which arguments are its input and its output; a barrier moves nothing."""
MOST_DIMS, MOST_TENSORS = 32, 4096


def called(name: str, args: Mapping[str, Any]) -> Call | None:
    """None: the op is no collective."""
    found = OPS.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    if found is None:
        return None
    kind, source, target = found
    counts = [_elements(args, at) for at in (source, target)]
    dtype = next((word for at in (source, target) if (word := _dtype(args, at))), "")
    each = BYTES.get(dtype.lower())
    in_B, out_B = (nan if n is None or each is None else float(n * each) for n in counts)
    elements = next((n for n, at in zip(counts, (source, target), strict=True) if at is not None), None)
    return Call(kind, in_B, out_B, dtype, 0, (), "", -1 if elements is None else elements)


def _argument(args: Mapping[str, Any], key: str, at: int | None) -> Any:
    values = args.get(key)
    return values[at] if at is not None and isinstance(values, list) and len(values) > at else None


def _elements(args: Mapping[str, Any], at: int | None) -> int | None:
    """Of a tensor, `[8, 4]`, or of the tensors of a list, `[[8, 4]]`."""
    dims = _argument(args, "Input Dims", at)
    if not isinstance(dims, list):
        return None
    tensors = dims if dims and isinstance(dims[0], list) else [dims]
    sizes = [_size(one) for one in tensors[:MOST_TENSORS]]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _size(dims: Any) -> int | None:
    if not isinstance(dims, list) or len(dims) > MOST_DIMS:
        return None
    if any(isinstance(d, bool) or not isinstance(d, int) or not 0 <= d < 2**40 for d in dims):
        return None
    found = prod(dims)
    return found if found < 2**60 else None


def _dtype(args: Mapping[str, Any], at: int | None) -> str:
    """Of a list of tensors it is not said."""
    word = _argument(args, "Input type", at)
    return word if isinstance(word, str) and word.lower() in BYTES else ""
