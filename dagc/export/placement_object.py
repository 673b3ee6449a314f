"""How `place = best` placed a phase, as an object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..plan.placement import Placement


def placement_object(placement: Placement) -> dict[str, Any]:
    """How `place = best` placed a phase, and what was tried."""
    return {
        "moved": placement.moved,
        "inside": [{"level": level, "axes": dict(axes)} for level, axes in placement.inside],
        "order": list(placement.order),
        "levels": [asdict(row) for row in placement.levels],
        "before_s": placement.before_s,
        "after_s": placement.after_s,
        "together": list(placement.together),
        "ways": placement.ways,
        "compiled": placement.priced,
        "alike": placement.alike,
        "held_back": placement.held_back,
        "complete": placement.complete,
    }
