"""Which worker, and which attention-DP rank of it, a request goes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from .records import Request

AHEAD = 32
"""A rank may have this many requests more than the one with fewest before its cached prefix no longer draws new ones ..."""
AHEAD_TIMES = 1.5
"""... if it has more than this many times as many too."""
SHARE = 0.5
"""A cached prefix draws a request if it is at least this share of its prompt."""

FULL = 1 << 62
"""Requests on a rank whose queue has no room."""


class Ranks(Protocol):
    """What a router sees of a worker: requests that wait on each of its ranks, that wait or run there, and its prefix caches."""

    @property
    def waiting(self) -> Sequence[int]: ...
    @property
    def requests(self) -> Sequence[int]: ...

    def hit_tokens(self, rank: int, request: Request) -> int: ...


class Place(NamedTuple):
    """A rank of a worker."""

    worker: int
    rank: int


class Router:
    """Picks a place for each request, the same one for the same run. Only ranks whose queue has room count: where `queue` requests
    wait, no more are sent.

    round_robin: one after the other, all workers before the second rank of the first. least: fewest requests in the system (waiting
    and running) on the rank, of equal ones fewest that wait, then fewest on its worker, then the first. prefix: the rank that has the longest prefix of the prompt in
    its cache, if that is `SHARE` of the prompt and the rank is not too far ahead of the others (`AHEAD`); else least."""

    def __init__(self, kind: str, workers: Sequence[Ranks], queue: int | None = None) -> None:
        self._kind = kind
        self._workers = workers
        self._queue = queue
        self._turn = 0
        self._among: list[int] = []
        self._places: list[Place] = []
        self.among(range(len(workers)))

    def among(self, workers: Iterable[int]) -> None:
        """From now on only these workers, by index."""
        self._among = workers = list(workers)
        ranks = max((len(self._workers[w].waiting) for w in workers), default=0)
        self._places = [Place(w, r) for r in range(ranks) for w in workers if r < len(self._workers[w].waiting)]
        self._turn = self._turn % len(self._places) if self._places else 0

    def waiting(self) -> int:
        """Requests that wait at its workers."""
        return sum(sum(self._workers[w].waiting) for w in self._among)

    def pick(self, request: Request) -> Place | None:
        """None: every queue is full."""
        if self._kind == "round_robin":
            return self._next()
        best: Place | None = None
        least: tuple[int, int, int, int] | None = None
        for w in self._among:  # of one worker, then of those
            worker = self._workers[w]
            waiting = worker.waiting
            loads = worker.requests
            on_worker = sum(loads)
            if self._queue is not None:
                loads = [load if waits < self._queue else FULL for load, waits in zip(loads, waiting, strict=True)]
            fewest = min(loads)
            rank = loads.index(fewest)
            if fewest == FULL:
                continue
            if waiting[rank]:
                rank = min((waits, r) for r, waits in enumerate(waiting) if loads[r] == fewest)[1]
            found = fewest, waiting[rank], on_worker, rank
            if least is None or found < least:
                best, least = Place(w, rank), found
        if self._kind == "prefix" and request.blocks and least is not None:
            return self._cached(request, least[0]) or best
        return best

    def _cached(self, request: Request, least: int) -> Place | None:
        """The rank that has most of a request's prompt, where it is to draw it. `least`: requests on the rank with fewest."""
        best, best_cached, best_load = None, 0, 0
        for place in self._places:
            worker = self._workers[place.worker]
            if self._has_room(place):
                load = worker.requests[place.rank]
                cached = worker.hit_tokens(place.rank, request)
                if cached > best_cached or (cached == best_cached and best is not None and load < best_load):
                    best, best_cached, best_load = place, cached, load
        far = best_load - least > AHEAD and best_load > AHEAD_TIMES * least
        return best if best_cached >= SHARE * request.prompt and not far else None

    def _next(self) -> Place | None:
        places = self._places
        for _ in places:
            place = places[self._turn]
            self._turn = self._turn + 1 if self._turn + 1 < len(places) else 0
            if self._has_room(place):
                return place
        return None

    def _has_room(self, place: Place) -> bool:
        return self._queue is None or self._workers[place.worker].waiting[place.rank] < self._queue
