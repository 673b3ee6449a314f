"""A training phase compiled: lowered with its gradients, its cells priced, put in the order of its schedule, its memory added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from ..base.frozen import field, record, replace
from ..cost.memory import staging_bytes
from ..cost.price import exchanges_of, price
from ..cost.records import Costs
from ..cost.schedule.training.cell_orders import PipelineSchedule
from ..cost.schedule.training.in_flight import peaks
from ..cost.schedule.training.makespan import StepTimes, step_times
from ..cost.schedule.training.schedule_table import SCHEDULES, Unmet, make
from ..cost.schedule.training.stage_times import StageTimes
from ..cost.training.cell_costs import CellCost, cell_costs, model_flops
from ..cost.training.kept_activations import Kept, kept_by_layer, kept_by_stage, working_bytes
from ..cost.training.layers_in_turn import StageCost, pair_s, stage_costs
from ..cost.training.step_memory import StateBytes, TrainingMemory, state_bytes
from ..cost.training.weight_moves import gathered_bytes, in_flat_calls, scattered_bytes
from ..ir.graph import UPDATE, Graph, Segment, Stage, runs
from ..plan.step_totals import edge_between
from ..plan.trained import TrainingResult
from ..spec.factors import unequal
from ..spec.hardware import Hardware
from ..spec.training import Training
from ..spec.unit import Unit
from .lower import lowered

USUAL = "one_f_one_b"
"""The schedule that others are compared with."""
WHOLE = ("gpipe", "one_f_one_b", "interleaved")
"""Schedules whose gradients of inputs and weights come together."""


@record(slots=False)
class CostedCells:
    """A phase lowered and its cells priced: the same whatever the order in which a pipeline runs them. `kept`: layer -> what a micro-batch
    keeps; `flops`, `executed`: of a step, as `model_flops` counts them."""

    graph: Graph
    hardware: Hardware
    costs: Costs
    kept: Mapping[str, Kept]
    flops: float
    executed: float
    known: dict[tuple[bool, bool], Mapping[tuple[str, str], CellCost]] = field(default_factory=dict, compare=False)

    def cells(self, *, overlap: bool, floor: bool = False) -> Mapping[tuple[str, str], CellCost]:
        """`overlap`: what moves weights runs beside what layers compute; `floor`: at datasheet peaks."""
        if (overlap, floor) not in self.known:
            self.known[overlap, floor] = cell_costs(self.graph, self.costs, floor=floor, overlap=overlap)
        return self.known[overlap, floor]


def training_step(unit: Unit) -> TrainingResult:
    """Whether it fits or not. Raises SpecError."""
    schedule = schedule_of(unit, training_of(unit))
    return step_of(unit, schedule, costed_cells(unit, lowered(unit)))


def training_of(unit: Unit) -> Training:
    training = unit.phase.training
    assert training is not None
    return training


def costed_cells(unit: Unit, graph: Graph) -> CostedCells:
    """`graph`: the phase lowered."""
    hardware = unit.spec.hardware
    costs = in_flat_calls(graph, price(graph, unit, hardware), hardware, lambda s: exchanges_of(s, unit, hardware))
    return CostedCells(graph, hardware, costs, kept_by_layer(graph, costs.imbalance), *model_flops(graph))


def step_of(
    unit: Unit, schedule: PipelineSchedule, own: CostedCells, stages: tuple[Stage, ...] | None = None
) -> TrainingResult:
    """The cells in the order of a schedule. `stages`: the layers of each virtual stage, where they are not to be cut anew. Raises SpecError where
    layers do not divide over them."""
    phase, training, graph, costs = unit.phase, training_of(unit), own.graph, own.costs
    stages = virtual_stages(graph, schedule, unit) if stages is None else stages
    overlap = training.overlap == "full"
    cells = own.cells(overlap=overlap)
    staged, at_peak = (
        stage_costs(stages, one, overlap=overlap) for one in (cells, own.cells(overlap=overlap, floor=True))
    )
    steps = timed(schedule, stages, staged, costs, training)
    floor = timed(schedule, stages, at_peak, costs, training, floor=True)
    update_s, moved_s = update_times(schedule, stages, cells, steps, training)
    kept = kept_by_stage(own.kept, stages, graph.lanes)
    return TrainingResult(
        graph, training, costs, steps, cells, stages, memory_of(graph, costs, schedule, stages, kept, training, own.hardware),
        update_s, moved_s, own.flops * phase.batching.filled, own.executed * phase.batching.filled,
        own.hardware.peak_flops(unit.spec.model.weight_dtype) * phase.gpu_count, float(phase.sequences * phase.tokens), phase.gpus,
        phase.hardware, calibrated(own.hardware), floor.makespan_s, kept=tuple(kept), staged=staged,
    )  # fmt: skip


def calibrated(hardware: Hardware) -> str:
    """Whose tables its kernels are priced with."""
    if hardware.calibration is None:
        return ""
    from ..calib import load

    return load(hardware.calibration).gpu


def schedule_of(unit: Unit, training: Training) -> PipelineSchedule:
    """The order of cells. Raises SpecError where the numbers do not allow it."""
    phase, strategy = unit.phase, unit.phase.strategy
    batches = phase.batching.microbatches  # those that have sequences
    chunks = training.virtual or (SCHEDULES[training.schedule].chunks or 1)
    try:
        return make(training.schedule, strategy.pp, batches, chunks, overlapped=training.exchange_overlap == "full")
    except Unmet as error:
        attribute = {"chunks": "virtual"}.get(error.attribute, error.attribute)
        written = attribute if attribute in phase.spans else "schedule"
        help = error.help
        if attribute == "virtual":
            fixed = SCHEDULES[training.schedule].chunks is not None
            help = "leave it out, or schedule = interleaved" if fixed else "virtual = 2, or schedule = one_f_one_b"
        unit.stop("E03", error.found, at=written, because=(error.wanted,), help=(help,))


def virtual_stages(graph: Graph, schedule: PipelineSchedule, unit: Unit) -> tuple[Stage, ...]:
    """The layers of each virtual stage: those of the pipeline's, or each of them cut anew where a GPU has several chunks."""
    if schedule.stages == len(graph.stages):
        return graph.stages
    names = [name for stage in graph.stages for name, count in stage.layers for _ in range(count)]
    body, given = names[1:-1], unit.phase.strategy.layers_per_stage
    even = len(body) % schedule.stages == 0
    uneven = unequal(len(body), schedule.stages) if len(body) >= schedule.stages else "use fewer stages"
    if given is not None and len(given) != schedule.stages:
        unit.stop(
            "E03", f"`layers_per_stage` must be {schedule.stages} numbers, one for each chunk of layers", at="layers_per_stage",
            because=(f"this schedule has {schedule.stages // schedule.gpus} chunks per GPU",), help=("leave it out: chunks are equal" if even else uneven,),
        )  # fmt: skip
    if given is None and not even:
        free = SCHEDULES[training_of(unit).schedule].chunks is None
        near = [n for n in range(2, len(body) + 1) if len(body) % (n * schedule.gpus) == 0] if free else []
        helps = [f"chunks that divide them: {', '.join(map(str, near[:6]))}"] if near else []
        unit.stop(
            "E03", f"{len(body)} layers do not divide over {schedule.stages} virtual stages",
            at="virtual" if "virtual" in unit.phase.spans else "schedule",
            because=(f"{schedule.gpus} stages x {schedule.stages // schedule.gpus} chunks",),
            help=(*helps, uneven),
        )  # fmt: skip
    return tuple(Stage(k, runs(own)) for k, own in enumerate(chunks_of(names, schedule.stages, given)))


