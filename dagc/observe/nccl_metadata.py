"""What PyTorch writes of a collective beside its kernel: kind, sizes, group. Source: pytorch, torch/csrc/profiler/util.cpp (saveNcclMeta)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import nan
from typing import Any

from .rank_trace import Call

KINDS: Mapping[str, str] = {
    "allreduce": "all_reduce",
    "allreduce_sparse": "all_reduce",
    "allreduce_coalesced": "all_reduce",
    "allgather": "all_gather",
    "_allgather_base": "all_gather",
    "allgather_base": "all_gather",
    "allgather_into_tensor_coalesced": "all_gather",
    "all_gather_into_tensor_coalesced": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter",
    "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "alltoall": "all_to_all",
    "all_to_all": "all_to_all",
    "all_to_allv": "all_to_all",
    "alltoall_base": "all_to_all",
    "send": "send_recv",
    "recv": "send_recv",
    "broadcast": "broadcast",
    "_broadcast_oop": "broadcast",
    "reduce": "reduce",
    "_reduce_oop": "reduce",
    "gather": "gather",
    "scatter": "scatter",
    "barrier": "all_reduce",
}
"""Names of torch.distributed -> classes of kernels."""
BYTES: Mapping[str, int] = {
    "byte": 1, "char": 1, "bool": 1, "int8": 1, "uint8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1, "half": 2, "bfloat16": 2, "short": 2, "float": 4, "int": 4, "double": 8, "long": 8,
    "complexfloat": 8, "complexdouble": 16,
}  # fmt: skip
"""Of an element, by PyTorch's names of scalar types."""
MOST_RANKS = 65_536
_NUMBERS = re.compile(r"-?\d{1,7}")


def call_of(args: Mapping[str, Any]) -> Call | None:
    """What an event says of a collective; None where it says nothing."""
    name = args.get("Collective name")
    if not isinstance(name, str):
        return None
    word = name.lower().removeprefix("nccl:").removeprefix("gloo:").removeprefix("c10d::")
    kind = KINDS.get(word)
    if kind is None:
        return None
    dtype = str(args.get("dtype", ""))[:40]
    each = BYTES.get(dtype.lower())
    sizes = [_elements(args.get(f"{way} msg nelems")) for way in ("In", "Out")]
    in_B, out_B = (nan if n is None or each is None else float(n * each) for n in sizes)
    size = args.get("Group size")
    ranks = _ranks(args.get("Process Group Ranks"))
    known = size if isinstance(size, int) and 0 < size <= MOST_RANKS else len(ranks)
    group = args.get("Process Group Name")
    return Call(
        kind,
        in_B,
        out_B,
        dtype,
        known,
        ranks if len(ranks) == known else (),
        str(group)[:100] if group else "",
        -1 if sizes[0] is None else sizes[0],
    )


def _elements(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**60 else None


def _ranks(value: Any) -> tuple[int, ...]:
    """`[0, 1]`. PyTorch cuts long lists short with dots: then they are not known."""
    if isinstance(value, list):
        value = str(value[:MOST_RANKS])
    if not isinstance(value, str) or "..." in value:
        return ()
    return tuple(int(word) for word in _NUMBERS.findall(value)[:MOST_RANKS])
