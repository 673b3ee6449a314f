"""Caches on their way from prefill workers to decode workers."""

from __future__ import annotations

from collections import deque
from typing import Any

from .records import Transfer


class Links:
    """The sending side of each prefill worker: one piece of a cache after the other, in the order in which they were handed in."""

    def __init__(self, transfer: Transfer, workers: int) -> None:
        self._latency_s = transfer.latency_s
        self._per_token_s = transfer.per_token_s
        self._free_s: list[float] = [0] * workers
        self.busy_s: float = 0
        self.tokens = 0

    def send(self, worker: int, at: float, tokens: int) -> float:
        """Hands in `tokens` at `at` (times never fall); when the last of them has arrived."""
        takes = self._latency_s + self._per_token_s * tokens
        end = max(at, self._free_s[worker]) + takes
        self._free_s[worker] = end
        self.busy_s += takes
        self.tokens += tokens
        return end


class Parcel:
    """The cache of one request between two workers. Pieces are `made` as chunks end; they may be sent once the decode worker has
    `room` for the whole of it."""

    __slots__ = ("at_decode", "at_prefill", "decode", "made", "pieces", "prefill", "room", "whole")

    def __init__(self, prefill: int, at_prefill: Any, decode: int, at_decode: Any) -> None:
        self.prefill, self.at_prefill = prefill, at_prefill  # the worker that sends, and the request as it stands there
        self.decode, self.at_decode = decode, at_decode
        self.pieces: deque[int] = deque()
        self.made = 0  # tokens of which the cache was computed
        self.whole = False  # no more pieces come
        self.room = False

    def add(self, upto: int) -> None:
        """The cache is there up to token `upto` of the prompt; less than before if it was computed again."""
        if upto > self.made:
            self.pieces.append(upto - self.made)
            self.made = upto
