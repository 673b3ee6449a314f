"""What a phase says of its attention and of its cache, in words: what it saves, and whether answers stay what they are."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.dtypes import dtype
from ...base.units import BYTE_RATE, BYTES, number, show
from ...cost.attention_bytes import attention_bytes
from ...plan.plan import CompiledPlan
from ...plan.result import PhaseResult
from ...spec.phase import Phase

CHANGES, STAYS = "answers change", "answers stay"


def attention_lines(plan: CompiledPlan, result: PhaseResult) -> list[str]:
    """Of a phase whose attention stores its scores: what that moves."""
    if plan.spec.phase(result.name).attention_kernel == "flash":
        return []
    found = attention_bytes(result.graph)
    if found is None:
        return []
    return [
        f"attention writes and reads its scores: a GPU moves {show(found.unfused_B, BYTES, 4)} in a pass; flash attention would move "
        f"{show(found.flash_B, BYTES, 4)}, {found.saving:.3g} times fewer: {STAYS}"
    ]


def cache_lines(plan: CompiledPlan, result: PhaseResult) -> list[str]:
    """What the phase keeps of its cache, where, and in how many bytes; nothing where all is kept as it is."""
    return list(_cache_lines(plan, result, plan.spec.phase(result.name)))


def _cache_lines(plan: CompiledPlan, result: PhaseResult, phase: Phase) -> Iterator[str]:
    cache = phase.cache
    if cache.keep:
        chosen = [f"{cache.sinks} tok at the start"] if cache.sinks else []
        chosen += [f"{cache.heavy:.0%} by their scores"] if cache.heavy else []
        others = f" ({', '.join((*chosen, 'else the newest'))})" if chosen else " (the newest)"
        if all(cache.keep >= part.context for part in phase.as_parts):
            yield f"cache keeps {cache.keep} tok of a sequence, which is all of it: {STAYS}"
        else:
            yield f"cache keeps {cache.keep} tok of each sequence{others}, others are evicted: {CHANGES}"
    for name, kind in cache.dtypes:
        yield f"cache of {name} in {kind}, {number(dtype(kind).bytes)} B a number with its scales: {CHANGES}"
    if cache.ratio != 1.0:
        yield (
            f"cache takes {number(cache.ratio)} times fewer bytes than its numbers: whether answers change depends on the method, "
            "whose own work is not counted"
        )
    if cache.offload:
        found = attention_bytes(result.graph)
        link = plan.spec.of(phase).hardware.host_link
        copied_B = 0.0 if found is None else found.copied_B
        when = "while the layer before runs" if cache.prefetch else "when their layer needs them"
        yield (
            f"{cache.offload:.0%} of the cache is in host memory: a GPU copies {show(copied_B, BYTES, 3)} in a pass at "
            f"{show(link.bandwidth_Bps, BYTE_RATE, 3)}, {when}: {STAYS}"
        )
