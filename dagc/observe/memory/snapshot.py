"""Snapshots of torch's allocator (`torch.cuda.memory._dump_snapshot`, as a pickle or as JSON): what each kind of memory took, and the peak of
the rest while the history was recorded."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...base.files import Unreadable, read_bytes
from ...base.foreign_lines import TraceError
from ...base.frozen import record
from .logs import table
from .pickled import NotPlain, loads

MOST_BYTES = 128_000_000
MOST_JSON_BYTES = 64_000_000
MOST_PLACE = 1000
"""Letters of the name of a frame."""
MOST_ADDRESS = 1 << 64
GRAPHS = "engine"
"""Kind of what has a pool of its own: that of CUDA graphs."""
OTHER = "activations"
"""Kind of what no frame names: tensors of a pass."""
HELP = "torch.cuda.memory._record_memory_history(max_entries=100000) keeps snapshots small"


@record
class Snapshot:
    """Of one GPU: `device`: its number; `sizes`: kind -> bytes, `activations` at their peak; `reserved_B`: what the allocator took of the GPU;
    `peak_B`: most in use at one moment of the history; `framed`: blocks had stacks, so that kinds are known."""

    name: str
    device: int
    sizes: Mapping[str, float]
    reserved_B: float
    peak_B: float
    framed: bool


def read(path: Path) -> list[Snapshot]:
    """One for each GPU in it. Raises TraceError."""
    try:
        data = read_bytes(path, MOST_BYTES)
    except Unreadable as error:
        raise TraceError(path, 0, f"cannot be read: {error}", HELP if "longer" in str(error) else "") from None
    if data[:1] != b"\x80" and len(data) > MOST_JSON_BYTES:
        raise TraceError(path, 0, f"it is longer than {MOST_JSON_BYTES:,} bytes", HELP)
    try:
        found = loads(data) if data[:1] == b"\x80" else json.loads(data)
    except NotPlain as error:
        raise TraceError(path, 0, str(error), HELP) from None
    except (ValueError, RecursionError):
        raise TraceError(path, 0, "it is not JSON") from None
    try:
        return _snapshots(found, path.name)
    except (TypeError, KeyError, AttributeError, ValueError, IndexError):
        raise TraceError(path, 0, "it is no snapshot of torch's allocator: segments with blocks are missing") from None


def is_snapshot(found: Any) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get("segments"), list)


def _snapshots(found: Any, name: str) -> list[Snapshot]:
    if not is_snapshot(found):
        raise ValueError
    devices: dict[int, list[Mapping[str, Any]]] = {}
    for segment in found["segments"]:
        devices.setdefault(int(segment.get("device", 0)), []).append(segment)
    traces = found.get("device_traces") or []
    if not devices:
        raise ValueError
    return [
        _one(segments, traces[device] if device < len(traces) else [], name, device)
        for device, segments in sorted(devices.items())
    ]


def _one(segments: Iterable[Mapping[str, Any]], trace: Iterable[Mapping[str, Any]], name: str, device: int) -> Snapshot:
    sizes: dict[str, float] = {}
    reserved = 0
    framed = False
    private: list[tuple[int, int]] = []
    for segment in segments:
        reserved += _size(segment["total_size"])
        at = _size(segment.get("address", 0))
        own = tuple(segment.get("segment_pool_id") or (0, 0)) != (0, 0)
        if own:
            private.append((at, at + _size(segment["total_size"])))
        for block in segment["blocks"]:
            size = _size(block["size"])
            if str(block["state"]).startswith("active"):
                frames = block.get("frames") or []
                framed = framed or bool(frames)
                kind = GRAPHS if own else _kind(frames)
                sizes[kind] = sizes.get(kind, 0.0) + size
    peak, others = _peak(trace, sum(sizes.values()), sizes.get(OTHER, 0.0), sorted(private))
    sizes[OTHER] = max(sizes.get(OTHER, 0.0), others)
    return Snapshot(name, device, sizes, float(reserved), peak, framed)


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _kind(frames: Iterable[Mapping[str, Any]]) -> str:
    """By the innermost frame that a pattern of the table knows."""
    return next((kind for frame in frames if (kind := _kind_of_frame(_place(frame)))), OTHER)


def _place(frame: Mapping[str, Any]) -> str:
    return f"{frame.get('filename', '')}:{frame.get('name', '')}"[:MOST_PLACE]


@lru_cache(maxsize=10_000)
def _kind_of_frame(place: str) -> str:
    """Nothing where no pattern knows it. A history has the same few thousand places millions of times."""
    return next((kind for kind, pattern in table().frames if pattern.search(place)), "")


def _peak(
    trace: Iterable[Mapping[str, Any]], held: float, others: float, private: list[tuple[int, int]]
) -> tuple[float, float]:
    """Most in use at one moment, and most of what is of no other kind: back from the end of the history, whose state is known. What was freed
    is of the kind of its allocation; where the history does not have that, of no other."""
    events: list[tuple[int, bool]] = []  # bytes that undoing it adds, and whether they are of no other kind
    kinds: dict[int, bool] = {}
    for event in trace:
        action = event.get("action")
        if action == "alloc":
            address = _size(event["addr"])
            place = bisect_right(private, (address, MOST_ADDRESS)) - 1
            own = place >= 0 and address < private[place][1]
            kinds[address] = other = not own and _kind(event.get("frames") or []) == OTHER
            events.append((-_size(event["size"]), other))
        elif action == "free_completed":
            events.append((_size(event["size"]), kinds.pop(_size(event["addr"]), True)))
    peak, most = held, others
    for size, other in reversed(events):
        held += size
        others += size if other else 0
        peak, most = max(peak, held), max(most, others)
    return float(peak), float(most)
