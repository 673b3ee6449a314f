"""What fits: the largest batch, context and cache of a phase with all else as written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..base.diagnostics import Collector, SpecError
from ..base.frozen import record
from ..base.schema.phase import PHASE
from ..lang.fits import tokens_divide_by
from ..pipeline.changed import Changes, Held, Refused, unbalanced, with_phases
from ..pipeline.compile import compile_spec
from ..plan.plan import CompiledPlan, cached_tokens
from ..plan.pools import kv_tokens
from ..spec.phase import Phase
from ..spec.spec import Spec
from .largest import largest

MOST = int(PHASE["sequences"].high)
"""Sequences, and tokens of a context, that a spec may say."""


@record
class Edge:
    """What the fullest GPU that the phase uses holds at a value, of what it may; `refused`: why there is no plan at it."""

    value: int
    peak_B: float = 0.0
    capacity_B: float = 0.0
    gpu: int = -1
    fits: bool = False
    refused: str = ""


@record
class Largest:
    """The largest value of one figure of a phase that fits. `at`: there, None where none fits; `beyond`: at the next value, None
    where a spec cannot say more. `compiled`: both are of whole compilations; else of what the plan as written leaves."""

    phase: str
    what: str  # sequences | context | kv_tokens
    written: int
    at: Edge | None
    beyond: Edge | None
    tried: int = 0
    compiled: bool = True


@dataclass(slots=True)
class Fit:
    """The questions about one spec. Raises SpecError where it does not compile."""

    spec: Spec
    plan: CompiledPlan = field(init=False)
    changes: Changes = field(init=False)

    def __post_init__(self) -> None:
        self.plan = self.compiled(self.spec)
        self.changes = Changes(self.plan.spec, self.plan.phases)

    def compiled(self, spec: Spec) -> CompiledPlan:
        """What phases hold: requirements and servings say nothing to it."""
        return compile_spec(replace(spec, requirements=(), serves=()), Collector())

    def largest(self, name: str) -> Iterator[Largest]:
        """Batch, context and cache of a phase."""
        phase = self.plan.spec.phase(name)
        packs = phase.lengths is not None and phase.lengths.prompts  # which prompts others would have is not known
        if not phase.parts and not packs:
            yield self.most_sequences(phase)
        if (not phase.parts and not packs) or phase.generates:
            yield self.longest_context(phase)
        cached = self.largest_cache(phase)
        if cached is not None:
            yield cached

    def most_sequences(self, phase: Phase) -> Largest:
        return self._largest(phase, "sequences", phase.sequences, 1)

    def longest_context(self, phase: Phase) -> Largest:
        """Of a prefill: its prompt. Where ranks split tokens, the next one is so many tokens longer that they divide."""
        return self._largest(phase, "context", phase.context, tokens_divide_by(phase))

    def _largest(self, phase: Phase, what: str, written: int, step: int) -> Largest:
        looks = 0

        def share(k: int) -> float:
            nonlocal looks
            looks += 1
            found = self.held(phase, what, k * step)
            return found.fraction if isinstance(found, Held) else self.refused_share(phase, what, k * step)

        most = MOST // step
        k = largest(share, written // step, most)
        at = self.edge(phase, what, k * step) if k else None
        beyond = self.edge(phase, what, (k + 1) * step) if k < most else None
        return Largest(phase.name, what, written, at, beyond, looks)

    def refused_share(self, phase: Phase, what: str, value: int) -> float:
        """What is refused for being too short counts as small, all else as too large."""
        return 0.0 if what == "context" and value < phase.context else float("inf")

    def held(self, phase: Phase, what: str, value: int) -> Held | Refused:
        """What the phase holds at another value, with those on its GPUs."""
        spec, changed = self.at(phase, what, value)
        refused = self.changes.refusal(changed, spec)
        return refused if refused is not None else self.changes.held([changed], spec=spec)

    def at(self, phase: Phase, what: str, value: int) -> tuple[Spec, Phase]:
        """The spec and the phase that say another value. The context of a prefill is the prompt of the workload."""
        spec, phase = self.changes.spec, unbalanced(phase)
        if what == "sequences":
            return spec, replace(phase, sequences=value)
        changed = phase.at_context(value)
        prompts = not phase.parts and phase.takes_prompts
        return (replace(spec, workload=replace(spec.workload, prompt=value)) if prompts else spec), changed

    def edge(self, phase: Phase, what: str, value: int) -> Edge:
        """The whole spec compiled at another value."""
        spec, changed = self.at(phase, what, value)
        refused = self.changes.refusal(changed, spec)
        if refused is not None:
            return Edge(value, refused=refused.why)
        return self.compiled_edge(value, with_phases(spec, [self.changes.with_engine(changed)]), phase.name)

    def compiled_edge(self, value: int, spec: Spec, *names: str) -> Edge:
        """The fullest GPU that some phases use, of a spec compiled."""
        try:
            plan = self.compiled(spec)
        except SpecError as error:
            return Edge(value, refused=error.diagnostics[0].message)
        pools = [pool for pool in plan.pools if set(names) & set(pool.phases)]
        fullest = max(pools, key=lambda pool: pool.fraction)
        fits = all(pool.fits for pool in pools) and all(plan.phases[name].memory.fits for name in names)
        return Edge(value, fullest.peak_B, fullest.capacity_B, fullest.fullest, fits)

    def largest_cache(self, phase: Phase) -> Largest | None:
        """Tokens of cache for which all sequences together have room beside all else as written; None where nothing is cached."""
        result, pools = self.plan.phases[phase.name], self.plan.pools
        cached = cached_tokens(phase)
        by_stage = kv_tokens(result, pools, cached)
        stage = min(range(len(by_stage)), key=by_stage.__getitem__)
        if by_stage[stage] == float("inf"):
            return None
        tokens = int(by_stage[stage])
        key = (phase.name, stage)
        pool = min((p for p in pools if key in p.room_B), key=lambda p: p.room_B[key])
        need = result.memory.stages[stage]
        token_B = need.kv_cache_B / cached
        beside_B = pool.capacity_B - pool.room_B[key]
        at, beyond = (
            Edge(n, beside_B + n * token_B, pool.capacity_B, pool.fullest, beside_B + n * token_B <= pool.capacity_B)
            for n in (tokens, tokens + 1)
        )
        return Largest(phase.name, "kv_tokens", cached, at if at.fits else None, beyond, 0, compiled=False)
