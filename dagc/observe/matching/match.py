"""Traces of ranks laid beside a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...base.diagnostics import Diagnostic, SpecError
from ...execute.op_classes import class_of
from ...plan.result import PhaseResult
from ...view.facts.timeline import at
from ..rank_trace import RankTrace
from .found import Matched, OpClass
from .lateness import waits
from .marked import Lookup, MarkedOp, marked_ops
from .planned_calls import PlannedCall, PlannedCalls
from .seen_calls import seen_calls
from .unmarked import Ordered

if TYPE_CHECKING:
    from ...plan.plan import CompiledPlan

Calls = Mapping[int, Mapping[tuple[int, str, str], PlannedCall]]


def phase_of(traces: Sequence[RankTrace]) -> str:
    """The phase that traces of `dagc run` name; empty: they are another program's. Raises SpecError where they are of several runs."""
    found = {(str(t.about.get("phase", "")), bool(t.about.get("twin")), str(t.about.get("dtype", ""))) for t in traces}
    if len(found) > 1:
        names = ", ".join(sorted({phase or "another program" for phase, _, _ in found}))
        raise SpecError([Diagnostic("E05", f"the traces are of several runs: {names}", help=("give those of one",))])
    return next(iter(found))[0] if found else ""


def ran(plan: CompiledPlan, phase: str, traces: Sequence[RankTrace]) -> PhaseResult:
    """What ran: the phase as it is planned, or its small twin where the traces say so. Raises SpecError where it has none."""
    result = plan.phases[phase]
    if not any(trace.about.get("twin") for trace in traces):
        return result
    from ...execute.prove import twin_of_phase
    from ...execute.twin import NoTwin
    from ...pipeline.analyse import cost_graph

    try:
        twin = twin_of_phase(plan, phase)
    except NoTwin as error:
        raise SpecError([Diagnostic("E03", f"phase `{phase}` has no small twin: {error}")]) from None
    return cost_graph(twin.placed, twin.unit(plan.units[phase]))


def matched(plan: CompiledPlan, phase: str, traces: Sequence[RankTrace]) -> Matched:
    """Of traces that know their ranks, one of each. Raises SpecError."""
    result = ran(plan, phase, traces)
    planned = PlannedCalls(result)
    own = ranked(traces, len(planned))
    origin_ns = min(trace.origin_ns for trace in own.values())
    named = all(trace.about.get("phase") == phase for trace in own.values())
    found = [_one(rank, trace, planned, origin_ns, phase, named) for rank, trace in own.items()]
    calls: Calls = {one.rank: {call.key: call for call in one.planned} for one in found}
    late, waited_s = waits({one.rank: one.arrived for one in found}, calls)
    kind = plan.units[phase].spec.hardware.kind
    on_cpu = not any(len(trace.kernels) for trace in own.values())
    passes = max(one.passes if isinstance(one, Ordered) else len(one.passes) for one in found)
    spans = [end - begin for one in found for begin, end in _spans(one)]
    return Matched(
        phase,
        tuple(own),
        len(planned),
        passes,
        named,
        on_cpu == (kind == "cpu"),
        sum(_planned(one, passes) for one in found),
        sum(one.counted for one in found),
        sum(one.same for one in found),
        tuple(deviation for one in found for deviation in one.deviations),
        tuple(late),
        _classes(result, planned, [one for one in found if isinstance(one, Lookup)], passes),
        waited_s,
        sum(spans) / len(found),
        tuple(one.note for one in found if isinstance(one, Ordered) and one.note),
    )


def ranked(traces: Iterable[RankTrace], world: int) -> dict[int, RankTrace]:
    """By rank. Raises SpecError where one has none, or two have the same, or the plan has no such rank."""
    own: dict[int, RankTrace] = {}
    for trace in traces:
        name = trace.path.name
        if trace.rank is None:
            help = ("a file name that has `rank0` in it says it, too",)
            raise SpecError([Diagnostic("E05", f"`{name}` does not say of which rank it is", help=help)])
        if trace.rank in own:
            message = f"`{own[trace.rank].path.name}` and `{name}` are both of rank {trace.rank}"
            raise SpecError([Diagnostic("E05", message, help=("give one trace of each rank",))])
        if trace.rank >= world or (trace.world and trace.world != world):
            job = f"of a job of {trace.world} ranks" if trace.world else f"of rank {trace.rank}"
            raise SpecError([Diagnostic("E05", f"`{name}` is {job}, and the phase has {world} GPUs")])
        own[trace.rank] = trace
    return dict(sorted(own.items()))


def _one(
    rank: int, trace: RankTrace, planned: PlannedCalls, origin_ns: int, phase: str, named: bool
) -> Lookup | Ordered:
    calls, seen = planned.of(rank), seen_calls(trace, origin_ns)
    if named:
        ops, passes = marked_ops(trace, origin_ns, phase)
        lookup = Lookup(rank, calls, ops, passes, seen, by_elements=True)
        lookup.run()
        return lookup
    ordered = Ordered(rank, calls, seen)
    ordered.run()
    return ordered


def _planned(one: Lookup | Ordered, passes: int) -> int:
    if isinstance(one, Lookup):
        return len(one.planned) * len(one.passes)
    return sum(call.calls for call in one.planned) * passes


def _spans(one: Lookup | Ordered) -> Sequence[tuple[float, float]]:
    if isinstance(one, Lookup):
        return one.passes
    return [(one.seen[0].start_s, max(call.end_s for call in one.seen))] if one.seen else []


def _classes(result: PhaseResult, planned: PlannedCalls, found: Sequence[Lookup], passes: int) -> tuple[OpClass, ...]:
    """Means over ranks that have a trace, of one pass; the largest first."""
    graph = result.graph
    segments = {graph.layer_name(segment.name, i): segment.name for segment, i in graph.layers}
    rows: dict[str, list[tuple[int, float, float]]] = {}
    for one in found:
        index, stage = planned.members[one.rank].index, planned.members[one.rank].stage
        own: dict[str, tuple[int, float, float]] = {}
        for op in one.ops:
            segment = segments.get(op.mark.layer, "")
            if bool(segment) != bool(op.mark.layer) or (segment and op.mark.op not in graph.segment(segment).by_name):
                continue
            name = class_of(result, segment, op.mark.op)
            planned_s = _planned_s(result, segment, op, index, stage)
            calls, measured_s, before_s = own.get(name, (0, 0.0, 0.0))
            own[name] = (calls + 1, measured_s + op.end_s - op.start_s, before_s + planned_s)
        for name, row in own.items():
            rows.setdefault(name, []).append(row)
    share = 1 / (max(1, passes) * max(1, len(found)))
    classes = [
        OpClass(name, max(n for n, _, _ in each) // max(1, passes), *(share * sum(r[i] for r in each) for i in (1, 2)))
        for name, each in rows.items()
    ]
    return tuple(sorted(classes, key=lambda one: -one.measured_s))


def _planned_s(result: PhaseResult, segment: str, op: MarkedOp, index: tuple[int, ...], stage: int) -> float:
    """A receive takes no time of its own: its send is planned."""
    if segment:
        return at(result.costs.ops[segment, op.mark.op].time_s, index)
    if op.mark.op in result.requests:
        return float(result.requests[op.mark.op].time_s.max())
    return result.costs.edges[stage].time_s if op.mark.op == "send" and stage < len(result.costs.edges) else 0.0
