"""What the GPUs of a pipeline hold in a training step: sums and maxima of what single layers do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from ..base.frozen import record, replace
from ..cost.memory import staging_bytes
from ..cost.records import Costs
from ..cost.schedule.training.cell_orders import PipelineSchedule
from ..cost.schedule.training.in_flight import Peak, peaks
from ..cost.schedule.training.schedule_table import SCHEDULES
from ..cost.training.kept_activations import Kept, working_bytes
from ..cost.training.offloaded import Offloaded
from ..cost.training.step_memory import StateBytes, TrainingMemory, state_bytes
from ..cost.training.weight_moves import gathered_bytes, scattered_bytes
from ..ir.graph import Graph, Stage
from ..ir.op import UPDATE
from ..ir.segment import Segment
from ..spec.hardware import Hardware
from ..spec.training import Training


@record(slots=False)
class LayerBytes:
    """Of each layer on one rank, whatever stage has it. `beside_table`: states of those that store less where the first layer is on the
    same GPU."""

    working: Mapping[str, float]
    staged: Mapping[str, float]
    scattered: Mapping[str, float]
    gathered: Mapping[str, float]
    states: Mapping[str, StateBytes]
    beside_table: Mapping[str, StateBytes]

    def states_of(self, name: str, *, has_table: bool) -> StateBytes:
        return self.beside_table.get(name, self.states[name]) if has_table else self.states[name]


def layer_bytes(graph: Graph, costs: Costs, training: Training, hardware: Hardware) -> LayerBytes:
    units = hardware.compute_flops
    tables = graph.embedding.weight
    tied = [s for s in graph.segments if any(w.tied in tables for w in s.weights)]
    return LayerBytes(
        {s.name: working_bytes(s, graph, costs.imbalance) for s in graph.segments},
        {s.name: staging_bytes(of_microbatch(s), costs) for s in graph.segments},
        {s.name: scattered_bytes(s, graph) for s in graph.segments},
        {s.name: gathered_bytes(s, graph) for s in graph.segments},
        {s.name: state_bytes(s, graph, training, has_table=False, units=units) for s in graph.segments},
        {s.name: state_bytes(s, graph, training, has_table=True, units=units) for s in tied},
    )


def memory_of(
    graph: Graph, costs: Costs, schedule: PipelineSchedule, stages: Sequence[Stage], kept: Sequence[Kept], training: Training,
    hardware: Hardware, layers: LayerBytes, copied: Offloaded,
) -> tuple[TrainingMemory, ...]:  # fmt: skip
    """By GPU of a pipeline."""
    waits = [sum(count * copied.bytes.get(name, 0.0) for name, count in stage.layers) for stage in stages]
    hosted = peaks(schedule, waits, [0.0] * len(waits)) if waits and min(waits) > 0 else None
    held = peaks(schedule, [own.whole_B for own in kept], [own.late_B for own in kept])
    in_flight = peaks(schedule)
    needs = []
    for gpu in range(schedule.gpus):
        own = [stages[stage] for (g, _), (_, stage) in schedule.stage_at.items() if g == gpu]
        need = gpu_memory(gpu, own, held[gpu], in_flight[gpu], graph, costs, training, hardware, layers, copied)
        needs.append(need if hosted is None else replace(need, host_B=hosted[gpu].held))
    return tuple(needs)


def gpu_memory(
    gpu: int, own: Sequence[Stage], held: Peak, in_flight: Peak, graph: Graph, costs: Costs, training: Training, hardware: Hardware,
    layers: LayerBytes, copied: Offloaded,
) -> TrainingMemory:  # fmt: skip
    """Of a GPU that has these chunks. `held`: bytes of activations; `in_flight`: in micro-batches."""
    names = [name for stage in own for name, _ in stage.layers]
    has_table = graph.embedding.name in names
    states = [(count, layers.states_of(name, has_table=has_table)) for stage in own for name, count in stage.layers]
    total = StateBytes(
        *(sum(count * getattr(s, kind) for count, s in states) for kind in ("weights_B", "gradients_B", "optimizer_B"))
    )
    buffers = max((layers.staged[name] for name in names), default=0.0)
    if training.overlap == "full":
        buffers += max(layers.scattered[name] for name in names)  # of the layer before
    buffers += 2 * max((copied.bytes.get(name, 0.0) for name in names), default=0.0)  # one on its way, one in use
    if len(graph.stages) > 1:
        buffers += 2 * costs.transfer.payload_B
    in_turn = [[name for name, count in stage.layers for _ in range(count)] for stage in own]
    return TrainingMemory(
        gpu, total.weights_B, total.gradients_B, total.optimizer_B, held.held, max(layers.working[name] for name in names),
        buffers, hardware.reserve_B, hardware.memory_B, in_flight.held, gathered_B=most_gathered(in_turn, layers.gathered, training),
    )  # fmt: skip


def most_gathered(chunks: Iterable[Sequence[str]], own: Mapping[str, float], training: Training) -> float:
    """Bytes of gathered weights on a rank that has these layers: of the one in use, and where they are gathered ahead of the next one;
    of all, where they wait for their gradients. A forward and a backward cell that run at once have copies of their own."""
    sizes = [[own[name] for name in names] for names in chunks]
    if not training.reshard_after_forward:
        return sum(map(sum, sizes))
    if training.overlap == "full":
        sizes = [[one + other for one, other in pairwise(chunk)] or chunk for chunk in sizes]
    return max(map(max, sizes)) * (2 if overlaps(training) else 1)


def overlaps(training: Training) -> bool:
    """Whether forward and backward cells run at once."""
    return training.exchange_overlap == "full" or SCHEDULES[training.schedule].pairs


def of_microbatch(segment: Segment) -> Segment:
    """Without what runs once a step: gradients are reduced, and weights gathered, where they are kept."""
    return replace(segment, ops=tuple(op for op in segment.ops if op.cell != UPDATE))
