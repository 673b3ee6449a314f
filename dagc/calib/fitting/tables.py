"""Measured tables (CSV, one row a kernel call, latency_us) as families: variants, model arguments, validation split.

Columns: see docs/calibration.md.
"""

from __future__ import annotations

import csv
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import (
    all_to_all,
    collective,
    custom_allreduce,
    decode_attention,
    decode_mla,
    domain_a2a,
    gemm,
    moe,
    moe_a2a,
    prefill_attention,
    prefill_mla,
)
from ..constants import Device
from ..load import FAMILIES, a2a_key, decode_key, decode_mla_key, prefill_key, prefill_mla_key
from .draws import busiest_rank

Floats = NDArray[np.float64]
Row = Mapping[str, str]
Bounds = tuple[float, float, float]
"""First guess, least, greatest."""

ELEMENT_B = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625, "fp4": 0.5625}
WEIGHT_B = ELEMENT_B | {"w4a16_mxfp4": 0.53125, "w4a8_mxfp4_mxfp8": 0.53125}
MATH = {"fp8_block": "fp8", "w4a16_mxfp4": "bf16", "w4a8_mxfp4_mxfp8": "fp8", "fp4": "nvfp4"}
"""dtype whose peak a kernel runs at, where it is not its own."""

US = 1e-6
LAUNCH: Bounds = (8 * US, 0.5 * US, 150 * US)
SHARPNESS: Bounds = (1.5, 0.5, 8.0)
LATENCY: Mapping[str, Bounds] = {"latency_s": (3 * US, 0.01 * US, 100 * US), "latency_power": (0.5, 0.05, 1.2)}


SAME_KERNELS = {"bfloat16": "bf16", "float16": "bf16", "fp16": "bf16"}


class TableError(ValueError):
    """A table is not what its columns say."""


def dtype_name(text: str) -> str:
    """Name of a dtype in the variants: fp16 and bf16 run alike."""
    return SAME_KERNELS.get(text, text)


def share(peak: float, guess: float, least: float, greatest: float = 1.0) -> Bounds:
    """Bounds of a rate as shares of its peak."""
    return guess * peak, least * peak, greatest * peak


@dataclass(frozen=True)
class Family:
    """One table. `variant` None leaves a row out; `bounds` gives fitted constants, `facts` those that are known."""

    name: str
    file: str
    variant: Callable[[Row], str | None]
    shapes: tuple[str, ...]
    bounds: Callable[[Device, str], dict[str, Bounds]]
    facts: Callable[[Device, str], dict[str, float]]
    arguments: Callable[[list[Row]], tuple[Any, ...]]
    time_s: Callable[..., Floats]

    @property
    def constants(self) -> type[Any]:
        return FAMILIES[self.name]


def columns(*names: str) -> Callable[[list[Row]], tuple[Any, ...]]:
    """Model arguments that are columns as they stand."""
    return lambda rows: tuple(column(rows, name) for name in names)


def column(rows: list[Row], name: str) -> Floats:
    return np.array([float(row[name]) for row in rows])


def read(path: Path) -> list[Row]:
    """Rows of a table. Raises TableError when a row has more or fewer values than the header."""
    with path.open(encoding="utf-8", newline="") as file:
        rows: list[Row] = list(csv.DictReader(file))
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise TableError(f"{path.name}, line {number}: not as many values as the header has names")
    return rows


