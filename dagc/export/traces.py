"""The timeline of a phase, twice: as Chrome's JSON and as Perfetto's protobuf."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan.plan import CompiledPlan
from . import chrome, perfetto


def timeline(plan: CompiledPlan, phase: str, *, ranks: str = "folded") -> dict[str, Iterator[bytes]]:
    """Of a pass, or of a training step."""
    if phase in plan.trainings:
        from . import training_events

        result = plan.trainings[phase]
        training_events.check_trace(result, ranks)
        about = {"model": plan.spec.model.name, "phase": phase, "makespan_s": result.time_s, "ranks": ranks}
        return {
            "trace.json": chrome.written(training_events.events(result), about),
            "pftrace": perfetto.written(training_events.events(result)),
        }
    return {"trace.json": chrome.trace(plan, phase, ranks), "pftrace": perfetto.trace(plan, phase, ranks)}
