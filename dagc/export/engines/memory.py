"""The share of a GPU that an engine is told to fill, so that it holds what the plan does."""

from __future__ import annotations

from math import ceil, floor

from ...cost.footprint import StageMemory
from ...spec.engines import ENGINES, engine_memory
from .draft import ServerDraft

COUNTS = {name: engine.of for name, engine in ENGINES.items()}
"""What the fraction of each engine is a share of (`EngineMemory.of`)."""


def memory_share(draft: ServerDraft) -> object:
    """What the plan says; else the engine's own share, moved as far as needed to hold what the plan counts and to leave what
    it counts beside. None where no phase is compiled."""
    said = [phase.memory for phase in draft.layout.phases if "memory_fraction" in phase.spans]
    if said:
        share = min(memory.fraction for memory in said)
        if all(memory.of == COUNTS[draft.engine] for memory in said):
            return share
        draft.note(f"memory_fraction = {share:g} counts differently from its own share: `engine = {draft.engine}` fits")
    bounds = [_bounds(draft.engine, s, m.total_B) for m in draft.memory.values() for s in m.stages]
    if not bounds:
        return None
    least, most = max(low for low, _ in bounds), min(high for _, high in bounds)
    usual = _usual(draft)
    if usual < least:
        return _shown(min(ceil(least * 100) / 100, max(least, most)))
    return _shown(usual if usual <= most else max(floor(most * 100) / 100, least))


def _bounds(engine: str, held: StageMemory, total_B: float) -> tuple[float, float]:
    """The shares between which weights and cache of the plan have room, and what else there is, too."""
    inside = held.weights_B + held.kv_cache_B
    beside = held.activations_B + held.buffers_B + held.engine_B
    if COUNTS[engine] == "all":
        return (inside + beside) / total_B, 1 - held.reserve_B / total_B
    if COUNTS[engine] == "static":
        return inside / total_B, 1 - (beside + held.reserve_B) / total_B
    free_B = total_B - held.weights_B - beside
    if free_B <= held.kv_cache_B:
        return 1.0, 1.0
    return held.kv_cache_B / free_B, max(held.kv_cache_B / free_B, 1 - held.reserve_B / free_B)


def _usual(draft: ServerDraft) -> float:
    """The engine's own, as if it had the plan's batch in a step."""
    one = draft.layout
    return engine_memory(draft.engine, one.spec.hardware, one.strategy, len(one.gpus) // one.degree["pp"]).fraction


def _shown(share: float) -> float:
    return round(min(share, 0.99), 3)
