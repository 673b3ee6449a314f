"""Many servings: predictions, the halves, the fit of the host overhead, and the tables."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from .case import Inexpressible, half, series
from .estimate import Estimates
from .names import CONSTANTS
from .rows import Refused, Serving
from .serving import Engine, Predicted, predict

BELOW_FLOOR = "faster than the plan at datasheet peaks: the row cannot be what its labels say"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`ratio`: estimate / measured, as times (rates are inverted, so above one is too slow everywhere)."""

    serving: Serving
    predicted: Predicted
    half: str

    @property
    def ratio(self) -> float:
        ratio = self.predicted.value / self.serving.value
        return 1 / ratio if self.serving.metric.endswith("rate") else ratio


def outcomes(
    servings: Sequence[Serving], estimates: Estimates, constants: Mapping[str, Any], host_s: float | None = None
) -> tuple[list[Outcome], list[Refused]]:
    """Predictions; `host_s` replaces the engines' own overhead (for the fit)."""

    def task(serving: Serving) -> Callable[[], Predicted]:
        engine = Engine.of(serving.where[2], constants, host_s)
        return lambda: predict(serving, engine, estimates)

    answers = estimates.settle([task(s) for s in servings])
    done: list[Outcome] = []
    refused: list[Refused] = []
    for serving, answer in zip(servings, answers, strict=True):
        if isinstance(answer, Inexpressible):
            refused.append((name_of(serving), answer))
        elif serving.value < answer.floor_s:
            refused.append((name_of(serving), Inexpressible(BELOW_FLOOR)))
        else:
            done.append(Outcome(serving, answer, half(*series(serving.decode))))
    return done, refused


def name_of(serving: Serving) -> str:
    return f"{serving.source}, {serving.confidence}" if serving.confidence else serving.source


def fit_host(servings: Sequence[Serving], estimates: Estimates, constants: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds an engine: the least mean |log ratio| of TPOT over the half that is for tuning."""
    tuned: dict[str, float] = {}
    for engine in constants["engines"]:
        rows = [
            s for s in servings
            if s.where[2] == engine and s.metric == "tpot" and half(*series(s.decode)) == "tune" and not s.static_batch
        ]  # fmt: skip
        known, _ = outcomes(rows, estimates, constants, 0.0)
        # Only records say that they ran without speculation.
        rows = [o.serving for o in known if o.serving.confidence or not o.serving.speculative_layers]
        if not rows:
            tuned[engine] = 0.0
            continue

        def loss(host_ms: float, rows: Sequence[Serving] = rows) -> float:
            done, _ = outcomes(rows, estimates, constants, host_ms * 1e-3)
            return fmean(abs(math.log(o.ratio)) for o in done)

        tuned[engine] = min((0.25 * i for i in range(41)), key=loss)
    return tuned


def store_host(host_ms: Mapping[str, float]) -> None:
    """Write the fitted overheads into the constants' file, every other byte as it was."""
    text = CONSTANTS.read_text(encoding="utf-8")
    start = text.index('"host_ms"')
    end = text.index("}", start) + 1
    CONSTANTS.write_text(f'{text[:start]}"host_ms": {json.dumps(dict(host_ms))}{text[end:]}', encoding="utf-8")


def ratios(found: Sequence[Outcome], name: Callable[[Outcome], str]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for outcome in found:
        groups[name(outcome)].append(outcome.ratio)
    return groups
