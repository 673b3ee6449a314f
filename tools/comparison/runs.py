"""Simulated runs: deployment by deployment in a pool of processes, each with what is known of its steps."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np

from dagc.base.diagnostics import SpecError
from dagc.serving.offered import load_of
from dagc.serving.records import Line, Load, Outcome, Request, Setup, StepPrices
from dagc.serving.result import ServeResult, measured
from dagc.serving.rules import CannotServe
from dagc.serving.simulate import simulate

from .cache import Cache
from .case import Inexpressible
from .estimate import reason
from .site import NO_ROOM, Constants, Deployed, Kept, Site


@dataclass(frozen=True, slots=True)
class Job:
    """A serving to simulate: what, under which load (words of a serving), with which constants. `requests`: a trace in place of
    the words' arrivals and lengths. `factor`: over the time of every step."""

    site: Site
    words: tuple[tuple[str, Any], ...]
    constants: Constants
    requests: tuple[Request, ...] = ()
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """What a simulated run measures. Seconds, means over requests; `percentiles`: (TTFT, TPOT, E2E) by percent. `output_per_s`: tokens,
    over the whole run. `verdict`: of an open loop."""

    ttft_s: float
    tpot_s: float
    e2e_s: float
    output_per_s: float
    duration_s: float
    percentiles: tuple[tuple[int, tuple[float, float, float]], ...]
    verdict: str = ""

    def at(self, percent: int) -> tuple[float, float, float]:
        return dict(self.percentiles)[percent]


Found = Run | Inexpressible
PERCENTS = (50, 90, 99)


def run_of(found: ServeResult, outcome: Outcome) -> Run:
    """As benchmarks take them: means over the requests that ended."""
    served = outcome.served
    ttft, e2e, output = np.asarray(served.ttft_s), np.asarray(served.e2e_s), np.asarray(served.output)
    several = output > 1
    tpot = (e2e - ttft)[several] / (output[several] - 1) if several.any() else np.zeros(1)
    tails = tuple(
        (p, (float(np.percentile(ttft, p)), float(np.percentile(tpot, p)), float(np.percentile(e2e, p))))
        for p in PERCENTS
    )
    return Run(
        float(ttft.mean()), float(tpot.mean()), float(e2e.mean()), found.throughput_tok_s, found.duration_s, tails, found.verdict
    )  # fmt: skip


@dataclass
class Runs:
    """Runs by job, each simulated once. `cache` keeps steps of sites, `done` runs of the same scheduler."""

    configs: Path | None
    workers: int = field(default_factory=lambda: cpu_count() or 1)
    cache: Cache | None = None
    done: Cache | None = None
    known: dict[Job, Found] = field(default_factory=dict)
    kept: dict[Site, Kept] = field(default_factory=dict)
    pool: ProcessPoolExecutor | None = None

    def settle(self, jobs: Sequence[Job]) -> list[Found]:
        """Runs of all jobs, in order."""
        wanted: dict[Site, list[Job]] = defaultdict(list)
        for job in dict.fromkeys(jobs):
            if job not in self.known and not self._remembered(job):
                wanted[job.site].append(job)
        tasks = [(site, tuple(each), self._kept(site), self.configs) for site, each in wanted.items()]
        tasks.sort(key=lambda task: -len(task[1]))
        if self.workers == 1 or len(tasks) < 2:
            self._store(map(_simulate, tasks), len(tasks))
        else:
            if self.pool is None:
                self.pool = ProcessPoolExecutor(self.workers)
            self._store(self.pool.map(_simulate, tasks, chunksize=1), len(tasks))
        return [self.known[job] for job in jobs]

    def _remembered(self, job: Job) -> bool:
        found = None if self.done is None else self.done.get(repr(job))
        if found is not None:
            self.known[job] = found
        return found is not None

    def _kept(self, site: Site) -> Kept:
        if site not in self.kept:
            known = None if self.cache is None else self.cache.get(repr(site))
            self.kept[site] = Kept()
            for key, value in known or ():
                self.kept[site].put(key, value)
            self.kept[site].fresh.clear()
        return self.kept[site]

    def _store(self, found: Any, total: int) -> None:
        for done, (site, answers, fresh) in enumerate(found, start=1):
            self.known.update(answers)
            for job, answer in answers if self.done is not None else ():
                self.done.put(repr(job), answer)
            kept = self.kept[site]
            for key, value in fresh:
                kept.put(key, value)
            kept.fresh.clear()
            if fresh and self.cache is not None:
                self.cache.put(repr(site), [*kept.figures.items(), *kept.others.items()])
            if sys.stderr.isatty():
                print(f"\r{done}/{total} deployments", end="\n" if done == total else "", file=sys.stderr, flush=True)


DEPLOYED: dict[Site, Deployed] = {}
"""What a process of the pool has read and priced."""


def _simulate(
    task: tuple[Site, Sequence[Job], Kept, Path | None],
) -> tuple[Site, list[tuple[Job, Found]], list[tuple[Any, Any]]]:
    """All jobs of one site, in a process of the pool, and what it found out about the site's steps."""
    site, jobs, kept, configs = task
    deployed = DEPLOYED.setdefault(site, Deployed(site, configs, kept))
    own = deployed.kept
    own.figures.update(kept.figures)
    own.others.update(kept.others)
    own.fresh.clear()
    answers = [(job, _one(deployed, job)) for job in jobs]
    return site, answers, list(own.fresh)


def _one(deployed: Deployed, job: Job) -> Found:
    words = dict(job.words)
    try:
        setup = deployed.setup(words, job.constants)
        serve = deployed.serving(words)
        if job.factor != 1.0:
            setup = slowed(setup, job.factor)
        load = Load(list(job.requests)) if job.requests else load_of(serve)
        outcome = simulate(setup, load)
    except Inexpressible as error:
        return error
    except SpecError as error:
        return Inexpressible(reason(error))
    except CannotServe:
        return Inexpressible(NO_ROOM)
    return run_of(measured(serve.name, setup, outcome, serve.arrivals), outcome)


class Slowed:
    """Steps that take `factor` times as long."""

    def __init__(self, prices: StepPrices, factor: float) -> None:
        self.prices, self.factor = prices, factor

    def step(self, sequences: float, context: float, prompt: float = 0, pairs: float = 0, most: float = 0) -> Line:
        line = self.prices.step(sequences, context, prompt, pairs, most)
        return line._replace(base_s=line.base_s * self.factor, per_token_s=line.per_token_s * self.factor)


def slowed(setup: Setup, factor: float) -> Setup:
    """The setup with slower steps."""
    workers = tuple(
        replace(some, engine=replace(some.engine, prices=Slowed(some.engine.prices, factor))) for some in setup.workers
    )
    return replace(setup, workers=workers)
