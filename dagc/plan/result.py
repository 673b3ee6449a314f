"""What is found about a phase: records that reports, exporters and requirements read."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from ..base.frozen import field, record, replace
from ..base.phase_kinds import MIXED, PHASE_KINDS, PhaseKind
from ..base.units import TIME, TOKEN_RATE, show
from ..cost.footprint import Memory
from ..cost.records import Costs, ExpertCache, OpCost, Rebalanced
from ..cost.schedule.at_peak import Floor, schedule_of
from ..cost.schedule.records import PathStep, Schedule
from ..ir.graph import Graph
from ..ir.sharding import AT_EXPERTS, Axes
from .placement import Placement


@record
class CollectiveTotal:
    """One kind over one group, all its calls on one device a stage in one pass of all micro-batches.
    `payload_B`: local input buffer of one call. `wire_B`: bytes that a device sends in all calls."""

    kind: str
    axes: Axes
    group_size: int
    count: int
    payload_B: float
    wire_B: float
    time_s: float
    level_B: Mapping[str, float] = field(default_factory=dict)  # of `wire_B`, on the links of each level


@record
class Seat:
    """Ranks of a stage, of one side (see Sharding): its number among all, its layers, and the GPUs with their pool, ranks in mesh
    order, numbered as in the graph: `first` more than in their pool."""

    index: int
    layers: tuple[tuple[str, int], ...]
    on: str
    hardware: str
    gpus: tuple[int, ...]
    first: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Of its GPUs in their pool."""
        return tuple(gpu - self.first for gpu in self.gpus) if self.first else self.gpus

    @property
    def name(self) -> str:
        return f"the {self.on}" if self.on else f"stage {self.index}"


@record
class Sensitivity:
    """What a change of hardware would buy: relative change of the phase's time (negative: faster)."""

    name: str
    change: float


Sensitivities = Mapping[str, tuple[Sensitivity, ...]]
"""Phase -> what faster hardware would buy there."""


@record(slots=False)
class Chunk:
    """Passes of a phase that are priced as one: each takes in `tokens` of every sequence, up to `context`. A phase whose
    prompts are not cut has one of one pass. Its costs, and its schedules as estimated and at datasheet peaks (`at_peak`, `floor`)."""

    count: float
    tokens: float
    context: float
    costs: Costs
    schedule: Schedule
    at_peak: Floor

    @property
    def floor(self) -> Schedule:
        return schedule_of(self.at_peak)


@record(slots=False)
class DraftPass:
    """Passes that each draft one token of every sequence: the graph, and what it costs (`chunk.count` of them in a step)."""

    graph: Graph
    chunk: Chunk


@record(slots=False)
class Drafter:
    """What drafts the tokens that a step checks: `name` is the word of the phase, or that of another model. `layers`: of it that are stored, `params` in them all, without the embedding and
    the head, which are the model's. `weights_B`, `kv_cache_B`: on a GPU of the last stage, in the phase's memory too."""

    name: str
    layers: int
    params: float
    weights_B: float
    kv_cache_B: float
    passes: tuple[DraftPass, ...]

    @property
    def count(self) -> int:
        """Passes of a step."""
        return round(sum(one.chunk.count for one in self.passes))

    @property
    def time_s(self) -> float:
        """Seconds of a step in which tokens are drafted."""
        return passes_s(one.chunk for one in self.passes)


