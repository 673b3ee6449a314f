"""Estimates of points: models are elaborated once per process, points compiled in a pool, each once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from os import cpu_count
from pathlib import Path
from typing import TypeVar

from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.calib.calibration import nearest
from dagc.lang.load import load
from dagc.pipeline.compile import compile_phase
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit

from .cache import Cache
from .case import Deployment, Estimate, Failure, Inexpressible, Point
from .catalog import Catalog
from .classes import class_seconds
from .spec_text import spec_text

Found = Estimate | Failure
T = TypeVar("T")
BATCH = 8
"""Points handed to a worker at once."""


class NotYet(Exception):
    """A prediction needs a point that has no estimate yet."""


@lru_cache(maxsize=4)
def catalog_of(configs: Path | None) -> Catalog:
    return Catalog(configs)


@lru_cache(maxsize=128)
def routed_experts(model: str, configs: Path | None) -> tuple[int, int] | None:
    """(count, top_k) of the elaborated model's routed experts; None for a dense model.

    Raises Inexpressible when the library has no such model."""
    source = catalog_of(configs).model_source(model)
    text = f'moe 1\nhardware from "h100-sxm" {{ }}\nmodel m from "{source}" {{ }}\nworkload {{ sequences = 1, prompt = 1 tok }}\nphase decode {{ gpus = 0 }}\n'
    try:
        found = _load(text).model
    except SpecError as error:
        raise Inexpressible(reason(error)) from None
    if "experts.count" not in found.attributes:
        return None
    return found.count("experts.count"), found.count("experts.top_k")


@lru_cache(maxsize=128)
def layers_of(model: str, configs: Path | None) -> int:
    """Layers of the elaborated model. Raises Inexpressible when the library has no such model."""
    source = catalog_of(configs).model_source(model)
    text = f'moe 1\nhardware from "h100-sxm" {{ }}\nmodel m from "{source}" {{ }}\nworkload {{ sequences = 1, prompt = 1 tok }}\nphase decode {{ gpus = 0 }}\n'
    try:
        return _load(text).model.layers
    except SpecError as error:
        raise Inexpressible(reason(error)) from None


def _load(text: str) -> Spec:
    return load(Source("<case>", text), Collector(), base_dir=Path("/"))


@lru_cache(maxsize=512)
def _elaborated(deployment: Deployment, kind: str, tokens: int, configs: Path | None) -> Spec:
    """The spec with as few sequences per rank as there are lanes: points that differ in the batch share it."""
    fewest = deployment.layout.dp * (2 if deployment.two_batch else 1)
    return _load(text_of(Point(deployment, kind, fewest, tokens), configs))


def text_of(point: Point, configs: Path | None) -> str:
    """The spec of a point."""
    sparse = routed_experts(catalog_of(configs).model(point.deployment.model), configs) is not None
    return spec_text(point, catalog_of(configs), sparse)


OWN, ANOTHER_GPU, ROOFLINE = "own", "another_gpu", "roofline"
"""Whose kernels price a point: those of its GPU; those of the nearest other GPU that has some; none."""


def calibration_of(own: str | None, kernels: str) -> str | None:
    """The calibration of a hardware section whose own is `own`."""
    if kernels == OWN or own is None:
        return own
    return nearest().gpus_near(own)[0] if kernels == ANOTHER_GPU else None


def estimate(point: Point, configs: Path | None, kernels: str = OWN) -> Found:
    """Compile a point. Memory is not judged: what does not fit is still timed."""
    try:
        spec = _elaborated(point.deployment, point.kind, point.tokens, configs)
        capacity_B = spec.hardware.memory_B
        spec = replace(
            spec,
            hardware=replace(
                spec.hardware, memory_B=1e18, calibration=calibration_of(spec.hardware.calibration, kernels)
            ),
            workload=replace(spec.workload, sequences=point.sequences),
        )
        phase = replace(spec.phases[0], sequences=point.sequences)
        result = compile_phase(Unit(spec, phase, Collector()))
    except Inexpressible as error:
        return Failure(str(error))
    except SpecError as error:
        return Failure(reason(error))
    need = result.memory.worst
    return Estimate(
        result.time_s,
        result.floor_s,
        tuple(class_seconds(result).items()),
        need.weights_B,
        need.kv_cache_B,
        need.activations_B + need.buffers_B,
        need.reserve_B,
        capacity_B,
    )


def reason(error: SpecError) -> str:
    """The first error, with what is one case's own left out: paths and numbers."""
    first = next(d for d in error.diagnostics if d.code.startswith("E"))
    words = re.sub(r"`[^`]*/[^`]*`", "the config", first.message)
    return f"dagc {first.code}: {re.sub(r'[0-9]+(?= |$|,)', 'N', words)}"


