"""answer: what a search found, as records: the best plans with their figures, the certificate, and how to write them out."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.frozen import record
from .certificate import Certificate
from .exact import Plan
from .objectives import Objective
from .space import Domain, Values


@record(slots=False)
class Ranked:
    """A plan that was found. `values`: what it chose, by phase and path. `figures`: of the objectives, in their order, in SI units.
    `plans`: of each phase that was searched. `text`: the spec with the choices made."""

    values: Mapping[str, Values]
    figures: tuple[float, ...]
    plans: Mapping[str, Plan]
    gpus: int
    slow_B: float
    text: str = ""


@record(slots=False)
class Answer:
    """`ranked`: the best plans, the best first; of two objectives the front, in the order of the first. `phases`: that were searched,
    with the domains of their choices."""

    objectives: tuple[Objective, ...]
    ranked: tuple[Ranked, ...]
    certificate: Certificate
    phases: Mapping[str, tuple[Domain, ...]]
    interrupted: bool = False

    @property
    def best(self) -> Ranked | None:
        return self.ranked[0] if self.ranked else None