@record(slots=False)
class PhaseResult:
    """Everything found about one phase. `graph`, `costs`, `at_peak`, `floor` and `schedule` are of one pass, the largest: a whole
    chunk at the end of the prompt. Times, path and utilization are of all passes (`chunks`)."""

    graph: Graph
    costs: Costs
    at_peak: Floor
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

    drafter: Drafter | None = None  # what drafts the tokens that a step checks, if it takes time

    placement: Placement | None = None  # how `place = best` put its ranks on GPUs

    hardware: str = ""  # name of its pool of GPUs; nothing: the only one

    requests: Mapping[str, OpCost] = field(default_factory=dict)  # scatter and gather, which no pass waits for

    experts_in: str = ""  # the pool of its experts, where it is another one

    first_expert_id: int = 0  # what their GPUs' ids in the graph have more than in that pool

    rebalanced: Rebalanced | None = None  # what placing its experts anew moves and gains

    expert_cache: ExpertCache | None = None  # where GPUs hold some of their experts

    cut_by_work: bool = False  # whether chunks of prompts have equally much work

    in_flight: bool = False  # whether chunks of prompts follow each other through the stages

    kind: str = ""  # of its phase; a mixed step that has one part has the graph of another kind

    def __repr__(self) -> str:
        said = f"{show(self.time_s, TIME)}, {len(self.gpus)} GPUs, {show(self.throughput_tok_s, TOKEN_RATE)}"
        return f"<PhaseResult {self.name}: {said}, memory {self.memory.fraction:.1%}>"

    @property
    def floor(self) -> Schedule:
        """The schedule at datasheet peaks."""
        return schedule_of(self.at_peak)

    @property
    def phase_kind(self) -> PhaseKind:
        return PHASE_KINDS[self.kind or self.graph.kind]

    @property
    def name(self) -> str:
        return self.graph.phase

    @property
    def batches(self) -> int:
        """Micro-batches of a pass: one after the other, or as lanes that take turns at attention and at experts elsewhere."""
        return self.graph.microbatches * (self.graph.lanes if self.takes_turns else 1)

    @property
    def takes_turns(self) -> bool:
        return self.graph.the_mesh.apart is not None

    @cached_property
    def seats(self) -> tuple[Seat, ...]:
        """Its stages as its memory counts them: behind them those of ranks that have experts alone."""
        mesh, stages = self.graph.the_mesh, self.graph.stages
        if mesh.apart is None:
            return tuple(Seat(s.index, s.layers, "", self.hardware, s.gpus) for s in stages)
        routed = {segment.name for segment in self.graph.segments if any(op.on for op in segment.ops)}
        own, each = mesh.apart.gpus.ids, len(mesh.apart.gpus.ids) // len(stages)
        return (
            *(Seat(s.index, s.layers, "", self.hardware, s.gpus) for s in stages),
            *(
                Seat(
                    len(stages) + s.index,
                    tuple(run for run in s.layers if run[0] in routed),
                    AT_EXPERTS,
                    self.experts_in or self.hardware,
                    own[s.index * each :][:each],
                    self.first_expert_id,
                )
                for s in stages
            ),
        )

    @property
    def of_pool(self) -> str:
        """` of NAME` behind its GPUs, where there are several pools."""
        and_other = f" and {self.experts_in}" if self.experts_in else ""
        return f" of {self.hardware}{and_other}" if self.hardware else ""

    def shares(self, other: PhaseResult) -> bool:
        """Whether some GPU serves both."""
        if not (self.experts_in or other.experts_in):
            return self.hardware == other.hardware and not set(self.gpus).isdisjoint(other.gpus)
        mine, theirs = ({(s.hardware, g) for s in one.seats for g in s.ids} for one in (self, other))
        return not mine.isdisjoint(theirs)

    @property
    def batch_ways(self) -> int:
        """Parts of the batch that different GPUs hold: data-parallel ranks, in the words of serving engines."""
        entry = self.graph.body[0].entry
        return self.graph.the_mesh.size(entry.dims[0]) if entry is not None else 1

    @property
    def bubble(self) -> float:
        """Share of the stages' time in which they wait; of chunks that follow each other through the stages, of all passes."""
        span_s = sum(c.count * (c.schedule.period_s - c.schedule.host_s) for c in self.chunks) * len(
            self.schedule.stage_s
        )
        if not self.in_flight or span_s <= 0:
            return self.schedule.bubble
        busy_s = sum(c.count * c.schedule.busy_s for c in self.chunks)
        return max(0.0, 1.0 - busy_s / span_s)

    @property
    def passes(self) -> int:
        """Passes that a prompt takes."""
        return round(sum(c.count for c in self.chunks))

    @property
    def time_s(self) -> float:
        """ttft of a prefill (the last sequence of the whole batch), tpot of a decode."""
        return passes_s(self.all_passes) / self.tokens_per_step

    @property
    def all_passes(self) -> tuple[Chunk, ...]:
        """Those of the phase, and those that draft tokens, one after the other."""
        return self.chunks if self.drafter is None else (*self.chunks, *(one.chunk for one in self.drafter.passes))

    @property
    def memory_without_drafts(self) -> Memory:
        """What `graph` alone stores: without the weights and the cache of what drafts."""
        if self.drafter is None:
            return self.memory
        *others, last = self.memory.stages
        weights_B, cache_B = last.weights_B - self.drafter.weights_B, last.kv_cache_B - self.drafter.kv_cache_B
        alone = replace(last, weights_B=weights_B, kv_cache_B=cache_B, drafter_B=0.0)
        return replace(self.memory, stages=(*others, alone))

    @property
    def op_costs(self) -> Mapping[tuple[str, str], OpCost]:
        """(segment, op) -> cost, of the largest pass and of those that draft."""
        drafts = () if self.drafter is None else tuple(one.chunk.costs.ops for one in self.drafter.passes)
        return dict(ChainMap(*(dict(found) for found in (self.costs.ops, *drafts)))) if drafts else self.costs.ops

    @property
    def time_of(self) -> str:
        """Of what the time is, in words; empty for a decode step, whose name says it."""
        if self.phase_kind is MIXED:
            return "one step: a token of each sequence in decode, and so many tokens of prompts; no request's TTFT"
        if not self.graph.takes_prompts:
            return ""
        passes = "one pass" if self.passes == 1 else f"{self.passes} passes"
        return f"the last sequence of the whole batch, {passes} of all prompts: not a request's TTFT"

    @property
    def floor_s(self) -> float:
        """The same at datasheet peaks."""
        return sum(c.count * c.floor.period_s for c in self.all_passes) / self.tokens_per_step

    @cached_property
    def path(self) -> tuple[PathStep, ...]:
        """The critical path of all passes, one after the other."""
        return joined_path(self.all_passes)

    @property
    def measured(self) -> tuple[float, float]:
        """(share of the critical path whose times are from measured kernels, their mean error weighted by time)."""
        total = known = error = 0.0
        costs = self.op_costs
        for step in self.path:
            cost = costs.get((step.segment, step.op))
            total += step.time_s
            if cost is not None and cost.family:
                known += step.time_s
                error += step.time_s * cost.error
        return (known / total, error / known) if known else (0.0, 0.0)

    @property
    def kernels(self) -> tuple[KernelShare, ...]:
        """Whose tables the times on the critical path are from, the largest share first."""
        total = sum(step.time_s for step in self.path) or 1.0
        found: dict[tuple[str, str, str], tuple[float, float]] = {}
        costs = self.op_costs
        for step in self.path:
            cost = costs.get((step.segment, step.op))
            if cost is not None and cost.table:
                key = cost.family, cost.table, cost.instead_of
                share, error = found.get(key, (0.0, 0.0))
                found[key] = share + step.time_s / total, error + step.time_s / total * cost.error
        shares = (KernelShare(*key, share, error / share) for key, (share, error) in found.items() if share > 0)
        return tuple(sorted(shares, key=lambda one: -one.share))

    @property
    def substituted(self) -> float:
        """Share of the critical path whose times are from kernels that take the place of some that nobody measured."""
        return sum(one.share for one in self.kernels if one.instead_of)

    @property
    def extrapolated(self) -> dict[str, float]:
        """`kernel (size)` -> share of the critical path whose sizes are beyond the measured range."""
        total = sum(step.time_s for step in self.path) or 1.0
        found: dict[str, float] = {}
        for chunk in self.all_passes:
            for step in chunk.schedule.path:
                cost = chunk.costs.ops.get((step.segment, step.op))
                if cost is not None and cost.outside:
                    name = f"{cost.family} ({', '.join(cost.outside)})"
                    found[name] = found.get(name, 0.0) + chunk.count * step.time_s / total
        return found


