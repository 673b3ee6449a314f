"""What a GPU of every stage holds, in bytes."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.frozen import field, record
from ..spec.phase import EngineMemory


@record
class StageMemory:
    """Bytes on one GPU of a stage (the fullest one). `engine_B`: CUDA graphs, communication buffers and padding of
    weights. `capacity_B`: what the sum may be at most, by the engine's share of the GPU. `on`: of its ranks which (see Sharding);
    ranks that have experts alone count on behind the stages, as stages of their own."""

    stage: int
    weights_B: float
    kv_cache_B: float
    activations_B: float
    buffers_B: float
    reserve_B: float
    capacity_B: float
    engine_B: float = 0.0
    drafter_B: float = 0.0  # of the weights, those of what drafts tokens
    on: str = ""

    @property
    def peak_B(self) -> float:
        held = self.weights_B + self.kv_cache_B + self.activations_B + self.buffers_B
        return held + self.reserve_B + self.engine_B


@record
class Memory:
    """Per stage, and the stage that needs most of what it may. `total_B`: of a GPU. `live_B`: activations of each kind of
    layer at its fullest moment. `engine`: what bounds the sum."""

    stages: tuple[StageMemory, ...]
    total_B: float
    live_B: Mapping[str, float] = field(default_factory=dict, repr=False)
    engine: EngineMemory | None = field(default=None, repr=False)
    experts_total_B: float | None = None  # of a GPU that has experts alone, where it may be another

    def total_at(self, stage: int) -> float:
        """Of a GPU of a stage."""
        there = self.experts_total_B if self.stages[stage].on else None
        return self.total_B if there is None else there

    @property
    def worst(self) -> StageMemory:
        return max(self.stages, key=lambda s: s.peak_B / s.capacity_B)

    @property
    def capacity_B(self) -> float:
        """What the fullest stage may hold."""
        return self.worst.capacity_B

    @property
    def fraction(self) -> float:
        """Of what a GPU may hold."""
        return self.worst.peak_B / self.capacity_B

    @property
    def fits(self) -> bool:
        return self.worst.peak_B <= self.capacity_B
