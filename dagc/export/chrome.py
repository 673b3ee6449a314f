"""Chrome's trace-event JSON of a phase, streamed: it opens in Perfetto's viewer and in chrome://tracing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..plan.plan import CompiledPlan
from ..view.facts.size import MOST_STREAMED, check_size
from .events import Count, Event, EventSpan, Process, Track, events
from .json import dumps

CHUNK = 2000
FLOW = {"start": "s", "step": "t", "end": "f"}


def trace(plan: CompiledPlan, phase: str, ranks: str = "folded") -> Iterator[bytes]:
    """Pieces of one JSON object; times are microseconds with three decimals."""
    check_size(plan.phases[phase], "the trace", MOST_STREAMED)
    result = plan.phases[phase]
    about = {"model": plan.spec.model.name, "phase": phase, "makespan_s": result.schedule.latency_s, "ranks": ranks}
    return written(events(result, ranks), about)


def written(found: Iterable[Event], about: Mapping[str, Any]) -> Iterator[bytes]:
    """Pieces of the JSON object of some events."""
    yield b'{"displayTimeUnit":"ns","otherData":' + dumps(about).strip() + b',"traceEvents":[\n'
    batch: list[bytes] = []
    first = True
    for event in found:
        batch += [dumps(record).strip() for record in _records(event)]
        if len(batch) >= CHUNK:
            yield (b"" if first else b",\n") + b",\n".join(batch)
            batch, first = [], False
    if batch:
        yield (b"" if first else b",\n") + b",\n".join(batch)
    yield b"\n]}\n"


def _records(event: Event) -> Iterator[dict[str, Any]]:
    if isinstance(event, Process):
        yield {"ph": "M", "name": "process_name", "pid": event.pid, "args": {"name": event.name}}
        yield {"ph": "M", "name": "process_sort_index", "pid": event.pid, "args": {"sort_index": event.pid}}
    elif isinstance(event, Track) and not event.unit:
        place = {"ph": "M", "pid": event.pid, "tid": event.uuid}
        yield place | {"name": "thread_name", "args": {"name": event.name}}
        yield place | {"name": "thread_sort_index", "args": {"sort_index": event.order}}
    elif isinstance(event, EventSpan):
        yield from _span(event)
    elif isinstance(event, Count):
        track = event.track
        yield {
            "ph": "C",
            "pid": track.pid,
            "ts": event.at_ns / 1e3,
            "name": track.name,
            "args": {track.unit: event.value},
        }


def _span(event: EventSpan) -> Iterator[dict[str, Any]]:
    place = {"pid": event.track.pid, "tid": event.track.uuid, "ts": event.start_ns / 1e3}
    length = (event.end_ns - event.start_ns) / 1e3
    yield place | {"ph": "X", "name": event.name, "cat": event.category, "dur": length, "args": dict(event.args)}
    if event.sends:
        yield place | {"ph": "s", "name": "send", "cat": "send", "id": event.sends}
    for flow in event.receives:
        yield place | {"ph": "f", "bp": "e", "name": "send", "cat": "send", "id": flow}
    if event.path:
        kind = FLOW[event.path]
        bind = {"bp": "e"} if kind == "f" else {}
        yield place | bind | {"ph": kind, "name": "critical path", "cat": "critical", "id": 1}
