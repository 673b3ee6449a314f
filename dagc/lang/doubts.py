"""Hardware figures that compile but are probably slips: a unit of another size, bits for bytes, nodes that do not fill.

Ranges are wide, around accelerators of the years 2016 to 2028 (datasheets: from a P100 to announced racks); a figure
outside them is reported and still used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..base.diagnostics import Collector, Label
from ..base.source import Span
from ..base.syntax import ast
from ..base.units import BYTE_RATE, UNITS, Quantity, show
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
    "link node.bandwidth": "bandwidth per GPU inside a node", "link cluster.bandwidth": "bandwidth per GPU between nodes",
}  # fmt: skip


def doubt_hardware(body: Body, values: Mapping[str, object], out: Collector) -> None:
    """W06 for what is out of range. `values`: read attributes by name, those of links as `link node.bandwidth`."""
    for name, value in values.items():
        low, high = PLAUSIBLE.get(name) or PLAUSIBLE.get(name.partition(".")[0]) or (-math.inf, math.inf)
        assign = _assign(body, name, out)
        if isinstance(value, Quantity) and assign is not None and not low <= value.value <= high:
            _tell(name, value, low, high, assign, out)
    gpus, per_node = values.get("gpus"), values.get("per_node")
    if isinstance(gpus, Quantity) and isinstance(per_node, Quantity):
        _nodes(int(gpus.value), int(per_node.value), body, out)
    node, cluster = values.get("link node.bandwidth"), values.get("link cluster.bandwidth")
    assign = _assign(body, "link cluster.bandwidth", out)
    if not isinstance(node, Quantity) or not isinstance(cluster, Quantity) or assign is None:
        return
    if node.value < cluster.value <= PLAUSIBLE["link cluster.bandwidth"][1]:
        other = _assign(body, "link node.bandwidth", out)
        also = [Label(other.value.span, "inside a node")] if other is not None else []
        message = "the link between nodes has more bandwidth than the one inside a node"
        out.add("W06", message, assign.value.span, "between nodes", also=also, help=_bits(assign.value.span))


def _assign(body: Body, name: str, out: Collector) -> ast.Assign | None:
    section, _, attribute = name.rpartition(".")
    inner = body.sub(section, out) if section else body
    return None if inner is None else inner.assigns.get(attribute)


def _tell(name: str, value: Quantity, low: float, high: float, assign: ast.Assign, out: Collector) -> None:
    span = assign.value.span
    what = WHAT.get(name) or WHAT.get(name.partition(".")[0], f"`{name.replace('.', ' ')}`")
    side = "unusually little" if value.value < low else "unusually much"
    if value.dim == (1, 0, 0, 0):
        side = "unusually short" if value.value < low else "unusually long"
    bits = _bits(span) if value.value > high and value.dim == BYTE_RATE else ()
    out.add("W06", f"{what}: {show(value.value, value.dim)} is {side}", span, help=bits or _other_size(span, low, high))


_LITERAL = re.compile(r"([0-9][0-9_.]*)[ \t]*([A-Za-z%/]*)")


def _bits(span: Span) -> tuple[str, ...]:
    """`400 GB/s` where the link has 400 Gbit/s."""
    literal = _LITERAL.fullmatch(span.text)
    if literal is None or not literal[2].endswith("B/s"):
        return ()
    return (f"did you mean `{literal[1]} {literal[2].removesuffix('B/s')}bit/s`? Links are sold in bits per second",)


def _other_size(span: Span, low: float, high: float) -> tuple[str, ...]:
    """The same number in a unit of another size that makes it plausible."""
    literal = _LITERAL.fullmatch(span.text)
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


def _nodes(gpus: int, per_node: int, body: Body, out: Collector) -> None:
    """A node that is not full is probably a slip, unless it is the only one."""
    if gpus <= per_node or gpus % per_node == 0:
        return
    fits = [n for n in range(1, gpus + 1) if gpus % n == 0 and n <= 2 * per_node]
    near = sorted(sorted(fits, key=lambda n: abs(n - per_node))[:2])
    other = [Label(body.span_of("gpus"), f"{gpus} GPUs")] if "gpus" in body.assigns else []
    out.add(
        "W06",
        f"{gpus} GPUs do not fill nodes of {per_node} (`per_node`): the last node has {gpus % per_node}",
        body.span_of("per_node"),
        also=other,
        help=(f"per_node = {' or '.join(map(str, near))} divides {gpus}",),
    )
