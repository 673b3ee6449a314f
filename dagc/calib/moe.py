"""Fused routed-expert FFN on one rank: gather, gate and up, SwiGLU, down, weighted sum. No communication, no router.

    t = launch + overlap(6 h i rows / math_flops + tiles tile_s, 3 h i distinct weight_B / hbm_Bps)
        + rows 4 h / hidden_Bps + rows 6 i / inner_Bps + 2 tokens h / token_Bps + tokens top_k choice_s

rows: token copies on this rank; distinct: experts with any row; tiles: row tiles (each expert's rows rounded up) x
column tiles of both GEMMs, ceil(2 i / 128) + ceil(h / 128). FLOPs, tiles and bytes by their definition; what a tile
costs to set up, and the row and token terms, are this project's form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..base.frozen import record
from .constants import Device
from .expert_rows import TILE as TILE
from .expert_rows import ExpertRows as ExpertRows
from .expert_rows import expected_rows as expected_rows
from .family import MATH, SHARPNESS, US, WEIGHT_B, Bounds, Family, Row, column, dtype_variant, share
from .shape import Floats, floats, overlap_s, tiles

COLUMNS = 128
"""Columns of a tile."""


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
    c: MoeConstants, work: ExpertRows, tokens: ArrayLike, top_k: ArrayLike, hidden: ArrayLike, inter: ArrayLike
) -> Floats:
    """Seconds on one rank, best the busiest. `tokens`: tokens whose hidden state the kernel reads and writes (the
    whole expert-parallel group's in the fit); `inter`: width of one expert on this rank, after expert-TP."""
    tokens, hidden, inter = floats(tokens), floats(hidden), floats(inter)
    blocks = work.row_tiles * (tiles(2 * inter, COLUMNS) + tiles(hidden, COLUMNS))
    math_s = 6 * hidden * inter * work.rows / c.math_flops + blocks * c.tile_s
    weights_s = 3 * hidden * inter * work.distinct * c.weight_B / c.hbm_Bps
    rows_s = work.rows * (4 * hidden / c.hidden_Bps + 6 * inter / c.inner_Bps)
    tokens_s = 2 * tokens * hidden / c.token_Bps + tokens * floats(top_k) * c.choice_s
    return floats(c.launch_s + overlap_s(c.sharpness, math_s, weights_s) + rows_s + tokens_s)


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (25 * US, US, 150 * US),
        "math_flops": share(device.flops[MATH.get(variant, variant)], 0.7, 0.05),
        "hbm_Bps": share(device.hbm_Bps, 0.9, 0.2),
        "sharpness": SHARPNESS,
        "tile_s": (1e-9, 1e-12, 1e-7),
        "hidden_Bps": share(device.hbm_Bps, 0.3, 0.01, 10.0),
        "inner_Bps": share(device.hbm_Bps, 0.3, 0.01, 10.0),
        "token_Bps": share(device.hbm_Bps, 0.3, 0.01, 10.0),
        "choice_s": (1e-10, 1e-13, 1e-8),
    }


def _rows_of_experts(row: Row) -> NDArray[np.int64]:
    """Rows of each local expert [draws, experts]: as they were timed where the table says so, else drawn by the law."""
    from .fitting.draws import busiest_rank

    if row.get("rows"):
        return np.array([[int(count) for count in row["rows"].split()]])
    size = [int(row[name]) for name in ("num_tokens", "num_experts", "topk", "moe_ep_size")]
    return busiest_rank(row["distribution"], *size)


def _arguments(rows: list[Row]) -> tuple[Any, ...]:
    drawn = []
    for row in rows:
        drawn.append([part.mean() for part in count_rows(_rows_of_experts(row))])
    work = ExpertRows(*np.array(drawn).T)
    inter = column(rows, "inter_size") / column(rows, "moe_tp_size")
    return work, column(rows, "num_tokens"), column(rows, "topk"), column(rows, "hidden_size"), inter


FAMILY = Family(
    name="moe",
    constants=MoeConstants,
    time_s=time_s,
    file="op_moe.csv",
    variant=dtype_variant,
    shapes=("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"),
    unseen=("hidden_size", "inter_size", "topk", "num_experts"),
    bounds=_bounds,
    facts=lambda device, variant: {"weight_B": WEIGHT_B[variant]},
    arguments=_arguments,
)
