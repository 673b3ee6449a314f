"""Caches on their way from prefill workers to decode workers."""

from __future__ import annotations

from .live_request import Sequence
from .records import Request, Transfer


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
    """A request on its way from prefill to decode, with its cache. Pieces of that are `made` as chunks end; they may be sent once the
    decode worker has given it room for the whole of it."""

    __slots__ = ("at_decode", "at_prefill", "decode", "made", "pieces", "prefill", "request", "sent_s", "whole")

    def __init__(self, request: Request, prefill: int) -> None:
        self.request = request
        self.prefill, self.decode = prefill, -1  # workers; -1: none yet
        self.at_prefill: Sequence | None = None  # while its blocks there are held
        self.at_decode: Sequence | None = None  # once it has room there
        self.pieces: list[int] = []
        self.made = 0  # tokens of which the cache was computed
        self.whole = False  # no more pieces come
        self.sent_s: float = 0  # when the pieces handed to the link have arrived

    def add(self, upto: int) -> None:
        """The cache is there up to token `upto` of the prompt; less than before if it was computed again."""
        if upto > self.made:
            self.pieces.append(upto - self.made)
            self.made = upto
