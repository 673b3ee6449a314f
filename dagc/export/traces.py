"""The timeline of a phase, twice: as Chrome's JSON and as Perfetto's protobuf."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan.plan import CompiledPlan
from . import chrome, perfetto


def timeline(plan: CompiledPlan, phase: str, *, ranks: str = "folded") -> dict[str, Iterator[bytes]]:
    return {"trace.json": chrome.trace(plan, phase, ranks), "pftrace": perfetto.trace(plan, phase, ranks)}
