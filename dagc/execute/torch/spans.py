"""When each rank did what in a run."""

from __future__ import annotations

from ...base.frozen import record, replace
from ...plan.result import PhaseResult
from ...plan.trained import TrainingResult


@record
class Span:
    """One execution of an op of a layer (`layer`: its index in the model), or outside of layers (None, `segment` is empty) a send, a
    receive or what the front end does. `part`: of the batch. Seconds since the pass began on this rank."""

    segment: str
    op: str
    layer: int | None
    part: int
    start_s: float
    end_s: float

    def later(self, by_s: float) -> Span:
        return replace(self, start_s=self.start_s + by_s, end_s=self.end_s + by_s)


@record(slots=False)
class Timeline:
    """Of one pass. `result`: the plan that ran, of the twin where that ran; `ranks`: spans of each process, those of the lowest GPU
    id first; `per_node`: GPUs of a node."""

    result: PhaseResult | TrainingResult
    ranks: tuple[tuple[Span, ...], ...]
    per_node: int
