"""Cases: a deployment (model, GPUs, strategy, dtypes), and the points to estimate of it."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass


class Inexpressible(Exception):
    """A case that no spec can say, or whose own data contradict each other. The text is the reason, without names."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Degrees as the sources state them. `ep` and `moe_tp` are 0 where a source states none."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 0
    moe_tp: int = 0

    @property
    def gpus(self) -> int:
        return self.tp * self.pp * self.dp


@dataclass(frozen=True, slots=True)
class Deployment:
    """`model` and `gpu` as the source names them; dtypes are words of the language. `attention_dtype` None: default.
    `quantise`: whether activations are quantised by a kernel of their own (as the static estimates count) or not."""

    model: str
    gpu: str
    engine: str
    layout: Layout
    weight_dtype: str
    expert_dtype: str
    kv_dtype: str
    attention_dtype: str | None = None
    routing: str = "uniform"
    quantise: str = "fused"
    two_batch: bool = False
    expert_slots: int = 0  # replicas included; 0: one of each expert
    dispatch_dtype: str | None = None
    expert_activations: str | None = None  # of MXFP4 experts; None: the engine's choice


@dataclass(frozen=True, slots=True)
class Point:
    """One step: `sequences` of the whole group; `tokens`: prompt (prefill), or what each sequence attends to (decode)."""

    deployment: Deployment
    kind: str
    sequences: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the compiled plan says of a point. `classes`: seconds per step by class of op, summed over layers."""

    time_s: float
    floor_s: float
    classes: tuple[tuple[str, float], ...]
    weights_B: float
    kv_cache_B: float
    work_B: float
    reserve_B: float
    capacity_B: float

    def of(self, *names: str) -> float:
        """Seconds of some classes."""
        return sum(seconds for name, seconds in self.classes if name in names)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a point has no estimate."""

    reason: str


def half(*key: object) -> str:
    """`tune` or `check`, by a hash of what must not be on both sides."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return "tune" if digest[0] < 128 else "check"


def series(deployment: Deployment) -> tuple[object, ...]:
    """What rows of one deployment share: they go to one half together."""
    return (deployment.model, deployment.gpu, deployment.engine, deployment.expert_dtype, *astuple(deployment.layout))
