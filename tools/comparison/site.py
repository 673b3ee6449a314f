"""A deployment as the product sees it: phases whose steps are compiled, and a serving that takes any load.

Steps are priced once per deployment, whatever the load and whatever the constants of the host, and kept on disk; so is the room
for cache. A refit of constants compiles nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source as Text
from dagc.lang.load import load
from dagc.pipeline.compile import compile_phase
from dagc.pipeline.serve import CannotServe, Role, Servings
from dagc.pipeline.step_kinds import Limits, Source
from dagc.pipeline.step_points import Figures, Knot, Steps
from dagc.pipeline.step_prices import Host, StepPrices
from dagc.plan.plan import CompiledPlan
from dagc.serving.records import Engine, Setup
from dagc.spec.serve import Serve
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit

from .case import Deployment, Inexpressible
from .catalog import Catalog
from .estimate import catalog_of, reason, routed_experts
from .spec_text import site_text

CONTEXT = 65_536
"""Tokens up to which steps of a deployment have knots at once; others are added beyond."""
USUAL = 4096
"""A context at which mixed steps are compiled."""


@dataclass(frozen=True, slots=True)
class Site:
    """GPUs that prefill and GPUs that decode: the same where `prefill` is None."""

    decode: Deployment
    prefill: Deployment | None = None


@dataclass(frozen=True, slots=True)
class Constants:
    """Fitted: `host_s`, of every step; `launch_s`, of every layer of a step that no CUDA graph covers, while which the GPUs may run;
    `request_s`, of every request before it is scheduled; `prompt_factor`, over what prompts add to the GPU's time of a step."""

    host_s: float = 0.0
    launch_s: float = 0.0
    request_s: float = 0.0
    prompt_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Bare:
    """What a kept setup has in place of the prices of steps: which steps a worker makes, and what its host does."""

    limits: Limits
    host: Host
    decode: Source | None
    prefill: Source | None
    mixed: Source | None
    ranks: int = 0


@dataclass(slots=True)
class Kept:
    """What is known of a site, from this run or an earlier one; `fresh` is what was added since it was taken over. Picklable."""

    figures: dict[Knot, Figures] = field(default_factory=dict)
    others: dict[Any, Any] = field(default_factory=dict)
    fresh: list[tuple[Any, Any]] = field(default_factory=list)

    def put(self, key: Any, value: Any) -> None:
        (self.figures if isinstance(key, Knot) else self.others)[key] = value
        self.fresh.append((key, value))


class _Priced(Servings):
    """A plan's servings whose prices are left out of the setup: `Bare` is in their place."""

    def prices_of(self, role: Role, serve: Serve) -> Any:
        decode, prefill, mixed = self.sources(role, serve)
        limits = Limits(serve.slots, serve.batch_tokens, CONTEXT, USUAL)
        _, ranks, in_flight = self.ranks(role)
        return Bare(limits, self.host(role, serve), decode, prefill, mixed, ranks * in_flight)


class Deployed:
    """A site with what is kept of it. Its spec is read, and its phases are compiled, when something is missing."""

    def __init__(self, site: Site, configs: Path | None, kept: Kept) -> None:
        self.site, self.configs, self.kept = site, configs, kept
        self.shared: dict[tuple[Limits, Source | None, Source | None, Source | None, int], StepPrices] = {}
        self._spec: Spec | None = None
        self._servings: _Priced | None = None
        self._steps: Steps | None = None

    @property
    def spec(self) -> Spec:
        if self._spec is None:
            self._spec = load(Text("<case>", text_of(self.site, self.configs)), Collector(), base_dir=Path("/"))
        return self._spec

    @property
    def servings(self) -> _Priced:
        if self._servings is None:
            spec = self.spec
            results = {phase.name: compile_phase(Unit(spec, phase, Collector())) for phase in spec.phases}
            self._servings = _Priced(CompiledPlan(spec, results, {}, (), (0, 0), (), ()))
        return self._servings

    def serving(self, words: Mapping[str, Any]) -> Serve:
        """The serving of the spec, with the engine's defaults, under other words."""
        found = self.kept.others.get(SERVE)
        if found is None:
            found = replace(self.spec.serves[0], span=None, spans={})
            self.kept.put(SERVE, found)
        return replace(found, **words)

    def price(self, knot: Knot) -> Figures:
        found = self.kept.figures.get(knot)
        if found is None:
            if self._steps is None:
                self._steps = Steps(self.spec)
            found = self._steps(knot)
            self.kept.put(knot, found)
        return found

    def setup(self, words: Mapping[str, Any], constants: Constants) -> Setup:
        """Workers for a serving with these words. Raises Inexpressible."""
        serve = self.serving({name: value for name, value in words.items() if name not in TRAFFIC})
        key = repr(serve)
        found = self.kept.others.get(key)
        if found is None:
            found = self._setup(serve)
            self.kept.put(key, found)
        if isinstance(found, str):
            raise Inexpressible(found)
        return self.priced(found, constants)

    def _setup(self, serve: Serve) -> Setup | str:
        try:
            return self.servings.setup(serve)
        except CannotServe as error:
            return NO_ROOM if "room" in str(error) else str(error)
        except SpecError as error:
            return reason(error)

    def priced(self, bare: Setup, constants: Constants) -> Setup:
        """The setup with prices and the constants of the host."""
        workers = []
        for i, some in enumerate(bare.workers):
            engine: Engine = replace(
                some.engine,
                prices=self._prices(some.engine.prices, constants),
                request_s=0.0 if i else constants.request_s,
            )  # type: ignore[arg-type]
            workers.append(replace(some, engine=engine))
        return replace(bare, workers=tuple(workers))

    def _prices(self, bare: Bare, constants: Constants) -> StepPrices:
        key = (bare.limits, bare.decode, bare.prefill, bare.mixed, bare.ranks)
        shared = self.shared.get(key)
        if shared is None:
            shared = StepPrices(
                self.price, bare.limits, bare.host, bare.decode, bare.prefill, bare.mixed, None, bare.ranks
            )  # fmt: skip
            for source, names in zip(shared.sources, (("decode",), ("prefill", "alone"), ("mixed",)), strict=True):
                for name in names if source is not None else ():
                    getattr(shared, name)
            self.shared[key] = shared
        own = copy.copy(shared)  # tables in common: they know no constant
        own.host = replace(
            bare.host, host_s=constants.host_s, launch_s=constants.launch_s, prompt_factor=constants.prompt_factor
        )
        own.lines, own.prompts = {}, {}
        return own


NO_ROOM = "the plan does not fit in memory"
SERVE = "serve"
TRAFFIC = ("arrivals", "requests", "duration_s", "seed")
"""Words that no setup depends on."""


@lru_cache(maxsize=1024)
def text_of(site: Site, configs: Path | None) -> str:
    """The spec of a site. Raises Inexpressible."""
    catalog: Catalog = catalog_of(configs)
    sparse = routed_experts(catalog.model(site.decode.model), configs) is not None
    return site_text(site.prefill or site.decode, site.decode, site.prefill is not None, catalog, sparse)
