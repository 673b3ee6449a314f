"""What the host of an engine takes in serving: constants of its steps and requests, as data of the library."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..base.frozen import record


@record
class HostConstants:
    """Seconds of every step, of every layer that the host launches (None: those of the phase), and of every request before it
    is scheduled; `prompt_factor`: what prompts add to a step, over what their kernels take. `source`: where they come from; empty for an engine of which nothing is known."""

    host_s: float = 0.0
    launch_s: float | None = None
    request_s: float = 0.0
    prompt_factor: float = 1.0
    source: str = ""


def constants(engine: str | None, calibration: str | None = None) -> HostConstants:
    """Of an engine (None: none is named), on the GPU of a calibration where that was measured apart."""
    entry = _data()["engines"].get(engine)
    if entry is None:
        return HostConstants()
    own = {**entry, **entry.get("gpus", {}).get(calibration, {})}
    launch_ms = own.get("launch_ms")
    return HostConstants(
        own["host_ms"] * 1e-3,
        None if launch_ms is None else launch_ms * 1e-3,
        own["request_ms"] * 1e-3,
        own.get("prompt_factor", 1.0),
        own["source"],
    )


def host_link_Bps() -> float:
    """Between the memories of a GPU and of its host."""
    return float(_data()["host_link"]["Bps"])


@lru_cache(maxsize=1)
def _data() -> Any:
    import json

    from ..base.packaged import folder

    path = folder("dagc.grammar.library") / "serving" / "engines.json"
    return json.loads(path.read_text(encoding="utf-8"))
