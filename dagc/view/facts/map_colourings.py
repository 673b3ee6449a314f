"""What the GPUs of a map may be coloured by: their place along an axis, their group over it, the phases that use them."""

from __future__ import annotations

from ...base.axes import DEGREES

GROUP = "-group"
PHASES = "phases"
COLOURINGS = (*DEGREES, *(f"{axis}{GROUP}" for axis in DEGREES), PHASES)
