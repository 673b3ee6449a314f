"""Widths of attention heads: engines have a kernel for each of a few, so constants are fitted by class of width.

Heads up to 128 wide share a class; 256 wide with a window is a class of its own, as engines fall back to another kernel.
"""

from __future__ import annotations

from math import log

CLASSES = (128, 192, 256, 512)
WINDOWED = 256
"""The class in which windows change the kernel."""


def width_class(width: float, windowed: bool) -> str:
    """`hd128`: the narrowest class that a head fits into; `hd256w` with a window."""
    return _name(next((each for each in CLASSES if width <= each), CLASSES[-1]), windowed)


def classes_near(width: float, windowed: bool) -> tuple[str, ...]:
    """The class of a width, then the others from the nearest on."""
    own = width_class(width, windowed)
    others = sorted(CLASSES, key=lambda each: abs(log(each / width)))
    names = [_name(each, as_here) for each in others for as_here in (windowed, not windowed)]
    return tuple(dict.fromkeys([own, *names]))


def _name(width: int, windowed: bool) -> str:
    return f"hd{width}{'w' if windowed and width == WINDOWED else ''}"
