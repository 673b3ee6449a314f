"""answer: what a search found, as records: the best plans with their figures, the certificates, and why others are not there."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.frozen import field, record
from ...plan.searched import Error
from .best_first import Outcome
from .certificate import Certificate
from .exact import Plan
from .nearest import Near
from .objectives import Objective
from .space import Domain, Word


@record(slots=False)
class Ranked:
    """A plan that was found. `values`: what it chose, by phase and path (`gpus`: a count, or a range of ids). `figures`: of the answer's
    objectives, in their order, in SI units. `plans`: of each phase that was searched. `slow_B`: bytes that a GPU sends over the outermost
    links in a pass. `picked`: alternatives, by phase. `text`: the spec with the choices made. `served`: figures of the servings that are asked, by their
    names, in SI units."""

    values: Mapping[str, Mapping[str, Word | range]]
    figures: tuple[float, ...]
    plans: Mapping[str, Plan]
    gpus: int
    slow_B: float = 0.0
    picked: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    served: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@record(slots=False)
class Searched:
    """What was found of one phase by itself. `near`: of an empty space, plans that break one rule alone, the nearest first."""

    name: str
    objectives: tuple[Objective, ...]
    domains: tuple[Domain, ...]
    outcome: Outcome
    near: tuple[Near, ...] = ()

    @property
    def certificate(self) -> Certificate:
        return self.outcome.certificate


@record(slots=False)
class Joined:
    """How plans of several phases were put together. `tried`: pairs that were compiled together; `refused`: of them, those that do not fit or
    fail a requirement together; `complete`: no other pair can be better. `broken`: pairs that are better than their parts are alone. `gap`: share by
    which a pair that was not looked at could be better at most (None: unknown, or nothing is left). `left`: combinations that were not looked at. `reasons`: how many are refused by each
    rule; `near`: where none is left, the nearest of them."""

    tried: int
    refused: int
    complete: bool
    broken: int = 0
    gap: float | None = None
    left: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    near: tuple[Near, ...] = ()


@record(slots=False)
class Answer:
    """`ranked`: the best plans, the best first; or with `front` those that no other is better than in all objectives, in the order of the
    first. `searched`: by phase. `errors`: of figures of servings, against measured ones."""

    objectives: tuple[Objective, ...]
    ranked: tuple[Ranked, ...]
    searched: Mapping[str, Searched]
    seconds: float
    joined: Joined | None = None
    interrupted: bool = False
    front: bool = False
    errors: tuple[Error, ...] = ()

    @property
    def best(self) -> Ranked | None:
        return self.ranked[0] if self.ranked else None

    @property
    def complete(self) -> bool:
        """Every plan was costed, or excluded by a rule or a proven bound."""
        whole = all(one.certificate.complete for one in self.searched.values())
        return whole and (self.joined is None or self.joined.complete)

    @property
    def certificate(self) -> Certificate:
        """Of the phase that was searched first."""
        return next(iter(self.searched.values())).certificate

    @property
    def gap(self) -> float | None:
        """By how much a plan that was not looked at could be better at most, as a share; None: unknown, or nothing is left."""
        if self.joined is not None and self.joined.gap is not None:
            return self.joined.gap
        found = [one.certificate.gap for one in self.searched.values()]
        return max((g for g in found if g is not None), default=None)
