"""Dense GEMM y[m, n] = x[m, k] @ W[k, n], bf16 in and out; fp8 and fp4 first quantise x.

    t = launch + overlap(math, memory, k step_s) + quantise
    math     = ((1 - w) 2 m n k + w 2 waves SMs 128 128 k) / math_flops + tiles tile_s,  waves = ceil(tiles / SMs)
    memory   = (element_B (n k + m k) + 2 m n) / hbm_Bps
    quantise = m k (2 + element_B) / quantise_Bps, absent in bf16

Tile and wave quantisation by their definition; the overlap, the serial loop over k and
what a tile costs to set up are this project's form.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..base.arrays import ArrayLike
from ..base.frozen import record
from .constants import Device
from .family import (
    ELEMENT_B,
    LAUNCH,
    LENGTH,
    MATH,
    SHARPNESS,
    Bounds,
    Family,
    Row,
    Table,
    columns,
    dtype_variant,
    renamed,
    share,
)
from .shape import Floats, floats, overlap_s, tiles

TILE = 128
"""Rows and columns of an output tile that one SM works on."""


@record
class GemmConstants:
    """`wave_share`: 0 counts plain FLOPs, 1 whole waves of tiles. `tile_s`: set-up of an output tile, over the whole
    GPU. `quantise_Bps` 0: activations are not quantised."""

    sms: float
    element_B: float
    launch_s: float
    math_flops: float
    hbm_Bps: float
    sharpness: float
    wave_share: float
    tile_s: float
    k_step_s: float
    quantise_Bps: float


def time_s(c: GemmConstants, m: ArrayLike, n: ArrayLike, k: ArrayLike) -> Floats:
    """Seconds of one GEMM on one GPU; arguments broadcast."""
    m, n, k = floats(m), floats(n), floats(k)
    output = tiles(m, TILE) * tiles(n, TILE)
    waves = tiles(output, c.sms)
    flops = 2 * k * ((1 - c.wave_share) * m * n + c.wave_share * waves * c.sms * TILE * TILE)
    moved_B = c.element_B * (n * k + m * k) + 2 * m * n
    core = overlap_s(c.sharpness, flops / c.math_flops + output * c.tile_s, moved_B / c.hbm_Bps, c.k_step_s * k)
    quantise = m * k * (2 + c.element_B) / c.quantise_Bps if c.quantise_Bps else 0.0
    return floats(c.launch_s + core + quantise)


def _bounds(device: Device, variant: str) -> dict[str, Bounds]:
    found = {
        "launch_s": LAUNCH,
        "math_flops": share(device.flops[MATH.get(variant, variant)], 0.7, 0.1),
        "hbm_Bps": share(device.hbm_Bps, 0.8, 0.2),
        "sharpness": SHARPNESS,
        "wave_share": (0.15, 0.005, 1.0),
        "tile_s": (1e-8, 1e-11, 1e-6),
        "k_step_s": (3e-10, 1e-12, 1e-8),
    }
    return found if variant == "bf16" else found | {"quantise_Bps": share(device.hbm_Bps, 0.4, 0.02, 4.0)}


def _variant(row: Row) -> str | None:
    """Weights of 4 bits that unpack to bf16 have few rows, and no op asks for them outside experts."""
    dtype = dtype_variant(row)
    return dtype if dtype in ELEMENT_B else None


def _facts(device: Device, variant: str) -> dict[str, float]:
    known = {"sms": device.sms, "element_B": ELEMENT_B[variant]}
    return known | {"quantise_Bps": 0.0} if variant == "bf16" else known


EAGER = {"DeepGemmFp8BlockScaledMM", "FlashInferFp8BlockScaledMM", "TritonFp8BlockScaledMM", "CutlassFp8BlockScaledMM"}
"""Kernels whose rows were timed without a CUDA graph: the small ones tell the time of the host."""
ODD_SHAPES = "CutlassFp8BlockScaledMM"
"""Takes what the others cannot, sides below a block of 128: all of its rows are host time, and no model has such weights."""
SAME_KERNEL = "deepgemm_gemm_nt_f8f8bf16"
"""DeepGEMM as SGLang calls it, timed in a CUDA graph."""
ABOVE_HOST = 2.0


def _without_host_time(rows: Sequence[Row]) -> list[Row]:
    """Of eager kernels the rows that take twice as long as the least of them; below, vLLM is given the same kernel's rows
    as SGLang was timed with."""
    least: dict[tuple[str, str], float] = {}
    for row in rows:
        if row["kernel"] in EAGER:
            place = row["gpu"], row["kernel"]
            least[place] = min(least.get(place, float("inf")), float(row["latency_us"]))
    kept: list[Row] = []
    for row in rows:
        time_us, kernel = float(row["latency_us"]), row["kernel"]
        if kernel not in EAGER or (kernel != ODD_SHAPES and time_us >= ABOVE_HOST * least[row["gpu"], kernel]):
            kept.append(row)
        if kernel == SAME_KERNEL and time_us < ABOVE_HOST * least.get((row["gpu"], "DeepGemmFp8BlockScaledMM"), 0.0):
            kept.append({**row, "backend": "vllm"})
    return kept


FAMILY = Family(
    name="gemm",
    constants=GemmConstants,
    time_s=time_s,
    file="op_gemm.csv",
    tables=(Table("gemm.csv", renamed(dtype="gemm_dtype"), select=_without_host_time),),
    variant=_variant,
    shapes=("m", "n", "k"),
    ranges=("m", "n", "k"),
    unseen=("n", "k"),
    bounds=_bounds,
    facts=_facts,
    arguments=columns("m", "n", "k"),
    lengths=(LENGTH,) * 3,
)