def groups(family: Family, rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by (gpu, variant). Raises TableError when a column is missing or holds no number."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    try:
        for row in rows:
            if (variant := family.variant(row)) is not None:
                found[row["gpu"], variant].append(row)
        for part in found.values():
            for name in (*family.shapes, "latency_us"):
                column(part, name)
    except KeyError as error:
        raise TableError(f"{family.file}: no column {error.args[0]}") from None
    except ValueError as error:
        raise TableError(f"{family.file}: {error}") from None
    return dict(found)


def validation_rows(name: str, rows: list[Row], every: int = 4) -> NDArray[np.bool_]:
    """One row in `every`, at random among neighbours in latency; the seed is the name of the table's part."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    order = np.argsort(column(rows, "latency_us"), kind="stable")
    held = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(order) - 1, every):
        held[rng.choice(order[start : start + every])] = True
    return held


def relative_error(family: Family, constants: Any, rows: list[Row]) -> Floats:
    """|estimate / measurement - 1| of each row."""
    estimate = family.time_s(constants, *family.arguments(rows))
    return np.abs(estimate / (column(rows, "latency_us") * US) - 1)


def _gemm_bounds(device: Device, variant: str) -> dict[str, Bounds]:
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


def _gemm_facts(device: Device, variant: str) -> dict[str, float]:
    known = {"sms": device.sms, "element_B": ELEMENT_B[variant]}
    return known | {"quantise_Bps": 0.0} if variant == "bf16" else known


def _moe_bounds(device: Device, variant: str) -> dict[str, Bounds]:
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
    if row.get("rows"):
        return np.array([[int(count) for count in row["rows"].split()]])
    size = [int(row[name]) for name in ("num_tokens", "num_experts", "topk", "moe_ep_size")]
    return busiest_rank(row["distribution"], *size)


def _moe_arguments(rows: list[Row]) -> tuple[Any, ...]:
    drawn = []
    for row in rows:
        drawn.append([part.mean() for part in moe.count_rows(_rows_of_experts(row))])
    work = moe.ExpertRows(*np.array(drawn).T)
    inter = column(rows, "inter_size") / column(rows, "moe_tp_size")
    return work, column(rows, "num_tokens"), column(rows, "topk"), column(rows, "hidden_size"), inter


def _prefill_bounds(device: Device, variant: str) -> dict[str, Bounds]:
    peak = device.flops[variant.split("_kv_")[0]]
    return {
        "launch_s": LAUNCH,
        "math_flops": share(peak, 0.6, 0.1),
        "hbm_Bps": share(device.hbm_Bps, 0.4, 0.02),
        "sharpness": SHARPNESS,
        "tile_s": (2e-8, 1e-10, 1e-6),
        "tile_flops": share(peak / device.sms, 1.0, 0.05, 4.0),
    }


def _kv_B(device: Device, variant: str) -> dict[str, float]:
    return {"kv_B": ELEMENT_B[variant.split("kv_")[1].split("_")[0]]}


def _decode_bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": LAUNCH,
        "hbm_Bps": share(device.hbm_Bps, 0.8, 0.1),
        "sharpness": SHARPNESS,
        "row_s": (1e-9, 1e-12, 1e-7),
        **LATENCY,
    }


def _decode_mla_bounds(device: Device, variant: str) -> dict[str, Bounds]:
    peak = device.flops.get(variant.removeprefix("kv_"), device.flops["bf16"])
    return {
        "launch_s": LAUNCH,
        "math_flops": share(peak, 0.6, 0.05),
        "hbm_Bps": share(device.hbm_Bps, 0.8, 0.1),
        "sharpness": SHARPNESS,
        "head_s": (1e-9, 1e-12, 1e-6),
        **LATENCY,
    }


def _collective_bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (6 * US, 0.1 * US, 100 * US),
        "step_s": (US, 1e-10, 50 * US),
        "link_Bps": share(device.link_Bps, 0.8, 0.02),
        "half_B": (4e6, 1.0, 1e9),
        "falloff": (0.4, 0.05, 0.95),
        "spread": (1.0, 0.4, 2.0),
    }


def _all_to_all_bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "small_launch_s": (6 * US, 0.1 * US, 100 * US),
        "small_step_s": (0.5 * US, 1e-10, 50 * US),
        "small_link_Bps": share(device.link_Bps, 0.1, 0.001),
        "large_launch_s": (15 * US, US, 300 * US),
        "large_step_s": (0.5 * US, 1e-10, 50 * US),
        "large_link_Bps": share(device.link_Bps, 0.7, 0.02),
    }


def _a2a_bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (60 * US, 5 * US, 600 * US),
        "link_Bps": share(device.link_Bps, 0.4, 0.02),
        "choice_s": (1e-9, 1e-13, 1e-6),
        "sharpness": SHARPNESS,
    }


def _a2a_facts(device: Device, variant: str) -> dict[str, float]:
    return {"deduplicated": 0.0 if "_ll_" in variant else 1.0}


def _a2a_arguments(rows: list[Row]) -> tuple[Any, ...]:
    element = []
    for row in rows:
        # Combine sends bf16 whatever the label says; an unlabelled dispatch sends fp8 with a scale a 128 elements.
        default = 1 + 4 / 128 if row["comm_dtype"] == "default" else ELEMENT_B[dtype_name(row["comm_dtype"])]
        element.append(2.0 if row["phase"] == "combine" else default)
    sizes = (column(rows, name) for name in ("num_tokens", "hidden_size", "topk", "ep_size"))
    return (*sizes, np.array(element))


def _domain_bounds(device: Device, variant: str) -> dict[str, Bounds]:
    return {
        "launch_s": (10 * US, US, 100 * US),
        "step_s": (US, 1e-9, 50 * US),
        "link_Bps": share(device.link_Bps, 0.5, 0.02),
        "spread": (1.0, 0.4, 2.0),
        "choice_s": (1e-9, 1e-13, 1e-7),
        "sharpness": SHARPNESS,
    }


def _domain_arguments(rows: list[Row]) -> tuple[Any, ...]:
    """Combine sends bf16 whatever the label says; prepare exchanges counts alone."""
    sent = {"prepare": 0.0, "combine": 2.0}
    element = [sent.get(row["phase"], ELEMENT_B.get(dtype_name(row["moe_dtype"]), 2.0)) for row in rows]
    sizes = (column(rows, name) for name in ("num_tokens", "hidden_size", "topk", "ep_size"))
    return (*sizes, np.array(element))


def _domain_variant(row: Row) -> str | None:
    return a2a_key(row["comm_backend"], row["phase"]) if row["phase"] in ("prepare", "dispatch", "combine") else None


def _dtype_variant(row: Row) -> str | None:
    """Rows of dtypes that no estimate asks for, fp32 among them, are left out."""
    dtype = dtype_name(row["dtype"])
    return dtype if dtype in WEIGHT_B else None


def _prefill_variant(row: Row) -> str | None:
    math, kv = dtype_name(row["attn_dtype"]), dtype_name(row["kv_cache_dtype"])
    return prefill_key(math, kv, int(row["head_dim"])) if {math, kv} <= set(ELEMENT_B) else None


def _decode_variant(row: Row) -> str | None:
    heads, kv_heads = int(row["num_heads"]), int(row["num_key_value_heads"])
    kv = dtype_name(row["kv_cache_dtype"])
    if heads > 16 * kv_heads or kv not in ELEMENT_B:
        return None  # many heads to one: another kernel, ten times slower, that no engine would pick
    return decode_key(kv, int(row["head_dim"]), heads > kv_heads)


def _bus_factor(device: Device, variant: str) -> dict[str, float]:
    return {"bus_factor": 1.0 if variant in ("all_gather", "reduce_scatter") else 2.0}


def _nothing(device: Device, variant: str) -> dict[str, float]:
    return {}


ALL = (
    Family(
        "gemm", "op_gemm.csv", _dtype_variant, ("m", "n", "k"),
        _gemm_bounds, _gemm_facts, columns("m", "n", "k"), gemm.time_s,
    ),
    Family(
        "moe", "op_moe.csv", _dtype_variant,
        ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"),
        _moe_bounds, lambda device, variant: {"weight_B": WEIGHT_B[variant]}, _moe_arguments, moe.time_s,
    ),
    Family(
        "prefill_attention", "op_context_attention.csv", _prefill_variant,
        ("batch_size", "seq_len", "num_heads", "num_key_value_heads"), _prefill_bounds, _kv_B,
        columns("batch_size", "seq_len", "num_heads", "num_key_value_heads", "head_dim"), prefill_attention.time_s,
    ),
    Family(
        "decode_attention", "op_generation_attention.csv", _decode_variant,
        ("batch_size", "kv_len", "num_heads", "num_key_value_heads"), _decode_bounds, _kv_B,
        columns("batch_size", "kv_len", "num_heads", "num_key_value_heads", "head_dim"), decode_attention.time_s,
    ),
    Family(
        "prefill_mla", "op_context_mla.csv",
        lambda row: prefill_mla_key(dtype_name(row["mla_dtype"]), dtype_name(row["kv_cache_dtype"])),
        ("batch_size", "seq_len", "num_heads"), _prefill_bounds, _kv_B,
        columns("batch_size", "seq_len", "num_heads"), prefill_mla.time_s,
    ),
    Family(
        "decode_mla", "op_generation_mla.csv", lambda row: decode_mla_key(dtype_name(row["kv_cache_dtype"])),
        ("batch_size", "kv_len", "num_heads"), _decode_mla_bounds, _kv_B,
        columns("batch_size", "kv_len", "num_heads"), decode_mla.time_s,
    ),
    Family(
        "collective", "op_nccl.csv", lambda row: None if row["op"] == "all_to_all" else row["op"],
        ("num_gpus", "bytes"), _collective_bounds, _bus_factor, columns("num_gpus", "bytes"), collective.time_s,
    ),
    Family(
        "all_to_all", "op_nccl.csv", lambda row: "all_to_all" if row["op"] == "all_to_all" else None,
        ("num_gpus", "bytes"), _all_to_all_bounds, _nothing, columns("num_gpus", "bytes"), all_to_all.time_s,
    ),
    Family(
        "custom_allreduce", "op_custom_allreduce.csv", lambda row: row["backend"], ("num_gpus", "bytes"),
        _collective_bounds, _bus_factor, columns("num_gpus", "bytes"), custom_allreduce.time_s,
    ),
    Family(
        "moe_a2a", "op_moe_a2a.csv", lambda row: a2a_key(row["comm_backend"], row["phase"]),
        ("num_tokens", "hidden_size", "topk", "ep_size"), _a2a_bounds, _a2a_facts, _a2a_arguments, moe_a2a.time_s,
    ),
    Family(
        "domain_a2a", "op_domain_a2a.csv", _domain_variant, ("num_tokens", "hidden_size", "topk", "ep_size"),
        _domain_bounds, _nothing, _domain_arguments, domain_a2a.time_s,
    ),
)  # fmt: skip
