"""How far estimates of whole phases were from servings that were measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from .constants import folder


@dataclass(frozen=True, slots=True)
class PhaseError:
    """|estimate / measurement - 1| over `cases`, of a kind of phase on calibrated GPUs. Made by `tools/accuracy.py`."""

    median: float
    p90: float
    cases: int


@lru_cache(maxsize=1)
def phase_errors() -> dict[str, PhaseError]:
    """By kind of phase: `prefill` (time to the first token), `decode` (time of a token)."""
    kinds = json.loads((folder() / "accuracy.json").read_text(encoding="utf-8"))["phases"]
    return {kind: PhaseError(**fields) for kind, fields in kinds.items()}
