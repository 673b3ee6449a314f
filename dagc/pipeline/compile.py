"""A spec compiled: every phase lowered and analysed, then memory and requirements judged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector
from ..base.frozen import replace
from ..base.heard import timed
from ..base.source import Source
from ..base.user_cache import using
from ..lang.load import load
from ..plan.plan import CompiledPlan
from ..plan.result import PhaseResult
from ..plan.subject import AskedMetrics, Subject
from ..spec.spec import Spec
from ..spec.unit import Unit
from . import kept_phases
from .analyse import cost_graph
from .doubts import warn_of_extrapolation, warn_of_substitutes
from .kept_lowerings import priced
from .parameters import check_stated, count_parameters

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..plan.placement import Placement
    from ..plan.trained import TrainingResult
    from ..serving.result import ServeResult
    from .cures import Cures
    from .serve import Servings


def compile_source(
    source: Source,
    *,
    settings: Mapping[str, str] | None = None,
    phases: Sequence[str] | None = None,
    base_dir: Path | None = None,
    out: Collector | None = None,
    allow_import: Sequence[str | Path] = (),
    kept: bool = False,
) -> CompiledPlan:
    out = Collector() if out is None else out
    with timed("spec", "parse, check"):
        spec = load(source, out, settings, base_dir, allow_import)
    with using() if kept else nullcontext():
        return compile_spec(spec, out, phases, cures=True, kept=kept)


def compile_spec(
    spec: Spec,
    out: Collector,
    phases: Sequence[str] | None = None,
    *,
    cures: bool = False,
    servings: Collection[str] = (),
    told: Callable[[str, float], None] | None = None,
    kept: bool = False,
) -> CompiledPlan:
    """Compile every phase (or those named), then judge memory and the requirements. `cures`: look for what would fix a
    plan that does not fit, by compiling it. `servings`: to simulate in addition to those that requirements name; `told`: hears of (serving,
    share of its requests that has come); `kept`: their figures, and the GPUs of `place = best`, may be those of an earlier run."""
    from ..base.diagnostics import SpecError, did_you_mean
    from ..plan import require
    from . import overflow, pools

    known = [p.name for p in (*spec.phases, *spec.trainings)]
    for name in phases or ():
        if name not in known:
            near = did_you_mean(name, known)
            out.add("E14", f"unknown phase `{name}`", help=(f"did you mean `{near}`?",) if near else ())
    out.check()
    written = spec
    placements: Mapping[str, Placement] = {}
    if any(p.strategy.balanced for p in spec.phases):
        from .stage_cut import balanced

        spec = balanced(spec)
    if any(p.strategy.balanced for p in spec.trainings):
        from .step_cut import balanced_steps

        spec = balanced_steps(spec)
    if any(p.strategy.best for p in (*spec.phases, *spec.trainings)):
        from .kept_placements import placed_again

        if kept:
            from .kept_placements import placed
        else:
            from .place_best import placed

        spec, placements = placed_again(spec, placed)
    results: dict[str, PhaseResult] = {}
    units: dict[str, Unit] = {}
    for phase in spec.phases:
        if phases and phase.name not in phases:
            continue
        unit = Unit(spec, phase, Collector(steps=out.steps))  # errors of one phase do not end the next one
        try:
            results[phase.name] = kept_phases.kept(unit, compile_phase)
            if phase.name in placements:
                results[phase.name] = replace(results[phase.name], placement=placements[phase.name])
            units[phase.name] = replace(unit, out=out)
            warn_of_substitutes(unit, results[phase.name])
            warn_of_extrapolation(unit, results[phase.name])
        except SpecError:
            pass  # go on: every phase's errors belong in one run
        for d in unit.out.items:
            out.take(d)
        out.steps = unit.out.steps
    trainings = trained(spec, phases, out, cures=cures)
    trainings |= {
        name: replace(trainings[name], placement=placements[name]) for name in trainings.keys() & placements.keys()
    }
    out.check()
    graphs = [
        *(whole_model(spec, found) for found in results.values()),
        *(model_of(spec, found) for found in trainings.values()),
    ]
    params = count_parameters(graphs[0])
    check_stated(spec, params[0], out)
    shared = pools.run(results, spec.alternating)
    search: Cures | None = None
    if cures and not all(pool.fits for pool in shared):
        from .cures import Cures

        search = Cures(written, results, units)
    for name, result in results.items():
        overflow.check(result.memory, units[name], search.of_phase(name) if search and not result.memory.fits else ())
    pools.check(shared, results, units, out, search.of_pool if search else None)
    simulated: Mapping[str, ServeResult] = {}
    simulations: Servings | None = None
    if spec.serves:
        from .required_servings import simulate

        bare = CompiledPlan(spec, results, units, (), params, shared, ())
        with timed("servings", "simulate"):
            simulated, simulations = simulate(bare, out, servings, told, kept=kept)
    with timed("spec", "requirements"):
        subject = Subject(spec, results, params, shared, servings=simulated, trainings=trainings)
        asked = AskedMetrics(subject)
        verdicts = require.run(spec, results, params, shared, out, simulated, asked, trainings)
    out.check()
    out.items.sort(key=lambda d: d.code != "E04")  # the verdict first
    return CompiledPlan(
        spec, results, units, verdicts, params, shared, tuple(out.items), simulated, simulations, trainings, asked.known
    )


def trained(
    spec: Spec, phases: Sequence[str] | None, out: Collector, *, cures: bool = False
) -> dict[str, TrainingResult]:
    """Every phase that trains, or those named. `cures`: look for what would fix one that does not fit."""
    found: dict[str, TrainingResult] = {}
    chosen = [phase for phase in spec.trainings if not phases or phase.name in phases]
    if not chosen:
        return found
    from ..base.diagnostics import SpecError
    from .trained_phase import compile_training

    for phase in chosen:
        unit = Unit(spec, phase, Collector(steps=out.steps))
        try:
            with timed(phase.name, "cost"):
                found[phase.name] = compile_training(unit, cures=cures)
        except SpecError:
            pass  # go on: every phase's errors belong in one run
        for d in unit.out.items:
            out.take(d)
        out.steps = unit.out.steps
    return found


def whole_model(spec: Spec, found: PhaseResult) -> Graph:
    """A graph with the weights of the model: of a phase with early exits one without their heads."""
    phase = spec.phase(found.name)
    if not phase.exits:
        return found.graph
    from ..lang.expand import expand

    return expand.run(Unit(spec, replace(phase, exits=())))


def model_of(spec: Spec, found: TrainingResult) -> Graph:
    """A graph with the weights of the model, without those of layers that predict further tokens."""
    phase = next(phase for phase in spec.trainings if phase.name == found.name)
    if not found.training.mtp_loss:
        return found.graph
    from ..lang.expand import expand

    return expand.run(Unit(spec, replace(phase, training=replace(found.training, mtp_loss=0.0))))


def compile_phase(unit: Unit) -> PhaseResult:
    """The phase lowered, costed and scheduled."""
    graph, prices = priced(unit)
    with timed(unit.phase.name, "cost"):
        result = cost_graph(graph, unit, prices)
    if unit.phase.drafter == "none":
        return result
    from .drafts import with_drafts

    return with_drafts(result, unit)
