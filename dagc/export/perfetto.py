"""Perfetto's protobuf trace of a phase, streamed. Field numbers are those of perfetto/trace/*.proto."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..plan.plan import CompiledPlan
from ..view.facts.size import MOST_STREAMED, check_size
from .events import PATH_FLOW, Count, Event, EventSpan, Process, Track, Value, events
from .protobuf import double, fixed, message, number, string

PACKET = 1  # Trace.packet
TIMESTAMP, TRACK_EVENT, SEQUENCE, INTERNED, FLAGS, DESCRIPTOR = 8, 11, 10, 12, 13, 60  # TracePacket
STATE_CLEARED, NEEDS_STATE = 1, 2
UUID, NAME, PROCESS, PARENT, COUNTER, CHILD_ORDERING, ORDER = 1, 2, 3, 5, 8, 11, 12  # TrackDescriptor
PROCESS_ORDERING = 19
EXPLICIT, EXPLICIT_PROCESSES = 3, 1
ROOT_UUID = 0  # the order of processes is a word of the root track
PID, PROCESS_NAME = 1, 6
UNIT, UNIT_NAME, SIZE_BYTES = 3, 6, 3
ANNOTATION, TYPE, NAME_IID, TRACK, CATEGORY, COUNT, FLOWS, END_FLOWS = 4, 9, 10, 11, 22, 44, 47, 48  # TrackEvent
BEGIN, END, COUNTER_EVENT = 1, 2, 4
EVENT_NAMES, ANNOTATION_NAMES = 2, 3  # InternedData
A_NAME, A_BOOL, A_INT, A_DOUBLE, A_STRING = 1, 2, 4, 5, 6  # DebugAnnotation
CHUNK = 2000
PROCESS_UUID = 1 << 32
"""Uuids of processes stay clear of those of tracks."""


def trace(plan: CompiledPlan, phase: str, ranks: str = "folded") -> Iterator[bytes]:
    """Pieces of one trace file."""
    check_size(plan.phases[phase], "the trace", MOST_STREAMED)
    return written(events(plan.phases[phase], ranks))


def written(found: Iterable[Event]) -> Iterator[bytes]:
    """Pieces of the trace file of some events."""
    writer = _Writer()
    batch: list[bytes] = []
    for event in found:
        batch += writer.packets(event)
        if len(batch) >= CHUNK:
            yield b"".join(batch)
            batch = []
    yield b"".join(batch)


@dataclass
class _Writer:
    """Names are sent once and then by number."""

    names: dict[str, int] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    started: bool = False
    news: bytes = b""  # interned data that the next packet must carry

    def packets(self, event: Event) -> Iterator[bytes]:
        if isinstance(event, Process):
            about = number(PID, event.pid) + string(PROCESS_NAME, event.name)
            body = number(UUID, PROCESS_UUID + event.pid) + message(PROCESS, about) + number(CHILD_ORDERING, EXPLICIT)
            body += number(ORDER, event.pid)
            if not self.started:
                root = number(UUID, ROOT_UUID) + number(PROCESS_ORDERING, EXPLICIT_PROCESSES)
                yield self.packet(message(DESCRIPTOR, root))
            yield self.packet(message(DESCRIPTOR, body))
        elif isinstance(event, Track):
            body = number(UUID, event.uuid) + string(NAME, event.name) + number(PARENT, PROCESS_UUID + event.pid)
            body += number(ORDER, event.order) + (message(COUNTER, _unit(event.unit)) if event.unit else b"")
            yield self.packet(message(DESCRIPTOR, body))
        elif isinstance(event, EventSpan):
            yield self.packet(number(TIMESTAMP, event.start_ns) + message(TRACK_EVENT, self.begin(event)))
            end = number(TYPE, END) + number(TRACK, event.track.uuid)
            yield self.packet(number(TIMESTAMP, event.end_ns) + message(TRACK_EVENT, end))
        elif isinstance(event, Count):
            value = number(TYPE, COUNTER_EVENT) + number(TRACK, event.track.uuid) + double(COUNT, event.value)
            yield self.packet(number(TIMESTAMP, event.at_ns) + message(TRACK_EVENT, value))

    def packet(self, body: bytes) -> bytes:
        flags = NEEDS_STATE if self.started else STATE_CLEARED
        news, self.news, self.started = self.news, b"", True
        carried = message(INTERNED, news) if news else b""
        return message(PACKET, body + number(SEQUENCE, 1) + number(FLAGS, flags) + carried)

    def begin(self, event: EventSpan) -> bytes:
        body = number(TYPE, BEGIN) + number(TRACK, event.track.uuid)
        body += number(NAME_IID, self.iid(self.names, EVENT_NAMES, event.name)) + string(CATEGORY, event.category)
        body += self.annotations(event.args)
        starts = [event.sends] if event.sends else []
        ends = list(event.receives)
        if event.path:
            (ends if event.path == "end" else starts).append(PATH_FLOW)
        return body + b"".join(fixed(FLOWS, f) for f in starts) + b"".join(fixed(END_FLOWS, f) for f in ends)

    def annotations(self, args: Mapping[str, Value]) -> bytes:
        return b"".join(
            message(ANNOTATION, number(A_NAME, self.iid(self.keys, ANNOTATION_NAMES, key)) + _value(value))
            for key, value in args.items()
        )

    def iid(self, known: dict[str, int], kind: int, text: str) -> int:
        if text not in known:
            known[text] = len(known) + 1
            self.news += message(kind, number(1, known[text]) + string(2, text))
        return known[text]


def _unit(unit: str) -> bytes:
    return number(UNIT, SIZE_BYTES) if unit == "B" else string(UNIT_NAME, unit)


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return number(A_BOOL, value)
    if isinstance(value, int):
        return number(A_INT, value)
    return double(A_DOUBLE, value) if isinstance(value, float) else string(A_STRING, value)
