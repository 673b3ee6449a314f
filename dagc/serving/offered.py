"""The traffic of a serving: its arrivals and lengths as a stream of requests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import gcd

from ..base.foreign_lines import TraceError, shown
from ..base.frozen import record
from ..spec.serve import Serve
from . import trace_files
from .arrivals import times
from .histogram import read_histogram
from .lengths import lengths, longest
from .records import Load, Request
from .trace_files import Trace


@record
class Facts:
    """What is known of traffic before it comes. `requests`, `rate_per_s` (of an open loop): None where the run decides. `prompt`, `output`:
    mean tokens. `most`: tokens of prompt and output of the largest request, found at `where` of a file; None: no
    request is the largest that can come. `notes`: what a report should say of the files."""

    requests: int | None
    rate_per_s: float | None
    prompt: float
    output: float
    most: tuple[int, int] | None
    where: str = ""
    notes: tuple[str, ...] = ()


def load_of(serve: Serve, block: int | None = None) -> Load:
    """The traffic. `block`: tokens of each id of a request's blocks (default: `prefix_block`). Raises TraceError where a
    file is wrong, before the first request."""
    arrivals = serve.arrivals
    block = block or prefix_block(serve)
    _files(serve)
    if arrivals.kind == "closed":
        return Load(_first(serve, _sized(serve, block)), arrivals.clients, arrivals.think_s, serve.duration_s)
    found = _traced(serve, block) if arrivals.kind == "trace" else _timed(serve, block)
    return Load(_first(serve, _until(serve, found)), until_s=serve.duration_s)


def facts(serve: Serve) -> Facts:
    """What is known of it. Raises TraceError where a file is wrong."""
    trace = _files(serve)
    requests, rate, notes = serve.requests, serve.arrivals.rate_per_s or None, list(trace.notes) if trace else []
    if trace is not None:
        requests = min(trace.rows, serve.requests or trace.rows)
        rate = None if trace.rate_per_s is None else trace.rate_per_s * serve.arrivals.speed
        if serve.requests is not None and serve.requests > trace.rows:
            notes.append(f"{shown(trace.path)}: it has {trace.rows:,} requests, not {serve.requests:,}")
        if serve.prefix_cache and not trace.blocks:
            notes.append(f"{shown(trace.path)}: it does not say what prompts share: the prefix cache finds nothing")
    if serve.lengths.kind == "trace":
        assert trace is not None
        where = f"{shown(trace.path)}:{trace.most_line}"
        return Facts(requests, rate, trace.prompt_mean, trace.output_mean, trace.most, where, tuple(notes))
    prompt, output = float(serve.lengths.prompt), float(serve.lengths.output)
    if serve.lengths.kind == "histogram":
        assert serve.lengths.path is not None
        pairs = read_histogram(serve.lengths.path)
        prompt, output = pairs.means
        return Facts(
            requests, rate, prompt, output, pairs.most, f"{shown(serve.lengths.path)}:{pairs.most_line}", tuple(notes)
        )
    if serve.lengths.kind == "uniform":
        middle = (serve.lengths.low + serve.lengths.high) / 2
        prompt, output = middle * prompt, middle * output
    return Facts(requests, rate, prompt, output, longest(serve.lengths), "", tuple(notes))


def prefix_block(serve: Serve) -> int:
    """Tokens of each id of a request's blocks, a multiple of the cache's: those of a trace as it has them, and the whole shared
    prefix as one where every prompt has all of it."""
    if serve.arrivals.kind == "trace":
        return serve.kv_block if trace_files.BLOCK_TOKENS % serve.kv_block else trace_files.BLOCK_TOKENS
    whole = serve.prefix // serve.kv_block * serve.kv_block
    return whole if whole and serve.lengths.kind in ("fixed", "uniform") else serve.kv_block


def trace_of(serve: Serve, form: str) -> Iterator[str]:
    """The text of a trace file of the traffic, line by line, in a form of `trace_files.FORMS`; of a shared prefix whole blocks of 512 tokens.
    Raises TraceError where a file is wrong, ValueError for a closed loop, whose requests come when others end."""
    if serve.arrivals.kind == "closed":
        raise ValueError("a closed loop has no trace: its requests come when others end")
    traced = serve.arrivals.kind == "trace"
    block = trace_files.BLOCK_TOKENS if traced else gcd(trace_files.BLOCK_TOKENS, serve.kv_block)
    return trace_files.trace_lines(load_of(serve, block).requests, form, block)


def _files(serve: Serve) -> Trace | None:
    """The trace, if the traffic is one, gone through once; a histogram is read."""
    if serve.lengths.path is not None:
        read_histogram(serve.lengths.path)
    if serve.arrivals.kind != "trace":
        return None
    assert serve.arrivals.path is not None
    trace = trace_files.look(serve.arrivals.path)
    if serve.policy == "priority" and not trace.priorities:
        raise TraceError(trace.path, 0, "no request has a `priority`, and the policy goes by it")
    return trace


def _first(serve: Serve, requests: Iterator[Request]) -> Iterator[Request]:
    return requests if serve.requests is None else islice(requests, serve.requests)


def _until(serve: Serve, requests: Iterator[Request]) -> Iterator[Request]:
    if serve.duration_s is None:
        yield from requests
        return
    for request in requests:
        if request.arrival_s > serve.duration_s:
            return
        yield request


def _timed(serve: Serve, block: int) -> Iterator[Request]:
    """Of an open loop, without end."""
    shared = _shared(serve, block)
    sizes = _sizes(serve)
    for clock in times(serve.arrivals, serve.seed):
        for at, (prompt, output) in zip(clock.tolist(), sizes, strict=False):
            yield Request(at, prompt, output, _blocks(shared, prompt, block))


def _sized(serve: Serve, block: int) -> Iterator[Request]:
    """Of a closed loop, without end: only lengths count."""
    shared = _shared(serve, block)
    for prompt, output in _sizes(serve):
        yield Request(0.0, prompt, output, _blocks(shared, prompt, block))


def _traced(serve: Serve, block: int) -> Iterator[Request]:
    """Of a trace; its lengths and blocks only where the serving takes its lengths."""
    trace = _files(serve)
    assert trace is not None
    found = trace_files.requests(trace, block, serve.arrivals.speed)
    if serve.lengths.kind == "trace":
        return found
    return (
        Request(one.arrival_s, prompt, output, (), one.priority)
        for one, (prompt, output) in zip(found, _sizes(serve), strict=False)
    )


def _sizes(serve: Serve) -> Iterator[tuple[int, int]]:
    for prompts, outputs in lengths(serve.lengths, serve.seed):
        yield from zip(prompts.tolist(), outputs.tolist(), strict=True)


def _shared(serve: Serve, block: int) -> tuple[int, ...]:
    """Ids of the blocks that every prompt begins with, as far as the cache has whole blocks of them: one tuple for all."""
    whole = serve.prefix // serve.kv_block * serve.kv_block
    return tuple(range(whole // block)) if serve.prefix_cache else ()


def _blocks(shared: tuple[int, ...], prompt: int, block: int) -> tuple[int, ...]:
    whole = prompt // block
    return shared if len(shared) <= whole else shared[:whole]
