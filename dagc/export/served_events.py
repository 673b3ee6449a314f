"""A simulated serving as trace events: steps of the workers, requests on lanes, and what waits, runs and is held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from ..base.frozen import record
from ..serving.records import Stretch
from ..serving.result import ServeResult
from .events import Count, Event, EventSpan, Process, Track, nanoseconds

STEPS, REQUESTS, COUNTERS = 1, 2, 3
"""Process ids."""
MOST_REQUESTS = 5000
"""Of the first that ended."""
UNITS = {"waiting": "requests", "running": "requests", "blocks": "blocks"}


@record
class Row:
    """A request: seconds of its arrival, first token and last token."""

    number: int
    arrival_s: float
    first_s: float
    end_s: float
    prompt: int
    output: int
    cached: int


def events(result: ServeResult) -> Iterator[Event]:
    """Those of the steps that were recorded, of the requests that ended first, and all samples of the counters."""
    yield Process(STEPS, f"{result.name}: steps")
    yield from _steps(result.outcome.steps)
    rows = _rows(result)
    lanes = max((lane for lane, _ in rows), default=-1) + 1
    yield Process(REQUESTS, f"{result.name}: requests")
    tracks = [Track(_uuid(REQUESTS, lane), REQUESTS, lane, f"lane {lane}") for lane in range(lanes)]
    yield from tracks
    for lane, row in sorted(rows, key=lambda r: (r[0], r[1].arrival_s)):
        yield from _request(tracks[lane], row)
    yield Process(COUNTERS, f"{result.name}: counters")
    yield from _counters(result)


def _uuid(process: int, number: int) -> int:
    return process << 24 | number + 1


def _steps(steps: Sequence[Stretch]) -> Iterator[Event]:
    places = sorted({(s.worker, s.rank) for s in steps})
    for k, (worker, rank) in enumerate(places):
        name = f"worker {worker}" + (f", rank {rank}" if rank >= 0 else "")
        track = Track(_uuid(STEPS, k), STEPS, k, name)
        yield track
        end = 0
        for s in steps:
            if (s.worker, s.rank) == (worker, rank):
                kind = "decode" if not s.prompt else "mixed" if s.sequences else "prompts"
                start, end = max(nanoseconds(s.start_s), end), max(nanoseconds(s.end_s), end)
                args = {"steps": s.steps, "sequences": s.sequences, "prompt_tok": s.prompt}
                yield EventSpan(track, kind, kind, start, end, args)


def _rows(result: ServeResult) -> list[tuple[int, Row]]:
    """(lane, request): the lowest lane that is free when a request arrives."""
    served = result.outcome.served
    count = min(MOST_REQUESTS, len(served.e2e_s))
    rows = [
        Row(
            k, served.arrival_s[k], served.arrival_s[k] + served.ttft_s[k], served.arrival_s[k] + served.e2e_s[k],
            served.prompt[k], served.output[k], served.cached[k],
        )
        for k in range(count)
    ]  # fmt: skip
    out: list[tuple[int, Row]] = []
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    lanes = 0
    for row in sorted(rows, key=lambda r: (r.arrival_s, r.number)):
        while busy and busy[0][0] <= row.arrival_s:
            heappush(free, heappop(busy)[1])
        if free:
            lane = heappop(free)
        else:
            lane, lanes = lanes, lanes + 1
        heappush(busy, (row.end_s, lane))
        out.append((lane, row))
    return out


def _request(track: Track, row: Row) -> Iterator[Event]:
    args = {"prompt_tok": row.prompt, "output_tok": row.output, "cached_tok": row.cached}
    start, first, end = (nanoseconds(s) for s in (row.arrival_s, row.first_s, row.end_s))
    yield EventSpan(track, "to the first token", "request", start, max(first, start), args)
    yield EventSpan(track, "decode", "request", max(first, start), max(end, first, start), args)


def _counters(result: ServeResult) -> Iterator[Event]:
    series = result.outcome.series
    times = series.get("time_s", ())
    for k, name in enumerate(n for n in series if n != "time_s"):
        track = Track(_uuid(COUNTERS, k), COUNTERS, k, name, UNITS.get(name.rpartition(".")[2], "1"))
        yield track
        before = None
        for at, value in zip(times, series[name], strict=True):
            if value != before:
                yield Count(track, nanoseconds(at), float(value))
                before = value
