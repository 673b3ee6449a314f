"""What is found about a training phase: the step, its bubbles, what it computes and what every GPU holds."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.frozen import field, record
from ..base.units import TIME, show
from ..cost.records import Costs
from ..cost.schedule.training.cell_orders import Part
from ..cost.schedule.training.makespan import StepTimes
from ..cost.training.cell_costs import CellCost
from ..cost.training.kept_activations import Kept
from ..cost.training.layers_in_turn import StageCost
from ..cost.training.step_memory import TrainingMemory
from ..ir.graph import Graph, Stage
from ..spec.training import Training
from .placement import Placement
from .result import CollectiveTotal


@record
class Usual:
    """The step in 1F1B: seconds, bytes on its fullest GPU, and whether it fits."""

    time_s: float
    peak_B: float
    fits: bool


@record(slots=False)
class TrainingResult:
    """`steps`: when cells run; `cells`: (layer, cell) -> cost; `stages`: layers of each virtual stage. `update_s`: from the end of the
    last gradient to new weights on the slowest GPU of a pipeline, as far as nothing hides it. `flops`: of a step over all GPUs as MFU
    counts them, `executed_flops` with what is done anew. `peak_flops`: of all GPUs. `calibration`: whose tables the kernels are from, empty where all cost the roofline. `kept`: by virtual stage, what a micro-batch
    keeps for its gradients. `staged`: (virtual stage, cell) -> cost of all its layers one after another.
    `copies`: by GPU of a pipeline that has two copies of the model, how their gradients are added up, once a step.
    `usual`: the same in 1F1B, where this is another order; `placement`: how `place = best` placed its ranks."""

    graph: Graph
    training: Training
    costs: Costs
    steps: StepTimes
    cells: Mapping[tuple[str, str], CellCost]
    stages: tuple[Stage, ...]
    memory: tuple[TrainingMemory, ...]
    update_s: float
    update_moved_s: float
    flops: float
    executed_flops: float
    peak_flops: float
    tokens: float
    gpus: tuple[int, ...]
    hardware: str = ""
    calibration: str = ""
    floor_s: float = 0.0
    kept: tuple[Kept, ...] = field(default=(), repr=False)
    staged: Mapping[tuple[int, str], StageCost] = field(default_factory=dict, repr=False)
    copies: tuple[CollectiveTotal, ...] = ()
    usual: Usual | None = None
    placement: Placement | None = None

    def __repr__(self) -> str:
        return f"<TrainingResult {self.name}: {show(self.time_s, TIME)} a step, {len(self.gpus)} GPUs, MFU {self.mfu:.1%}, memory {self.fraction:.1%}>"

    @property
    def name(self) -> str:
        return self.graph.phase

    @property
    def time_s(self) -> float:
        """One step: all micro-batches forward and back, and new weights."""
        return self.steps.makespan_s + self.update_s

    @property
    def throughput_tok_s(self) -> float:
        return self.tokens / self.time_s

    @property
    def mfu(self) -> float:
        """FLOPs of the model over those of the GPUs at their peak."""
        return self.flops / (self.time_s * self.peak_flops)

    @property
    def hfu(self) -> float:
        """The same with what is done anew."""
        return self.executed_flops / (self.time_s * self.peak_flops)

    @property
    def bubble(self) -> float:
        """Share of a step in which the GPU of a pipeline that waits most waits for others."""
        return max(self.steps.bubbles_s) / self.time_s

    @property
    def exposed(self) -> float:
        """Share of a step in which the busiest GPU of a pipeline moves data and computes nothing."""
        return (self.exposed_s + self.update_s_moving) / self.time_s

    @property
    def update_s_moving(self) -> float:
        return min(self.update_s, self.update_moved_s)

    @property
    def exposed_s(self) -> float:
        """In the cells of all micro-batches, on the GPU that has most of it."""
        return max(self.exposed_on(gpu) for gpu in range(self.steps.schedule.gpus))

    def exposed_on(self, gpu: int) -> float:
        """Of one GPU of the pipeline."""
        split = self.steps.times.backward_s is None
        names = ("forward", "input", "weight") if split else ("forward", "backward")
        total = sum(
            self.staged[stage, cell].exposed_s
            for (g, _), (_, stage) in self.steps.schedule.stage_at.items()
            if g == gpu
            for cell in names
            if (stage, cell) in self.staged
        )
        alone_s = total * self.graph.microbatches / len(self.steps.schedule.routes)
        return max(0.0, alone_s - self.hidden_on(gpu))

    def hidden_on(self, gpu: int) -> float:
        """Seconds of a step that one GPU of the pipeline gains where forward and backward cells run at once."""
        times, schedule = self.steps.times, self.steps.schedule
        stages = [stage for (g, _), (_, stage) in schedule.stage_at.items() if g == gpu]
        each = sum(times.cell_s(Part.FORWARD, stage) + times.cell_s(Part.BACKWARD, stage) for stage in stages)
        gained_s = each * self.graph.microbatches / len(schedule.routes) - self.steps.busy_s[gpu]
        return max(0.0, gained_s) if times.pairs_s is not None else 0.0

    @property
    def worst(self) -> TrainingMemory:
        """The fullest GPU of a pipeline."""
        return max(self.memory, key=lambda need: need.peak_B / need.capacity_B)

    @property
    def fraction(self) -> float:
        """Of its memory that the fullest GPU needs."""
        return self.worst.peak_B / self.worst.capacity_B

    @property
    def fits(self) -> bool:
        return all(need.fits for need in self.memory)

    @property
    def flops_per_token(self) -> float:
        return self.flops / self.tokens
