"""What the analysis passes find: records that reports, exporters and requirements read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..ir.graph import Graph
from ..ir.groups import GroupShape
from ..ir.sharding import Axes

if TYPE_CHECKING:
    from ..spec.spec import EngineMemory

Array = NDArray[np.float64]
"""Per rank by broadcasting: one dimension a mesh atom, of length 1 where ranks are alike."""


@dataclass(frozen=True, slots=True)
class OpCost:
    """Cost of one execution. Arrays are per rank; `bound` names what the time is made of:
    compute, memory, node, cluster or latency. `launch_s`: the part of the time in which the kernel is only launched."""

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
    launch_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Transfer:
    """The send of the residual stream from one stage to the next, per rank."""

    payload_B: float
    time_s: float
    floor_s: float
    bound: str


@dataclass(frozen=True, slots=True)
class Costs:
    """`ops`: (segment, op) -> cost. `load`: rows of each expert rank over the mean of all, the largest as it is expected
    of the busiest rank of a step. `plain`: that largest without the spare copies of experts. `dropped`: share of the
    choices over an expert's capacity. `load_error`: relative standard error of the busiest rank (0: exact).
    `host_s`: what the host takes before the GPUs begin a pass."""

    ops: Mapping[tuple[str, str], OpCost]
    transfer: Transfer
    token_return: Transfer
    load: NDArray[np.float64]
    distinct_experts: float
    plain: float = 1.0
    dropped: float = 0.0
    host_s: float = 0.0
    load_error: float = 0.0

    @property
    def imbalance(self) -> float:
        """Expected rows of the busiest rank over the mean of all ranks."""
        return float(self.load.max())


@dataclass(frozen=True, slots=True)
class PathStep:
    """One op of the critical path, all executions of an op added up. Without a segment: `send` and `token_return` between stages,
    `host` and `launch` for the time before a pass and before its kernels."""

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
    micro-batches; `period_s`: a decode step in steady state (equal to latency_s for prefill). Both begin with the `host_s`
    that the host takes before stage 0 begins."""

    cells: tuple[Sequence[tuple[Run, ...]], ...]
    sends: Mapping[tuple[int, int], tuple[float, float]]
    latency_s: float
    period_s: float
    stage_s: tuple[float, ...]
    path: tuple[PathStep, ...]
    host_s: float = 0.0

    @property
    def bubble(self) -> float:
        """Share of stage time spent idle in one pass, once the host has started it."""
        busy, span = sum(self.stage_s) * len(self.cells[0]), (self.period_s - self.host_s) * len(self.stage_s)
        return max(0.0, 1.0 - busy / span) if span > 0 else 0.0


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes on one GPU of a stage (the fullest one). `engine_B`: CUDA graphs, communication buffers and padding of
    weights. `capacity_B`: what the sum may be at most, by the engine's share of the GPU."""

    stage: int
    weights_B: float
    kv_cache_B: float
    activations_B: float
    buffers_B: float
    reserve_B: float
    capacity_B: float
    engine_B: float = 0.0

    @property
    def peak_B(self) -> float:
        held = self.weights_B + self.kv_cache_B + self.activations_B + self.buffers_B
        return held + self.reserve_B + self.engine_B


@dataclass(frozen=True, slots=True)
class Memory:
    """Per stage, and the stage that needs most of what it may. `total_B`: of a GPU. `live_B`: activations of each kind of
    layer at its fullest moment. `engine`: what bounds the sum."""

    stages: tuple[StageMemory, ...]
    total_B: float
    live_B: Mapping[str, float] = field(default_factory=dict, repr=False)
    engine: EngineMemory | None = field(default=None, repr=False)

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


Sensitivities = Mapping[str, tuple[Sensitivity, ...]]
"""Phase -> what faster hardware would buy there."""


@dataclass(frozen=True)
class Chunk:
    """Passes of a phase that are priced as one: each takes in `tokens` of every sequence, up to `context`. A phase whose
    prompts are not cut has one of one pass. Its costs, and its schedules as estimated and at datasheet peaks."""

    count: float
    tokens: float
    context: float
    costs: Costs
    schedule: Schedule
    floor: Schedule


