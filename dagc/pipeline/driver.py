"""The driver: spec in, compiled plan out. Runs the passes in order and the verifier after each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector
from ..base.source import Source
from ..base.units import BYTES, SCALAR, show
from ..cost.records import Costs
from ..cost.schedule.records import PathStep, Schedule
from ..cost.schedule.verify_schedule import verify_schedule
from ..ir.graph import COLLECTIVES, Graph, Op, Segment, Weight
from ..ir.ops.attributes import RingTurnAttrs
from ..ir.ops.ops import flops
from ..ir.routed_dims import rows_with
from ..ir.verify.verify import verify
from ..plan.plan import CompiledPlan
from ..plan.result import CollectiveTotal, PhaseResult, Sensitivity, joined_path, passes_s
from ..spec.hardware import Hardware
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit

if TYPE_CHECKING:
    from ..passes import GraphPass
    from .cures import Cures


def load(
    source: Source,
    out: Collector,
    settings: Mapping[str, str] | None = None,
    base_dir: Path | None = None,
    allow_import: Sequence[str | Path] = (),
) -> Spec:
    """Parse and elaborate a source. It may name files of the project of `base_dir` (default: the current folder), of the
    library, and of the folders in `allow_import`. Raises SpecError with every diagnostic found."""
    from ..base.files import Reach
    from ..base.syntax.parse import parse
    from ..lang.elaborate import elaborate

    file = parse(source, out)
    reach = Reach.of(None if base_dir is None else base_dir / "-.moe", allow_import)
    return elaborate(file, out, settings=settings or {}, reach=reach)


def compile_source(
    source: Source,
    *,
    settings: Mapping[str, str] | None = None,
    phases: Sequence[str] | None = None,
    base_dir: Path | None = None,
    out: Collector | None = None,
    allow_import: Sequence[str | Path] = (),
) -> CompiledPlan:
    out = Collector() if out is None else out
    spec = load(source, out, settings, base_dir, allow_import)
    return compile_spec(spec, out, phases, cures=True)


def compile_spec(
    spec: Spec, out: Collector, phases: Sequence[str] | None = None, *, cures: bool = False
) -> CompiledPlan:
    """Compile every phase (or those named), then judge memory and the requirements. `cures`: look for what would mend a
    plan that does not fit, by compiling it."""
    from ..base.diagnostics import SpecError, did_you_mean
    from ..passes import memory
    from ..plan import require
    from . import pools

    known = [p.name for p in spec.phases]
    for name in phases or ():
        if name not in known:
            near = did_you_mean(name, known)
            out.add("E14", f"unknown phase `{name}`", help=(f"did you mean `{near}`?",) if near else ())
    out.check()
    results: dict[str, PhaseResult] = {}
    units: dict[str, Unit] = {}
    for phase in spec.phases:
        if phases and phase.name not in phases:
            continue
        unit = Unit(spec, phase, Collector(steps=out.steps))  # errors of one phase do not end the next one
        try:
            results[phase.name] = compile_phase(unit)
            units[phase.name] = replace(unit, out=out)
            warn_of_extrapolation(unit, results[phase.name])
        except SpecError:
            pass  # go on: every phase's errors belong in one run
        for d in unit.out.items:
            out.take(d)
        out.steps = unit.out.steps
    out.check()
    params = count_parameters(next(iter(results.values())).graph)
    check_stated(spec, params[0], out)
    shared = pools.run(results)
    search: Cures | None = None
    if cures and not all(pool.fits for pool in shared):
        from .cures import Cures

        search = Cures(spec, results, units)
    for name, result in results.items():
        memory.check(result.memory, units[name], search.of_phase(name) if search and not result.memory.fits else ())
    pools.check(shared, results, units, out, search.of_pool if search else None)
    verdicts = require.run(spec, results, params, shared, out)
    out.check()
    out.items.sort(key=lambda d: d.code != "E04")  # the verdict first
    return CompiledPlan(spec, results, units, verdicts, params, shared, tuple(out.items))


def lower(unit: Unit) -> Iterator[tuple[str, Graph]]:
    """Run the graph passes one by one, those of plugins after the one that they follow, yielding (pass name, graph after
    it), each verified."""
    from ..passes import GRAPH_PASSES

    graph: Graph | None = None
    added = plugin_passes(unit)
    for own in GRAPH_PASSES:
        for step in (own, *added.get(own.name, ())):
            graph = step.run(graph, unit)
            verify(graph)
            yield step.name, graph


def plugin_passes(unit: Unit) -> dict[str, list[GraphPass]]:
    """By the pass that they follow; entry points are read only for a phase that asks for some."""
    if not unit.phase.strategy.passes:
        return {}
    from .plugins import graph_passes

    return graph_passes(unit)


def compile_phase(unit: Unit) -> PhaseResult:
    graph: Graph | None = None
    for _, after in lower(unit):
        graph = after
    assert graph is not None
    return cost_graph(graph, unit)


def cost_graph(graph: Graph, unit: Unit) -> PhaseResult:
    """Costs, memory and schedule of a placed graph."""
    from ..cost import chunks, scale_blocks
    from ..passes import memory
    from . import analyse

    scale_blocks.check(graph, unit)
    unit.out.check()
    passes = analyse.price(graph, unit)
    last = next(
        (c for c in reversed(passes) if c.tokens == unit.phase.tokens and c.context == unit.phase.context), None
    )
    whole = last or analyse.whole(graph, unit)
    need = memory.run(graph, whole.costs, unit)
    verify_schedule(graph, whole.schedule)
    warn_of_idle_stages(unit, whole.schedule)
    warn_of_moved_cache(unit, graph, whole.costs)
    tokens = phase_tokens(unit.phase)
    filled = unit.phase.sequences / unit.phase.batching.places
    total = filled * sum(
        size.count * graph_flops(chunks.resized(graph, size.tokens, size.context)) for size in chunks.sizes(unit.phase)
    )
    peak = unit.spec.hardware.peak_flops(unit.spec.model.weight_dtype) * len(unit.phase.gpus)
    time_s = passes_s(passes)
    return PhaseResult(
        graph=graph,
        costs=whole.costs,
        floor=whole.floor,
        schedule=whole.schedule,
        chunks=passes,
        memory=need,
        collectives=collective_totals(graph, whole.costs),
        gpus=graph.the_mesh.the_gpus.ids,
        flops_per_token=total / tokens,
        utilization=total / (time_s * peak) if time_s else 0.0,
        throughput_tok_s=tokens / time_s if time_s else 0.0,
        per_node=unit.spec.hardware.per_node,
        bound_by=bound_shares(joined_path(passes)),
        tokens_per_step=unit.phase.tokens_per_step if graph.kind == "decode" else 1.0,
    )


def graph_flops(graph: Graph) -> float:
    """FLOPs of one pass of all micro-batches over all ranks, replicated work counted once."""
    layers = sum(s.repeat * sum(flops(s, op) for op in s.ops) for s in graph.segments)
    return layers * graph.microbatches * graph.lanes


def warn_of_idle_stages(unit: Unit, plan: Schedule) -> None:
    """Fewer micro-batches than stages leave most of the pipeline waiting."""
    stages, parts = unit.phase.strategy.pp, unit.phase.batching.microbatches
    if plan.bubble <= 0.5 or parts >= stages:
        return
    unit.out.add(
        "W06",
        f"the stages of `{unit.phase.name}` are idle {plan.bubble:.0%} of the time",
        unit.phase.spans.get("microbatches", unit.phase.spans.get("pp", unit.phase.span)),
        because=(f"{parts} micro-batch{'es' if parts > 1 else ''} in flight over {stages} stages",),
        help=(f"microbatches = {stages} or more keeps them busy",),
    )


def warn_of_moved_cache(unit: Unit, graph: Graph, costs: Costs) -> None:
    """A decode step that moves the cache itself pays for the whole context with every token."""
    moved: dict[str, float] = {}
    for segment in graph.segments if graph.kind == "decode" else ():
        for op in segment.ops:
            if op.is_collective and "context" in op.dims:
                key = f"{segment.name}/{_origin(segment, op).name}: {op.runtime_kind} over {'+'.join(graph.the_mesh.label(op.axes, op.scope))}"
                calls = segment.repeat * graph.microbatches * graph.lanes
                moved[key] = moved.get(key, 0.0) + costs.ops[segment.name, op.name].wire_B * calls
    if moved:
        unit.out.add(
            "W06",
            f"every step of `{unit.phase.name}` moves data along the context, such as the KV cache, over the network",
            next(
                (unit.phase.spans[a] for a in ("shard", "sp", "attention", "tp") if a in unit.phase.spans),
                unit.phase.span,
            ),
            because=tuple(f"{key}, {show(size, BYTES)} per GPU" for key, size in moved.items()),
            help=(
                "a cache that is not moved costs nothing per step: split batch or heads (dp, tp), not the context or a width that attention needs whole",
            ),
        )


def _origin(segment: Segment, op: Op) -> Op:
    """The op whose value a chain of moves carries."""
    while (op.is_collective or op.runtime_kind == "slice") and op.inputs[0] in segment.by_name:
        op = segment.by_name[op.inputs[0]]
    return op


EXTRAPOLATED = 0.1
"""Share of the critical path from which on extrapolated kernel times are worth a warning."""


def warn_of_extrapolation(unit: Unit, result: PhaseResult) -> None:
    """Kernels that run at sizes nobody measured make the figure less sure than its error says."""
    found = {name: share for name, share in result.extrapolated.items() if share >= EXTRAPOLATED / 10}
    total = sum(found.values())
    if total >= EXTRAPOLATED:
        unit.out.add(
            "W06",
            f"{total:.0%} of the time of `{unit.phase.name}` is extrapolated beyond measured kernel sizes",
            unit.phase.span,
            because=tuple(f"{name}: {share:.0%}" for name, share in sorted(found.items(), key=lambda kv: -kv[1])[:4]),
        )


def phase_tokens(phase: Phase) -> float:
    """Tokens that the phase takes in (prefill) or that a step puts out (decode), over all sequences."""
    return phase.sequences * (phase.new_tokens if phase.kind == "prefill" else phase.tokens_per_step)


def bound_shares(path: Sequence[PathStep]) -> dict[str, float]:
    """Share of the critical path by what bounds it."""
    total = sum(step.time_s for step in path) or 1.0
    shares: dict[str, float] = {}
    for step in path:
        shares[step.bound] = shares.get(step.bound, 0.0) + step.time_s / total
    return dict(sorted(shares.items(), key=lambda kv: -kv[1]))


def collective_totals(graph: Graph, costs: Costs, stage: int | None = None) -> tuple[CollectiveTotal, ...]:
    """Collectives by (kind, group, payload): calls of one device of a stage, or along one pipeline path, in one pass of
    all micro-batches."""
    mesh = graph.the_mesh
    stages = graph.stages if stage is None else (graph.stages[stage],)
    layers: Counter[str] = Counter()
    for one in stages:
        for name, count in one.layers:
            layers[name] += count
    passes = graph.microbatches * graph.lanes
    totals: dict[tuple[str, tuple[str, ...], float], CollectiveTotal] = {}

    def add(kind: str, axes: tuple[str, ...], size: int, count: int, payload: float, wire: float, time: float) -> None:
        key = (kind, axes, payload)
        old = totals.get(key, CollectiveTotal(kind, axes, size, 0, payload, 0.0, 0.0))
        totals[key] = replace(old, count=old.count + count, wire_B=old.wire_B + wire, time_s=old.time_s + time)

    for segment in (s for s in graph.segments if layers[s.name]):
        for op in segment.ops:
            if op.runtime_kind not in COLLECTIVES:
                continue
            cost = costs.ops[segment.name, op.name]
            calls = layers[segment.name] * passes
            steps = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
            add(
                op.runtime_kind,
                mesh.label(op.axes, op.scope),
                mesh.size(op.axes),
                calls * steps,
                cost.payload_B,
                cost.wire_B * calls,
                float(cost.time_s.max()) * calls,
            )
    if mesh.stages > 1:
        edge = costs.transfer
        sends = sum(one.index < mesh.stages - 1 for one in stages) * passes
        receives = sum(one.index > 0 for one in stages) * passes
        for kind, hops, wire in (("send", sends, edge.payload_B * sends), ("recv", receives, 0.0)):
            if hops:
                add(kind, ("pp",), 2, hops, edge.payload_B, wire, edge.time_s * hops)
    return tuple(totals.values())


def sensitivities(unit: Unit, result: PhaseResult) -> tuple[Sensitivity, ...]:
    """What +10% of each rate, or 1 us less link latency, would buy in the phase's time, all its passes together."""
    machine = unit.spec.hardware
    faster = {k: v * 1.1 for k, v in machine.compute_flops.items()}
    node, cluster = machine.node, machine.cluster
    variants: dict[str, Hardware] = {
        "+10% compute": replace(machine, compute_flops=faster),
        "+10% HBM bandwidth": replace(machine, hbm_Bps=machine.hbm_Bps * 1.1),
        "+10% node link": replace(machine, node=replace(node, bandwidth_Bps=node.bandwidth_Bps * 1.1)),
        "+10% cluster link": replace(machine, cluster=replace(cluster, bandwidth_Bps=cluster.bandwidth_Bps * 1.1)),
        "-1 us link latency": replace(
            machine,
            node=replace(node, latency_s=max(0.0, node.latency_s - 1e-6)),
            cluster=replace(cluster, latency_s=max(0.0, cluster.latency_s - 1e-6)),
        ),
        "-1 us kernel launch": replace(machine, launch_s=max(0.0, machine.launch_s - 1e-6)),
    }
    from . import analyse

    before_s = passes_s(result.chunks)
    changed = {name: passes_s(analyse.price(result.graph, unit, variant)) for name, variant in variants.items()}
    return tuple(Sensitivity(name, time_s / before_s - 1.0 if before_s else 0.0) for name, time_s in changed.items())


