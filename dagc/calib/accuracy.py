"""How far compiled phases were from servings that were measured."""

from __future__ import annotations

import json
from functools import lru_cache

from ..base.frozen import record
from ..base.phase_kinds import DECODE, PREFILL
from .constants import folder

BESIDE = {PREFILL.name: "a request also waits", DECODE.name: "a server also prefills between steps"}
"""What a server does that one pass does not."""


@record
class PhaseError:
    """|estimate / measurement - 1| over `cases`, of a compiled phase alone against what a server measured, on calibrated
    GPUs; `bias`: the median of the signed error, negative where the phase is too fast. Written by `tools/accuracy.py`."""

    median: float
    p90: float
    bias: float
    cases: int


@lru_cache(maxsize=1)
def phase_errors() -> dict[str, PhaseError]:
    """By kind of phase: `prefill` (against the time to first token), `decode` (against the time per output token)."""
    kinds = json.loads((folder() / "accuracy.json").read_text(encoding="utf-8"))["phases"]
    return {kind: PhaseError(**fields) for kind, fields in kinds.items()}
