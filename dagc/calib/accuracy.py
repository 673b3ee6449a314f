"""How far compiled phases were from servings that were measured."""

from __future__ import annotations

import json
from functools import lru_cache

from ..base.frozen import record
from ..base.phase_kinds import DECODE, PREFILL
from .known_gpus import folder

BESIDE = {PREFILL.name: "a request also waits", DECODE.name: "a server also prefills between steps"}
"""What a server does that one pass does not."""


@record
class PhaseError:
    """|estimate / measurement - 1| over `cases`, of a compiled phase alone against what a server measured; `bias`: the median of the signed error, negative where the phase is too fast. Written by `tools/accuracy.py`."""

    median: float
    p90: float
    bias: float
    cases: int


OWN, ANOTHER_GPU, ROOFLINE = "phases", "another_gpu", "roofline"
"""Whose kernels priced the phases: those of their GPU and engine; those of the nearest other GPU; none."""
PRICED = {OWN: "", ANOTHER_GPU: " priced with kernels of another GPU", ROOFLINE: " priced by the roofline"}
"""In words."""
SUBSTITUTED = 0.1
"""Share of the critical path from which on tables of another GPU or engine decide how sure a phase is."""


@lru_cache(maxsize=4)
def phase_errors(kernels: str = OWN) -> dict[str, PhaseError]:
    """By kind of phase: `prefill` (against the time to first token), `decode` (against the time per output token)."""
    kinds = json.loads((folder() / "accuracy.json").read_text(encoding="utf-8"))[kernels]
    return {kind: PhaseError(**fields) for kind, fields in kinds.items()}


def kernels_of(measured: float, substituted: float) -> str:
    """Which errors hold for a phase, by the shares of its critical path that measured kernels and substitutes for them price."""
    return ROOFLINE if not measured else ANOTHER_GPU if substituted >= SUBSTITUTED else OWN


SERVED = ("ttft", "tpot", "e2e")
"""What of a simulated serving was compared with servings that were measured."""


@lru_cache(maxsize=8)
def serving_errors(engine: str = "") -> dict[str, PhaseError]:
    """By time of a request: of simulated servings of an engine against measured ones, of models that nothing was fitted to. Of all
    engines where none is named or none of its own was measured; empty where there is none at all."""
    found = json.loads((folder() / "accuracy.json").read_text(encoding="utf-8")).get("servings", {})
    own = found.get(engine) or found.get("") or {}
    return {time: PhaseError(**own[time]) for time in SERVED if time in own}
