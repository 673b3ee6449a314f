"""The traffic of a serving: its arrivals and lengths as a stream of requests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ..spec.serve import Serve
from .arrivals import BLOCK, times
from .lengths import lengths
from .records import Load, Request


def load_of(serve: Serve, kv_block: int | None = None) -> Load:
    """The traffic. `kv_block`: tokens of a block of the cache, else the serving's. Raises TraceError where
    a file is wrong, before the first request."""
    block = kv_block or serve.kv_block
    arrivals = serve.arrivals
    if arrivals.kind == "closed":
        sent = _sized(serve, block)
        return Load(_ended(sent, serve), arrivals.clients, arrivals.think_s, serve.duration_s)
    return Load(_ended(_timed(serve, block), serve), until_s=serve.duration_s)


def _ended(requests: Iterator[Request], serve: Serve) -> Iterator[Request]:
    return requests if serve.requests is None else islice(requests, serve.requests)


def _timed(serve: Serve, block: int) -> Iterator[Request]:
    """Of an open loop, which ends with the duration too."""
    sizes = _sizes(serve)
    shared = _shared(serve, block)
    until = serve.duration_s
    for clock in times(serve.arrivals, serve.seed):
        for at in clock.tolist():
            if until is not None and at > until:
                return
            prompt, output = next(sizes)
            yield Request(at, prompt, output, _blocks(shared, prompt, block))


def _sized(serve: Serve, block: int) -> Iterator[Request]:
    """Of a closed loop: only lengths count."""
    shared = _shared(serve, block)
    for prompt, output in _sizes(serve):
        yield Request(0.0, prompt, output, _blocks(shared, prompt, block))


def _sizes(serve: Serve) -> Iterator[tuple[int, int]]:
    for prompts, outputs in lengths(serve.lengths, serve.seed, BLOCK):
        yield from zip(prompts.tolist(), outputs.tolist(), strict=True)


def _shared(serve: Serve, block: int) -> tuple[int, ...]:
    """Ids of the blocks that every prompt begins with: one tuple for all."""
    return tuple(range(serve.prefix // block)) if serve.prefix_cache else ()


def _blocks(shared: tuple[int, ...], prompt: int, block: int) -> tuple[int, ...]:
    whole = prompt // block
    return shared if len(shared) <= whole else shared[:whole]
