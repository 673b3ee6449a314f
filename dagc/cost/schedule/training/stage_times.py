"""stage_times: how long the cells of each virtual stage take, and the sends between stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....base.frozen import record
from .cell_orders import Cell, Part


@record
class StageTimes:
    """Seconds by virtual stage. `sends_s[i]`: of activations from stage i to the next; `returns_s[i]`: of gradients from the next
    stage back to i. `overlap_s`: by the stage of the forward cell, how long it takes together with the backward cell that it
    overlaps with; `pairs_s` the same by both stages. Where neither is given, they gain nothing. `backward_s`: of whole gradients, if not
    their two parts."""

    forward_s: Sequence[float]
    input_s: Sequence[float]
    weight_s: Sequence[float]
    sends_s: Sequence[float]
    returns_s: Sequence[float]
    overlap_s: Sequence[float] | None = None
    backward_s: Sequence[float] | None = None
    pairs_s: Mapping[tuple[int, int], float] | None = None

    @staticmethod
    def alike(
        stages: int,
        forward_s: float,
        backward_s: float,
        weight_s: float,
        *,
        send_s: float = 0.0,
        overlap_s: float | None = None,
    ) -> StageTimes:
        """Of equal stages. `backward_s` is the whole gradient, as in the closed forms."""
        return StageTimes(
            (forward_s,) * stages,
            (backward_s - weight_s,) * stages,
            (weight_s,) * stages,
            (send_s,) * (stages - 1),
            (send_s,) * (stages - 1),
            None if overlap_s is None else (overlap_s,) * stages,
            (backward_s,) * stages,
        )

    def cell_s(self, part: Part, stage: int) -> float:
        if part is Part.FORWARD:
            return self.forward_s[stage]
        if part is Part.WEIGHT:
            return self.weight_s[stage]
        if part is Part.INPUT:
            return self.input_s[stage]
        return self.input_s[stage] + self.weight_s[stage] if self.backward_s is None else self.backward_s[stage]

    def entry_s(self, cells: Sequence[Cell], stages: Sequence[int]) -> float:
        """Of one cell, or of a forward and a backward cell at once, on these stages."""
        if len(cells) == 1:
            return self.cell_s(cells[0].part, stages[0])
        if self.pairs_s is not None:
            return self.pairs_s[stages[0], stages[1]]
        if self.overlap_s is None:
            return sum(self.cell_s(cell.part, stage) for cell, stage in zip(cells, stages, strict=True))
        return self.overlap_s[stages[0]]
