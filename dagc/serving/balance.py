"""Prompts that wait for one another: those of a worker's attention-DP ranks run in the same steps."""

from __future__ import annotations

from collections.abc import Sequence


class Gate:
    """Whether prompts may run in a step, `limit` >= 1 and `gather` as `Engine.balance` and `Engine.gather`. Steps are numbered by how
    many have been before.

    The rule is that of TensorRT-LLM (`attention_dp_config`: `enable_balance`, `timeout_iters`, `batching_wait_iters`), which
    counts two things. Steps since prompts were last let in, up to `limit`, whether any wait or not: so a prompt
    waits for that long at most. And, from when all ranks have one, steps in which more may come, up to `gather`."""

    __slots__ = ("_gather", "_gathered", "_limit", "_since", "_soon")

    def __init__(self, limit: int, gather: int) -> None:
        self._limit, self._gather = limit, gather
        self._since = self._gathered = 0
        self._soon = False

    def opens(self, step: int, ready: Sequence[bool], generating: Sequence[bool]) -> bool:
        """To be asked once about a step. `ready`: the rank has a prompt to compute, and budget, slot and room for it. `generating`: it has sequences
        in decode, or no request at all: what has prompts alone waits for nobody."""
        all_generate = all(generating)
        self._soon = False
        if all(ready):
            self._since = step + 1
            if not all_generate:
                return True
            self._soon = self._gathered < self._gather
            self._gathered = self._gathered + 1 if self._soon else 0
            return not self._soon
        if all_generate and self._left(step):
            return False
        self._since = step + 1
        return True

    def due(self, step: int) -> int:
        """Of a step to which it is closed: the next one that it may be open to though nothing comes and nothing ends."""
        return step + (1 if self._soon else self._left(step))

    def _left(self, step: int) -> int:
        """Steps until prompts have waited for long enough."""
        return self._limit - 1 - (step - self._since) % self._limit
