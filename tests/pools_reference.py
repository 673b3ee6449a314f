"""Several workers, slowly: every step of every worker, one instant after the other, with lists that are searched. It shares the records
with `dagc.serving` and nothing else.

Rules of a worker here: first come, first served; a request enters with room for all its tokens (`admit = whole`)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from dagc.serving.records import Engine, Load, Setup


class Done(NamedTuple):
    """What became of a request, numbered as they came."""

    number: int
    arrival_s: Any
    first_s: Any
    end_s: Any


class Sequence:
    """A request on one worker."""

    def __init__(self, number: int, prompt: int, output: int, remote: bool = False) -> None:
        self.number, self.prompt, self.output, self.remote = number, prompt, output, remote
        self.computed = prompt if remote else 0  # prompt tokens in the cache
        self.tokens = 1 if remote else 0  # output tokens that are out
        self.there = not remote  # its cache is on this worker
        self.blocks = 0


class Rank:
    """Queue, batch and blocks of an attention-DP rank."""

    def __init__(self) -> None:
        self.queue: list[Sequence] = []
        self.batch: list[Sequence] = []
        self.held: list[Sequence] = []  # prefilled, their cache not sent yet

    def load(self) -> int:
        return len(self.queue) + len(self.batch)


class Worker:
    """One step at a time."""

    def __init__(self, engine: Engine, role: str) -> None:
        self.engine, self.role = engine, role
        self.ranks = [Rank() for _ in range(engine.ranks)]
        self.end_s: Any = None  # of the step that runs
        self.plan: list[tuple[list[Sequence], list[tuple[Sequence, int]]]] = []
        self.admits = self.decodes = True
        self.free_s: Any = 0  # when its link is free
        self.leaving = False

    def load(self) -> int:
        return sum(rank.load() for rank in self.ranks)

    def blocks_of(self, sequence: Sequence) -> int:
        tokens = sequence.prompt + (0 if self.role == "prefill" else sequence.output - 1)
        return -(-tokens // self.engine.kv_block)

    def admitted(self) -> list[Sequence]:
        """Sequences with a cache elsewhere that get room at the start of this step."""
        engine, found = self.engine, []
        for rank in self.ranks if self.admits else []:
            decoding = sum(s.computed == s.prompt and s.there for s in rank.batch) if self.decodes else 0
            budget = engine.batch_tokens - (decoding if engine.prompts == "mixed" else 0)
            budget -= sum(min(engine.chunk, s.prompt - s.computed) for s in rank.batch)
            while rank.queue and len(rank.batch) < engine.slots and budget > 0:
                need = self.blocks_of(rank.queue[0])
                if sum(s.blocks for s in rank.batch + rank.held) + need > engine.kv_blocks:
                    break
                sequence = rank.queue.pop(0)
                sequence.blocks = need
                rank.batch.append(sequence)
                if sequence.remote:
                    found.append(sequence)
                else:
                    budget -= min(engine.chunk, sequence.prompt)
        return found

    def start(self, now: Any) -> None:
        engine = self.engine
        self.plan = []
        for rank in self.ranks:
            decoding = [s for s in rank.batch if s.computed == s.prompt and s.there] if self.decodes else []
            budget = engine.batch_tokens - (len(decoding) if engine.prompts == "mixed" else 0)
            chunks = []
            for s in rank.batch:
                take = min(engine.chunk, s.prompt - s.computed, budget)
                if take > 0:
                    chunks.append((s, take))
                    budget -= take
            self.plan.append(([] if chunks and engine.prompts == "first" else decoding, chunks))
        if not any(decoding or chunks for decoding, chunks in self.plan):
            return
        context = max(sum(s.prompt + s.tokens for s in decoding) for decoding, _ in self.plan)
        prompts = [sum(c for _, c in chunks) for _, chunks in self.plan]
        pairs = max(sum(c * s.computed + c * (c + 1) // 2 for s, c in chunks) for _, chunks in self.plan)
        sequences = Fraction(sum(len(decoding) for decoding, _ in self.plan), engine.ranks)
        line = engine.prices.step(sequences, context, Fraction(sum(prompts), engine.ranks), pairs, max(prompts))
        self.end_s = now + line.base_s + line.per_token_s * context

    def finish(self) -> list[tuple[Sequence, bool]]:
        """Sequences that ended here, or of which a chunk ended; whether they ended."""
        found = []
        for rank, (decoding, chunks) in zip(self.ranks, self.plan, strict=True):
            for s in decoding:
                s.tokens += 1
            for s, c in chunks:
                s.computed += c
                s.tokens += s.computed == s.prompt
            for s in decoding + [s for s, _ in chunks]:
                last = s.tokens == (1 if self.role == "prefill" else s.output)
                if last:
                    rank.batch.remove(s)
                    if self.role == "prefill" and s.output > 1:
                        rank.held.append(s)
                found.append((s, last))
        self.end_s = None
        return found


class Several:
    """All workers of a setup under a load."""

    def __init__(self, setup: Setup, load: Load) -> None:
        self.setup, self.load = setup, load
        self.workers = [Worker(group.engine, group.role) for group in setup.workers for _ in range(group.count)]
        self.requests = iter(load.requests)
        self.coming: list[tuple[Any, Any]] = []  # time, request (None: the next one of the load)
        self.sending: list[tuple[Any, int]] = []  # when the cache of a request has arrived
        self.changing: list[tuple[Any, Worker, str]] = []
        self.turns = {"front": 0, "back": 0}
        self.pieces: dict[int, list[int]] = {}  # of a prompt: not handed to the link yet
        self.sent_upto: dict[int, int] = {}
        self.whole: set[int] = set()
        self.parties: dict[int, tuple[Worker, Rank, Sequence, Worker, Sequence]] = {}
        self.room: set[int] = set()
        self.arrival_s: dict[int, Any] = {}
        self.first_s: dict[int, Any] = {}
        self.done: list[Done] = []
        self.arrived = self.rejected = self.switches = 0
        self.waiting_clients = 0
        self.alone = setup.switch is not None and len(self.workers) == 1
        if self.alone:
            self.workers[0].decodes = False
        elif setup.switch is not None:
            for i, worker in enumerate(self.workers):
                worker.role = "prefill" if i < len(self.workers) - len(self.workers) // 2 else "decode"

    # who gets a request
    def pick(self, role: str, end: str) -> tuple[Worker, Rank] | None:
        among = [w for w in self.workers if w.role == role and not w.leaving]
        places = [(w, w.ranks[r]) for r in range(among[0].engine.ranks) for w in among]
        queue = self.setup.workers[0].engine.queue if end == "front" else None
        free = [place for place in places if queue is None or len(place[1].queue) < queue]
        if not free:
            return None
        if self.setup.route == "least":
            return min(free, key=lambda place: (place[1].load(), len(place[1].queue), place[0].load()))
        turn = self.turns[end] % len(places)
        while places[turn] not in free:
            turn = (turn + 1) % len(places)
        self.turns[end] = (turn + 1) % len(places)
        return places[turn]

    def run(self) -> list[Done]:
        if self.load.clients:
            self.coming = [(0, None)] * self.load.clients
        else:
            self.next_arrival()
        while True:
            times = [w.end_s for w in self.workers if w.end_s is not None]
            times += [t for t, *_ in self.coming + self.sending + self.changing]
            if not times:
                return self.done
            now = min(times)
            self.ends(now)
            self.arrivals_of_caches(now)
            for change in [c for c in self.changing if c[0] == now]:
                self.changing.remove(change)
                self.changed(change[1], change[2])
            for coming in [c for c in self.coming if c[0] == now]:
                self.coming.remove(coming)
                self.come(coming[1], now)
            if [t for t, *_ in self.coming + self.sending + self.changing if t == now]:
                continue
            self.rebalance(now)
            self.starts(now)
            self.leave(now)

    def next_arrival(self) -> None:
        request = next(self.requests, None)
        if request is not None and (self.load.until_s is None or request.arrival_s <= self.load.until_s):
            self.coming.append((request.arrival_s, request))

    def send(self, at: Any) -> None:
        if self.load.until_s is None or at <= self.load.until_s:
            self.coming.append((at, None))

    def come(self, request: Any, now: Any) -> None:
        if request is not None:
            self.next_arrival()
        else:
            request = next(self.requests, None)
            if request is None:
                return
        number = self.arrived
        self.arrived += 1
        self.arrival_s[number] = now
        place = self.pick("both" if self.alone or self.workers[0].role == "both" else "prefill", "front")
        if place is None:
            self.rejected += 1
            self.waiting_clients += bool(self.load.clients)
            return
        place[1].queue.append(Sequence(number, request.prompt, request.output))

    def ended(self, number: int, now: Any) -> None:
        self.done.append(Done(number, self.arrival_s[number], self.first_s[number], now))
        if self.load.clients:
            self.send(now + self.load.think_s)
            if self.waiting_clients:
                self.waiting_clients -= 1
                self.send(now)

    def ends(self, now: Any) -> None:
        for worker in self.workers:
            if worker.end_s != now:
                continue
            for s, last in worker.finish():
                if s.tokens == 1 and not s.remote:
                    self.first_s.setdefault(s.number, now)
                onward = worker.role == "prefill" and s.output > 1
                if last and onward:
                    self.whole.add(s.number)
                if last and not onward:
                    self.ended(s.number, now)
                elif onward and (last or self.setup.transfer.chunks):
                    self.computed(worker, s, now)

    # caches
    def computed(self, worker: Worker, s: Sequence, now: Any) -> None:
        if s.number not in self.parties:
            place = self.pick("decode", "back")
            assert place is not None
            onward = Sequence(s.number, s.prompt, s.output, remote=True)
            place[1].queue.append(onward)
            rank = next(r for r in worker.ranks if s in r.batch + r.held)
            self.parties[s.number] = (worker, rank, s, place[0], onward)
            self.pieces[s.number] = []
            self.sent_upto[s.number] = 0
        self.pieces[s.number].append(s.computed - self.sent_upto[s.number])
        self.sent_upto[s.number] = s.computed
        self.deliver(s.number, now)

    def deliver(self, number: int, now: Any) -> None:
        if number not in self.room:
            return
        transfer, (worker, *_) = self.setup.transfer, self.parties[number]
        end = now
        for tokens in self.pieces[number]:
            end = max(worker.free_s, now) + transfer.latency_s + transfer.per_token_s * tokens
            worker.free_s = end
        self.pieces[number] = []
        if number in self.whole:
            self.sending.append((end, number))

    def arrivals_of_caches(self, now: Any) -> None:
        for sent in [s for s in self.sending if s[0] == now]:
            self.sending.remove(sent)
            _, rank, s, _, onward = self.parties.pop(sent[1])
            rank.held.remove(s)
            onward.there = True

    # roles
    def rebalance(self, now: Any) -> None:
        switch = self.setup.switch
        if switch is None or self.alone:
            return
        leaving = [w for w in self.workers if w.leaving]
        if not leaving and not self.changing:
            prefill, decode = ([w for w in self.workers if w.role == role] for role in ("prefill", "decode"))
            prompts, caches = (sum(len(r.queue) for w in some for r in w.ranks) for some in (prefill, decode))
            if len(prefill) > 1 and caches >= switch.backlog * len(decode) and caches > switch.ratio * prompts:
                leaving = [min(prefill, key=Worker.load)]
            elif len(decode) > 1 and prompts >= switch.backlog * len(prefill) and prompts > switch.ratio * caches:
                leaving = [min(decode, key=Worker.load)]
        for worker in leaving:
            worker.leaving = True
        self.leave(now)

    def leave(self, now: Any) -> None:
        for worker in [w for w in self.workers if w.leaving]:
            if worker.end_s is None and not worker.load() and not any(r.held for r in worker.ranks):
                other = {"prefill": "decode", "decode": "prefill"}[worker.role]
                worker.role, worker.leaving = "between", False
                self.switches += 1
                assert self.setup.switch is not None
                self.changing.append((now + self.cost(other == "decode", 0), worker, other))

    def cost(self, decodes: bool, cached: int) -> Any:
        switch = self.setup.switch
        assert switch is not None
        if decodes:
            return switch.cost_s + (switch.per_token_s * cached if self.alone and switch.per_token_s else 0)
        return switch.cost_s if switch.back_s is None else switch.back_s

    def changed(self, worker: Worker, role: str) -> None:
        if self.alone:
            worker.admits, worker.decodes = worker.decodes, worker.admits
        else:
            worker.role = role

    def starts(self, now: Any) -> None:
        """Rooms are given until nothing changes (a cache that arrives at once frees blocks of a worker that was looked at), then steps start."""
        if self.alone and self.changing:
            return
        for worker in self.workers:
            if worker.end_s is not None or worker.role == "between":
                continue
            for onward in worker.admitted():
                self.room.add(onward.number)
                self.deliver(onward.number, now)
            self.arrivals_of_caches(now)
            worker.start(now)
        if self.alone and self.workers[0].end_s is None:
            worker = self.workers[0]
            if any(rank.queue if worker.decodes else rank.batch for rank in worker.ranks):
                assert self.setup.switch is not None
                self.switches += 1
                cached = sum(s.blocks for rank in worker.ranks for s in rank.batch + rank.held) * worker.engine.kv_block
                self.changing.append((now + self.cost(not worker.decodes, cached), worker, "both"))
        # what a cache that arrived at once set free on a worker that already looked
        for worker in self.workers:
            if worker.end_s is None and worker.role != "between" and not (self.alone and self.changing):
                worker.admitted()
                worker.start(now)
