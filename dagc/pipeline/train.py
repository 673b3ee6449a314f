"""A training phase compiled: lowered with its gradients, its cells priced, put in the order of its schedule, its memory added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from ..base.axes import ENDS
from ..base.frozen import field, record, replace
from ..cost.kept_costs import KeptCosts
from ..cost.price import exchanges_of, price
from ..cost.records import Costs
from ..cost.schedule.training.cell_orders import PipelineSchedule
from ..cost.schedule.training.makespan import StepTimes, step_times
from ..cost.schedule.training.schedule_table import SCHEDULES, Unmet, make
from ..cost.schedule.training.stage_times import StageTimes
from ..cost.training import whole_sides
from ..cost.training.cell_costs import CellCost, cell_costs, model_flops
from ..cost.training.kept_activations import Kept, kept_by_layer, kept_by_stage
from ..cost.training.layers_in_turn import StageCost, pair_s, stage_costs
from ..cost.training.offloaded import Offloaded, left, offloaded, with_copies
from ..cost.training.weight_moves import in_flat_calls
from ..cost.transfers import call_cost, step_hops
from ..ir.graph import Graph, Stage, runs
from ..ir.op import Op
from ..plan.result import CollectiveTotal
from ..plan.step_totals import edge_between
from ..plan.trained import TrainingResult
from ..spec.factors import unequal
from ..spec.hardware import Hardware
from ..spec.training import Training
from ..spec.unit import Unit
from .lower import lowered
from .step_held import LayerBytes, layer_bytes, memory_of, overlaps

USUAL = "one_f_one_b"
"""The schedule that others are compared with."""
WHOLE = ("gpipe", "one_f_one_b", "interleaved")
"""Schedules whose gradients of inputs and weights come together."""


@record(slots=False)
class CostedCells:
    """A phase lowered and its cells priced: the same whatever the order in which a pipeline runs them. `kept`: layer -> what a micro-batch
    keeps; `flops`, `executed`: of a step, as `model_flops` counts them; `layers`: what each holds; `copied`: what waits in host memory."""

    graph: Graph
    hardware: Hardware
    costs: Costs
    kept: Mapping[str, Kept]
    flops: float
    executed: float
    layers: LayerBytes
    copied: Offloaded
    known: dict[tuple[bool, bool], Mapping[tuple[str, str], CellCost]] = field(default_factory=dict, compare=False)

    def cells(self, *, overlap: bool, floor: bool = False) -> Mapping[tuple[str, str], CellCost]:
        """`overlap`: what moves weights runs beside what layers compute; `floor`: at datasheet peaks."""
        if (overlap, floor) not in self.known:
            cells = cell_costs(self.graph, self.costs, floor=floor, overlap=overlap)
            self.known[overlap, floor] = with_copies(cells, self.copied) if self.copied.bytes else cells
        return self.known[overlap, floor]


def training_step(unit: Unit) -> TrainingResult:
    """Whether it fits or not. Raises SpecError."""
    schedule = schedule_of(unit, training_of(unit))
    return step_of(unit, schedule, costed_cells(unit, whole_sides.checked(lowered(unit), unit)))


def training_of(unit: Unit) -> Training:
    training = unit.phase.training
    assert training is not None
    return training


def costed_cells(unit: Unit, graph: Graph, known: KeptCosts | None = None) -> CostedCells:
    """`graph`: the phase lowered. `known`: costs that graphs of one model share."""
    hardware = unit.spec.hardware
    costs = in_flat_calls(
        graph, price(graph, unit, hardware, known), hardware, lambda s: exchanges_of(s, unit, hardware)
    )
    kept, layers = kept_by_layer(graph, costs.imbalance), layer_bytes(graph, costs, training_of(unit), hardware)
    share = training_of(unit).offload
    body = {segment.name for segment in graph.body}
    copied = offloaded(kept, body, share, graph.lanes, hardware.host_link.bandwidth_Bps)
    return CostedCells(graph, hardware, costs, left(kept, share, body), *model_flops(graph), layers, copied)


def step_of(
    unit: Unit, schedule: PipelineSchedule, own: CostedCells, stages: tuple[Stage, ...] | None = None
) -> TrainingResult:
    """The cells in the order of a schedule. `stages`: the layers of each virtual stage, where they are not to be cut anew. Raises SpecError where
    layers do not divide over them."""
    phase, training, graph, costs = unit.phase, training_of(unit), own.graph, own.costs
    stages = virtual_stages(graph, schedule, unit) if stages is None else stages
    hops = step_hops(graph, stages, schedule, own.hardware)
    costs = replace(costs, hops=hops) if hops else costs
    overlap = training.overlap == "full"
    cells = own.cells(overlap=overlap)
    staged, at_peak = (
        stage_costs(stages, one, overlap=overlap) for one in (cells, own.cells(overlap=overlap, floor=True))
    )
    steps = timed(schedule, stages, staged, costs, training)
    floor = timed(schedule, stages, at_peak, costs, training, floor=True)
    kept = kept_by_stage(own.kept, stages, graph)
    memory = memory_of(graph, costs, schedule, stages, kept, training, own.hardware, own.layers, own.copied)
    copies = added_up([need.gradients_B for need in memory], unit, own) if len(schedule.routes) > 1 else ()
    update_s, moved_s = update_times(schedule, stages, cells, steps, training, [one.time_s for one in copies])
    return TrainingResult(
        graph, training, costs, steps, cells, stages, memory,
        update_s, moved_s, own.flops * phase.batching.filled, own.executed * phase.batching.filled,
        own.hardware.peak_flops(unit.spec.model.weight_dtype) * phase.gpu_count, float(phase.sequences * phase.tokens), phase.gpus,
        phase.hardware, calibrated(own.hardware), floor.makespan_s, kept=tuple(kept), staged=staged, copies=copies,
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
    sends, returns = list[float](), list[float]()
    for k, (here, there) in enumerate(pairwise(route)):
        for times, back in ((sends, False), (returns, True)):
            edge = edge_between(costs, here, there, k, back=back)
            times.append(edge.floor_s if floor else edge.time_s)
    whole = training.schedule in WHOLE
    return step_times(
        schedule,
        StageTimes(
            total("forward"), total("input"), total("weight"), sends, returns, None, total("backward") if whole else None,
            pairs_of(schedule, staged, whole=whole) if overlaps(training) else None,
        ),
    )  # fmt: skip


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


def added_up(gradients_B: Sequence[float], unit: Unit, own: CostedCells) -> tuple[CollectiveTotal, ...]:
    """By GPU of a pipeline: the sums of its gradients with those of the GPU that has the same layers in the other copy of the model. All pairs
    are priced as the two ends of the pipeline, which are farthest apart."""
    graph = own.graph
    op = Op(
        "copies",
        "all_reduce",
        (),
        (),
        unit.phase.training.gradient_dtype if unit.phase.training else "fp32",
        axes=(ENDS,),
    )
    exchanges = exchanges_of(graph.embedding, unit, own.hardware)
    found = []
    for size_B in gradients_B:
        cost = call_cost(op, size_B, 1.0, graph.the_mesh, own.hardware, exchanges)
        found.append(
            CollectiveTotal(
                "all_reduce", ("copies",), 2, 1, size_B, cost.wire_B, float(cost.time_s.max()), cost.level_B
            )
        )
    return tuple(found)


def update_times(
    schedule: PipelineSchedule, stages: tuple[Stage, ...], cells: Mapping[tuple[str, str], CellCost], steps: StepTimes,
    training: Training, copies_s: Sequence[float] = (),
) -> tuple[float, float]:  # fmt: skip
    """Seconds from the last gradient to new weights, and of these collectives, on the GPU of a pipeline that takes longest. With
    overlap, collectives hide under one micro-batch's backward and forward cells, since gradients of the first layers are reduced while
    others are computed, and new weights of the last layers gathered while the first run. `copies_s`: by GPU, of adding up the gradients of two copies of the model."""
    found = []
    for gpu in range(schedule.gpus):
        hidden_s, time_s = 0.0, copies_s[gpu] if copies_s else 0.0
        moved_s = time_s
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
