"""Serving step by step: the rules of `docs/serving.md` as simply as they can be written, one step and one sequence at a time. Slow; the tests
hold `dagc.serving.worker` to it. It shares nothing with it but the records, the drawing of draft steps and the bins of gaps."""

from __future__ import annotations

import copy
from collections import Counter
from fractions import Fraction
from typing import Any

from dagc.serving.draft_steps import DraftSteps
from dagc.serving.gaps import number
from dagc.serving.records import Engine, Request


class Seq:
    """A request; `cache`: its tokens in the cache (fractions with drafts), `blocks` of its own and `shared` ids that hold them."""

    def __init__(self, no: int, request: Request, at: Any, steps: int) -> None:
        self.no, self.request, self.at = no, request, at
        self.todo, self.done, self.part = request.prompt, 0, 0
        self.left, self.cache = steps, Fraction(0)
        self.blocks, self.shared = 0, 0
        self.swapped = False
        self.first = self.started = self.last = None
        self.cached = 0
        self.ran_from = self.waited_from = at


class Rank:
    def __init__(self) -> None:
        self.queue: list[Seq] = []
        self.prompts: list[Seq] = []
        self.decode: list[Seq] = []
        self.text: dict[int, int] = {}  # id of a cached block: sequences that hold it
        self.generates = False  # as the step began
        self.idle: list[int] = []  # of them those that none holds, in the order in which they were let go


