"""cached_experts: experts that a step needs and that are not in the memory of their GPU, where that holds some of them.

A step needs an expert with chance q, that any of its tokens chooses it; steps are independent. It uses first what is there, then what comes.

    frequency   the most popular experts stay: no other is ever found
    lru         those used last stay: an expert is found if it was needed in the last t steps, with t such that as many are there as have
                room: sum of 1 - (1 - q)^t (characteristic time: H. Che, Y. Tung, Z. Wang, "Hierarchical Web caching systems", 2002). Where
                one step needs more than there is room for, some of the last step's are there, each as likely
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from ..spec.expert_use import ExpertUse
from ..spec.rebalance import LoadSeries

Floats = NDArray[np.float64]
Slots = NDArray[np.int64]

COLD = "cold"
"""The rule of GPUs that hold none yet."""


@record
class Held:
    """`room`: experts of a layer that a GPU holds, 0: all of its own; by a `rule` of above. `hits`: share of what a step needs that is there, where
    that was measured; `trace`: by which it is found out."""

    room: int = 0
    rule: str = ""
    hits: float | None = None
    trace: LoadSeries | None = None

    @property
    def all(self) -> bool:
        return not self.room

    @staticmethod
    def of(use: ExpertUse, slots: int, ranks: int) -> Held:
        """`slots`: physical experts of a layer, over all of its `ranks`."""
        if not use.resident or use.resident >= slots:
            return ALL_HELD
        room = use.resident // ranks
        return Held(room, use.cache, use.hits, use.trace) if use.warm else Held(room, COLD)


ALL_HELD = Held()
SURELY = 1.0 - 1e-12
"""A chance that is not told from certainty."""
HALVINGS = 200


def needed(p: Floats, slots: Slots, tokens: float) -> Floats:
    """Chance that a step needs the expert in a slot [ranks, slots]. `p` [experts]: chance that a token picks each; its copies share it."""
    copies = np.maximum(np.bincount(slots.ravel(), minlength=len(p)), 1)
    each = np.minimum((p / copies)[slots], 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(tokens * np.log1p(-each)) if tokens else np.zeros(slots.shape))


def missed(q: Floats, room: int, rule: str) -> Floats:
    """Expected experts of a step that are not there [ranks]. `q` [ranks, slots]; `room`: experts that a GPU holds."""
    if room >= q.shape[1]:
        return np.zeros(len(q))
    if rule == "frequency":
        return np.asarray(np.sort(q, axis=1)[:, : q.shape[1] - room].sum(axis=1))
    steps, each = characteristic_steps(q, room), q.sum(axis=1)
    few = np.minimum(1.0, room / np.maximum(each, 1e-300))[:, None]
    there = np.where(steps[:, None] < 1.0, q * few, 1.0 - gone(q, steps))
    return np.asarray((q * (1.0 - there)).sum(axis=1))


def gone(q: Floats, steps: Floats) -> Floats:
    """Chance that an expert was not needed in so many steps [ranks]."""
    rate = -np.log1p(-np.minimum(q, SURELY))
    return np.exp(-np.multiply(steps[:, None], rate, out=np.zeros_like(rate), where=rate > 0))


def characteristic_steps(q: Floats, room: int) -> Floats:
    """Steps after which as many experts as there is room for were needed [ranks], on average; infinite where so many never are."""
    rate = -np.log1p(-np.minimum(q, SURELY))
    found = np.full(len(q), np.inf)
    ever = (q > 0).sum(axis=1) > room
    low, high = np.zeros(len(q)), np.ones(len(q))
    for _ in range(HALVINGS):
        short = ever & ((-np.expm1(-rate * high[:, None])).sum(axis=1) < room)
        if not short.any():
            break
        high = np.where(short, 2.0 * high, high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        short = (-np.expm1(-rate * middle[:, None])).sum(axis=1) < room
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    found[ever] = ((low + high) / 2.0)[ever]
    return found


@lru_cache(maxsize=32)
def traced(trace: LoadSeries, slots: tuple[tuple[int, ...], ...], room: int, rule: str) -> tuple[float, ...]:
    """Share of what steps needed that was not there, on each rank, exactly: over all steps and layers of a trace, which is run through twice and
    counted the second time. `slots`: experts of each rank."""
    return tuple(_traced(trace, own, room, rule) for own in slots)


def _traced(trace: LoadSeries, own: tuple[int, ...], room: int, rule: str) -> float:
    needed_, missed_ = 0, 0
    for layer in range(len(trace.windows[0])):
        steps = [[e for e in own if window[layer][e] > 0] for window in trace.windows]
        kept: dict[int, None] = {}
        if rule == "frequency":
            loads = {e: sum(window[layer][e] for window in trace.windows) for e in own}
            kept = dict.fromkeys(sorted(own, key=lambda e: (-loads[e], e))[:room])
        for counts in (False, True):
            for wanted in steps:
                coming = [e for e in wanted if e not in kept]
                if counts:
                    needed_, missed_ = needed_ + len(wanted), missed_ + len(coming)
                if rule != "frequency":
                    kept = _used(kept, wanted, coming, room)
    return missed_ / needed_ if needed_ else 0.0


def _used(kept: dict[int, None], wanted: list[int], coming: list[int], room: int) -> dict[int, None]:
    """Those used last, the oldest first: what was there is used before what comes."""
    for e in (*(e for e in wanted if e in kept), *coming):
        kept.pop(e, None)
        kept[e] = None
    return dict.fromkeys(list(kept)[-room:])
