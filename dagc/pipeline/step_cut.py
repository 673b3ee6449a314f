"""`stages = balanced` in training: the layers of each chunk, so that the busiest GPU of the pipeline takes as little time for a
micro-batch as can be, forward and back, of the cuts that fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np

from ..base.diagnostics import Collector, SpecError
from ..base.frozen import replace
from ..cost.partition import SAME, Ranges, least_most
from ..cost.schedule.training.cell_orders import PipelineSchedule
from ..cost.schedule.training.in_flight import peaks
from ..cost.training.kept_activations import kept_by_stage
from ..cost.training.layers_in_turn import cells_in_order, stage_cost
from ..ir.graph import Stage, runs
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .lower import unverified
from .stage_cut import a_layer_each, waits
from .step_held import gpu_memory, memory_of
from .train import WHOLE, CostedCells, chunks_of, costed_cells, schedule_of, training_of

Counts = tuple[int, ...]
"""Layers of each chunk, beside the first and the last one of the model."""
Rank = tuple[float, float, float, float]
"""How good a cut is, smaller where it is better: what the fullest GPU has too much, the busiest GPU, the busiest chunk, unevenness."""


def balanced_steps(spec: Spec) -> Spec:
    """The spec with the cut of all phases that train and ask for one."""
    new = tuple(balanced_step(spec, phase) for phase in spec.trainings)
    return replace(spec, trainings=new) if new != spec.trainings else spec


def balanced_step(spec: Spec, phase: Phase) -> Phase:
    """A phase that cannot be lowered stays as it is: compiling it says why."""
    if not waits(phase.strategy):
        return phase
    unit = Unit(spec, phase, Collector())
    try:
        schedule = schedule_of(unit, training_of(unit))
        cut = Cuts(unit, schedule, costed_cells(unit, unverified(unit))).best()
    except SpecError:
        return phase
    return replace(phase, strategy=replace(phase.strategy, layers_per_stage=cut)) if cut else phase


class Cuts:
    """The cuts of one phase into the chunks of its schedule."""

    def __init__(self, unit: Unit, schedule: PipelineSchedule, own: CostedCells) -> None:
        self.training, self.schedule, self.own = training_of(unit), schedule, own
        self.names = [name for stage in own.graph.stages for name, count in stage.layers for _ in range(count)]
        self.stages_of: list[list[int]] = [[] for _ in range(schedule.gpus)]
        for (gpu, _), (_, stage) in schedule.stage_at.items():
            self.stages_of[gpu].append(stage)
        self.times = self._times()
        self.known: dict[Counts, bool] = {}

    def _times(self) -> Ranges:
        """[i, j]: seconds of a micro-batch, forward and back, in the layers from the i-th to before the j-th as a chunk."""
        overlap = self.training.overlap == "full"
        cells = self.own.cells(overlap=overlap)
        back = ("backward",) if self.training.schedule in WHOLE else ("input", "weight")
        size = len(self.names) + 1
        found, seen = np.full((size, size), np.inf), dict[tuple[tuple[str, int], ...], float]()
        for i in range(size):
            for j in range(i + 1, size):
                layers = runs(self.names[i:j])
                if layers not in seen:
                    seen[layers] = sum(
                        stage_cost(cells_in_order(Stage(0, layers), cells, cell), overlap=overlap).time_s
                        for cell in ("forward", *back)
                    )
                found[i, j] = seen[layers]
        return a_layer_each(found)

    def best(self) -> Counts | None:
        """None where there are fewer layers than chunks."""
        if len(self.names) - 2 < self.schedule.stages:
            return None
        edges = least_most([self.times], self.schedule.stages)
        assert edges is not None  # there are no fewer layers than chunks
        first = _counts(edges)
        alone = all(len(own) == 1 for own in self.stages_of)
        if alone and self.fits(first):
            return first
        return self._within(first) if alone else self._exchanged(first)

    def fits(self, counts: Counts) -> bool:
        if counts not in self.known:
            self.known[counts] = self.too_full(counts) <= 1.0
        return self.known[counts]

    def too_full(self, counts: Counts) -> float:
        """Of its memory that the fullest GPU needs."""
        own, stages = self.own, self.stages(counts)
        kept = kept_by_stage(own.kept, stages, own.graph)
        held = memory_of(
            own.graph, own.costs, self.schedule, stages, kept, self.training, own.hardware, own.layers, own.copied
        )
        return max(need.peak_B / need.capacity_B for need in held)

    def stages(self, counts: Counts) -> tuple[Stage, ...]:
        return tuple(Stage(k, runs(own)) for k, own in enumerate(chunks_of(self.names, len(counts), counts)))

    # -- a chunk for each GPU ----------------------------------------------------------------------

    def _within(self, first: Counts) -> Counts:
        """Of all cuts that fit the best; else the one that needs least. What a GPU holds depends on its place in the pipeline."""
        fill = np.stack([self._filled(stage) for stage in range(self.schedule.stages)])
        times = np.broadcast_to(self.times, fill.shape)
        edges = least_most([np.where(fill <= 1.0, times, np.inf), fill], self.schedule.stages)
        edges = edges or least_most([fill, times], self.schedule.stages)
        return first if edges is None else _counts(edges)

    def _filled(self, stage: int) -> Ranges:
        """[i, j]: of its memory that the GPU of a stage needs with the layers from the i-th to before the j-th."""
        own, size = self.own, len(self.names) + 1
        in_flight = peaks(self.schedule)[stage]
        found, seen = np.full((size, size), np.inf), dict[tuple[tuple[str, int], ...], float]()
        for i, j in np.argwhere(np.isfinite(self.times)).tolist():
            layers = runs(self.names[i:j])
            if layers not in seen:
                here = Stage(stage, layers)
                (kept,) = kept_by_stage(own.kept, (here,), own.graph)
                whole, late = ([size_B] * self.schedule.stages for size_B in (kept.whole_B, kept.late_B))
                held = peaks(self.schedule, whole, late, only=stage)[0]
                need = gpu_memory(
                    stage,
                    (here,),
                    held,
                    in_flight,
                    own.graph,
                    own.costs,
                    self.training,
                    own.hardware,
                    own.layers,
                    own.copied,
                )
                seen[layers] = need.peak_B / need.capacity_B
            found[i, j] = seen[layers]
        return found

    # -- several ------------------------------------------------------------------------------------

    def _exchanged(self, first: Counts) -> Counts:
        """Where GPUs have several chunks: from the cut whose busiest chunk takes least, and from the most even one, layers are given from a
        chunk to another for as long as that is better. No such exchange makes what is found better."""
        body, stages = len(self.names) - 2, self.schedule.stages
        even = tuple(body // stages + (k < body % stages) for k in range(stages))
        return min((self._improved(start) for start in dict.fromkeys((first, even))), key=self._rank)

    def _improved(self, counts: Counts) -> Counts:
        while True:
            now = self._rank(counts)
            near = min(_neighbours(counts), key=lambda other: self._rank(other, now), default=counts)
            if not _less(self._rank(near, now), now):
                return counts
            counts = near

    def _rank(self, counts: Counts, than: Rank | None = None) -> Rank:
        """`than`: memory is looked at where the rest is no worse than this."""
        edges = np.cumsum((0, counts[0] + 1, *counts[1:-1], counts[-1] + 1))
        each = self.times[edges[:-1], edges[1:]]
        busiest = max(float(sum(each[stage] for stage in own)) for own in self.stages_of)
        rest = busiest, float(each.max()), float(sum(count * count for count in counts))
        if than is not None and than[0] == 0.0 and not _less((0.0, *rest), than):
            return (0.0, *rest)
        if self.known.get(counts) or (over := self.too_full(counts)) <= 1.0:
            self.known[counts] = True
            return (0.0, *rest)
        return (over - 1.0, *rest)


def _less(one: Rank, other: Rank) -> bool:
    """Whether it is better by more than rounding."""
    for a, b in zip(one, other, strict=True):
        if abs(a - b) > SAME * max(abs(a), abs(b)):
            return a < b
    return False


def _neighbours(counts: Counts) -> Iterator[Counts]:
    """A layer from one chunk to another."""
    for giver, taker in permutations(range(len(counts)), 2):
        if counts[giver] > 1:
            changed = list(counts)
            changed[giver] -= 1
            changed[taker] += 1
            yield tuple(changed)


def _counts(edges: Sequence[int]) -> Counts:
    counts = np.diff(edges)
    counts[[0, -1]] -= 1  # the embedding and the head
    return tuple(int(n) for n in counts)
