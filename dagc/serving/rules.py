"""The rules of an engine as the integers that a worker counts in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from .draft_steps import DraftSteps
from .records import Engine, Request


class CannotServe(ValueError):
    """A load that an engine can never serve: the message says why."""


class Rules:
    """Contexts and rooms are counted in parts of a token, `parts` of them to one, so that drafts, which bring fractions of tokens on
    average, leave them exact: `growth` of a context in a step, `ahead` of it what the drafts of a step may need beyond the mean,
    `size` of a block. `unit`: tokens of a prefix block, `unit_blocks` of the cache's."""

    __slots__ = (
        "ahead", "budget", "by_ring", "chunk", "drafts", "fifo", "growth", "kv_block", "kv_blocks", "limits", "mixed", "most", "open", "parts", "plain", "safe", "prefix_cache", "queue",
        "rank_of", "ranks", "request_s", "size", "slots", "swap", "unit", "unit_blocks", "whole",
    )  # fmt: skip

    def __init__(self, engine: Engine) -> None:
        self.drafts = DraftSteps(
            engine.tokens_per_step, engine.most_tokens_per_step, engine.draft_seed, engine.tokens_reached
        )
        self.parts = self.drafts.mean.denominator
        self.growth = self.drafts.mean.numerator
        self.most = self.drafts.most
        self.ahead = self.most * self.parts - self.growth
        self.kv_block, self.kv_blocks = engine.kv_block, engine.kv_blocks
        self.size = engine.kv_block * self.parts
        self.unit = engine.prefix_block or engine.kv_block
        self.unit_blocks, rest = divmod(self.unit, engine.kv_block)
        if rest:
            raise CannotServe(
                f"prefix blocks of {self.unit} tokens are no multiple of the cache's blocks of {engine.kv_block}"
            )
        self.budget, self.chunk = engine.batch_tokens, engine.chunk
        self.slots = min(engine.slots, self.budget // self.most)
        if self.slots < 1 or self.chunk < 1:
            raise CannotServe(
                f"a step of {self.budget} tokens has no room for a sequence of {self.most} tokens per step, or for a prompt"
            )
        self.plain = self.growth == self.parts  # a token a step
        self.safe = (self.kv_blocks - 1) * self.size - self.ahead  # parts of tokens that fit for sure
        self.mixed = engine.prompts == "mixed"
        self.whole = engine.admit == "whole"
        self.swap = engine.preempt == "swap"
        self.prefix_cache = engine.prefix_cache
        self.queue = engine.queue
        self.request_s = engine.request_s
        self.rank_of: Callable[[Request], int] | None = ORDERS[engine.policy]
        self.ranks = engine.ranks
        self.fifo = self.rank_of is None
        self.open = self.queue is None
        self.by_ring = self.plain and not self.whole  # a step takes the blocks of one place of the ring
        by_prompt = not self.whole and not self.prefix_cache  # a prompt takes the blocks of its tokens
        self.limits = (
            self.kv_blocks,
            self.parts,
            self.size,
            self.ahead,
            self.most,
            self.chunk,
            self.budget,
            self.unit_blocks,
            self.slots,
            self.fifo,
            by_prompt,
        )

    def new_queue(self) -> Any:
        """First come, first served: a deque; else a heap of (key, sequence)."""
        return deque() if self.rank_of is None else []

    def steps(self, prompt: int, output: int) -> int:
        """Decode steps of the next request: drawn, but no more than the cache has room for."""
        return min(
            self.drafts.of(output - 1), (self.kv_blocks * self.size - self.ahead - prompt * self.parts) // self.growth
        )

    def blocks(self, request: Request) -> int:
        """The most blocks that a request may hold, if it takes the mean number of steps."""
        steps = -(-(request.output - 1) * self.parts // self.growth)
        return -(-(request.prompt * self.parts + self.ahead + steps * self.growth) // self.size)

    def refusal(self, request: Request) -> str | None:
        """Why a request can never be served, or None."""
        _, prompt, output, _, _ = request
        if prompt > 0 and output > 0 and prompt * self.parts + output * self.growth <= self.safe:
            return None
        asks = f"a request of {prompt} prompt and {output} output tokens"
        if prompt < 1 or output < 1:
            return f"{asks}: both must be at least 1"
        need = self.blocks(request)
        if need > self.kv_blocks:
            return f"{asks} needs {need} blocks of {self.kv_block} tokens, the cache of a rank has {self.kv_blocks}"
        return None


def refuse(rules: Rules, requests: Iterable[Request]) -> None:
    """Raises `CannotServe` for the first request that can never be served."""
    parts, growth, safe = rules.parts, rules.growth, rules.safe
    for index, (_, prompt, output, _, _) in enumerate(requests):
        if prompt < 1 or output < 1 or prompt * parts + output * growth > safe:
            why = rules.refusal(Request(0, prompt, output))
            if why is not None:
                raise CannotServe(f"request {index + 1}: {why}")


ORDERS: dict[str, Callable[[Request], int] | None] = {
    "fcfs": None,
    "priority": lambda request: request.priority,
    "shortest": lambda request: request.prompt,
}
"""What goes first of those that wait, by policy: the smallest, of equals the one that came first."""
