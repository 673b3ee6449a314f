"""A request in a worker."""

from __future__ import annotations

from typing import Any

from .prefix import Text
from .records import Request

COMPUTED, BROUGHT, SWAPPED = 0, 1, 2
"""Where the cache of a sequence that waits will come from: steps of the worker, a transfer, the host."""


class Sequence:
    """`todo`: tokens to compute before its next token (its prompt; after a recompute its output so far too), `done` of them computed, `part`
    in the step under way; of one whose cache comes from elsewhere, `done` is the cache in parts of a token. `left`: decode steps
    after them. `own` blocks of the cache, and the first `refs` ids of its prompt, up to `text`. `tag` is the caller's.

    In decode: its context in the step after its rank's step s is `alone + growth s`; it ends after step `end`; `entry` is its place in
    the heap of ends; at `place` of the ring of blocks, `level` full turns on."""

    __slots__ = (
        "alone", "cached", "done", "end", "entry", "first_s", "joined_s", "last_s", "left", "level", "no", "own", "part", "place", "rank", "refs", "request",
        "running_s", "source", "started_s", "tag", "text", "todo", "waiting_s",
    )  # fmt: skip
    alone: int
    end: int
    joined_s: float
    last_s: float
    level: int
    own: int
    part: int
    place: int
    running_s: float

    def __init__(self, no: int, request: Request, rank: int, left: int, at: float, tag: Any) -> None:
        self.no = no
        self.request = request
        self.rank = rank
        self.left = left
        self.tag = tag
        self.todo: int = request.prompt
        self.done = self.refs = self.cached = self.source = 0
        self.entry: Any = None
        self.text: Text | None = None
        self.waiting_s = at
        self.started_s: float | None = None
        self.first_s: float | None = None
