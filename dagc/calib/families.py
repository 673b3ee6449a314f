"""Every family of measured kernels, by name: loading, fitting and the list of families read this table."""

from __future__ import annotations

from typing import Any

from . import (
    all_to_all,
    collective,
    custom_allreduce,
    decode_attention,
    decode_mla,
    delta_decode,
    delta_prefill,
    domain_a2a,
    gemm,
    moe,
    moe_a2a,
    prefill_attention,
    prefill_mla,
    short_conv,
    sparse_mla_decode,
)
from .family import Family

FAMILIES: dict[str, Family[Any]] = {
    module.FAMILY.name: module.FAMILY
    for module in (
        gemm, moe, prefill_attention, decode_attention, prefill_mla, decode_mla,
        short_conv, delta_prefill, delta_decode, sparse_mla_decode,
        collective, all_to_all, custom_allreduce, moe_a2a, domain_a2a,
    )
}  # fmt: skip
"""In the order of the calibration files."""