@record
class KernelShare:
    """What a table of measured kernels has of a critical path. `table`: whose kernels (`vllm on h200_sxm`); `instead_of`: what
    nobody measured and they take the place of; `error`: median relative error, by time."""

    family: str
    table: str
    instead_of: str
    share: float
    error: float


def passes_s(chunks: Iterable[Chunk]) -> float:
    """Seconds of all passes, one after the other."""
    return sum(c.count * c.schedule.period_s for c in chunks)


def joined_path(chunks: Sequence[Chunk]) -> tuple[PathStep, ...]:
    """Paths of several passes as one, the same ops added up, in the order of the first that has them."""
    if len(chunks) == 1 and chunks[0].count == 1:
        return chunks[0].schedule.path
    found: dict[tuple[str, str], tuple[PathStep, str, float, int]] = {}
    for chunk in chunks:
        for step in chunk.schedule.path:
            key = step.segment, step.op
            time_s, count = chunk.count * step.time_s, round(chunk.count * step.count)
            before = found.get(key)
            if before is None:
                found[key] = step, step.bound, time_s, count
            else:
                first, bound, so_far_s, times = before
                bound = step.bound if time_s > so_far_s else bound
                found[key] = first, bound, time_s + so_far_s, count + times
    return tuple([
        PathStep(first.segment, first.op, first.kind, time_s, count, bound) for first, bound, time_s, count in found.values()
    ])  # fmt: skip