def chunks_of(names: Sequence[str], count: int, given: Sequence[int] | None = None) -> list[list[str]]:
    """Layers of each of so many chunks, of all layers in order: equally many, or as `given`; the first and the last layer are beside those that
    are counted."""
    body = names[1:-1]
    ends = list(accumulate(given or (len(body) // count,) * count, initial=0))
    cut = [[*body[first:end]] for first, end in pairwise(ends)]
    cut[0], cut[-1] = [names[0], *cut[0]], [*cut[-1], names[-1]]
    return cut


def timed(
    schedule: PipelineSchedule, stages: tuple[Stage, ...], staged: Mapping[tuple[int, str], StageCost], costs: Costs,
    training: Training, *, floor: bool = False,
) -> StepTimes:  # fmt: skip
    """When every cell runs."""

    def total(cell: str) -> list[float]:
        return [staged[k, cell].time_s if (k, cell) in staged else 0.0 for k in range(len(stages))]

    route = schedule.routes[0].seats
    sends = []
    for here, there in pairwise(route):
        edge = edge_between(costs, here, there)
        sends.append(edge.floor_s if floor else edge.time_s)
    whole = training.schedule in WHOLE
    return step_times(
        schedule,
        StageTimes(
            total("forward"), total("input"), total("weight"), sends, sends, None, total("backward") if whole else None,
            pairs_of(schedule, staged, whole=whole) if overlaps(training) else None,
        ),
    )  # fmt: skip


def overlaps(training: Training) -> bool:
    """Whether forward and backward cells run at once."""
    return training.exchange_overlap == "full" or SCHEDULES[training.schedule].pairs


def pairs_of(
    schedule: PipelineSchedule, staged: Mapping[tuple[int, str], StageCost], *, whole: bool
) -> dict[tuple[int, int], float]:
    """(stage of a forward cell, of a backward cell of the same GPU) -> seconds of both at once."""
    nothing = StageCost()

    def back(stage: int) -> StageCost:
        names = ("backward",) if whole else ("input", "weight")
        return sum((staged.get((stage, name), nothing) for name in names), nothing)

    own: dict[int, list[int]] = {}
    for (gpu, _), (_, stage) in schedule.stage_at.items():
        own.setdefault(gpu, []).append(stage)
    return {
        (ahead, behind): pair_s(staged.get((ahead, "forward"), nothing), back(behind))
        for stages in own.values()
        for ahead in stages
        for behind in stages
    }


def update_times(
    schedule: PipelineSchedule, stages: tuple[Stage, ...], cells: Mapping[tuple[str, str], CellCost], steps: StepTimes,
    training: Training,
) -> tuple[float, float]:  # fmt: skip
    """Seconds from the last gradient to new weights, and of these collectives, on the GPU of a pipeline that takes longest. With
    overlap, collectives hide under one micro-batch's backward and forward cells, since gradients of the first layers are reduced while
    others are computed, and new weights of the last layers gathered while the first run."""
    found = []
    for gpu in range(schedule.gpus):
        time_s = moved_s = hidden_s = 0.0
        for (g, _), (_, stage) in schedule.stage_at.items():
            if g != gpu:
                continue
            for name, count in stages[stage].layers:
                cost = cells.get((name, "update"))
                if cost is not None:
                    time_s, moved_s = time_s + count * cost.time_s, moved_s + count * cost.moved_s
            hidden_s += steps.times.forward_s[stage] + steps.times.input_s[stage] + steps.times.weight_s[stage]
        saved_s = min(moved_s, hidden_s) if training.overlap == "full" else 0.0
        found.append((time_s - saved_s, moved_s - saved_s))
    return max(found)


def memory_of(
    graph: Graph, costs: Costs, schedule: PipelineSchedule, stages: tuple[Stage, ...], kept: Sequence[Kept], training: Training,
    hardware: Hardware,
) -> tuple[TrainingMemory, ...]:  # fmt: skip
    """By GPU of a pipeline."""
    working = {s.name: working_bytes(s, graph, costs.imbalance) for s in graph.segments}
    staged = {s.name: staging_bytes(of_microbatch(s), costs) for s in graph.segments}
    held = peaks(schedule, [own.whole_B for own in kept], [own.late_B for own in kept])
    in_flight = peaks(schedule)
    needs = []
    for gpu in range(schedule.gpus):
        own = [stages[stage] for (g, _), (_, stage) in schedule.stage_at.items() if g == gpu]
        names = [name for stage in own for name, _ in stage.layers]
        has_table = graph.embedding.name in names
        states = [
            (count, state_bytes(graph.segment(name), graph, training, has_table=has_table))
            for stage in own
            for name, count in stage.layers
        ]
        total = StateBytes(
            *(
                sum(count * getattr(s, kind) for count, s in states)
                for kind in ("weights_B", "gradients_B", "optimizer_B")
            )
        )
        in_turn = [[graph.segment(name) for name, count in stage.layers for _ in range(count)] for stage in own]
        buffers = max((staged[name] for name in names), default=0.0)
        if training.overlap == "full":
            buffers += max(scattered_bytes(graph.segment(name), graph) for name in names)  # of the layer before
        if schedule.gpus > 1:
            buffers += 2 * costs.transfer.payload_B
        needs.append(
            TrainingMemory(
                gpu, total.weights_B, total.gradients_B, total.optimizer_B, held[gpu].held, max(working[name] for name in names),
                buffers, hardware.reserve_B, hardware.memory_B, in_flight[gpu].held,
                gathered_B=most_gathered(in_turn, graph, training),
            )
        )  # fmt: skip
    return tuple(needs)


def most_gathered(chunks: Sequence[Sequence[Segment]], graph: Graph, training: Training) -> float:
    """Bytes of gathered weights on a rank that has these layers: of the one in use, and where they are gathered ahead of the next one;
    of all, where they wait for their gradients. A forward and a backward cell that run at once have copies of their own."""
    known = {layer.name: layer for layers in chunks for layer in layers}
    own = {name: gathered_bytes(layer, graph) for name, layer in known.items()}
    sizes = [[own[layer.name] for layer in layers] for layers in chunks]
    if not training.reshard_after_forward:
        return sum(map(sum, sizes))
    if training.overlap == "full":
        sizes = [[one + other for one, other in pairwise(chunk)] or chunk for chunk in sizes]
    return max(map(max, sizes)) * (2 if overlaps(training) else 1)


def of_microbatch(segment: Segment) -> Segment:
    """Without what runs once a step: gradients are reduced, and weights gathered, where they are kept."""
    return replace(segment, ops=tuple(op for op in segment.ops if op.cell != UPDATE))
