"""Many servings: predictions, the halves, the fit of the host overhead, and the tables."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from .case import Inexpressible, half, series
from .catalog import CONSTANTS
from .estimate import Estimates
from .published import Refused, Serving
from .serving import FITTED, Engine, Predicted, predict

BELOW_FLOOR = "faster than the plan at datasheet peaks: the row cannot be what its labels say"
TOO_MANY = "more requests a second than prefills at datasheet peaks: the row cannot be what its labels say"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`ratio`: estimate / measured, as times (rates are inverted, so above one is too slow everywhere)."""

    serving: Serving
    predicted: Predicted
    half: str

    @property
    def ratio(self) -> float:
        ratio = self.predicted.value / self.serving.value
        return 1 / ratio if self.serving.is_rate else ratio

    @property
    def phase_ratio(self) -> float | None:
        """The same of the compiled phase alone, without a model of the serving."""
        return None if self.predicted.phase_s is None else self.predicted.phase_s / self.serving.value


def outcomes(
    servings: Sequence[Serving],
    estimates: Estimates,
    constants: Mapping[str, Any],
    tried_ms: Mapping[str, float] | None = None,
) -> tuple[list[Outcome], list[Refused]]:
    """Predictions; `tried_ms` replaces the engines' own overheads (for the fit)."""

    def task(serving: Serving) -> Callable[[], Predicted]:
        engine = Engine.of(serving.where[2], constants, tried_ms)
        return lambda: predict(serving, engine, estimates)

    answers = estimates.settle([task(s) for s in servings])
    wrong = impossible(zip(servings, answers, strict=True))
    done: list[Outcome] = []
    refused: list[Refused] = []
    for serving, answer in zip(servings, answers, strict=True):
        if isinstance(answer, Inexpressible):
            refused.append((name_of(serving), answer))
        elif serving.row in wrong:
            refused.append((name_of(serving), Inexpressible(wrong[serving.row])))
        else:
            done.append(Outcome(serving, answer, half(*series(serving.decode))))
    return done, refused


def impossible(found: Iterable[tuple[Serving, Predicted | Inexpressible]]) -> dict[str, str]:
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
            if len(run) == 2 and answer.prefill_s:
                request_s = run["ttft"] + (serving.osl - 1) * run["tpot"]
                if serving.concurrency / request_s * answer.prefill_s > 1:
                    wrong.setdefault(serving.row, TOO_MANY)
    return wrong


def name_of(serving: Serving) -> str:
    return f"{serving.source}, {serving.confidence}" if serving.confidence else serving.source


def fit(servings: Sequence[Serving], estimates: Estimates, constants: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Milliseconds an engine, on the half that is for tuning: `host_ms` for the least mean |log ratio| of TPOT, then
    `request_ms` for that of TTFT."""
    fitted: dict[str, dict[str, float]] = {key: {} for key in FITTED}
    servings = [o.serving for o in outcomes(servings, estimates, constants)[0]]  # whole rows, before they are parted
    for engine in constants["engines"]:
        for key, metric, step in (("host_ms", "tpot", 0.25), ("request_ms", "ttft", 5.0)):
            rows = [
                s for s in servings
                if s.where[2] == engine and s.metric == metric and half(*series(s.decode)) == "tune" and not s.static_batch
            ]  # fmt: skip
            before = {k: found[engine] for k, found in fitted.items() if engine in found}
            known, _ = outcomes(rows, estimates, constants, before)
            # Only records say that they ran without speculation.
            rows = [o.serving for o in known if o.serving.confidence or not o.serving.speculative_layers]

            def loss(
                tried_ms: float, rows: Sequence[Serving] = rows, key: str = key, before: Mapping[str, float] = before
            ) -> float:
                done, _ = outcomes(rows, estimates, constants, {**before, key: tried_ms})
                return fmean(abs(math.log(o.ratio)) for o in done)

            fitted[key][engine] = min((step * i for i in range(41)), key=loss) if rows else 0.0
    return fitted


def store(fitted: Mapping[str, Mapping[str, float]]) -> None:
    """Put the fitted constants into the data file."""
    text = CONSTANTS.read_text(encoding="utf-8")
    for key, values in fitted.items():
        start = text.index(f'"{key}"')
        end = text.index("}", start) + 1
        text = f'{text[:start]}"{key}": {json.dumps(dict(values))}{text[end:]}'
    CONSTANTS.write_text(text, encoding="utf-8")


def ratios(found: Sequence[Outcome], name: Callable[[Outcome], str]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for outcome in found:
        groups[name(outcome)].append(outcome.ratio)
    return groups
