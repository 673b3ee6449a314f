"""What a number of each dtype takes: its bits, and the scales and zero points that blocks of numbers share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from .frozen import record


@record
class DType:
    """`block`: (elements along the summed dimension, along the result's) that share one scale of `scale_bits` and one
    zero point of `zero_bits`; (0, 0): one per row or per tensor, not counted. `math`: see `unit`. `widened`: kernels
    that convert it to 16 bits exist, so that it runs anywhere. `padded`: engines that cut a block fill it up; else
    they refuse to."""

    name: str
    bits: int
    block: tuple[int, int] = (0, 0)
    scale_bits: int = 0
    zero_bits: int = 0
    math: str = ""
    widened: bool = False
    padded: bool = False

    @property
    def bytes(self) -> float:
        """Bytes per element, its share of scale and zero point included."""
        shared = self.block[0] * self.block[1]
        return (self.bits + ((self.scale_bits + self.zero_bits) / shared if shared else 0.0)) / 8

    @property
    def unit(self) -> str:
        """The dtype whose units of a GPU compute with it."""
        return self.math or self.name

    @property
    def kernel(self) -> str:
        """The dtype as tables of measured kernels name it: blocks of 8 bits cost the same, whatever their size."""
        return "fp8_block" if self.unit == "fp8" and self.block[1] > 1 else self.name

    @property
    def quantised(self) -> bool:
        """Fewer than 16 bits: norms, biases and routers are left out of it."""
        return self.bits < 16


NAMED: dict[str, DType] = {
    t.name: t
    for t in (
        DType("fp64", 64),
        DType("fp32", 32),
        DType("tf32", 32),
        DType("bf16", 16),
        DType("fp16", 16),
        DType("fp8", 8),
        # deepseek-ai/DeepSeek-V3 README_WEIGHTS.md: an fp32 scale for 128 x 128.
        DType("fp8_block", 8, (128, 128), 32, math="fp8"),
        # OCP Microscaling Formats 1.0: an E8M0 scale for 32.
        DType("mxfp8", 8, (32, 1), 8, math="fp8"),
        DType("int8", 8),
        # NVIDIA's NVFP4: an E4M3 scale for 16, one fp32 for the tensor.
        DType("nvfp4", 4, (16, 1), 8),
        DType("mxfp4", 4, (32, 1), 8, math="nvfp4", widened=True, padded=True),
        DType("fp4", 4, math="nvfp4", widened=True),
        DType("int4", 4, widened=True),
    )
}
"""Dtypes of the language by name."""

FORMS = "`int4_g32` (groups of 32, a 16-bit scale each; `int4_g128_zp`: and a zero point), `fp8_b64x64` (blocks, an fp32 scale each)"
"""How the others are written."""

INDICES = {"int32": DType("int32", 32), "int64": DType("int64", 64), "uint8": DType("uint8", 8)}
"""Of token ids and choices."""

_GROUP = r"(int4|int8)_g([1-9][0-9]{0,5})(_zp)?"
_BLOCK = r"(fp8|int8)_b([1-9][0-9]{0,5})x([1-9][0-9]{0,5})"


@cache
def find(name: str) -> DType | None:
    """The dtype of a name of the language, or None."""
    if name in NAMED:
        return NAMED[name]
    group = re.fullmatch(_GROUP, name)
    if group is not None:
        base = NAMED[group[1]]
        zero = base.bits if group[3] else 0
        return DType(name, base.bits, (int(group[2]), 1), 16, zero, math=base.name, widened=base.widened)
    block = re.fullmatch(_BLOCK, name)
    if block is not None:
        return DType(name, 8, (int(block[2]), int(block[3])), 32, math=block[1])
    return None


def dtype(name: str) -> DType:
    """The dtype of a name, indices included. Raises KeyError."""
    dtype = find(name) or INDICES.get(name)
    if dtype is None:
        raise KeyError(name)
    return dtype


class _Bytes(Mapping[str, float]):
    """Bytes per element by name, as a table."""

    def __getitem__(self, name: str) -> float:
        return dtype(name).bytes

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in NAMED or name in INDICES or find(name) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter({**NAMED, **INDICES})

    def __len__(self) -> int:
        return len(NAMED) + len(INDICES)


DTYPE_BYTES: Mapping[str, float] = _Bytes()
"""Bytes per element, its share of scales and zero points included."""
