"""Any number of workers in one order of time: traffic, routing, hand-over of caches, and roles that change.

The state of a worker is always that of its last step's end. A segment (one step, or equal decode steps up to the next end of a
request) is an event at its end; whatever reaches a worker before cuts the segment at the first step that ends then or later. So
nothing is computed ahead of what may still reach it, and steps are skipped all the same.

At one instant: ends of segments, caches that arrive, workers that have changed role, requests that come; then steps start."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

from ..base.frozen import replace
from .live_request import Sequence
from .records import Load, Outcome, Request, Served, Setup, Switch
from .router import Place, Router
from .rules import CannotServe, refuse
from .served_rows import ServedRows
from .sums_by_role import Totals
from .switch import DECODE, PREFILL, Roles
from .transfer import Links, Parcel
from .worker import Worker

_ENDS, _LANDS, _CHANGED, _COMES = range(4)
_NEVER = float("inf")
_DRAWS = 10_000
"""Requests of a closed loop, none of which fits, after which no other one is tried."""


class Stuck(RuntimeError):
    """Requests are left that no worker can ever start."""


def prefilled(request: Request) -> Request:
    """What a prefill worker has of a request: it ends with its first token."""
    return Request(request.arrival_s, request.prompt, 1, request.blocks, request.priority)


class Run:
    """One simulation. `workers`: all of them, in the order of `setup.workers`. Raises `Stuck`."""

    def __init__(self, setup: Setup, load: Load, steps_kept: int = 0) -> None:
        self.arrived = self.rejected = self.too_long = self.ended = self.switches = 0
        self.end_s: float = 0
        self.served = Served()
        self._rows = ServedRows(self.served)
        # full queues turn requests away at the door, which looks at all of them
        engines = [replace(group.engine, queue=None) for group in setup.workers for _ in range(group.count)]
        self.workers = [
            Worker(
                engine,
                served=self._rows,
                on_chunk=partial(self._chunk_ends, w) if setup.transfer.chunks else None,
                on_finish=partial(self._ends, w),
                on_room=self._has_room,
                index=w,
                steps_kept=steps_kept,
                sample_s=_NEVER,
            )
            for w, engine in enumerate(engines)
        ]
        self._totals = Totals(self.workers, [group.role for group in setup.workers for _ in range(group.count)])
        self.links = Links(setup.transfer, len(self.workers))
        self._load = load
        self._requests: Iterator[Request] = iter(load.requests)
        self._request_s = setup.workers[0].engine.request_s
        self._turned_away = 0
        self._heap: list[tuple[float, int, int, Any]] = []
        self._serial = 0
        self._ends_s = [_NEVER] * len(self.workers)
        """When a worker's segment ends; inf: none runs."""
        self._ready: set[int] = set()
        self._found: list[tuple[int, Sequence, bool]] = []
        """What has ended at this time and was not looked at: worker, its sequence or chunk, whether it is the last one."""
        self._held = [0] * len(self.workers)
        """Caches on a prefill worker that are on their way or wait for room."""
        self._chunks = setup.transfer.chunks
        self._disjoint = len(setup.workers) > 1
        if self._disjoint and setup.switch is not None:
            raise ValueError("workers that change roles are of one kind")
        self._switch = setup.switch or Switch()
        self._changing = self._decodes = False
        """Of a worker alone that alternates: between two roles; decodes."""
        self._roles: Roles | None = None
        self._alone = setup.switch is not None and len(self.workers) == 1
        self._front = Router(setup.route, self.workers, setup.workers[0].engine.queue)
        self._back: Router | None = None
        if self._alone:
            self.workers[0].turn(True, False, 0)
        elif setup.switch is not None:
            self._roles = Roles(setup.switch, len(self.workers))
            self._back = Router(setup.route, self.workers)
            self._take_roles(self._roles.of(PREFILL), self._roles.of(DECODE))
        elif self._disjoint:
            self._back = Router(setup.route, self.workers)
            first = setup.workers[0].count
            self._take_roles(range(first), range(first, len(self.workers)))

    def run(self) -> None:
        """Until all that came have ended."""
        heap, ready = self._heap, self._ready
        self._first()
        while heap:
            now = heap[0][0]
            self._totals.sample(now)
            while heap and heap[0][0] <= now:
                at, kind, _, what = heapq.heappop(heap)
                if kind == _ENDS:
                    if self._ends_s[what] == at:
                        self._reach(what, now)
                    if self._found and not (heap and heap[0][:2] == (now, _ENDS)):
                        self._settle(now)
                elif kind == _COMES:
                    self._come(what, now)
                elif kind == _LANDS:
                    self._lands(what, now)
                else:
                    self._changed(what, now)
            if self._roles is not None:
                self._rebalance(now)
            while ready:
                w = min(ready)
                ready.discard(w)
                self._start(w, now)
            if self._roles is not None:
                self._leave(now)
        self._rows.flush()
        left = self.arrived - self.rejected - self.ended
        if left:
            raise Stuck(f"{left} requests are left that no worker can start")

    def outcome(self) -> Outcome:
        """Of a run that has ended."""
        counts = dict.fromkeys(self.workers[0].counts, 0)
        for worker in self.workers:
            for name, count in worker.counts.items():
                counts[name] += count
        counts |= {"arrived": self.arrived, "rejected": self.rejected, "too_long": self.too_long}
        counts |= {"switches": self.switches, "sent_tokens": self.links.tokens}
        gaps: dict[int, float] = {}
        for worker in self.workers:
            for number, weight in worker.gaps.items():
                gaps[number] = gaps.get(number, 0) + weight
        integrals = self._totals.integrals()
        if self._back is not None:
            integrals["sending"] = self.links.busy_s
        steps = sorted(
            (stretch for worker in self.workers for stretch in worker.stretches),
            key=lambda one: (one.start_s, one.worker),
        )
        return Outcome(
            self.served,
            self.end_s,
            counts,
            integrals,
            gaps,
            self._totals.series(),
            self._totals.most(),
            self._totals.loads(),
            steps,
        )

    # Traffic

    def _first(self) -> None:
        for _ in range(self._load.clients):
            self._send(0)
        if not self._load.clients:
            self._next_arrival()

    def _next_arrival(self) -> None:
        request = next(self._requests, None)
        if request is not None and (self._load.until_s is None or request.arrival_s <= self._load.until_s):
            self._push(request.arrival_s + self._request_s, _COMES, request)

    def _send(self, at: float) -> None:
        """A client of a closed loop sends at `at`. Which request that is shows when it comes: those of one instant in the order of their sending."""
        if self._load.until_s is None or at <= self._load.until_s:
            self._push(at + self._request_s, _COMES, at)

    def _come(self, sent: Request | float, now: float) -> None:
        """A request is ready for a queue, `request_s` after it was sent: the next one of the traffic or, sent by a client, its next one."""
        if isinstance(sent, Request):
            request = sent
            self._next_arrival()
            self.arrived += 1
            if self.refusal(request) is not None:
                self._refused()
                return
        else:
            for _ in range(_DRAWS):
                drawn = next(self._requests, None)
                if drawn is None:
                    return
                self.arrived += 1
                why = self.refusal(drawn)
                if why is None:
                    break
                self._refused()
            else:
                raise CannotServe(f"none of {_DRAWS} requests one after the other can be served: {why}")
            request = drawn._replace(arrival_s=sent)
        place = self._front.pick(request)
        if place is None:
            self.rejected += 1
            self._turned_away += 1
            return
        if self._back is None or request.output == 1:
            self._add(place, request, now)
        else:
            self._add(place, prefilled(request), now, tag=Parcel(request, place.worker))

    def _refused(self) -> None:
        self.rejected += 1
        self.too_long += 1

    def refusal(self, request: Request) -> str | None:
        """Why no worker can ever serve `request`, or None."""
        if self._disjoint and request.output > 1:
            why = self.workers[0].rules.refusal(prefilled(request))
            return why if why is not None else self.workers[-1].rules.refusal(request)
        return self.workers[0].rules.refusal(request)

    def refuse(self, requests: Iterable[Request]) -> None:
        """Raises `CannotServe` for the first of a list that can never be served."""
        if not self._disjoint:
            refuse(self.workers[0].rules, requests)
            return
        for index, request in enumerate(requests):
            why = self.refusal(request)
            if why is not None:
                raise CannotServe(f"request {index + 1}: {why}")

    def _end(self, now: float) -> None:
        """A request has all its tokens."""
        self.ended += 1
        self.end_s = now
        if self._load.clients:
            self._send(now + self._load.think_s)
            if self._turned_away:  # a client that was turned away tries again
                self._turned_away -= 1
                self._send(now)

    # Workers

    def _chunk_ends(self, w: int, sequence: Sequence, now: float) -> None:
        if sequence.tag is not None and self.workers[w].hold:
            self._found.append((w, sequence, False))

    def _ends(self, w: int, sequence: Sequence, now: float) -> bool:
        """Says of a worker that holds whether the request ends here."""
        self._found.append((w, sequence, True))
        return sequence.tag is None

    def _reach(self, w: int, now: float) -> Worker:
        """Brings worker `w` to `now`; what ends there is `_found`."""
        worker = self.workers[w]
        worker.run_until(now)
        if self._ends_s[w] == now:
            self._ends_s[w] = _NEVER
            self._ready.add(w)
        return worker

    def _settle(self, now: float) -> None:
        """What follows from what has ended, by worker."""
        while self._found:
            found, self._found = sorted(self._found, key=itemgetter(0)), []
            for w, sequence, last in found:
                self._follow(w, sequence, last, now)

    def _follow(self, w: int, sequence: Sequence, last: bool, now: float) -> None:
        parcel = sequence.tag
        if parcel is None or not self.workers[w].hold:
            self._end(now)
        else:
            parcel.whole = last
            self._computed(sequence, sequence.request.prompt if last else sequence.done, now)

    def _add(self, place: Place, request: Request, now: float, **more: Any) -> None:
        self._reach(place.worker, now).add(request, now, place.rank, **more)
        self._wake(place.worker, now)

    def _push(self, at: float, kind: int, what: Any) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (at, kind, self._serial, what))

    def _wake(self, w: int, now: float) -> None:
        """Something new is there for worker `w`."""
        if self._ends_s[w] == _NEVER:
            self._ready.add(w)
        else:
            self._start(w, now)

    def _start(self, w: int, now: float) -> None:
        """Starts a step, or cuts the segment that runs."""
        end = self.workers[w].next_event_s()
        if end != self._ends_s[w]:
            self._ends_s[w] = end
            if end != _NEVER:
                self._push(end, _ENDS, w)
        self._totals.look(w, now)
        if self._alone and end == _NEVER and not self._changing:
            self._alternate(now)

    # Hand-over

    def _computed(self, sequence: Sequence, upto: int, now: float) -> None:
        """A prefill worker has the cache of a prompt up to token `upto`. With its first piece the request joins the queue of a decode worker."""
        parcel = sequence.tag
        parcel.add(upto)
        if parcel.at_prefill is None:
            assert self._back is not None
            place = self._back.pick(parcel.request)
            assert place is not None
            parcel.at_prefill, parcel.decode = sequence, place.worker
            self._held[parcel.prefill] += 1
            self._add(place, parcel.request, now, first_s=now, tag=parcel)
        elif self._deliver(parcel, now):
            self._arrived(parcel, now)

    def _has_room(self, sequence: Sequence, now: float) -> bool:
        """A decode worker has given the request a slot and room for its cache; whether all of it is there."""
        parcel = sequence.tag
        parcel.at_decode = sequence
        return self._deliver(parcel, now)

    def _deliver(self, parcel: Parcel, now: float) -> bool:
        """Hands what may be sent to the link; whether all of it has arrived."""
        if parcel.at_decode is None:
            return False
        for tokens in parcel.pieces:
            parcel.sent_s = self.links.send(parcel.prefill, now, tokens)
        parcel.pieces.clear()
        if not parcel.whole:
            return False
        if parcel.sent_s > now:
            self._push(parcel.sent_s, _LANDS, parcel)
            return False
        self._sent(parcel, now)
        return True

    def _lands(self, parcel: Parcel, now: float) -> None:
        self._sent(parcel, now)
        self._arrived(parcel, now)

    def _arrived(self, parcel: Parcel, now: float) -> None:
        """The decode worker, which has kept room for it, has the whole cache."""
        assert parcel.at_decode is not None
        self._reach(parcel.decode, now).arrived(parcel.at_decode, now)
        self._wake(parcel.decode, now)

    def _sent(self, parcel: Parcel, now: float) -> None:
        """The last piece is there: the prefill worker frees its blocks."""
        before, after = parcel.at_prefill, parcel.at_decode
        assert before is not None and before.first_s is not None and after is not None
        after.first_s = after.last_s = before.first_s
        after.started_s, after.cached = before.started_s, before.cached
        self._held[parcel.prefill] -= 1
        self._reach(parcel.prefill, now).release(before, now)
        self._wake(parcel.prefill, now)

    # Roles

    def _take_roles(self, prefill: Iterable[int], decode: Iterable[int]) -> None:
        """From now on these workers take new requests."""
        assert self._back is not None
        prefill = list(prefill)
        self._front.among(prefill)
        self._back.among(decode)
        for w in prefill:
            self.workers[w].hold = True

    def _rebalance(self, now: float) -> None:
        """A worker leaves its role when the queues say so."""
        roles = self._roles
        assert roles is not None and self._back is not None
        role = roles.wanted(self._front.waiting(), self._back.waiting())
        if role is not None:
            roles.leaving = min(roles.of(role), key=self._load_of)
            self._take_roles(roles.of(PREFILL), roles.of(DECODE))
        self._leave(now)

    def _leave(self, now: float) -> None:
        """A worker that leaves its role changes when nothing is left on it."""
        roles = self._roles
        assert roles is not None
        w = roles.leaving
        if w is not None and self._ends_s[w] == _NEVER and not self._held[w] and not self._load_of(w):
            roles.leave(w)
            self.switches += 1
            self._push(now + self._switch.takes(decodes=roles.next == DECODE), _CHANGED, w)

    def _load_of(self, w: int) -> int:
        return sum(self.workers[w].waiting) + sum(self.workers[w].running)

    def _changed(self, w: int, now: float) -> None:
        """The change of a worker's role is over."""
        if self._roles is not None:
            self._roles.join(w)
            self.workers[w].hold = False
            self._take_roles(self._roles.of(PREFILL), self._roles.of(DECODE))
            return
        self._changing = False
        self._decodes = not self._decodes
        worker = self._reach(w, now)
        worker.turn(not self._decodes, self._decodes, now)
        self._ready.add(w)

    def _alternate(self, now: float) -> None:
        """A worker alone takes prompts while it has room for them, then decodes what it has to the end."""
        worker = self.workers[0]
        if any(worker.waiting if self._decodes else worker.running):
            self._changing = True
            self.switches += 1
            worker.turn(False, False, now)
            tokens = sum(map(worker.held, range(len(worker.ranks)))) * worker.engine.kv_block
            self._push(now + self._switch.takes(decodes=not self._decodes, tokens=tokens), _CHANGED, 0)
