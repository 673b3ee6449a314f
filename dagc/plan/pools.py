"""GPUs of one hardware section that serve the same phases: what the fullest of them holds, its room for cache, and both in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..base.frozen import field, record
from ..base.units import BYTES, show

if TYPE_CHECKING:
    from .result import PhaseResult


@record
class Pool:
    """GPUs that serve the same phases, and what `fullest` of them holds. `copies_B`: weights that it holds because not all
    phases lay them out the same way, beyond those of the largest phase. `work_B`: activations and buffers of the phase that needs
    most of them. `room_B`: (phase, stage) -> what everything else leaves for cache on the fullest GPU that serves the stage."""

    phases: tuple[str, ...]
    gpus: tuple[int, ...]
    fullest: int
    weights_B: float
    copies_B: float
    kv_cache_B: float
    work_B: float
    reserve_B: float
    capacity_B: float
    room_B: Mapping[tuple[str, int], float] = field(default_factory=dict, repr=False)
    hardware: str = ""  # name of the pool that they are of; nothing: the only one

    @property
    def peak_B(self) -> float:
        return self.weights_B + self.kv_cache_B + self.work_B + self.reserve_B

    @property
    def fraction(self) -> float:
        return self.peak_B / self.capacity_B

    @property
    def fits(self) -> bool:
        return self.peak_B <= self.capacity_B

    @property
    def shared(self) -> bool:
        """Several phases use these GPUs."""
        return len(self.phases) > 1


SIZES = ("weights_B", "copies_B", "kv_cache_B", "work_B", "reserve_B", "peak_B", "capacity_B")


def sizes(pool: Pool) -> dict[str, float]:
    """What the fullest GPU holds and may hold, by field."""
    return {name: getattr(pool, name) for name in SIZES}


def kv_tokens(result: PhaseResult, pools: Sequence[Pool], tokens: int) -> tuple[float, ...]:
    """By stage: tokens of cache for which the whole phase has room in addition to everything else that a GPU of the
    stage holds, other phases' part included. `tokens`: those that its sequences cache, all together; more of them
    would be of such sequences. Infinite where a stage caches nothing, 0 where everything else leaves no room."""
    import numpy as np

    out = []
    for need in result.memory.stages:
        key = (result.name, need.stage)
        room_B = min(pool.room_B[key] for pool in pools if key in pool.room_B)
        out.append(float(np.floor(max(0.0, room_B) / need.kv_cache_B * tokens)) if need.kv_cache_B else float("inf"))
    return tuple(out)


SAME = 0.001
"""Second copies of less than this share of the weights are not worth a word."""


def text(pool: Pool) -> str:
    """`weights 31 GB (once) + KV cache 19 GB + work 18 GB + reserve 1 GB = 69 GB of 80 GB`"""
    copies = f"{show(pool.copies_B, BYTES)} of it second copies" if pool.copies_B > SAME * pool.weights_B else "once"
    weights = f"{show(pool.weights_B, BYTES)} ({copies})" if pool.shared else show(pool.weights_B, BYTES)
    return (
        f"weights {weights} + KV cache {show(pool.kv_cache_B, BYTES)} + work {show(pool.work_B, BYTES)} + "
        f"reserve {show(pool.reserve_B, BYTES)} = {show(pool.peak_B, BYTES)} of {show(pool.capacity_B, BYTES)}"
    )


def heading(pool: Pool) -> str:
    """`prefill and decode on 16 GPUs`"""
    of = f" of {pool.hardware}" if pool.hardware else ""
    return f"{listed(pool.phases)} on {len(pool.gpus)} GPU{'s' if len(pool.gpus) > 1 else ''}{of}"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; of many the first ones."""
    shown = [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else list(names)
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
