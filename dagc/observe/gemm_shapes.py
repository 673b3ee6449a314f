"""Matrix products whose sizes a trace has: of ops of PyTorch, where it was told to record shapes (`record_shapes=True`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .rank_trace import Product

OPS: Mapping[str, tuple[int, int]] = {"aten::mm": (0, 1), "aten::addmm": (1, 2), "aten::_scaled_mm": (0, 1)}
"""Which arguments are x[m, k] and W[k, n]. Source: pytorch, aten/src/ATen/native/native_functions.yaml."""
DTYPES: Mapping[str, str] = {
    "c10::bfloat16": "bf16", "c10::half": "fp16", "float": "fp32", "c10::float8_e4m3fn": "fp8", "c10::float8_e4m3fnuz": "fp8",
}  # fmt: skip
"""Names of C++ -> those of dagc."""
MOST = 2**31


def product_of(name: str, args: Mapping[str, Any]) -> Product | None:
    """None: the op is no product, or its sizes were not recorded."""
    at = OPS.get(name)
    dims, types = args.get("Input Dims"), args.get("Input type")
    if at is None or not isinstance(dims, list) or not isinstance(types, list) or len(types) <= at[0]:
        return None
    sides = [dims[i] if len(dims) > i else None for i in at]
    left, right = (
        side if isinstance(side, list) and len(side) == 2 and all(map(_is_size, side)) else None for side in sides
    )
    if left is None or right is None:
        return None
    (m, k), (rows, n) = left, right
    dtype = DTYPES.get(str(types[at[0]]).lower())
    return Product(dtype, m, n, k) if dtype is not None and rows == k else None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST
