"""Fused routed-expert FFN on one rank: gather, gate and up, activation, down, weighted sum. No communication, no router.

    t = launch + overlap(2 p h i rows / math_flops + tiles tile_s, p h i distinct weight_B / hbm_Bps)
        + rows 4 h / hidden_Bps + rows 6 i / inner_Bps + 2 tokens h / token_Bps + tokens top_k choice_s

rows: token copies on this rank; distinct: experts with any row; p: products (3; 2 without a gate); tiles: row tiles (each
expert's rows rounded up) x column tiles of both GEMMs, ceil((p - 1) i / 128) + ceil(h / 128). FLOPs, tiles and bytes by their
definition; what a tile costs to set up, and the row and token terms, are this project's form.

Variants are the dtype of the weights, or `DTYPE-KERNEL` where an engine has further kernels for it (`KERNELS`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .expert_rows import TILE as TILE
from .expert_rows import ExpertRows as ExpertRows
from .expert_rows import expected_rows as expected_rows
from .family import MATH, SHARPNESS, US, WEIGHT_B, Bounds, Family, Row, Table, column, dtype_name, log_sizes, share
from .shape import Floats, floats, overlap_s, tiles

COLUMNS = 128
"""Columns of a tile."""

KERNELS: Mapping[str, str] = {
    "fi_trtllm_moe": "trtllm",
    "mxfp4_fi_trtllm_moe": "trtllm",
    "fi_cutlass_moe": "cutlass",
    "fp8moe_fi_cutlass": "cutlass",
    "bf16moe_fi_cutlass": "cutlass",
    "ctw4a4nvfp4moe_fi_cutlass": "cutlass",
    "marlin_moe": "marlin",
    "marlin_moe_situ_as_silu": "marlin",
    "ctw4a4mxfp4moe_marlin": "marlin",
    "ctw4a4mxfp4moe_marlin_situ_as_silu": "marlin",
    "gptossmxfp4moe_marlin": "marlin",
    "moe_torchflow_nongated": "ungated",
}
"""Kernels of the tables beside those that a dtype alone names."""
OTHERWISE: Mapping[tuple[str, str], str] = {
    ("moe_torchflow_cutlass", "nvfp4"): "cutlass",
    ("marlin_moe", "int4_wo"): "",
}
"""(kernel, dtype) for which the table above does not hold."""
OLDER = "older"
OLDER_VERSIONS: Mapping[str, tuple[str, ...]] = {"vllm": ("0.19.0", "0.22.0")}
"""Of an engine, with kernels that it has left: fitted, and never priced."""
UNTUNED = "untuned"
UNTUNED_ON: Mapping[str, tuple[str, ...]] = {"moptfp8_fi_cutlass": ("h100_sxm", "h200_sxm")}
"""Kernels that an engine tunes when it starts and the benchmark did not: 1.9 to 2.9 times its own bf16 on these GPUs, 0.6 on
all others. Fitted, and never priced."""
WIDE = "deepep"
LOW_LATENCY = "deepep_ll"
"""Experts behind an exchange that sends rows: laid out expert by expert, or with room for the most rows of each."""


@record
class MoeConstants:
    """Rates, times in seconds and shares, as the formula above names them."""

    weight_B: float
    launch_s: float
    math_flops: float
    hbm_Bps: float
    sharpness: float
    tile_s: float
    hidden_Bps: float
    inner_Bps: float
    token_Bps: float
    choice_s: float


def count_rows(rows_per_expert: ArrayLike) -> ExpertRows:
    """From known whole rows of each local expert [..., experts]."""
    each = floats(rows_per_expert)
    return ExpertRows(floats(each.sum(-1)), floats(tiles(each, TILE).sum(-1)), floats(np.count_nonzero(each, axis=-1)))


def time_s(
    c: MoeConstants,
    work: ExpertRows,
    tokens: ArrayLike,
    top_k: ArrayLike,
    hidden: ArrayLike,
    inter: ArrayLike,
    products: ArrayLike = 3.0,
) -> Floats:
    """Seconds on one rank, best the busiest. `tokens`: tokens whose hidden state the kernel reads and writes (the
    whole expert-parallel group's in the fit); `inter`: width of one expert on this rank, after expert-TP."""
    tokens, hidden, inter, products = floats(tokens), floats(hidden), floats(inter), floats(products)
    blocks = work.row_tiles * (tiles((products - 1) * inter, COLUMNS) + tiles(hidden, COLUMNS))
    math_s = 2 * products * hidden * inter * work.rows / c.math_flops + blocks * c.tile_s
    weights_s = products * hidden * inter * work.distinct * c.weight_B / c.hbm_Bps
    rows_s = work.rows * (4 * hidden / c.hidden_Bps + 6 * inter / c.inner_Bps)
    tokens_s = 2 * tokens * hidden / c.token_Bps + tokens * floats(top_k) * c.choice_s
    return floats(c.launch_s + overlap_s(c.sharpness, math_s, weights_s) + rows_s + tokens_s)


def features(
    work: ExpertRows,
    tokens: ArrayLike,
    top_k: ArrayLike,
    hidden: ArrayLike,
    inter: ArrayLike,
    products: ArrayLike = 3.0,
) -> Floats:
    """What kernels choose their tiles by; the formula has the tiles and products."""
    return log_sizes(work.rows, work.distinct, hidden, inter, top_k, tokens)


LENGTHS = (2.0, 2.0, 2.0, 2.0, 2.0, 4.0)


def variant_of(dtype: str, kernel: str = "") -> str:
    """Name of a variant."""
    return f"{dtype}-{kernel}" if kernel else dtype


def dtype_of(variant: str) -> str:
    """Dtype of the weights of a variant."""
    return variant.partition("-")[0]


def row_variant(row: Row) -> str | None:
    """Rows of dtypes that no estimate asks for, fp32 among them, are left out."""
    dtype = dtype_name(row["dtype"])
    if dtype not in WEIGHT_B:
        return None
    variant = variant_of(dtype, _kernel(row, dtype))
    return None if (row.get("backend"), variant, row.get("distribution")) in MISROUTED else variant


MISROUTED = frozenset({("trtllm", "nvfp4", "balanced")})
"""(engine, variant, law) of rows in which a kernel routes by itself, and read fewer experts than the law picks: up to a third
faster than their weights at the peak of the memory."""


def _kernel(row: Row, dtype: str) -> str:
    kernel = row.get("kernel", "")
    if row.get("version", "") in OLDER_VERSIONS.get(row.get("backend", ""), ()):
        return OLDER
    if row["gpu"] in UNTUNED_ON.get(kernel, ()):
        return UNTUNED
    if (kernel, dtype) in OTHERWISE:
        return OTHERWISE[kernel, dtype]
    return KERNELS.get(kernel, row.get("layout", ""))


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    dtype = dtype_of(variant)
    return {
        "launch_s": (25 * US, US, 150 * US),
        "math_flops": share(device.flops[MATH.get(dtype, dtype)], 0.7, 0.02),
        "hbm_Bps": share(device.hbm_Bps, 0.9, 0.1),
        "sharpness": SHARPNESS,
        "tile_s": (1e-9, 1e-12, 1e-7),
        "hidden_Bps": share(device.hbm_Bps, 0.3, 0.01, 10.0),
        "inner_Bps": share(device.hbm_Bps, 0.3, 0.01, 10.0),
        "token_Bps": share(device.hbm_Bps, 0.3, 0.01, 10.0),
        "choice_s": (1e-10, 1e-13, 1e-8),
    }


NEAR: Mapping[str, tuple[str, ...]] = {
    "fp8": ("fp8_block",),
    "fp8_block": ("fp8",),
    "int4_wo": ("w4a16_mxfp4",),
    "w4a16_mxfp4": ("w4a16_mxfp4-marlin", "int4_wo"),
    "w4a8_mxfp4_mxfp8": ("w4a8_mxfp4_mxfp8-trtllm", "nvfp4"),
    "nvfp4": ("nvfp4-trtllm", "nvfp4-cutlass", "w4a8_mxfp4_mxfp8"),
    "w4afp8": ("int4_wo", "w4a16_mxfp4"),
}
"""Dtypes that take the place of one, the nearest first: as many bits of a weight, then as many of an activation."""


def substitutes(variant: str) -> tuple[str, ...]:
    """A dtype's usual kernel for any of its others; then other dtypes."""
    dtype = dtype_of(variant)
    return (*((dtype,) if dtype != variant else ()), *NEAR.get(dtype, ()))


# -- tables --------------------------------------------------------------------------------------

REMOTE_FIRST = ("fused_moe_triton", "fused_moe_triton_situ_as_silu", "marlin_moe", "marlin_moe_situ_as_silu")
"""Kernels of SGLang that the benchmark gave every copy of each token that has an expert here, those of other ranks' experts as
copies of the first local one. A server skips them: their rows are counted as timed, and priced as a server has them."""
SYNCHRONISED_US = 500.0
"""Below this, calls that wait for the host time the host."""


def _of_engine(row: Row) -> Row | None:
    """A row of the engines' table."""
    remote = row["backend"] == "sglang" and row["kernel"] in REMOTE_FIRST and int(row["moe_ep_size"]) > 1
    return {**row, "dtype": row["moe_dtype"], "remote": "first" if remote else ""}


_DEEPSEEK = {
    "dtype": "fp8_block", "hidden_size": "7168", "inter_size": "2048", "topk": "8", "num_experts": "256",
    "moe_tp_size": "1", "tokens": "rows",
}  # fmt: skip
"""What the table of SGLang's wide expert parallelism does not repeat."""


def _of_sglang_wide(row: Row) -> Row | None:
    if row["op"] == "wideep_generation_moe":
        return {**_DEEPSEEK, **row, "layout": LOW_LATENCY}
    return {**_DEEPSEEK, **row, "layout": WIDE} if float(row["latency_us"]) >= SYNCHRONISED_US else None


def _of_trtllm_wide(row: Row) -> Row | None:
    return {**row, "dtype": row["moe_dtype"], "topk": "8", "moe_tp_size": "1", "layout": WIDE, "tokens": "rows"}


def _always(engine: str) -> Callable[[Row], str]:
    return lambda row: engine


def _work_of(row: Row) -> tuple[ExpertRows, float]:
    """Of the timed rank: rows as the table has them, else drawn by its law; and the tokens that its kernel sees."""
    tokens, top_k = int(row["num_tokens"]), int(row["topk"])
    if row.get("rows"):
        return count_rows([int(count) for count in row["rows"].split()]), tokens
    from .fitting.draws import busiest_rank

    experts, ranks, slots = int(row["num_experts"]), int(row["moe_ep_size"]), int(row.get("num_slots") or 0)
    drawn = busiest_rank(row["distribution"], tokens, experts, top_k, ranks, slots)
    rows, seen = drawn.rows, float(tokens)
    if row.get("remote") == "first":
        rows, seen = rows.copy(), float(drawn.tokens.mean())
        rows[:, 0] += drawn.tokens * top_k - rows.sum(axis=1)
    elif row.get("tokens") == "rows":
        seen = float(rows.sum(axis=1).mean())
    return ExpertRows(*(floats(part.mean()) for part in count_rows(rows))), seen


def _arguments(rows: list[Row]) -> tuple[Any, ...]:
    found = [_work_of(row) for row in rows]
    work = ExpertRows(*np.array([counted for counted, _ in found]).T)
    inter = column(rows, "inter_size") / column(rows, "moe_tp_size")
    seen = np.array([tokens for _, tokens in found])
    products = np.array([2.0 if (row["hidden_size"], row["inter_size"]) in UNGATED else 3.0 for row in rows])
    return work, seen, column(rows, "topk"), column(rows, "hidden_size"), inter, products


UNGATED = frozenset({("2048", "5120"), ("2688", "1856")})
"""(hidden, inter) of the experts in the tables that have no gate: a kernel's name says so for TensorRT-LLM alone."""

SHARED: Mapping[tuple[str, str], str] = {
    ("trtllm", "nvfp4"): "nvfp4",
    ("vllm", "nvfp4"): "nvfp4",
    ("sglang", "nvfp4-trtllm"): "nvfp4",
    ("trtllm", "w4a8_mxfp4_mxfp8"): "mxfp4_mxfp8",
    ("vllm", "w4a8_mxfp4_mxfp8"): "mxfp4_mxfp8",
    ("sglang", "w4a8_mxfp4_mxfp8-trtllm"): "mxfp4_mxfp8",
    ("vllm", "w4a16_mxfp4"): "mxfp4_bf16",
    ("sglang", "w4a16_mxfp4-trtllm"): "mxfp4_bf16",
}
"""Kernels of TensorRT-LLM that the other engines call too, by (engine, variant)."""


def kernels(engine: str, variant: str) -> tuple[str, str]:
    """The same where engines call the same kernel."""
    shared = SHARED.get((engine, variant))
    return (engine, variant) if shared is None else ("", shared)


FAMILY = Family(
    name="moe",
    constants=MoeConstants,
    time_s=time_s,
    file="op_moe.csv",
    variant=row_variant,
    shapes=("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"),
    bounds=_bounds,
    facts=lambda device, variant: {"weight_B": WEIGHT_B[dtype_of(variant)]},
    arguments=_arguments,
    tables=(
        Table("moe.csv", _of_engine),
        Table("wideep_moe_sglang.csv", _of_sglang_wide, _always("sglang")),
        Table("wideep_moe_trtllm.csv", _of_trtllm_wide, _always("trtllm")),
    ),
    features=features,
    lengths=LENGTHS,
    unseen=("hidden_size", "inter_size", "topk", "num_experts"),
    substitutes=substitutes,
    kernels=kernels,
)
