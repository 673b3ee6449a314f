"""What can be timed: one record per kind of kernel, with whole sizes, its row in a table and its neighbours in size.

The columns are those of docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ..base.dtypes import DTYPE_BYTES
from ..base.frozen import record, replace

Cell = str | int | float


def whole(value: float) -> int:
    """A size: a whole number from 1."""
    return max(1, round(value))


@record
class Gemm:
    """y[m, n] = x[m, k] @ W[k, n]."""

    table: ClassVar[str] = "op_gemm.csv"
    dtype: str
    m: int
    n: int
    k: int

    def columns(self) -> Mapping[str, Cell] | None:
        return {"dtype": self.dtype, "m": self.m, "n": self.n, "k": self.k}

    def scaled(self, first: float, second: float) -> Gemm:
        """Rows, then columns."""
        return replace(self, m=whole(self.m * first), n=whole(self.n * second))

    def memory_B(self) -> float:
        wide = DTYPE_BYTES[self.dtype]
        return wide * (self.m * self.k + self.n * self.k) + 2.0 * max(1.0, wide / 2) * self.m * self.n

    def text(self) -> str:
        return f"{self.dtype} {self.m} x {self.n} x {self.k}"


@record
class Experts:
    """The FFN of a rank's routed experts, gated: gather, up and gate, SwiGLU, down, weighted sum over `tokens`.

    `total_rows` fall on the local experts by `shares` (they add up to 1); `ranks` x `parts`: EP and TP of the experts.
    """

    table: ClassVar[str] = "op_moe.csv"
    dtype: str
    hidden: int
    inter: int
    top_k: int
    experts: int
    ranks: int
    parts: int
    tokens: int
    total_rows: int
    shares: tuple[float, ...]
    distribution: str

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of each local expert: one draw of independent tokens, with a fixed seed."""
        drawn = np.random.default_rng(0).multinomial(self.total_rows, np.array(self.shares) / sum(self.shares))
        return tuple(drawn.tolist())

    def columns(self) -> Mapping[str, Cell] | None:
        return {
            "dtype": self.dtype, "hidden_size": self.hidden, "inter_size": self.inter * self.parts, "topk": self.top_k,
            "num_experts": self.experts, "moe_tp_size": self.parts, "moe_ep_size": self.ranks,
            "distribution": self.distribution, "num_tokens": self.tokens, "rows": " ".join(map(str, self.rows)),
        }  # fmt: skip

    def scaled(self, first: float, second: float) -> Experts:
        """Tokens, then width of an expert."""
        rows = whole(self.total_rows * first)
        return replace(self, tokens=whole(self.tokens * first), total_rows=rows, inter=whole(self.inter * second))

    def memory_B(self) -> float:
        weights = 3.0 * len(self.shares) * self.hidden * self.inter
        rows = self.total_rows * (3.0 * self.hidden + 4.0 * self.inter) + 2.0 * self.tokens * self.hidden
        return DTYPE_BYTES[self.dtype] * (weights + rows)

    def text(self) -> str:
        shape = f"{self.total_rows} rows on {len(self.shares)} experts"
        return f"{self.dtype} {shape}, {self.hidden} x {self.inter}"


@record
class Prefill:
    """Causal grouped attention of `seq` new tokens after `prefix` cached ones."""

    table: ClassVar[str] = "op_context_attention.csv"
    dtype: str
    batch: int
    heads: int
    kv_heads: int
    width: int
    seq: int
    prefix: int = 0

    def columns(self) -> Mapping[str, Cell] | None:
        """None with a prefix: the table has no column for it."""
        if self.prefix:
            return None
        return {**_attention(self), "batch_size": self.batch, "seq_len": self.seq}

    def scaled(self, first: float, second: float) -> Prefill:
        """Sequences, then new tokens."""
        return replace(self, batch=whole(self.batch * first), seq=whole(self.seq * second))

    def memory_B(self) -> float:
        keys = 2.0 * self.kv_heads * (self.seq + self.prefix)
        return DTYPE_BYTES[self.dtype] * self.batch * self.width * (2.0 * self.heads * self.seq + keys)

    def text(self) -> str:
        after = f" after {self.prefix}" if self.prefix else ""
        return f"{self.dtype} {self.batch} x {self.seq}{after} tok, {self.heads}/{self.kv_heads} heads of {self.width}"


@record
class Decode:
    """Grouped attention of one token a sequence over `context` cached ones; drafted tokens count as heads."""

    table: ClassVar[str] = "op_generation_attention.csv"
    dtype: str
    batch: int
    heads: int
    kv_heads: int
    width: int
    context: int

    def columns(self) -> Mapping[str, Cell] | None:
        return {**_attention(self), "batch_size": self.batch, "kv_len": self.context}

    def scaled(self, first: float, second: float) -> Decode:
        """Sequences, then cached tokens."""
        return replace(self, batch=whole(self.batch * first), context=whole(self.context * second))

    def memory_B(self) -> float:
        return DTYPE_BYTES[self.dtype] * 2.0 * self.batch * self.width * (self.heads + self.kv_heads * self.context)

    def text(self) -> str:
        return f"{self.dtype} {self.batch} x {self.context} tok, {self.heads}/{self.kv_heads} heads of {self.width}"


@record
class RowWise:
    """An element-wise kernel over [rows, width]: `rms_norm` or `add`. No fit reads its table."""

    table: ClassVar[str] = "op_row_wise.csv"
    op: str
    dtype: str
    rows: int
    width: int

    def columns(self) -> Mapping[str, Cell] | None:
        return {"op": self.op, "dtype": self.dtype, "rows": self.rows, "width": self.width}

    def scaled(self, first: float, second: float) -> RowWise:
        """Rows; the width stays."""
        return replace(self, rows=whole(self.rows * first))

    def memory_B(self) -> float:
        return DTYPE_BYTES[self.dtype] * self.rows * self.width * 3.0

    def text(self) -> str:
        return f"{self.dtype} {self.rows} x {self.width}"


@record
class Exchange:
    """A collective of `ranks`; `size_B` as nccl-tests counts it."""

    table: ClassVar[str] = "op_nccl.csv"
    op: str
    ranks: int
    size_B: int

    def columns(self) -> Mapping[str, Cell] | None:
        return {"op": self.op, "num_gpus": self.ranks, "bytes": self.size_B}

    def scaled(self, first: float, second: float) -> Exchange:
        """Bytes; in steps of four, as their range is wide. The ranks stay."""
        return replace(self, size_B=whole(self.size_B * first * first))

    def memory_B(self) -> float:
        return 2.0 * self.size_B

    def text(self) -> str:
        return f"{self.ranks} ranks, {self.size_B} B"


Job = Gemm | Experts | Prefill | Decode | RowWise | Exchange


def _attention(job: Prefill | Decode) -> dict[str, Cell]:
    return {
        "attn_dtype": job.dtype, "kv_cache_dtype": job.dtype, "head_dim": job.width, "num_heads": job.heads,
        "num_key_value_heads": job.kv_heads,
    }  # fmt: skip


def neighbours(jobs: list[Job], steps: int) -> list[Job]:
    """Each job with both of its sizes times 2^-steps ... 2^steps, every job once, those given first."""
    factors = [2.0**i for i in range(-steps, steps + 1)]
    around = [job.scaled(first, second) for job in jobs for first in factors for second in factors]
    return list(dict.fromkeys([*jobs, *around]))
