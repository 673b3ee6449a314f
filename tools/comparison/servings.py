"""Many servings: each simulated under the load of its benchmark, with an engine's constants; what cannot be what it says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import loads
from .alone import Alone, alone
from .case import Inexpressible, half, series
from .estimate import Estimates
from .published import Refused, Serving
from .runs import Job, Run, Runs
from .site import Constants, Site

BELOW_FLOOR = "faster than the plan at datasheet peaks: the row cannot be what its labels say"
TOO_MANY = "more requests a second than prefills at datasheet peaks: the row cannot be what its labels say"
Fitted = Mapping[str, Constants]
"""By engine, and by engine and calibration of the GPU (`vllm h100_sxm`) where a GPU has some of its own."""
OF_STEPS = ("input_rate", "decode_rate")
"""Rates of one kind of step: no traffic, the compiled phase and the host."""


@dataclass(frozen=True, slots=True)
class Case:
    """A serving, its compiled phase, what is simulated (None: a rate of one kind of step), and its half (`tune` or `check`)."""

    serving: Serving
    alone: Alone
    job: Job | None
    half: str

    @property
    def name(self) -> str:
        """The engine's."""
        return self.serving.where[2]

    @property
    def group(self) -> str:
        """Engine and calibration of the GPU."""
        return f"{self.name} {self.serving.calibration}" if self.serving.calibration else self.name

    def of(self, fitted: Fitted) -> Constants:
        """The constants of its engine on its GPU, or of its engine."""
        return fitted[self.group] if self.group in fitted else fitted[self.name]

    @property
    def without_doubt(self) -> bool:
        """The labels say all that matters: rows that may speculate without saying so are not among them."""
        return bool(self.serving.confidence) or not self.serving.speculative_layers

    def with_constants(self, constants: Constants) -> Job | None:
        """The run to simulate. Static batches have no front end: a request waits for nothing."""
        if self.job is None:
            return None
        return replace(
            self.job, constants=replace(constants, request_s=0.0) if self.serving.static_batch else constants
        )

    def value(self, run: Run | None, constants: Constants) -> float:
        """The figure that the serving's metric names: seconds, or tokens per second and GPU."""
        if run is None:
            assert self.alone.phase_s is not None
            return self.alone.tokens / (self.alone.phase_s + constants.host_s)
        return figure(self.serving, run)

    def ratio(self, run: Run | None, constants: Constants) -> float:
        """Estimate / measured, as times (rates are inverted, so above one is too slow everywhere)."""
        ratio = self.value(run, constants) / self.serving.value
        return 1 / ratio if self.serving.is_rate else ratio


def figure(serving: Serving, run: Run) -> float:
    """Of a simulated run, what the metric names."""
    if serving.is_rate:
        return run.output_per_s / serving.gpus
    return {"tpot": run.tpot_s, "ttft": run.ttft_s, "ttft_static": run.ttft_s, "request": run.e2e_s}[serving.metric]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case with its run, and the figure predicted. `ratio`: as `Case.ratio`."""

    case: Case
    value: float
    run: Run | None = None

    @property
    def serving(self) -> Serving:
        return self.case.serving

    @property
    def half(self) -> str:
        return self.case.half

    @property
    def ratio(self) -> float:
        ratio = self.value / self.serving.value
        return 1 / ratio if self.serving.is_rate else ratio

    @property
    def phase_ratio(self) -> float | None:
        """The same of the compiled phase alone, without a model of the serving."""
        alone_s = None if self.serving.is_rate else self.case.alone.phase_s
        return None if alone_s is None else alone_s / self.serving.value


def cases(
    servings: Sequence[Serving], estimates: Estimates, runs: Runs, fitted: Fitted, constants: Mapping[str, Any]
) -> tuple[list[Case], list[Refused]]:
    """Cases of every serving that can be simulated, and why the others cannot."""

    def task(serving: Serving) -> Callable[[], Alone]:
        return lambda: alone(serving, constants["engines"], estimates)

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
            try:
                job = None if serving.metric in OF_STEPS else job_of(serving, constants["loads"])
            except Inexpressible as error:
                refused.append((name_of(serving), error))
                continue
            done.append(Case(serving, answer, job, half(*series(serving.decode))))
    tried = [(c, c.with_constants(c.of(fitted))) for c in done]
    runs.settle([job for _, job in tried if job is not None])
    kept: list[Case] = []
    for case, job in tried:
        found = None if job is None else runs.known[job]
        if isinstance(found, Inexpressible):
            refused.append((name_of(case.serving), found))
        else:
            kept.append(case)
    return kept, refused


def job_of(serving: Serving, conventions: Mapping[str, Any]) -> Job:
    """What to simulate. Raises Inexpressible where the load is not stated."""
    words = loads.words(serving, conventions)
    site = Site(serving.decode, serving.prefill if serving.disaggregated else None)
    return Job(site, tuple(sorted(words.items())), Constants())


def outcomes(found: Iterable[Case], fitted: Fitted, runs: Runs) -> list[Outcome]:
    """Predictions of cases, each simulated."""
    asked = [(c, c.with_constants(c.of(fitted))) for c in found]
    runs.settle([job for _, job in asked if job is not None])
    done = []
    for case, job in asked:
        run = None if job is None else runs.known[job]
        if not isinstance(run, Inexpressible):
            done.append(Outcome(case, case.value(run, case.of(fitted)), run))
    return done


def impossible(found: Iterable[tuple[Serving, Alone | Inexpressible]]) -> dict[str, str]:
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


def requests(found: Sequence[Outcome]) -> list[tuple[Outcome, float]]:
    """(the row's TPOT, estimate / measured of its E2E) of rows with both times: E2E = TTFT + (osl - 1) TPOT."""
    rows: dict[str, dict[str, Outcome]] = defaultdict(dict)
    for o in found:
        if o.serving.metric in ("tpot", "ttft"):
            rows[o.serving.row][o.serving.metric] = o
    both = [(row["ttft"], row["tpot"]) for row in rows.values() if len(row) == 2]
    return [
        (
            tpot,
            (ttft.value + (tpot.serving.osl - 1) * tpot.value)
            / (ttft.serving.value + (tpot.serving.osl - 1) * tpot.serving.value),
        )
        for ttft, tpot in both
    ]
