"""A family of measured kernels as one record: its constants, its formula, and the tables that they are fitted from.

Each module of a family ends with its `FAMILY`; `families.py` lists them. What is needed to read a row of a table and to
bound a constant, and what more than one family needs, is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np

from ..base.frozen import record, replace
from .constants import Device, Entry
from .shape import Floats, floats

C = TypeVar("C")
Row = Mapping[str, str]
Arguments = Callable[[list[Row]], tuple[Any, ...]]
Bounds = tuple[float, float, float]
"""First guess, least, greatest."""

ELEMENT_B = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625, "fp4": 0.5625}
WEIGHT_B = ELEMENT_B | {"w4a16_mxfp4": 0.53125, "w4a8_mxfp4_mxfp8": 0.53125, "int4_wo": 0.53125, "w4afp8": 0.53125}
MATH = {
    "fp8_block": "fp8", "w4a16_mxfp4": "bf16", "w4a8_mxfp4_mxfp8": "fp8", "fp4": "nvfp4", "int4_wo": "bf16",
    "w4afp8": "fp8",
}  # fmt: skip
"""dtype whose peak a kernel runs at, where it is not its own."""
SAME_KERNELS = {"bfloat16": "bf16", "float16": "bf16", "fp16": "bf16"}

US = 1e-6
LAUNCH: Bounds = (8 * US, 0.5 * US, 150 * US)
SHARPNESS: Bounds = (1.5, 0.5, 8.0)
LATENCY: Mapping[str, Bounds] = {"latency_s": (3 * US, 0.01 * US, 100 * US), "latency_power": (0.5, 0.05, 1.2)}


def no_substitutes(variant: str) -> tuple[str, ...]:
    return ()


def no_facts(device: Device, variant: str) -> dict[str, float]:
    return {}


ENGINES = ("trtllm", "vllm", "sglang")
COMMON = "common"
"""In the place of an engine, for kernels that belong to none."""


def as_is(row: Row) -> Row | None:
    return row


def renamed(**columns: str) -> Callable[[Row], Row | None]:
    """Rows with columns under the family's names: `renamed(dtype="gemm_dtype")` reads dtype from gemm_dtype."""
    return lambda row: {**row, **{name: row[column] for name, column in columns.items()}}


def all_of(rows: Sequence[Row]) -> Sequence[Row]:
    return rows


def by_backend(row: Row) -> str:
    backend = row.get("backend", "")
    return backend if backend in ENGINES else COMMON


@record
class Table:
    """A CSV of measurements. `adapt`: a row under the family's own column names (None leaves it out); `engine`: whose
    kernel a row timed; `select`: the rows that tell the time of a kernel, before either."""

    file: str
    adapt: Callable[[Row], Row | None] = as_is
    engine: Callable[[Row], str] = by_backend
    select: Callable[[Sequence[Row]], Sequence[Row]] = all_of


def log_sizes(*arguments: Any) -> Floats:
    """log2 of every argument [rows, d], the fields of tuples one by one."""
    flat: list[Floats] = []
    for argument in arguments:
        flat += [floats(part) for part in argument] if isinstance(argument, tuple) else [floats(argument)]
    if all(part.ndim == 0 for part in flat):
        return np.asarray(np.log2(np.maximum(np.array([flat]), LEAST_SIZE)))
    columns = [part.ravel() for part in np.broadcast_arrays(*flat)]
    return np.asarray(np.log2(np.maximum(np.stack(columns, axis=1), LEAST_SIZE)))


LEAST_SIZE = 2.0**-10
LENGTH = 2.0
"""Octaves over which a residual changes, where a family does not say."""


def own_kernel(engine: str, variant: str) -> tuple[str, str]:
    return engine, variant


@record
class Family(Generic[C]):
    """`time_s(constants, *arguments(rows))` are the seconds of each row of the tables, by formula alone; `estimate_s` with
    what was learned of its misses over `features(*arguments)`, which change over `lengths` octaves, one for each feature.

    `file` is the family's own table, `tables` are further ones. `variant` names the constants that a row belongs to, None
    leaves it out; `shapes` are the columns whose range a calibration states, `ranges` those of them that it must state;
    `unseen` the columns that say which shape a row has; `kernels(engine, variant)` is the same
    where engines call the same kernel; `bounds` gives the fitted constants, `facts` the known. `substitutes`:
    variants that may take the place of one that nobody measured. `untimed`: why `dagc measure` does not time it; empty where a
    job of `measure/jobs.py` writes its table.
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
    tables: tuple[Table, ...] = ()
    features: Callable[..., Floats] = log_sizes
    lengths: tuple[float, ...] = ()
    unseen: tuple[str, ...] = ()
    substitutes: Callable[[str], tuple[str, ...]] = no_substitutes
    kernels: Callable[[str, str], tuple[str, str]] = own_kernel

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def sources(self) -> tuple[Table, ...]:
        """Its own table, then the others."""
        return (Table(self.file), *self.tables)

    def estimate_s(self, entry: Entry[C], *arguments: Any) -> Floats:
        """Seconds by formula and residual; never faster than the formula at the bounds of its constants."""
        plain = self.time_s(entry.constants, *arguments)
        below = entry.over.residuals if entry.over is not None else ()
        residuals = [each for each in (entry.residual, *below) if each is not None]
        if not residuals:
            return plain
        features = self.features(*arguments)
        factor = np.exp(sum(each.log_factor(features) for each in residuals))
        fastest = self.time_s(_fastest(self, entry), *arguments)
        return floats(np.maximum(plain * factor.reshape(plain.shape), fastest))


FASTER_IF_MORE = ("_Bps", "_flops", "sharpness")
FASTER_IF_LESS = ("_s",)
"""Ends of the names of constants."""


@lru_cache(maxsize=256)
def _fastest(family: Family[Any], entry: Entry[Any]) -> Any:
    """Constants at their bounds, as far as a name says which bound is the faster."""
    bounds = family.bounds(entry.device, entry.variant)
    most = {name: ends[2] for name, ends in bounds.items() if name.endswith(FASTER_IF_MORE)}
    least = {name: ends[1] for name, ends in bounds.items() if name.endswith(FASTER_IF_LESS)}
    now = entry.constants
    kept = {name: max(value, getattr(now, name)) for name, value in most.items()}
    return replace(now, **kept, **{name: min(value, getattr(now, name)) for name, value in least.items()})


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
