"""A family of measured kernels as one record: its constants, its formula, and the table that they are fitted from.

Each module of a family ends with its `FAMILY`; `families.py` lists them. What is needed to read a row of a table and to
bound a constant, and what more than one family needs, is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from ..base.frozen import record
from .constants import Device
from .shape import Floats

C = TypeVar("C")
Row = Mapping[str, str]
Arguments = Callable[[list[Row]], tuple[Any, ...]]
Bounds = tuple[float, float, float]
"""First guess, least, greatest."""

ELEMENT_B = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625, "fp4": 0.5625}
WEIGHT_B = ELEMENT_B | {"w4a16_mxfp4": 0.53125, "w4a8_mxfp4_mxfp8": 0.53125}
MATH = {"fp8_block": "fp8", "w4a16_mxfp4": "bf16", "w4a8_mxfp4_mxfp8": "fp8", "fp4": "nvfp4"}
"""dtype whose peak a kernel runs at, where it is not its own."""
SAME_KERNELS = {"bfloat16": "bf16", "float16": "bf16", "fp16": "bf16"}

US = 1e-6
LAUNCH: Bounds = (8 * US, 0.5 * US, 150 * US)
SHARPNESS: Bounds = (1.5, 0.5, 8.0)
LATENCY: Mapping[str, Bounds] = {"latency_s": (3 * US, 0.01 * US, 100 * US), "latency_power": (0.5, 0.05, 1.2)}


def no_facts(device: Device, variant: str) -> dict[str, float]:
    return {}


@record
class Family(Generic[C]):
    """`time_s(constants, *arguments(rows))` are the seconds of each row of the table `file`.

    `variant` names the constants that a row belongs to, None leaves it out; `shapes` are the columns whose range a
    calibration states, `ranges` those of them that it must state; `bounds` gives the fitted constants, `facts` the known.
    `untimed`: why `dagc measure` does not time it; empty where a job of `measure/jobs.py` writes its table.
    """

    name: str
    constants: type[C]
    time_s: Callable[..., Floats]
    file: str
    variant: Callable[[Row], str | None]
    shapes: tuple[str, ...]
    bounds: Callable[[Device, str], dict[str, Bounds]]
    arguments: Arguments
    facts: Callable[[Device, str], dict[str, float]] = no_facts
    ranges: tuple[str, ...] = ()
    untimed: str = ""


def dtype_name(text: str) -> str:
    """Name of a dtype in the variants: fp16 and bf16 take the same time."""
    return SAME_KERNELS.get(text, text)


def dtype_variant(row: Row) -> str | None:
    """Rows of dtypes that no estimate asks for, fp32 among them, are left out."""
    dtype = dtype_name(row["dtype"])
    return dtype if dtype in WEIGHT_B else None


def share(peak: float, guess: float, least: float, greatest: float = 1.0) -> Bounds:
    """Bounds of a rate as shares of its peak."""
    return guess * peak, least * peak, greatest * peak


def columns(*names: str) -> Arguments:
    """Model arguments that are columns of the table, unchanged."""
    return lambda rows: tuple(column(rows, name) for name in names)


def column(rows: list[Row], name: str) -> Floats:
    return np.array([float(row[name]) for row in rows])


def kv_bytes(device: Device, variant: str) -> dict[str, float]:
    """Bytes of a cached element, from a variant like `bf16_kv_fp8_hd128`."""
    return {"kv_B": ELEMENT_B[variant.split("kv_")[1].split("_")[0]]}
