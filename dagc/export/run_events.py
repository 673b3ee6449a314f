"""A run of `dagc run` as trace events: what each rank did, and below it what the plan has for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..base.axes import STAGES
from ..base.frozen import replace
from ..cost.records import value_at
from ..ir.op import COMM, COMPUTE
from ..plan.result import PhaseResult
from ..plan.trained import TrainingResult
from .events import FURTHER, Event, EventSpan, Process, Track, Value, nanoseconds
from .events import events as planned_events
from .training_events import events as trained_events

if TYPE_CHECKING:
    from ..execute.torch.spans import Span, Timeline

MEASURED = 3 * FURTHER
"""Tracks from here on are those of what was measured."""
Ran = PhaseResult | TrainingResult
BEHIND = 1 << 20
"""Processes of the plan come behind those of the run: nodes are fewer."""


def events(timeline: Timeline, device: str, planned: str) -> Iterator[Event]:
    """Every rank, measured and planned. `device`: that ran; `planned`: the kind that the plan is of, gpu or cpu."""
    result = timeline.result
    yield from measured_events(timeline, device)
    planned_of = trained_events(result) if isinstance(result, TrainingResult) else planned_events(result, "all")
    for event in planned_of:
        yield _behind(event, f"planned, on the spec's {planned.upper()}s: ")


def _behind(event: Event, title: str) -> Event:
    if isinstance(event, Process):
        return Process(event.pid + BEHIND, title + event.name)
    if isinstance(event, Track):
        return replace(event, pid=event.pid + BEHIND)
    return replace(event, track=replace(event.track, pid=event.track.pid + BEHIND))


def measured_events(timeline: Timeline, device: str) -> Iterator[Event]:
    """The first moment of any rank is zero; clocks of ranks are set by the barrier before the pass."""
    result = timeline.result
    gpus = sorted(gpu for stage in result.graph.stages for gpu in stage.gpus)
    before = min((s.start_s for spans in timeline.ranks for s in spans), default=0.0)
    seen: set[int] = set()
    for gpu, spans in zip(gpus, timeline.ranks, strict=True):
        pid = gpu // timeline.per_node + 1
        if pid not in seen:
            seen.add(pid)
            yield Process(pid, f"measured on {device}: node {pid - 1}, pid")
        yield from _rank(result, gpu, pid, spans, before)


def _rank(result: Ran, gpu: int, pid: int, spans: Sequence[Span], before: float) -> Iterator[Event]:
    tracks = {
        COMPUTE: Track(MEASURED + 2 * gpu, pid, 2 * gpu, f"rank of GPU {gpu} compute"),
        COMM: Track(MEASURED + 2 * gpu + 1, pid, 2 * gpu + 1, f"rank of GPU {gpu} communication"),
    }
    yield from tracks.values()
    index = _index(result, gpu)
    for span in spans:
        stream, kind, args = _about(result, span, index)
        start, end = nanoseconds(span.start_s - before), nanoseconds(span.end_s - before)
        yield EventSpan(tracks[stream], span.op, kind, start, max(start, end), args)


def _index(result: Ran, gpu: int) -> tuple[int, ...]:
    shape = result.graph.the_mesh.shape
    own = next(stage.gpus for stage in result.graph.stages if gpu in stage.gpus)
    return tuple(int(i) for i in np.unravel_index(own.index(gpu), shape))


def _about(result: Ran, span: Span, index: tuple[int, ...]) -> tuple[str, str, dict[str, Value]]:
    graph = result.graph
    args: dict[str, Value] = {"microbatch": span.part // graph.lanes}
    if graph.lanes > 1:
        args["lane"] = "ab"[span.part % graph.lanes]
    if span.layer is None:
        return COMM, span.op, args | ({"group": STAGES} if span.op in ("send", "recv") else {})
    op = graph.segment(span.segment).by_name[span.op]
    cost = result.costs.ops[span.segment, span.op].time_s
    planned_s = value_at(cost, index)
    if isinstance(result, TrainingResult):
        args["cell"] = op.cell or "forward"
    args |= {"layer": graph.layer_name(span.segment, span.layer), "planned_us": planned_s * 1e6}
    return COMM if op.is_collective else COMPUTE, op.runtime_kind, args