@dataclass(frozen=True)
class PhaseResult:
    """Everything found about one phase. `graph`, `costs`, `floor` and `schedule` are of one pass, the largest: a whole
    chunk at the end of the prompt. Times, path and utilization are of all passes (`chunks`)."""

    graph: Graph
    costs: Costs
    floor: Schedule
    schedule: Schedule
    chunks: tuple[Chunk, ...]
    memory: Memory
    collectives: tuple[CollectiveTotal, ...]
    gpus: tuple[int, ...]
    flops_per_token: float
    utilization: float
    throughput_tok_s: float
    per_node: int
    bound_by: Mapping[str, float] = field(default_factory=dict)
    tokens_per_step: float = 1.0  # of a sequence, in decode: more than one with accepted drafts

    @property
    def name(self) -> str:
        return self.graph.phase

    @property
    def batch_ways(self) -> int:
        """Parts of the batch that different GPUs hold: data-parallel ranks, in the words of serving engines."""
        entry = self.graph.segments[1].entry
        return self.graph.the_mesh.size(entry.dims[0]) if entry is not None else 1

    @property
    def passes(self) -> int:
        """Passes that a prompt takes."""
        return round(sum(c.count for c in self.chunks))

    @property
    def time_s(self) -> float:
        """ttft of a prefill (the last sequence of the whole batch), tpot of a decode."""
        return passes_s(self.chunks) / self.tokens_per_step

    @property
    def time_of(self) -> str:
        """Of what the time is, in words; empty for a decode step, whose name says it."""
        if self.graph.kind != "prefill":
            return ""
        taken = "one pass" if self.passes == 1 else f"{self.passes} passes"
        return f"the last sequence of the whole batch, {taken} of all prompts: not a request's TTFT"

    @property
    def floor_s(self) -> float:
        """The same at datasheet peaks."""
        return sum(c.count * c.floor.period_s for c in self.chunks) / self.tokens_per_step

    @property
    def path(self) -> tuple[PathStep, ...]:
        """The critical path of all passes, one after the other."""
        return joined_path(self.chunks)

    @property
    def measured(self) -> tuple[float, float]:
        """(share of the critical path whose times are from measured kernels, their mean error weighted by time)."""
        total = known = error = 0.0
        for step in self.path:
            cost = self.costs.ops.get((step.segment, step.op))
            total += step.time_s
            if cost is not None and cost.family:
                known += step.time_s
                error += step.time_s * cost.error
        return (known / total, error / known) if known else (0.0, 0.0)

    @property
    def extrapolated(self) -> dict[str, float]:
        """`kernel (size)` -> share of the critical path whose sizes lie beyond what was measured."""
        total = sum(step.time_s for step in self.path) or 1.0
        found: dict[str, float] = {}
        for chunk in self.chunks:
            for step in chunk.schedule.path:
                cost = chunk.costs.ops.get((step.segment, step.op))
                if cost is not None and cost.outside:
                    name = f"{cost.family} ({', '.join(cost.outside)})"
                    found[name] = found.get(name, 0.0) + chunk.count * step.time_s / total
        return found


def passes_s(chunks: Iterable[Chunk]) -> float:
    """Seconds of all passes, one after the other."""
    return sum(c.count * c.schedule.period_s for c in chunks)


def joined_path(chunks: Sequence[Chunk]) -> tuple[PathStep, ...]:
    """Paths of several passes as one, alike ops added up, in the order of the first that has them."""
    if len(chunks) == 1 and chunks[0].count == 1:
        return chunks[0].schedule.path
    found: dict[tuple[str, str], PathStep] = {}
    for chunk in chunks:
        for step in chunk.schedule.path:
            time_s, count = chunk.count * step.time_s, round(chunk.count * step.count)
            before = found.get((step.segment, step.op))
            if before is not None:
                bound = step.bound if time_s > before.time_s else before.bound
                step = replace(before, bound=bound)
                time_s, count = time_s + before.time_s, count + before.count
            found[step.segment, step.op] = replace(step, time_s=time_s, count=count)
    return tuple(found.values())
