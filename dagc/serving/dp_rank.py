"""One attention-DP rank of a worker: its queue, its sequences, its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from . import gaps
from .live_request import COMPUTED, SWAPPED, Sequence
from .prefix import Found, PrefixCache
from .rules import Rules

NEVER = 1 << 62
"""A step that is never reached."""


def floors(first: int, more: int, size: int, count: int) -> int:
    """Sum of (first + more i) // size over i = 0 .. count - 1, in as many rounds as Euclid's algorithm takes for `more` and `size`."""
    if more == 1:  # nearly always
        whole, rest = divmod(first + count, size)
        before, less = divmod(first, size)
        return (size * (whole * (whole - 1) - before * (before - 1)) >> 1) + whole * rest - before * less
    total = 0
    while count:
        whole, more = divmod(more, size)
        quotient, first = divmod(first, size)
        total += count * (count - 1) // 2 * whole + count * quotient
        # points below the line, counted by columns so far: what is left, by rows
        count, first = divmod(more * count + first, size)
        more, size = size, more
    return total


def held_by(ranks: Iterable[Rank], step: int) -> int:
    """Blocks that some ranks hold after `step`, as `Rank.held`."""
    total, since = 0, None
    for rank in ranks:
        if rank.skipped != since:
            since, rules = rank.skipped, rank.rules
            turns, rest = divmod(0 if rules.whole else (step - since) * rules.growth, rules.size)
        total += rank.fixed + rank.decoding * turns
        if rest and rank.decoding:
            total += sum(rank.ring[-rest:])
    return total


class Shared:
    """What the ranks of a worker share. `ends`: a heap of (step, number, sequence) of the sequences in decode, by the step after
    which they end; `worked`: sequences whose prompts are in the step under way; `resumed`: those that decode in it after a pause.
    `held`: blocks, of every rank as it was last looked at; all of them were after step `looked`. `fixed` and `ring`: those of all ranks
    together, which say what all hold while they have decoded in the same steps. `touched`: ranks whose sequences in decode are not
    what they were when the fullest one was last looked for. Integrals over time; `blocks_s` and `tokens_s` (parts of tokens) are
    doubled, of sequences that have ended: each as if all its steps of decode took equally long, without blocks that
    it shares but with their tokens; `refs_s`: of such blocks of each."""

    __slots__ = (
        "blocks_s", "decoding", "ends", "fixed", "gaps", "held", "hit_tokens", "looked", "most_blocks", "most_running", "most_waiting", "on_room", "preempted",
        "queued_s", "queued_since", "refs_s", "requests", "resumed", "ring", "running", "running_all", "running_s", "runs", "tokens_s", "touched", "waiting", "waiting_all", "waiting_s", "worked",
    )  # fmt: skip

    def __init__(self, ranks: int, size: int) -> None:
        self.ends: list[tuple[int, int, Sequence]] = []
        self.worked: list[Sequence] = []
        self.resumed: list[Sequence] = []
        self.gaps: dict[int, float] = {}
        self.runs: list[float] = []  # gaps not yet in their bins, see gaps.add_runs
        self.waiting, self.running, self.requests = [0] * ranks, [0] * ranks, [0] * ranks  # the last: both
        self.waiting_all = self.running_all = self.decoding = self.held = self.fixed = self.looked = 0
        self.ring = [0] * size
        self.touched: set[int] = set()
        self.most_waiting = self.most_running = self.most_blocks = 0
        self.preempted = self.hit_tokens = 0
        self.waiting_s: float = 0
        self.running_s: float = 0
        self.blocks_s: float = 0
        self.refs_s: float = 0
        self.tokens_s: float = 0
        self.queued_s: float = 0
        self.queued_since: float = 0
        self.on_room: Callable[[Sequence, float], bool] | None = None

    def waits(self, index: int, now: float) -> None:
        """One waits at a rank."""
        self.waiting[index] += 1
        if not self.waiting_all:
            self.queued_since = now
        self.waiting_all += 1
        if self.waiting_all > self.most_waiting:
            self.most_waiting = self.waiting_all


