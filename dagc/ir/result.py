"""What the analysis passes find: records that reports, exporters and requirements read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .graph import Graph
from .network import GroupShape
from .sharding import Axes

Array = NDArray[np.float64]
"""Per rank by broadcasting: one dimension a mesh atom, of length 1 where ranks are alike."""


@dataclass(frozen=True, slots=True)
class OpCost:
    """Cost of one execution. Arrays are per rank; `bound` names what the time is made of:
    compute, memory, launch, node, cluster or latency."""

    time_s: Array
    floor_s: Array
    bound: str
    flops: float = 0.0
    bytes: float = 0.0
    payload_B: float = 0.0
    wire_B: float = 0.0
    group: GroupShape | None = None
    algorithm: str = ""
    family: str = ""  # the measured kernel that the time is from; empty: the roofline or alpha-beta
    error: float = 0.0  # its median relative error
    outside: tuple[str, ...] = ()  # sizes beyond what was measured


@dataclass(frozen=True, slots=True)
class Transfer:
    """The send of the residual stream from one stage to the next, per rank."""

    payload_B: float
    time_s: float
    floor_s: float
    bound: str


@dataclass(frozen=True, slots=True)
class Costs:
    """`ops`: (segment, op) -> cost. `load`: tokens of each expert rank over the mean, uniform = all ones. `plain`: load
    of the fullest rank without the spare copies of experts. `dropped`: share of the choices over an expert's capacity."""

    ops: Mapping[tuple[str, str], OpCost]
    transfer: Transfer
    token_return: Transfer
    load: NDArray[np.float64]
    distinct_experts: float
    plain: float = 1.0
    dropped: float = 0.0

    @property
    def imbalance(self) -> float:
        return float(self.load.max())


@dataclass(frozen=True, slots=True)
class PathStep:
    """One op of the critical path, alike executions added up."""

    segment: str
    op: str
    kind: str
    time_s: float
    count: int
    bound: str


@dataclass(frozen=True)
class Run:
    """`count` consecutive alike layers of a stage executing one micro-batch from `start_s` on, each taking
    `period_s`; `starts`/`finishes` of the ops (keyed (op, lane)) are relative to the layer's own start."""

    segment: str
    count: int
    start_s: float
    period_s: float
    starts: Mapping[tuple[str, int], Array]
    finishes: Mapping[tuple[str, int], Array]


@dataclass(frozen=True)
class Schedule:
    """`cells[stage][microbatch]`: the runs of that cell. `latency_s`: makespan of one pass of all
    micro-batches; `period_s`: a decode step in steady state (equal to latency_s for prefill)."""

    cells: tuple[tuple[tuple[Run, ...], ...], ...]
    sends: Mapping[tuple[int, int], tuple[float, float]]
    latency_s: float
    period_s: float
    stage_s: tuple[float, ...]
    path: tuple[PathStep, ...]

    @property
    def bubble(self) -> float:
        """Share of stage time spent idle in one pass."""
        busy = sum(self.stage_s) * len(self.cells[0])
        return max(0.0, 1.0 - busy / (self.period_s * len(self.stage_s))) if self.period_s else 0.0


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes on one GPU of a stage (the fullest one)."""

    stage: int
    weights_B: float
    kv_cache_B: float
    activations_B: float
    buffers_B: float
    reserve_B: float

    @property
    def peak_B(self) -> float:
        return self.weights_B + self.kv_cache_B + self.activations_B + self.buffers_B + self.reserve_B


@dataclass(frozen=True, slots=True)
class Memory:
    """Per stage, and the stage that needs most."""

    stages: tuple[StageMemory, ...]
    capacity_B: float

    @property
    def worst(self) -> StageMemory:
        return max(self.stages, key=lambda s: s.peak_B)

    @property
    def fraction(self) -> float:
        return self.worst.peak_B / self.capacity_B

    @property
    def fits(self) -> bool:
        return self.worst.peak_B <= self.capacity_B


@dataclass(frozen=True, slots=True)
class CollectiveTotal:
    """One kind over one group, all its calls on one device a stage in one pass of all micro-batches.
    `payload_B`: local input buffer of one call. `wire_B`: bytes a device sends in all calls."""

    kind: str
    axes: Axes
    group_size: int
    count: int
    payload_B: float
    wire_B: float
    time_s: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What a change of hardware would buy: relative change of the phase's time (negative: faster)."""

    name: str
    change: float


@dataclass(frozen=True)
class PhaseResult:
    """Everything found about one phase."""

    graph: Graph
    costs: Costs
    floor: Schedule
    schedule: Schedule
    memory: Memory
    collectives: tuple[CollectiveTotal, ...]
    gpus: tuple[int, ...]
    flops_per_token: float
    utilization: float
    throughput_tok_s: float
    per_node: int
    bound_by: Mapping[str, float] = field(default_factory=dict)
    tokens_per_step: float = 1.0  # of a sequence, in decode: more than one with accepted drafts
    passes: int = 1  # of a prompt in chunks

    @property
    def name(self) -> str:
        return self.graph.phase

    @property
    def time_s(self) -> float:
        """ttft of a prefill, tpot of a decode."""
        return self.schedule.period_s * self.passes / self.tokens_per_step

    @property
    def floor_s(self) -> float:
        """The same at datasheet peaks."""
        return self.floor.period_s * self.passes / self.tokens_per_step

    @property
    def measured(self) -> tuple[float, float]:
        """(share of the critical path whose times are from measured kernels, their mean error weighted by time)."""
        total = known = error = 0.0
        for step in self.schedule.path:
            cost = self.costs.ops.get((step.segment, step.op))
            total += step.time_s
            if cost is not None and cost.family:
                known += step.time_s
                error += step.time_s * cost.error
        return (known / total, error / known) if known else (0.0, 0.0)

    @property
    def extrapolated(self) -> dict[str, float]:
        """`kernel (size)` -> share of the critical path whose sizes lie beyond what was measured."""
        total = sum(step.time_s for step in self.schedule.path) or 1.0
        found: dict[str, float] = {}
        for step in self.schedule.path:
            cost = self.costs.ops.get((step.segment, step.op))
            if cost is not None and cost.outside:
                name = f"{cost.family} ({', '.join(cost.outside)})"
                found[name] = found.get(name, 0.0) + step.time_s / total
        return found