def count_parameters(graph: Graph) -> tuple[float, float]:
    """(total, active per token): routed experts count top_k of their number in the second, a tied head not at all."""
    total = active = 0.0
    for segment in graph.segments:
        for weight in (w for w in segment.weights if not w.tied):
            size = segment.count(weight.dims) * segment.repeat
            total += size
            active += size * active_share(segment, weight)
    return total, active


def active_share(segment: Segment, weight: Weight) -> float:
    """Part of a weight that the choices of one token use."""
    if weight.scope != "experts":
        return 1.0
    return min(1.0, sum(segment.sizes[rows.choice] / segment.sizes[rows.expert] for rows in rows_with(segment, weight)))


def check_stated(spec: Spec, derived: float, out: Collector) -> None:
    """A stated parameter count is checked, never used."""
    stated = spec.model.params_stated
    if stated is None or abs(stated - derived) <= 0.05 * derived:
        return
    ratio = max(stated / derived, derived / stated)
    out.add(
        "W06",
        f"`params` says {show(stated, SCALAR)}, the model has {show(derived, SCALAR)}: {ratio:.1f}x {'less' if derived < stated else 'more'}",
        spec.model.spans.get("params", spec.model.span),
        "stated here",
        because=("every figure uses the parameters counted from the blocks",),
    )


def ir_text(
    spec: Spec, out: Collector, after: str | None, phases: Sequence[str] | None = None, *, types: bool = False
) -> str:
    """Textual IR of the phases after a pass (default: the last); after a plugin's, of those that ask for it. `types`: with
    those of operands."""
    from ..ir.text.write import print_graph

    parts = []
    asked = {name for phase in spec.phases for name in phase.strategy.passes}
    for phase in spec.phases:
        if phases and phase.name not in phases:
            continue
        if after in asked and after not in phase.strategy.passes:
            continue
        graph: Graph | None = None
        for name, step in lower(Unit(spec, phase, out)):
            graph = step
            if name == after:
                break
        assert graph is not None
        parts.append(print_graph(graph, types=types))
    return "\n".join(parts)
