"""Memory in words, for every report: what GPUs of each stage hold, what phases hold together, what still fits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from math import isfinite

from ..base.units import BYTES, TOKENS, show
from ..cost.footprint import StageMemory
from ..spec.phase import EngineMemory
from .plan import CompiledPlan, cached_tokens
from .pools import heading, listed, text
from .result import PhaseResult

PARTS = (
    ("weights", "weights_B"),
    ("KV cache", "kv_cache_B"),
    ("activations", "activations_B"),
    ("buffers", "buffers_B"),
    ("reserve", "reserve_B"),
    ("engine", "engine_B"),
)
"""What a GPU holds, in the order in which every report names it, and the field of a stage's memory."""


def parts(stage: StageMemory) -> dict[str, float]:
    """Bytes by field, and their sum."""
    return {field: getattr(stage, field) for _, field in PARTS} | {"peak_B": stage.peak_B}


HEAD = ("stage", *(name for name, _ in PARTS), "in all", "room for cache")
BRIEF = ("stage", "weights", "KV cache", "other", "in all", "room for cache")


def stage_rows(plan: CompiledPlan, result: PhaseResult, *, brief: bool = False) -> list[tuple[str, ...]]:
    """Cells of `HEAD`, or of `BRIEF`, for every stage; neighbours that hold the same share a row."""
    rooms = dict(zip(result.memory.stages, plan.kv_tokens(result.name), strict=True))
    out = []
    for (_, cells), stages in groupby(result.memory.stages, lambda s: (s.on, _cells(s, rooms[s], brief))):
        alike = list(stages)
        numbers = [s.stage for s in alike]
        name = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]}"
        out.append((alike[0].on or name, *cells))
    return out


def _cells(stage: StageMemory, room: float, brief: bool) -> tuple[str, ...]:
    parts = [getattr(stage, field) for _, field in PARTS]
    sizes = (show(part, BYTES, 3) for part in ([*parts[:2], sum(parts[2:])] if brief else parts))
    whole = f"{show(stage.peak_B, BYTES, 3)} ({stage.peak_B / stage.capacity_B:.1%})"
    return (*sizes, whole, show(room, TOKENS) if isfinite(room) else "no cache")


def limit_text(result: PhaseResult, memory: EngineMemory) -> str:
    """What a GPU may hold: `78.14 GB`, and why it is less than the GPU has."""
    found = result.memory
    if found.capacity_B >= found.total_B:
        return show(found.capacity_B, BYTES)
    what = {"all": "", "static": " with weights and cache", "free": " with cache, of what everything else leaves"}[
        memory.of
    ]
    who = memory.engine or "the engine"
    return f"{show(found.capacity_B, BYTES)} ({who} fills {memory.fraction:.1%} of {show(found.total_B, BYTES)}{what})"


def room_text(plan: CompiledPlan, phase: str) -> str:
    """`room for 1.2M tok of KV cache beside all else, 40k tok of it used`; empty where nothing is cached."""
    room = min(plan.kv_tokens(phase))
    if not isfinite(room):
        return ""
    used, ways = cached_tokens(plan.spec.phase(phase)), plan.phases[phase].batch_ways
    each = f" ({_tokens(room // ways)} on each of {ways} data-parallel ranks)" if ways > 1 else ""
    return f"room for {_tokens(room)} of KV cache{each} beside all else; the phase fills {_tokens(used)}"


def beside(plan: CompiledPlan, phase: str) -> str:
    """`; 68 GB with prefill on the same GPUs`; empty where no other phase has its GPUs."""
    return "".join(
        f"; {show(pool.peak_B, BYTES)} with {listed([n for n in pool.phases if n != phase])} on the same GPUs"
        for pool in plan.shared
        if phase in pool.phases
    )


def _tokens(count: float) -> str:
    return f"{count:,.0f} tok"


def shared_lines(plan: CompiledPlan) -> Iterator[tuple[str, str]]:
    """(which phases on how many GPUs, what the fullest of these holds) of GPUs that several phases share."""
    for pool in plan.shared:
        yield heading(pool), text(pool)