def _estimate_batch(points: list[Point], configs: Path | None, kernels: str) -> list[Found]:
    return [estimate(point, configs, kernels) for point in points]


@dataclass
class Estimates:
    """Answers to points, filled in rounds: `settle` runs a prediction until every point it asks for is there."""

    configs: Path | None
    workers: int = field(default_factory=lambda: cpu_count() or 1)
    known: dict[Point, Found] = field(default_factory=dict)
    cache: Cache | None = None
    kernels: str = OWN
    _wanted: dict[Point, None] = field(default_factory=dict)

    def ask(self, point: Point) -> Estimate:
        """The estimate. Raises NotYet when it is not there yet, Inexpressible when it cannot exist."""
        found = self.known.get(point)
        if found is None:
            self._wanted[point] = None
            raise NotYet
        if isinstance(found, Failure):
            raise Inexpressible(found.reason)
        return found

    def layers(self, model: str) -> int:
        """Layers of a model."""
        return layers_of(catalog_of(self.configs).model(model), self.configs)

    def settle(self, tasks: Iterable[Callable[[], T]]) -> list[T | Inexpressible]:
        """Results of tasks that call `ask`, in order; what they cannot say comes back as the error."""
        jobs = list(tasks)
        results: dict[int, T | Inexpressible] = {}
        while len(results) < len(jobs):
            for i, job in enumerate(jobs):
                if i in results:
                    continue
                try:
                    results[i] = job()
                except NotYet:
                    continue
                except Inexpressible as error:
                    results[i] = error
            self._compile_wanted()
        return [results[i] for i in range(len(jobs))]

    def _compile_wanted(self) -> None:
        points = sorted(self._wanted, key=lambda p: (repr(p.deployment), p.kind, p.tokens, p.sequences))
        self._wanted.clear()
        if self.cache is not None:
            points = [p for p in points if not self._cached(p)]
        batches = [points[i : i + BATCH] for i in range(0, len(points), BATCH)]
        if len(points) <= BATCH or self.workers == 1:
            found = (_estimate_batch(batch, self.configs, self.kernels) for batch in batches)
            self._store(points, found)
            return
        with ProcessPoolExecutor(self.workers) as pool:
            n = len(batches)
            self._store(points, pool.map(_estimate_batch, batches, [self.configs] * n, [self.kernels] * n))

    def _cached(self, point: Point) -> bool:
        assert self.cache is not None
        found = self.cache.get(self._key(point))
        if found is not None:
            self.known[point] = found
        return found is not None

    def _key(self, point: Point) -> str:
        try:
            return text_of(point, self.configs)
        except Inexpressible as error:
            return f"{point}: {error}"

    def _store(self, points: list[Point], found: Iterable[list[Found]]) -> None:
        done = 0
        for batch in found:
            for answer in batch:
                point = points[done]
                self.known[point] = answer
                if self.cache is not None:
                    self.cache.put(self._key(point), answer)
                done += 1
            _progress(done, len(points))


def _progress(done: int, total: int) -> None:
    if total and sys.stderr.isatty():
        width = 40
        filled = width * done // total
        end = "\n" if done == total else ""
        print(f"\r{'#' * filled}{'.' * (width - filled)} {done}/{total}", end=end, file=sys.stderr, flush=True)