def up(tokens: Any, block: int) -> int:
    """Blocks for some tokens."""
    return -(-tokens // block)


class Reference:
    def __init__(self, engine: Engine, requests: list[Request]) -> None:
        self.engine = engine
        self.ranks = [Rank() for _ in range(engine.ranks)]
        self.drafts = DraftSteps(
            engine.tokens_per_step, engine.most_tokens_per_step, engine.draft_seed, engine.tokens_reached
        )
        self.gain = self.drafts.mean  # tokens of a step
        self.ahead = self.drafts.most - self.gain
        self.unit = engine.prefix_block or engine.kv_block
        self.slots = min(engine.slots, engine.batch_tokens // self.drafts.most)
        self.pending = list(requests)
        self.arrived = 0
        self.turn = 0
        self.counts: Counter[str] = Counter()
        self.gaps: Counter[int] = Counter()
        self.integrals: dict[str, Any] = dict.fromkeys(("waiting", "running", "busy", "blocks", "tokens"), 0)
        self.served: list[tuple[Any, ...]] = []
        self.most_blocks = 0
        self.waited = self.gathered = 0  # steps, of prompts for other ranks
        self.t: Any = 0

    # ---- blocks

    def held(self, rank: Rank) -> int:
        own = sum(seq.blocks for seq in rank.prompts + rank.decode)
        return own + sum(count > 0 for count in rank.text.values()) * (self.unit // self.engine.kv_block)

    def tokens(self, rank: Rank) -> Any:
        """In blocks held: those of the shared blocks once, and of each sequence what it has beyond them."""
        own = sum(seq.todo - seq.shared * self.unit for seq in rank.prompts) + sum(
            seq.cache - seq.shared * self.unit for seq in rank.decode
        )
        return own + sum(count > 0 for count in rank.text.values()) * self.unit

    def want(self, seq: Seq) -> int:
        """Blocks more that a sequence takes for its next step."""
        if self.engine.admit == "whole":
            return 0
        return (
            up(seq.cache + self.gain + self.ahead, self.engine.kv_block)
            - seq.blocks
            - seq.shared * self.unit // self.engine.kv_block
        )

    def room(self, rank: Rank) -> int:
        return self.engine.kv_blocks - self.held(rank) - sum(self.want(seq) for seq in rank.decode)

    def evict(self, rank: Rank, room: int) -> None:
        while len(rank.idle) * self.unit // self.engine.kv_block > room:
            del rank.text[rank.idle.pop(0)]

    def free(self, rank: Rank, seq: Seq) -> None:
        seq.blocks = 0
        for block in reversed(seq.request.blocks[: seq.shared]):
            rank.text[block] -= 1
            if rank.text[block] == 0:
                rank.idle.append(block)
        seq.shared = 0

    # ---- the queue

    def key(self, seq: Seq) -> tuple[int, int]:
        first = {"fcfs": 0, "priority": seq.request.priority, "shortest": seq.request.prompt}[self.engine.policy]
        return first, seq.no

    def enter(self, request: Request, at: Any) -> None:
        rank = self.ranks[self.turn]
        self.turn = (self.turn + 1) % len(self.ranks)
        no = self.arrived
        self.arrived += 1
        if self.engine.queue is not None and len(rank.queue) >= self.engine.queue:
            self.counts["rejected"] += 1
            return
        steps = self.drafts.of(request.output - 1)
        while request.prompt + self.ahead + steps * self.gain > self.engine.kv_blocks * self.engine.kv_block:
            steps -= 1  # a draw beyond what the cache can hold
        rank.queue.append(Seq(no, request, at, steps))
        rank.queue.sort(key=self.key)

    def take(self, before: Any, too: bool) -> None:
        while self.pending:
            at = self.pending[0].arrival_s + self.engine.request_s
            if at > before or (at == before and not too):
                break
            self.enter(self.pending.pop(0), at)

    # ---- a step

    def preempt(self, rank: Rank) -> Any:
        seq = max(rank.prompts + rank.decode, key=self.key)
        swapped = 0
        if seq in rank.prompts:
            rank.prompts.remove(seq)
            seq.done = seq.part = 0
        else:
            rank.decode.remove(seq)
            if self.engine.preempt == "swap":
                seq.swapped = True
                swapped = seq.cache
            else:
                seq.todo, seq.left, seq.done = int(seq.cache) + 1, seq.left - 1, 0
        self.free(rank, seq)
        self.counts["preempted"] += 1
        self.integrals["running"] += self.t - seq.ran_from
        seq.waited_from = self.t
        rank.queue.append(seq)
        rank.queue.sort(key=self.key)
        return swapped

    def opens(self) -> bool:
        """Whether prompts run in this step, or wait for those of other ranks: by what each rank would do, tried on a copy."""
        if not self.engine.balance or len(self.ranks) == 1:
            return True
        tried = copy.copy(self)
        tried.ranks, tried.counts, tried.integrals = copy.deepcopy((self.ranks, self.counts, self.integrals))
        prompts = [tried.schedule(rank, True)[0] > 0 for rank in tried.ranks]
        all_generate = all(
            after.generates or not (before.queue or before.prompts or before.decode)
            for before, after in zip(self.ranks, tried.ranks, strict=True)
        )
        if all(prompts):
            self.waited = 0
            if all_generate and self.gathered < self.engine.gather:
                self.gathered += 1
                return False
            if all_generate:
                self.gathered = 0
            return True
        self.waited += 1
        if self.waited >= self.engine.balance or not all_generate:
            self.waited = 0
            return True
        return False

    def schedule(self, rank: Rank, computes: bool) -> tuple[int, int, Any]:
        """Prompt tokens, pairs, tokens moved. Not `computes`: prompts wait."""
        engine, block = self.engine, self.engine.kv_block
        moved: Any = 0
        mixed = engine.prompts == "mixed"
        preempted = False
        if mixed or not rank.prompts:
            while self.room(rank) < 0:
                moved += self.preempt(rank)
                preempted = True
        rank.generates = bool(rank.decode) and self.room(rank) >= 0
        budget = engine.batch_tokens - (len(rank.decode) * self.drafts.most if mixed else 0)
        tokens = pairs = 0

        def work(seq: Seq) -> None:
            nonlocal tokens, pairs, budget
            seq.part = min(engine.chunk, budget, seq.todo - seq.done)
            tokens += seq.part
            pairs += sum(seq.done + i + 1 for i in range(seq.part))
            budget -= seq.part

        for seq in rank.prompts:
            if budget > 0 and computes:
                work(seq)
        while (
            rank.queue and not preempted and len(rank.prompts) + len(rank.decode) < self.slots and self.room(rank) >= 0
        ):
            seq = rank.queue[0]
            if not seq.swapped and not computes:
                break
            if budget > 0 or (seq.swapped and not mixed):
                self.evict(rank, self.room(rank))  # before a look at the text: decode's next blocks come first
            whole = seq.left * self.gain if engine.admit == "whole" else 0
            if seq.swapped:
                if mixed and budget < self.drafts.most:
                    break
                if up(seq.cache + self.ahead + (whole or self.gain), block) > self.room(rank):
                    break
                seq.blocks = up(seq.cache + self.ahead + whole, block)
                moved += seq.cache
                budget -= self.drafts.most
                seq.swapped = False
                rank.decode.append(seq)
            else:
                if budget <= 0:
                    break
                hits = 0
                if engine.prefix_cache:
                    full = seq.request.blocks[: seq.request.prompt // self.unit]
                    while hits < len(full) and full[hits] in rank.text:
                        hits += 1
                idle = sum(rank.text[b] == 0 for b in seq.request.blocks[:hits])
                own = up(seq.todo + self.ahead + whole, block) - hits * self.unit // block
                if own + idle * self.unit // block > self.room(rank):
                    break
                for b in seq.request.blocks[:hits]:
                    if rank.text[b] == 0:
                        rank.idle.remove(b)
                    rank.text[b] += 1
                seq.shared, seq.blocks = hits, own
                if hits:
                    seq.done = min(hits * self.unit, seq.todo - 1)
                    if seq.first is None:
                        seq.cached = seq.done
                        self.counts["hit_tokens"] += seq.done
                rank.prompts.append(seq)
                work(seq)
            rank.queue.remove(seq)
            self.integrals["waiting"] += self.t - seq.waited_from
            seq.ran_from = self.t
            if seq.started is None:
                seq.started = self.t
        self.evict(rank, engine.kv_blocks - self.held(rank))
        return tokens, pairs, moved

    def finish(self, rank: Rank, seq: Seq) -> None:
        self.free(rank, seq)
        self.integrals["running"] += self.t - seq.ran_from
        arrival = seq.request.arrival_s
        self.counts["finished"] += 1
        self.served.append((seq.no, arrival, seq.started - arrival, seq.first - arrival, self.t - arrival, seq.cached))

    def step(self) -> None:
        engine = self.engine
        computes = self.opens()
        plans = [self.schedule(rank, computes) for rank in self.ranks]
        prompt, moved = sum(plan[0] for plan in plans), max(plan[2] for plan in plans)
        decoders = [
            rank.decode if engine.prompts == "mixed" or not plan[0] else []
            for rank, plan in zip(self.ranks, plans, strict=True)
        ]
        sequences = sum(map(len, decoders))
        if not sequences and not prompt and not moved:
            assert not any(rank.queue for rank in self.ranks)
            self.t = self.pending[0].arrival_s + engine.request_s
            return
        context = max(sum((seq.cache + self.gain for seq in some), Fraction(0)) for some in decoders)
        takes: Any = moved * engine.swap_s
        if sequences or prompt:
            exact: Any = context.numerator / context.denominator
            n = len(self.ranks)
            more = (prompt / n, max(plan[1] for plan in plans), max(plan[0] for plan in plans)) if prompt else ()
            line = engine.prices.step(sequences / n, exact, *more)
            takes += line.base_s + line.per_token_s * (
                context if isinstance(self.pending_type, Fraction) else float(context)
            )
        for rank, some in zip(self.ranks, decoders, strict=True):
            for seq in some:
                if engine.admit != "whole":
                    seq.blocks += self.want(seq)
            self.integrals["blocks"] += takes * self.held(rank)
            self.integrals["tokens"] += takes * self.tokens(rank)
        self.most_blocks = max(self.most_blocks, sum(self.held(rank) for rank in self.ranks))
        end = self.t + takes
        self.take(end, too=False)
        self.t = end
        self.counts["steps"] += 1
        self.integrals["busy"] += takes
        ended = []
        for rank, some in zip(self.ranks, decoders, strict=True):
            for seq in some:
                seq.cache += self.gain
                seq.left -= 1
                self.gaps[number(end - seq.last)] += 1
                seq.last = end
                if not seq.left:
                    ended.append((seq.no, rank, seq))
            self.evict(rank, engine.kv_blocks - self.held(rank))
        for _, rank, seq in sorted(ended, key=lambda one: one[0]):
            rank.decode.remove(seq)
            self.finish(rank, seq)
        for rank in self.ranks:
            for seq in list(rank.prompts):
                self.advance(rank, seq)

    def advance(self, rank: Rank, seq: Seq) -> None:
        if not seq.part:
            return
        seq.done += seq.part
        self.counts["computed_tokens"] += seq.part
        seq.part = 0
        if self.engine.prefix_cache:
            for block in seq.request.blocks[seq.shared : min(seq.done, seq.request.prompt) // self.unit]:
                if block in rank.idle:
                    rank.idle.remove(block)
                rank.text[block] = rank.text.get(block, 0) + 1
                seq.shared += 1
                seq.blocks -= self.unit // self.engine.kv_block
        if seq.done == seq.todo:
            rank.prompts.remove(seq)
            if seq.first is None:
                seq.first = self.t
            else:
                self.gaps[number(self.t - seq.last)] += 1
            seq.last = self.t
            seq.cache = Fraction(seq.todo)
            if seq.left:
                rank.decode.append(seq)
            else:
                self.finish(rank, seq)

    def run(self) -> Reference:
        self.pending_type = self.pending[0].arrival_s if self.pending else 0
        while self.pending or any(rank.queue or rank.prompts or rank.decode for rank in self.ranks):
            self.take(self.t, too=True)
            self.step()
        return self
