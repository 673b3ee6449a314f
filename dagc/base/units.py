"""Units and dimension-checked numbers.

A dimension is a tuple of exponents over (second, byte, FLOP, token, request, joule, money); everything else is a plain count.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from .frozen import record

Dim = tuple[int, int, int, int, int, int, int]

SCALAR: Dim = (0, 0, 0, 0, 0, 0, 0)
TIME: Dim = (1, 0, 0, 0, 0, 0, 0)
BYTES: Dim = (0, 1, 0, 0, 0, 0, 0)
FLOPS: Dim = (0, 0, 1, 0, 0, 0, 0)
TOKENS: Dim = (0, 0, 0, 1, 0, 0, 0)
REQUESTS: Dim = (0, 0, 0, 0, 1, 0, 0)
BYTE_RATE: Dim = (-1, 1, 0, 0, 0, 0, 0)
FLOP_RATE: Dim = (-1, 0, 1, 0, 0, 0, 0)
TOKEN_RATE: Dim = (-1, 0, 0, 1, 0, 0, 0)
REQUEST_RATE: Dim = (-1, 0, 0, 0, 1, 0, 0)
BYTES_PER_TOKEN: Dim = (0, 1, 0, -1, 0, 0, 0)
FLOPS_PER_TOKEN: Dim = (0, 0, 1, -1, 0, 0, 0)
ENERGY: Dim = (0, 0, 0, 0, 0, 1, 0)
POWER: Dim = (-1, 0, 0, 0, 0, 1, 0)
ENERGY_PER_TOKEN: Dim = (0, 0, 0, -1, 0, 1, 0)
MONEY: Dim = (0, 0, 0, 0, 0, 0, 1)
MONEY_RATE: Dim = (-1, 0, 0, 0, 0, 0, 1)
MONEY_PER_TOKEN: Dim = (0, 0, 0, -1, 0, 0, 1)
MONEY_PER_REQUEST: Dim = (0, 0, 0, 0, -1, 0, 1)

_PREFIX = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def _table() -> dict[str, tuple[float, Dim]]:
    units: dict[str, tuple[float, Dim]] = {"%": (0.01, SCALAR), "k": (1e3, SCALAR), "M": (1e6, SCALAR)}
    units |= {"s": (1.0, TIME), "ms": (1e-3, TIME), "us": (1e-6, TIME), "ns": (1e-9, TIME)}
    units |= {"req": (1.0, REQUESTS), "req/s": (1.0, REQUEST_RATE), "req/min": (1 / 60, REQUEST_RATE)}
    units |= {"tok": (1.0, TOKENS), "tok/s": (1.0, TOKEN_RATE), "tok/ms": (1e3, TOKEN_RATE)}
    units |= {
        "$": (1.0, MONEY),
        "$/h": (1 / 3600, MONEY_RATE),
        "$/s": (1.0, MONEY_RATE),
        "$/req": (1.0, MONEY_PER_REQUEST),
    }
    units |= {"$/tok": (1.0, MONEY_PER_TOKEN), "$/Mtok": (1e-6, MONEY_PER_TOKEN)}
    for prefix in ("", "k", "M"):
        units[f"{prefix}W"] = (_PREFIX[prefix], POWER)
        units[f"{prefix}J"] = (_PREFIX[prefix], ENERGY)
        units[f"{prefix}Wh"] = (3600 * _PREFIX[prefix], ENERGY)
    units |= {"J/tok": (1.0, ENERGY_PER_TOKEN)}
    for prefix, scale in (_PREFIX | _BINARY).items():
        units[f"{prefix}B"] = (scale, BYTES)
        units[f"{prefix}B/s"] = (scale, BYTE_RATE)
        units[f"{prefix}bit"] = (scale / 8, BYTES)
        units[f"{prefix}bit/s"] = (scale / 8, BYTE_RATE)
        units[f"{prefix}B/tok"] = (scale, BYTES_PER_TOKEN)
    for prefix, scale in _PREFIX.items():
        units[f"{prefix}FLOP"] = (scale, FLOPS)
        units[f"{prefix}FLOP/s"] = (scale, FLOP_RATE)
        units[f"{prefix}FLOP/tok"] = (scale, FLOPS_PER_TOKEN)
    return units


UNITS: dict[str, tuple[float, Dim]] = _table()
"""Unit as written -> (factor to SI base units, dimension)."""

BASE = ("s", "B", "FLOP", "tok", "req", "J", "$")
_NAMED = {POWER: "W"}
"""Dimensions whose unit has a name of its own."""


def dim_name(dim: Dim) -> str:
    """A dimension in words: `B/s`, `tok`, or `a plain number`."""
    if dim == SCALAR:
        return "a plain number"
    if dim in _NAMED:
        return _NAMED[dim]
    up = [b if e == 1 else f"{b}^{e}" for b, e in zip(BASE, dim, strict=True) if e > 0]
    down = [b if e == -1 else f"{b}^{-e}" for b, e in zip(BASE, dim, strict=True) if e < 0]
    return ("*".join(up) or "1") + ("/" + "/".join(down) if down else "")


def unit_name(dim: Dim) -> str:
    """The SI unit as data has it: `B/s`, `tok`, or `1`."""
    return "1" if dim == SCALAR else dim_name(dim)


_WORDS: dict[Dim, str] = {
    SCALAR: "a plain number",
    TIME: "a time (s)",
    BYTES: "a size (B)",
    FLOPS: "an amount of work (FLOP)",
    TOKENS: "a number of tokens (tok)",
    BYTE_RATE: "a bandwidth (B/s)",
    FLOP_RATE: "a compute rate (FLOP/s)",
    TOKEN_RATE: "a token rate (tok/s)",
    REQUESTS: "a number of requests (req)",
    REQUEST_RATE: "a rate of requests (req/s)",
    ENERGY: "an energy (J)",
    POWER: "a power (W)",
    ENERGY_PER_TOKEN: "an energy per token (J/tok)",
    MONEY: "an amount of money ($)",
    MONEY_RATE: "a price per time ($/h)",
    MONEY_PER_TOKEN: "a price per token ($/Mtok)",
    MONEY_PER_REQUEST: "a price per request ($/req)",
}


EXAMPLES: dict[Dim, str] = {
    TIME: "5 us", BYTES: "80 GB", TOKENS: "4096 tok", BYTE_RATE: "450 GB/s", FLOP_RATE: "989 TFLOP/s", TOKEN_RATE: "100 tok/s",
    REQUESTS: "1000 req", REQUEST_RATE: "12 req/s", POWER: "700 W", MONEY_RATE: "2 $/h",
    MONEY_PER_TOKEN: "0.5 $/Mtok", ENERGY_PER_TOKEN: "1 J/tok", MONEY_PER_REQUEST: "0.01 $/req",
}  # fmt: skip


def dim_words(dim: Dim) -> str:
    """What a quantity of this dimension is: `a size (B)`."""
    return _WORDS.get(dim) or f"a quantity in {dim_name(dim)}"


_SPELT = {
    "seconds": "s", "second": "s", "sec": "s", "secs": "s", "msec": "ms", "usec": "us", "tokens": "tok", "token": "tok",
    "milliseconds": "ms", "millisecond": "ms", "millis": "ms", "microseconds": "us", "microsecond": "us", "minutes": "min", "hours": "h",
    "tokens/s": "tok/s", "token/s": "tok/s", "tps": "tok/s", "bytes": "B", "byte": "B", "percent": "%", "G": "e9", "B/sec": "B/s",
    "K": "k", "requests": "req", "request": "req", "reqs": "req", "requests/s": "req/s", "request/s": "req/s", "rps": "req/s",
    "qps": "req/s", "rpm": "req/min", "watt": "W", "watts": "W", "joule": "J", "joules": "J", "USD": "$", "dollars": "$",
    "$/hour": "$/h", "$/hr": "$/h", "$/token": "$/tok", "$/request": "$/req", "$/MTok": "$/Mtok",
}  # fmt: skip


def meant_unit(unit: str) -> str:
    """The unit that an unknown one may be, in backticks; nothing where none is near. A small b may be bits or bytes."""
    from .suggest import did_you_mean

    prefix = next((p for p in (*_BINARY, *_PREFIX) if p and unit.lower().startswith(p.lower())), "")
    tail = unit[len(prefix) :]
    if tail == "bps":
        return f"`{prefix}bit/s`"
    if tail in ("b", "b/s", "bits", "bits/s"):
        rate = "/s" if tail.endswith("/s") else ""
        return f"`{prefix}bit{rate}` (bits) or `{prefix}B{rate}` (bytes)"
    if tail == "Bps":
        return f"`{prefix}B/s`"
    if tail in ("FLOPs", "flops"):
        return f"`{prefix}FLOP/s` (a rate) or `{prefix}FLOP` (work)"
    spelling = _SPELT.get(unit) or (f"{prefix}FLOP/s" if tail == "FLOPS" else None)
    spelling = spelling or did_you_mean(
        unit, UNITS if len(unit) > 2 else [u for u in UNITS if u.lower() == unit.lower()]
    )
    return f"`{spelling}`" if spelling else ""


class DimensionError(ValueError):
    """Two quantities of different dimension met in `+`, `-` or a comparison."""


@record
class Quantity:
    """A number in SI base units with its dimension."""

    value: float
    dim: Dim = SCALAR

    def __add__(self, other: Quantity) -> Quantity:
        self._same(other, "+")
        return Quantity(self.value + other.value, self.dim)

    def __sub__(self, other: Quantity) -> Quantity:
        self._same(other, "-")
        return Quantity(self.value - other.value, self.dim)

    def __mul__(self, other: Quantity) -> Quantity:
        return Quantity(self.value * other.value, _combine(self.dim, other.dim, 1))

    def __truediv__(self, other: Quantity) -> Quantity:
        return Quantity(self.value / other.value, _combine(self.dim, other.dim, -1))

    def __neg__(self) -> Quantity:
        return Quantity(-self.value, self.dim)

    def _same(self, other: Quantity, op: str) -> None:
        if self.dim != other.dim:
            raise DimensionError(f"`{op}` needs equal units: {dim_words(self.dim)} against {dim_words(other.dim)}")


def _combine(a: Dim, b: Dim, sign: int) -> Dim:
    return (
        a[0] + sign * b[0], a[1] + sign * b[1], a[2] + sign * b[2], a[3] + sign * b[3], a[4] + sign * b[4],
        a[5] + sign * b[5], a[6] + sign * b[6],
    )  # fmt: skip


_DISPLAY: dict[Dim, tuple[tuple[float, str], ...]] = {
    TIME: ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    BYTES: ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    BYTE_RATE: ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")),
    FLOPS: ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"), (1.0, "FLOP")),
    FLOP_RATE: ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1.0, "FLOP/s")),
    TOKEN_RATE: ((1.0, "tok/s"),),
    TOKENS: ((1.0, "tok"),),
    REQUEST_RATE: ((1.0, "req/s"),),
    REQUESTS: ((1.0, "req"),),
    ENERGY: ((1e6, "MJ"), (1e3, "kJ"), (1.0, "J")),
    POWER: ((1e6, "MW"), (1e3, "kW"), (1.0, "W")),
    ENERGY_PER_TOKEN: ((1.0, "J/tok"),),
    MONEY: ((1.0, "$"),),
    MONEY_RATE: ((1 / 3600, "$/h"),),
    MONEY_PER_TOKEN: ((1e-6, "$/Mtok"),),
    MONEY_PER_REQUEST: ((1.0, "$/req"),),
    FLOPS_PER_TOKEN: ((1e12, "TFLOP/tok"), (1e9, "GFLOP/tok"), (1e6, "MFLOP/tok"), (1.0, "FLOP/tok")),
    BYTES_PER_TOKEN: ((1e9, "GB/tok"), (1e6, "MB/tok"), (1e3, "kB/tok"), (1.0, "B/tok")),
}


_COUNTS = frozenset((TOKENS, REQUESTS))
"""What is counted and not measured: every digit means something."""


def number(value: float, digits: int = 4, *, zeros: bool = False) -> str:
    """Significant digits, thousands set apart: `134,300`, `22.48`. `zeros`: those at the end are kept, as columns want them."""
    if not isfinite(value):
        return f"{value:g}"
    if abs(value) < 10 ** (digits - 1):
        return f"{value:#.{digits}g}".rstrip(".") if zeros else f"{value:.{digits}g}"
    return f"{float(f'{value:.{digits - 1}e}'):,.0f}"


def parameters(count: float) -> str:
    """So many parameters as people say it: `452.3M`, `46.7B`, `1.026T`."""
    return f"{number(count / 1e9)}B" if 1e9 <= count < 1e12 else show(count)


def show(value: float, dim: Dim = SCALAR, digits: int = 4) -> str:
    """A quantity for people, the one way in which every report and picture has it: `5.369 GB`, `83,200 tok/s`, `9.8 ms`."""
    for factor, unit in _DISPLAY.get(dim, ()):
        if abs(value) >= factor or factor == _DISPLAY[dim][-1][0]:
            if dim in _COUNTS and abs(value) >= 10**digits:
                return f"{value:,.0f} {unit}"
            return f"{number(value / factor, digits)} {unit}"
    if dim != SCALAR:
        return f"{value:.{digits}g} {dim_name(dim)}"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value)}"
    for factor, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{value / factor:.{digits}g}{suffix if suffix != 'B' else 'e9'}"
    return f"{value:.{digits}g}"


def runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive ids as (first, last), in the order given: 0 1 2 8 -> (0, 2), (8, 8)."""
    runs: list[tuple[int, int]] = []
    for i in ids:
        if runs and i == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], i)
        else:
            runs.append((i, i))
    return runs


def show_runs(ids: Iterable[int], *, separator: str = ", ", most: int | None = None) -> str:
    """`0..15, 32..47`; with `most`, the rest is counted."""
    parts = [str(a) if a == b else f"{a}..{b}" for a, b in runs(ids)]
    more = f"{separator}and {len(parts) - most} more runs" if most is not None and len(parts) > most else ""
    return separator.join(parts[:most]) + more