class Rank:
    """Steps are counted by the worker; this rank has decoded in all but `skipped` of them: its own step s.

    Context of its sequences in decode, in the step after s: `offset + decoding growth s`. Blocks held after s, with g = growth s:
    `fixed + decoding (g // size)` + the sequences whose place in the `ring` is at or beyond `size - g % size`: a sequence that
    holds ceil(x / size) blocks at x = level size + place + g + 1 has fixed part `level + 1`."""

    __slots__ = (
        "blocks", "cache", "decoding", "fixed", "index", "made_room", "looked", "offset", "queue", "ring", "rules", "shared", "short", "skipped",
        "stall", "tokens", "under_way",
    )  # fmt: skip

    def __init__(self, index: int, rules: Rules, shared: Shared) -> None:
        self.index, self.rules, self.shared = index, rules, shared
        self.tokens = 0  # of prompts and outputs of the sequences that ended here
        self.queue = rules.new_queue()
        self.under_way: list[Sequence] = []  # prompts in part computed
        self.decoding = self.offset = self.fixed = self.skipped = 0
        self.blocks = self.looked = 0  # held when last looked at; the last look at all ranks that is in it
        self.ring = [0] * rules.size
        self.cache = PrefixCache() if rules.prefix_cache else None
        self.short = NEVER  # the step that cannot start without a look at the blocks
        self.made_room = [0, 0]  # by a look ahead at the step: parts of tokens moved, sequences preempted
        self.stall: tuple[float, list[Sequence]] | None = None  # decode waits for prompts: since when; who joined since

    def held(self, step: int) -> int:
        """Blocks that sequences hold after step `step` of the worker, if none has come or gone until then."""
        decoding = self.decoding
        if not decoding or self.rules.whole:
            return self.fixed
        rules = self.rules
        turns, rest = divmod((step - self.skipped) * rules.growth, rules.size)
        if rest:
            return self.fixed + decoding * turns + sum(self.ring[-rest:])
        return self.fixed + decoding * turns

    def look(self) -> None:
        """Blocks held when all ranks were last looked at, before anything changes: of many ranks an event changes one or two."""
        if self.looked != self.shared.looked:
            self.looked = self.shared.looked
            self.blocks = self.held(self.looked)

    def evict(self, step: int) -> None:
        """Text that no sequence holds gives way to the blocks held after `step`. To be called before any of these is let go."""
        cache = self.cache
        if cache is not None and cache.idle:
            cache.shrink((self.rules.kv_blocks - self.held(step)) // self.rules.unit_blocks)

    def grown(self, step: int) -> int:
        """Blocks that the step after `step` takes."""
        rules = self.rules
        if rules.whole or not self.decoding:
            return 0
        return self.held(step + 1) - self.held(step)

    def _steps(self, step: int, held: int) -> int:
        """How many steps have room for all in decode; at least 1."""
        rules = self.rules
        low, high = 1, ((rules.kv_blocks - held) // self.decoding + 1) * rules.size // rules.growth + 1
        while high - low > 1:  # for `low` there is room, for `high` there is not
            middle = (low + high) // 2
            if self.held(step + middle) <= rules.kv_blocks:
                low = middle
            else:
                high = middle
        return low

    def push(self, seq: Sequence) -> None:
        """Into the queue, behind all that go before it; one that was preempted goes before all that came after it."""
        if self.rules.rank_of is None:
            if self.queue and self.queue[0].no > seq.no:
                self.queue.appendleft(seq)
            else:
                self.queue.append(seq)
        else:
            heappush(self.queue, (self.key(seq), seq))

    def key(self, seq: Sequence) -> tuple[int, int]:
        """Its place in the order of the policy."""
        rank_of = self.rules.rank_of
        return (0 if rank_of is None else rank_of(seq.request), seq.no)

    def join(self, seq: Sequence, tokens: int, step: int, now: float) -> None:
        """A sequence with `tokens` in the cache, in parts, decodes from the step after `step` on."""
        rules, shared, skipped = self.rules, self.shared, self.skipped
        self.look()
        shared.touched.add(self.index)
        growth = rules.growth
        own_step = step - skipped
        grown = growth * own_step
        seq.end = end = own_step + seq.left
        seq.alone = alone = tokens + growth - grown
        self.offset += alone
        self.decoding += 1
        shared.decoding += 1
        if not rules.whole:
            reach = tokens + rules.ahead - 1
            level, place = divmod(reach - grown, rules.size)
            seq.level, seq.place = level, place
            self.ring[place] += 1
            shared.ring[place] += 1
            level -= reach // rules.size
            self.fixed += level
            shared.fixed += level
        seq.joined_s = now
        seq.entry = entry = (end + skipped, seq.no, seq)
        heappush(shared.ends, entry)

    def leave(self, seq: Sequence, step: int, now: float) -> int:
        """A sequence no longer decodes; its blocks are its `own` again. Returns the tokens in its cache, in parts."""
        rules, shared = self.rules, self.shared
        self.look()
        shared.touched.add(self.index)
        growth = rules.growth
        own_step = step - self.skipped
        alone = seq.alone
        tokens = alone + growth * (own_step - 1)
        before = alone + growth * (seq.end - seq.left - 1)
        self.offset -= alone
        self.decoding -= 1
        shared.decoding -= 1
        seq.entry = None
        running_s, joined_s, first = seq.running_s, seq.joined_s, seq.own
        decode_s = now - joined_s
        blocks_s = 2 * first * (now - running_s)
        if seq.refs:
            shared.refs_s += (now - running_s) * seq.refs
        if not rules.whole:
            self.ring[seq.place] -= 1
            shared.ring[seq.place] -= 1
            reach = tokens + rules.ahead - 1
            blocks = reach // rules.size
            self.fixed += blocks - seq.level
            shared.fixed += blocks - seq.level
            own = blocks + 1
            if seq.refs:
                own -= seq.refs * rules.unit_blocks
            seq.own = own
            steps = own_step - (seq.end - seq.left)
            if steps:
                fewer = steps * blocks - floors(reach - growth * (steps - 1), growth, rules.size, steps)
                blocks_s += 2 * decode_s * (own - first) - 2 * decode_s * fewer / steps
        shared.running_s += now - running_s
        shared.blocks_s += blocks_s
        shared.tokens_s += 2 * (joined_s - running_s) * before + decode_s * (before + tokens - growth)
        return tokens

    def drop(self, seq: Sequence, now: float) -> None:
        """A prompt under way stops being computed."""
        self.under_way.remove(seq)
        self.keeps(seq, now, seq.todo * self.rules.parts)
        self.shared.running_s += now - seq.running_s

    def keeps(self, seq: Sequence, now: float, tokens: int) -> None:
        """Books what a sequence has held with nothing changing."""
        shared, elapsed = self.shared, now - seq.running_s
        shared.blocks_s += 2 * elapsed * seq.own
        shared.tokens_s += 2 * elapsed * tokens
        shared.refs_s += elapsed * seq.refs

    def let_go(self, seq: Sequence, now: float) -> None:
        """The blocks of a sequence are free."""
        self.look()
        free = seq.own
        if seq.refs:
            assert self.cache is not None and seq.text is not None
            free += self.cache.release(seq.text, now) * self.rules.unit_blocks
            seq.refs = 0
            seq.text = None
        self.fixed -= free
        self.blocks -= free
        self.shared.fixed -= free
        self.shared.held -= free

    def register(self, seq: Sequence, step: int, now: float) -> None:
        """The prompt's blocks that are computed are text that others may share. It counts as if it had been from the first step on."""
        cache, rules = self.cache, self.rules
        assert cache is not None
        new = seq.request.blocks[seq.refs : min(seq.done, seq.request.prompt) // rules.unit]
        if new:
            count = len(new)
            seq.text, twice = cache.keep(seq.text, new, seq.running_s, now)
            if twice:
                self.evict(step)
                self.look()
                self.fixed -= twice * rules.unit_blocks  # computed twice, kept once
                self.shared.fixed -= twice * rules.unit_blocks
            seq.refs += count
            seq.own -= count * rules.unit_blocks

    def ready(self, step: int, now: float, admits: bool, decodes: bool) -> bool:
        """Whether `schedule`, which is to follow, could compute a part of a prompt. Makes room for decode as it would."""
        rules, under_way, cache, queue = self.rules, self.under_way, self.cache, self.queue
        mixed = rules.mixed and decodes
        room = rules.kv_blocks - self.held(step) - self.grown(step)
        if room < 0:
            room, *self.made_room = self._make_room(step, now, decodes and (mixed or not under_way))
        budget = rules.budget - (self.decoding * rules.most if mixed else 0)
        if under_way and budget > 0:
            return True
        free_slots = rules.slots - self.shared.running[self.index]
        if budget <= 0 or not queue or not admits or self.made_room[1] or free_slots <= 0:
            return False
        behind = queue if rules.fifo else [seq for _, seq in sorted(queue)] if queue[0][1].source else [queue[0][1]]
        for seq, _ in zip(behind, range(free_slots), strict=False):
            if room < 0 or budget <= 0:
                return False
            if cache is not None:
                cache.shrink(room // rules.unit_blocks)
            need = self._needs(seq)[0]
            if need > room:
                return False
            if not seq.source:
                return True
            if mixed and budget < rules.most:
                return False
            room -= need
            budget -= rules.most
        return False

    def generates(self, step: int, decodes: bool) -> bool:
        """Whether it has sequences in decode, with room for their next step, or no requests at all."""
        if not (self.decoding and decodes):
            return not (self.queue or self.under_way)
        return self.rules.kv_blocks - self.held(step) - self.grown(step) >= 0

    def _make_room(self, step: int, now: float, preempts: bool) -> tuple[int, int, int]:
        """For the blocks that decode takes, of which there are too few. Returns the blocks left, parts of tokens moved, sequences preempted."""
        rules, shared = self.rules, self.shared
        self.look()
        held = self.held(step)
        shared.most_blocks = max(shared.most_blocks, shared.held + held - self.blocks)
        self.evict(step)
        room = rules.kv_blocks - held - self.grown(step)
        moved = preempted = 0
        while room < 0 and preempts:
            moved += self._preempt(step, now)
            preempted += 1
            room = rules.kv_blocks - self.held(step) - self.grown(step)
        return room, moved, preempted

    def schedule(
        self, step: int, now: float, admits: bool, decodes: bool, computes: bool = True
    ) -> tuple[int, int, int]:
        """What the rank does in the step after `step`: prompt tokens, their pairs, parts of tokens of cache that are moved. Its sequences
        in decode come first, then prompts under way, then the queue in its order, up to the first that has no room. Not `computes`: prompts wait."""
        rules, under_way, cache = self.rules, self.under_way, self.cache
        kv_blocks, parts, size, ahead, most, chunk, budget, unit_blocks, slots, fifo, plain = rules.limits
        mixed = rules.mixed and decodes
        self.look()
        held = self.held(step)
        grown = self.ring[-1 - (step - self.skipped) % size] if rules.by_ring else self.grown(step)
        room = kv_blocks - held - grown
        moved, preempted = self.made_room
        if preempted:
            self.made_room = [0, 0]
        if room < 0:
            room, now_moved, now_preempted = self._make_room(step, now, decodes and (mixed or not under_way))
            moved += now_moved
            preempted += now_preempted
            held = self.held(step)
        if mixed:
            budget -= self.decoding * most
        tokens = pairs = 0
        shared = self.shared
        worked = shared.worked
        for seq in under_way:
            if budget <= 0 or not computes:
                break
            seq.part = part = min(chunk, budget, seq.todo - seq.done)
            tokens += part
            pairs += part * seq.done + part * (part + 1) // 2
            budget -= part
            worked.append(seq)
        queue = self.queue
        if queue and admits and not preempted:
            index = self.index
            free_slots = slots - shared.running[index]
            started = taken = 0
            brought = False
            while started < free_slots and queue and room >= 0:
                seq = queue[0] if fifo else queue[0][1]
                if not seq.source and not computes:
                    break
                if budget <= 0 and (mixed or not seq.source):
                    break
                if plain and not seq.source:
                    seq.own = need = (seq.todo * parts + ahead - 1) // size + 1
                    if need > room:
                        break
                    taken += need
                else:
                    if cache is not None:
                        cache.shrink(room // unit_blocks)
                    need = self._admit(seq, room, mixed and budget < most, now)
                    if need < 0:
                        break
                room -= need
                if fifo:
                    queue.popleft()
                else:
                    heappop(queue)
                started += 1
                shared.waiting_s += now - seq.waiting_s
                seq.running_s = now
                if seq.started_s is None:
                    seq.started_s = now
                if seq.source:
                    if seq.source == SWAPPED:
                        moved += seq.done
                    brought = True
                    if seq.source == SWAPPED or shared.on_room is None or shared.on_room(seq, now):
                        self.resume(seq, step, now)
                    seq.source = COMPUTED
                    budget -= most
                    continue
                done = seq.done
                part = seq.todo - done
                if part > chunk:
                    part = chunk
                if part > budget:
                    part = budget
                seq.part = part
                tokens += part
                pairs += part * done + part * (part + 1) // 2
                budget -= part
                under_way.append(seq)
                worked.append(seq)
            if started:
                self.fixed += taken
                shared.fixed += taken
                held = held + taken if plain and not brought else self.held(step)
                shared.waiting[index] -= started
                shared.running[index] += started
                shared.waiting_all = waiting = shared.waiting_all - started
                if not waiting:
                    shared.queued_s += now - shared.queued_since
                shared.running_all = running = shared.running_all + started
                if running > shared.most_running:
                    shared.most_running = running
        shared.held += held - self.blocks
        self.blocks = held
        if shared.held > shared.most_blocks:
            shared.most_blocks = shared.held
        growing = self.decoding + len(under_way)
        # a sequence takes at most one block more than its growth, so this many steps have room
        steps = ((kv_blocks - held) // growing - 1) * size // rules.growth if growing and not rules.whole else NEVER
        if steps < 32:
            steps = 1 if under_way else self._steps(step, held)  # a prompt is not in the ring yet
        self.short = step + (1 if preempted else steps)  # the queue has had no look at the room: one step, then again
        return tokens, pairs, moved

    def _admit(self, seq: Sequence, room: int, full: bool, now: float) -> int:
        """Gives a sequence of the queue its blocks. Returns what they and its next step take of `room`; -1: there is none."""
        need, own, found = self._needs(seq)
        if need > room or (full and seq.source):
            return -1
        seq.own = own
        if seq.source:
            self.fixed += own
            self.shared.fixed += own
            return need
        hits, cache = found[0] if found is not None else 0, self.cache
        if hits:
            assert cache is not None and found is not None
            seq.text = cache.take(found, now)
            seq.refs = hits
            seq.done = min(hits * self.rules.unit, seq.todo - 1)
            if seq.first_s is None:
                seq.cached = seq.done
                self.shared.hit_tokens += seq.done
        self.fixed += need
        self.shared.fixed += need
        return need

    def _needs(self, seq: Sequence) -> tuple[int, int, Found | None]:
        """Of a sequence of the queue: what its blocks and its next step take of the room, its own blocks, and what the prefix cache has of it."""
        rules = self.rules
        size = rules.size
        if seq.source:
            reach = seq.done + rules.ahead
            need = -(-(reach + (seq.left if rules.whole else 1) * rules.growth) // size)
            return need, need if rules.whole else -(-reach // size), None
        reach = seq.todo * rules.parts + rules.ahead
        if rules.whole:
            reach += seq.left * rules.growth
        own = -(-reach // size)
        cache, blocks = self.cache, seq.request.blocks
        if cache is None or not blocks:
            return own, own, None
        found = cache.find(blocks, min(len(blocks), seq.request.prompt // rules.unit))
        own -= found[0] * rules.unit_blocks
        return own + found[1] * rules.unit_blocks, own, found

    def resume(self, seq: Sequence, step: int, now: float) -> None:
        """A sequence whose cache has come decodes."""
        self.join(seq, seq.done, step, now)
        self.shared.resumed.append(seq)

    def _preempt(self, step: int, now: float) -> int:
        """The sequence that would be served last goes back to the queue. Returns the parts of tokens that go to the host."""
        rules, shared, index = self.rules, self.shared, self.index
        decoding = [entry[2] for entry in shared.ends if entry[2].rank == index and entry is entry[2].entry]
        seq = max(decoding + self.under_way, key=self.key)
        moved = 0
        if seq.entry is None:
            self.drop(seq, now)
            seq.done = 0
        else:
            if self.stall is None:
                seq.last_s = now
            elif seq in self.stall[1]:
                self.stall[1].remove(seq)
            else:
                seq.last_s = self.stall[0]
            tokens = self.leave(seq, step, now)
            seq.left = seq.end - (step - self.skipped)
            if rules.swap:
                seq.source, seq.done = SWAPPED, tokens
                moved = tokens
            else:
                seq.left -= 1
                seq.todo = tokens // rules.parts + 1
                seq.done = 0
        self.let_go(seq, now)
        shared.preempted += 1
        shared.running_all -= 1
        shared.running[index] -= 1
        seq.waiting_s = now
        shared.waits(index, now)
        self.push(seq)
        return moved

    def flush(self, end: float, resumed: int) -> int:
        """The first tokens after a stall, but of the `resumed`: books their gaps, returns how many they are."""
        assert self.stall is not None
        since, others = self.stall
        self.stall = None
        weight = self.decoding - len(others) - resumed
        if weight:
            gaps.add_run(self.shared.gaps, end - since, 0, 1, weight)
        for seq in others:
            gaps.add_run(self.shared.gaps, end - seq.last_s, 0, 1, 1)
        return weight + len(others)
