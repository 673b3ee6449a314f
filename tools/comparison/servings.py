"""Many servings: their compiled parts, what cannot be what it says, and predictions with an engine's constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .case import Inexpressible, half, series
from .estimate import Estimates
from .published import Refused, Serving
from .serving import Constants, Engine, Parts, Predicted, figure, parts

BELOW_FLOOR = "faster than the plan at datasheet peaks: the row cannot be what its labels say"
TOO_MANY = "more requests a second than prefills at datasheet peaks: the row cannot be what its labels say"
Fitted = Mapping[str, Constants]
"""By engine."""


@dataclass(frozen=True, slots=True)
class Case:
    """A serving, its compiled parts, and its half (`tune` or `check`)."""

    serving: Serving
    parts: Parts
    engine: Engine
    half: str

    @property
    def name(self) -> str:
        """The engine's."""
        return self.serving.where[2]

    @property
    def without_doubt(self) -> bool:
        """The labels say all that matters: rows that may speculate without saying so are not among them."""
        return bool(self.serving.confidence) or not self.serving.speculative_layers

    def ratio(self, constants: Constants) -> float:
        """Estimate / measured, as times (rates are inverted, so above one is too slow everywhere)."""
        ratio = figure(self.parts, self.engine, constants) / self.serving.value
        return 1 / ratio if self.serving.is_rate else ratio


@dataclass(frozen=True, slots=True)
class Outcome:
    """`ratio`: as `Case.ratio`, with the constants that it was predicted with."""

    case: Case
    predicted: Predicted

    @property
    def serving(self) -> Serving:
        return self.case.serving

    @property
    def half(self) -> str:
        return self.case.half

    @property
    def ratio(self) -> float:
        ratio = self.predicted.value / self.serving.value
        return 1 / ratio if self.serving.is_rate else ratio

    @property
    def phase_ratio(self) -> float | None:
        """The same of the compiled phase alone, without a model of the serving."""
        alone_s = self.predicted.parts.phase_s
        return None if alone_s is None else alone_s / self.serving.value


def cases(
    servings: Sequence[Serving], estimates: Estimates, constants: Mapping[str, Any]
) -> tuple[list[Case], list[Refused]]:
    """Parts of every serving that can be compiled, and why the others cannot."""
    engines = {name: Engine.of(name, constants) for name in constants["engines"]}

    def task(serving: Serving) -> Callable[[], Parts]:
        return lambda: parts(serving, engines[serving.where[2]], estimates)

    answers = estimates.settle([task(s) for s in servings])
    wrong = impossible(zip(servings, answers, strict=True))
    done: list[Case] = []
    refused: list[Refused] = []
    for serving, answer in zip(servings, answers, strict=True):
        if isinstance(answer, Inexpressible):
            refused.append((name_of(serving), answer))
        elif serving.row in wrong:
            refused.append((name_of(serving), Inexpressible(wrong[serving.row])))
        else:
            done.append(Case(serving, answer, engines[serving.where[2]], half(*series(serving.decode))))
    return done, refused


def outcomes(found: Iterable[Case], fitted: Fitted) -> list[Outcome]:
    """Predictions of cases."""
    return [Outcome(c, Predicted(figure(c.parts, c.engine, fitted[c.name]), c.parts)) for c in found]


def impossible(found: Iterable[tuple[Serving, Parts | Inexpressible]]) -> dict[str, str]:
    """Rows that cannot be what their labels say, and why: all figures of a row are of one run, and go together.

    A figure beyond its bound; or, with both times known, requests that come faster (Little's law: those in flight over
    the time of one) than their prefills can end.
    """
    wrong: dict[str, str] = {}
    times: dict[str, dict[str, float]] = defaultdict(dict)
    for serving, answer in found:
        if isinstance(answer, Inexpressible):
            continue
        beyond = serving.value > answer.bound if serving.is_rate else serving.value < answer.bound
        if beyond:
            wrong[serving.row] = BELOW_FLOOR
        if serving.concurrency and not serving.static_batch and serving.metric in ("tpot", "ttft"):
            run = times[serving.row]
            run[serving.metric] = serving.value
            if len(run) == 2 and answer.busy_s:
                request_s = run["ttft"] + (serving.osl - 1) * run["tpot"]
                if serving.concurrency / request_s * answer.busy_s > 1:
                    wrong.setdefault(serving.row, TOO_MANY)
    return wrong


def name_of(serving: Serving) -> str:
    return f"{serving.source}, {serving.confidence}" if serving.confidence else serving.source


def ratios(found: Sequence[Outcome], name: Callable[[Outcome], str]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for outcome in found:
        groups[name(outcome)].append(outcome.ratio)
    return groups
