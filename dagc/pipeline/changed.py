"""Phases changed: whether the rules allow them, and what they hold on GPUs that they share with others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.frozen import field, record, replace
from ..cost.footprint import Memory
from ..ir.graph import Graph
from ..ir.verify.violation import VerifyError
from ..plan.pools import Pool
from ..plan.result import PhaseResult
from ..spec.engines import engine_memory
from ..spec.phase import EngineMemory, Phase
from ..spec.spec import Spec
from ..spec.unit import Unit


@record
class Refused:
    """Why a change is not legal: the errors that `dagc check` would print of it."""

    errors: tuple[Diagnostic, ...]

    @property
    def why(self) -> str:
        """The first of them."""
        return self.errors[0].message if self.errors else "it has no layout"


@record(slots=False)
class Held:
    """Phases as they were changed, with their graph and memory alone of what a result has. `pools`: of GPUs that they use;
    `without`: phases there that do not fit themselves and were left out."""

    results: Mapping[str, PhaseResult]
    pools: tuple[Pool, ...]
    without: tuple[str, ...] = ()

    @property
    def fullest(self) -> Pool:
        """The pool whose fullest GPU is nearest to what it may hold, or furthest above."""
        return max(self.pools, key=lambda pool: pool.fraction)

    @property
    def fraction(self) -> float:
        """Of what the fullest GPU may hold, alone with each of the phases and with all that share it."""
        return max(self.fullest.fraction, *(result.memory.fraction for result in self.results.values()))

    @property
    def fits(self) -> bool:
        return all(pool.fits for pool in self.pools) and all(r.memory.fits for r in self.results.values())


@record
class Changes:
    """Changes of one compiled plan. `results`: of its phases as they are."""

    spec: Spec
    results: Mapping[str, PhaseResult] = field(repr=False)

    def refusal(self, phase: Phase, spec: Spec | None = None) -> Refused | None:
        """The rules that a phase breaks before it is lowered."""
        from ..lang.body import Body
        from ..lang.fits import StrategyFit
        from ..lang.sections.prompt_lengths import in_its_rows

        if phase.span is None:
            return None
        own = spec or self.spec
        out = Collector()
        StrategyFit(in_its_rows(phase), Body(phase.span), own.model, own.workload, out).check()
        return Refused(_errors(out.items)) if out.failed else None

    def lowered(self, spec: Spec, phase: Phase) -> tuple[Graph, Memory] | Refused:
        """A phase that breaks no rule, as the passes lower it, and its memory."""
        from ..cost import scale_blocks
        from ..cost.memory import stage_memory
        from ..cost.price import price
        from . import layer_loads
        from .kept_lowerings import lowered

        if phase.strategy.balanced:
            from .stage_cut import balanced_phase

            phase = balanced_phase(spec, phase)
        unit = Unit(spec, self.with_engine(phase), Collector())
        try:
            if phase.drafter != "none":  # what drafts is stored too
                from .analyse import cost_graph
                from .drafts import with_drafts

                result = with_drafts(cost_graph(lowered(unit), unit), unit)
                return result.graph, result.memory
            graph = lowered(unit)
            scale_blocks.check(graph, unit)
            layer_loads.check(graph, unit)
            unit.out.check()
            return graph, stage_memory(graph, price(graph, unit), unit)
        except SpecError as error:
            return Refused(_errors(error.diagnostics))
        except (VerifyError, ArithmeticError, ValueError, KeyError) as error:
            return Refused((Diagnostic("E03", str(error)),))  # no layout to recommend

    def held(
        self,
        phases: Sequence[Phase],
        others: Mapping[str, PhaseResult] | None = None,
        *,
        spec: Spec | None = None,
        leave: bool = False,
    ) -> Held | Refused:
        """What changed phases hold, with the others of the plan (those in `others` in their place). `spec`: with which they are
        lowered, where more than phases changes. `leave`: leave out phases that do not fit by themselves."""
        from . import pools

        new = {phase.name: phase for phase in phases}
        spec = with_phases(spec or self.spec, phases)
        changed = {}
        for phase in phases:
            found = self.lowered(spec, phase)
            if isinstance(found, Refused):
                return found
            graph, memory = found
            gpus = tuple(g for stage in graph.stages for g in stage.gpus)
            changed[phase.name] = replace(self.results[phase.name], graph=graph, memory=memory, gpus=gpus)
        kept = others or {}
        beside = {n: kept.get(n, r) for n, r in self.results.items() if n not in new}
        beside |= self.lowered_anew(spec, beside, kept)
        crowded = (n for n, r in beside.items() if leave and not r.memory.fits)
        without = tuple(n for n in crowded if any(beside[n].shares(own) for own in changed.values()))
        beside = {n: r for n, r in beside.items() if r.memory.fits or not leave}
        own = tuple(
            pool for pool in pools.run(beside | changed, self.spec.alternating) if new.keys() & set(pool.phases)
        )
        return Held(changed, own, without)

    def lowered_anew(
        self, spec: Spec, others: Mapping[str, PhaseResult], kept: Collection[str] = ()
    ) -> dict[str, PhaseResult]:
        """Phases whose own lowering follows the one that was changed, on the same GPUs: experts are stored in one order."""
        from ..spec.factors import factorisations, neighbours

        out = {}
        for name in others:
            phase = self.spec.phase(name)
            before, after = (neighbours(s, phase) for s in (self.spec, spec))
            if name in kept or [*map(factorisations, before)] == [*map(factorisations, after)]:
                continue
            found = self.lowered(spec, phase)
            if not isinstance(found, Refused):
                out[name] = replace(others[name], graph=found[0], memory=found[1])
        return out

    def with_engine(self, phase: Phase) -> Phase:
        """What the engine keeps follows the ranks, unless the spec says it; and which prompts share a row."""
        from ..lang.sections.prompt_lengths import in_its_rows

        phase = in_its_rows(phase)
        old = self.spec.phase(phase.name)
        before, after = (_engine_memory(self.spec, p) for p in (old, phase))
        kept = phase.memory
        fraction = after.fraction if kept.fraction == before.fraction else kept.fraction
        buffers_B = after.communication_B if kept.communication_B == before.communication_B else kept.communication_B
        return replace(phase, memory=replace(kept, fraction=fraction, communication_B=buffers_B))


def with_phases(spec: Spec, phases: Sequence[Phase]) -> Spec:
    """The spec with some of its phases replaced by those of their names."""
    new = {phase.name: phase for phase in phases}
    return replace(spec, phases=tuple(new.get(p.name, p) for p in spec.phases))


def unbalanced(phase: Phase) -> Phase:
    """The phase with its stages still to be cut, where they are to be balanced."""
    return replace(phase, strategy=replace(phase.strategy, layers_per_stage=None)) if phase.strategy.balanced else phase


def _errors(found: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    return tuple(d for d in found if d.is_error)


def _engine_memory(spec: Spec, phase: Phase) -> EngineMemory:
    """The engine's own defaults for the phase's degrees."""
    s = phase.strategy
    return engine_memory(phase.memory.engine, spec.of(phase).hardware, s, len(phase.gpus) // s.replicas // s.pp)
