"""Hardware figures that compile but are probably slips: a unit of another size, bits for bytes, nodes that do not fill.

Ranges are wide, around accelerators of the years 2016 to 2028 (datasheets: from a P100 to announced racks); a figure
outside them is reported and still used.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence

from ..base.diagnostics import Collector, Label
from ..base.source import Span
from ..base.syntax import ast
from ..base.units import BYTE_RATE, TIME, UNITS, Quantity, show
from ..spec.hardware import SHORT, Level
from .body import Body

PLAUSIBLE: dict[str, tuple[float, float]] = {
    "memory": (4e9, 2e12),
    "hbm": (50e9, 60e12),
    "compute": (1e12, 200e15),
    "mfu": (0.02, 1.0),
    "mbu": (0.02, 1.0),
    "launch": (0.0, 200e-6),
    "link node.bandwidth": (1e9, 8e12),
    "link node.latency": (0.0, 200e-6),
    "link cluster.bandwidth": (0.1e9, 199e9),
    "link cluster.latency": (0.0, 2e-3),
}
"""Attribute of `hardware` -> the least and the most that is not told, in SI units of one GPU."""
WHAT = {
    "memory": "memory of one GPU", "hbm": "memory bandwidth of one GPU", "compute": "compute of one GPU",
    "link.bandwidth": "bandwidth per GPU between pools", "link.latency": "latency between pools",
    "link node.bandwidth": "bandwidth per GPU inside a node", "link cluster.bandwidth": "bandwidth per GPU between nodes",
}  # fmt: skip


def doubt_hardware(body: Body, values: Mapping[str, object], levels: Sequence[Level], out: Collector) -> None:
    """W06 for what is out of range of GPUs. `values`: read attributes by name, those of links as `link node.bandwidth`."""
    for name, value in values.items() if values.get("kind") != "cpu" else ():
        low, high = PLAUSIBLE.get(name) or PLAUSIBLE.get(name.partition(".")[0]) or (-math.inf, math.inf)
        assign = _assign(body, name, out)
        if isinstance(value, Quantity) and assign is not None and not low <= value.value <= high:
            _tell(name, value, low, high, assign, out)
    gpus = values.get("gpus")
    if isinstance(gpus, Quantity):
        for level in levels:
            _nodes(int(gpus.value), level, body, out)
    for inner, outer in itertools.pairwise(levels):
        _faster_outside(inner, outer, body, out)


def doubt_link(body: Body, values: Mapping[str, Quantity], out: Collector) -> None:
    """W06 for what is out of range of a link between pools, which is one between nodes."""
    for name, value in values.items():
        low, high = PLAUSIBLE[f"link {SHORT[1]}.{name}"]
        if not low <= value.value <= high:
            _tell(f"link.{name}", value, low, high, body.assigns[name], out)


def _faster_outside(inner: Level, outer: Level, body: Body, out: Collector) -> None:
    key = f"link {outer.name}.bandwidth"
    assign = _assign(body, key, out)
    most = PLAUSIBLE.get(key, (0.0, math.inf))[1]
    if assign is None or not inner.bandwidth_Bps < outer.bandwidth_Bps <= most:
        return
    short = (inner.name, outer.name) == SHORT
    where = ("inside a node", "between nodes") if short else (f"`link {inner.name}`", f"`link {outer.name}`")
    message = f"{where[1]} has more bandwidth than {where[0]}, which is inside it"
    if short:
        message = "the link between nodes has more bandwidth than the one inside a node"
    other = _assign(body, f"link {inner.name}.bandwidth", out)
    also = [Label(other.value.span, where[0])] if other is not None else []
    out.add("W06", message, assign.value.span, where[1], also=also, help=_bits(assign.value.span))


def _assign(body: Body, name: str, out: Collector) -> ast.Assign | None:
    section, _, attribute = name.rpartition(".")
    inner = body.sub(section, out) if section else body
    return None if inner is None else inner.assigns.get(attribute)


def _tell(name: str, value: Quantity, low: float, high: float, assign: ast.Assign, out: Collector) -> None:
    span = assign.value.span
    what = WHAT.get(name) or WHAT.get(name.partition(".")[0], f"`{name.replace('.', ' ')}`")
    side = "unusually little" if value.value < low else "unusually much"
    if value.dim == TIME:
        side = "unusually short" if value.value < low else "unusually long"
    bits = _bits(span) if value.value > high and value.dim == BYTE_RATE else ()
    out.add("W06", f"{what}: {show(value.value, value.dim)} is {side}", span, help=bits or _other_size(span, low, high))


_LITERAL = r"([0-9][0-9_.]*)[ \t]*([A-Za-z%/]*)"


def _bits(span: Span) -> tuple[str, ...]:
    """`400 GB/s` where the link has 400 Gbit/s."""
    literal = re.fullmatch(_LITERAL, span.text)
    if literal is None or not literal[2].endswith("B/s"):
        return ()
    return (f"did you mean `{literal[1]} {literal[2].removesuffix('B/s')}bit/s`? Links are sold in bits per second",)


def _other_size(span: Span, low: float, high: float) -> tuple[str, ...]:
    """The same number in a unit of another size that makes it plausible."""
    literal = re.fullmatch(_LITERAL, span.text)
    if literal is None:
        return ()
    number = float(literal[1].replace("_", ""))
    if not literal[2]:
        return (f"did you mean `{literal[1]}%`?",) if low <= number / 100 <= high else ()
    factor, dim = UNITS[literal[2]]
    if literal[2] == "%":
        return (f"did you mean `{number:g}`, which is {number:.0%}?",) if low <= number <= high else ()
    kind = "bit" in literal[2], "i" in literal[2].replace("bit", "")
    alike = [
        unit
        for unit, (other, its) in UNITS.items()
        if its == dim and ("bit" in unit, "i" in unit.replace("bit", "")) == kind and low <= number * other <= high
    ]
    best = min(
        alike,
        key=lambda u: abs(UNITS[u][0] / factor - 1e3 if UNITS[u][0] > factor else factor / UNITS[u][0] - 1e3),
        default="",
    )
    return (f"did you mean `{literal[1]} {best}`?",) if best else ()


def _nodes(gpus: int, level: Level, body: Body, out: Collector) -> None:
    """A node, or a domain of another level, that is not full is probably a slip, unless it is the only one."""
    size = level.gpus
    if size is None or gpus <= size or gpus % size == 0:
        return
    fits = [n for n in range(1, gpus + 1) if gpus % n == 0 and n <= 2 * size]
    near = sorted(sorted(fits, key=lambda n: abs(n - size))[:2])
    other = [Label(body.span_of("gpus"), f"{gpus} GPUs")] if "gpus" in body.assigns else []
    own = _assign(body, f"link {level.name}.gpus", out)
    word, what = ("per_node", "nodes") if own is None else ("gpus", f"domains of `link {level.name}`")
    one = "node" if own is None else "domain"
    out.add(
        "W06",
        f"{gpus} GPUs do not fill {what} of {size} (`{word}`): the last {one} has {gpus % size}",
        body.span_of("per_node") if own is None else own.value.span,
        also=other,
        help=(f"{word} = {' or '.join(map(str, near))} divides {gpus}",),
    )
