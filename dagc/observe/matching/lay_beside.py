"""Traces of ranks laid beside a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...base.diagnostics import Diagnostic, SpecError
from ...cost.records import value_at
from ...execute.op_classes import class_of
from ...plan.result import PhaseResult
from .deviations import Beside, Matched, OpClass
from .lateness import waits
from .marked import Lookup
from .planned_calls import PlannedCall, PlannedCalls
from .rank_calls import MarkedOp, RankCalls
from .unmarked import Ordered

if TYPE_CHECKING:
    from ...plan.plan import CompiledPlan

Calls = Mapping[int, Mapping[tuple[int, str, str], PlannedCall]]


def phase_of(ranks: Sequence[RankCalls]) -> str:
    """The phase that traces of `dagc run` name; empty: they are another program's. Raises SpecError where they are of several runs."""
    found = {one.run for one in ranks}
    if len(found) > 1:
        names = ", ".join(sorted({f"`{phase}`" if phase else "another program" for phase, _, _ in found}))
        raise SpecError([Diagnostic("E05", f"the traces are of several runs: {names}", help=("give those of one",))])
    return next(iter(found))[0] if found else ""


def ran(plan: CompiledPlan, phase: str, ranks: Sequence[RankCalls]) -> PhaseResult:
    """What ran: the phase as it is planned, or its small twin where the traces say so. Raises SpecError where it has none."""
    result = plan.phases[phase]
    if not any(one.twin for one in ranks):
        return result
    from ...execute.prove import twin_of_phase
    from ...execute.twin import NoTwin
    from ...pipeline.analyse import cost_graph

    try:
        twin = twin_of_phase(plan, phase)
    except NoTwin as error:
        raise SpecError([Diagnostic("E03", f"phase `{phase}` has no small twin: {error}")]) from None
    return cost_graph(twin.placed, twin.unit(plan.units[phase]))


def unknown(ranks: Sequence[RankCalls], world: int) -> str:
    """Why calls of these traces cannot be laid beside a plan of so many GPUs; empty: they can."""
    files: dict[int, str] = {}
    for one in ranks:
        if one.rank is not None and one.rank in files:
            return f"`{files[one.rank]}` and `{one.file}` are both of rank {one.rank}"
        files |= {} if one.rank is None else {one.rank: one.file}
        if one.rank is None:
            return f"`{one.file}` does not say of which rank it is (a file name that has `rank0` in it does)"
        if one.rank >= world or (one.world and one.world != world):
            job = f"of a job of {one.world} ranks" if one.world else f"of rank {one.rank}"
            return f"`{one.file}` is {job}, and the phase has {world} GPUs"
    return ""


def laid_beside(result: PhaseResult, kind: str, ranks: Sequence[RankCalls], tolerance: float) -> Beside:
    """As `matched`, where it can be done. Raises SpecError for traces of `dagc run` that it cannot be done with."""
    why = unknown(
        ranks, len(result.gpus) if result.graph.the_mesh.apart is None else len(result.graph.the_mesh.all_gpus)
    )
    if not why:
        return Beside(matched(result, kind, ranks, tolerance))
    if any(one.phase for one in ranks):
        raise SpecError([Diagnostic("E05", why)])
    return Beside(None, why)


def matched(result: PhaseResult, kind: str, ranks: Sequence[RankCalls], tolerance: float = 0.2) -> Matched:
    """`result`: what ran; `kind`: of the devices that its times are of, gpu or cpu. Of traces that know their ranks, one of each; see
    `unknown`."""
    planned = PlannedCalls(result)
    own = {one.rank: one for one in sorted(ranks, key=lambda one: one.rank or 0) if one.rank is not None}
    named = all(one.phase == result.name for one in own.values())
    found = [_one(rank, one, planned, named) for rank, one in own.items()]
    calls: Calls = {one.rank: {call.key: call for call in one.planned} for one in found}
    late, waited_s = waits({one.rank: one.arrived for one in found}, calls)
    passes = max(one.passes if isinstance(one, Ordered) else len(one.passes) for one in found)
    spans = [end - begin for one in found for begin, end in _spans(one)]
    return Matched(
        result.name,
        tuple(own),
        len(planned),
        passes,
        named,
        any(one.on_gpu for one in own.values()) == (kind == "gpu"),
        sum(_planned(one) for one in found),
        sum(one.counted for one in found),
        sum(one.same for one in found),
        tuple(deviation for one in found for deviation in one.deviations),
        tuple(late),
        _classes(result, planned, [one for one in found if isinstance(one, Lookup)], passes),
        waited_s,
        sum(spans) / len(found),
        tolerance,
    )


def _one(rank: int, trace: RankCalls, planned: PlannedCalls, named: bool) -> Lookup | Ordered:
    calls = planned.of(rank)
    if named:
        lookup = Lookup(rank, calls, trace.ops, trace.passes, trace.seen, by_elements=True)
        lookup.run()
        return lookup
    ordered = Ordered(rank, calls, trace.seen)
    ordered.run()
    return ordered


def _planned(one: Lookup | Ordered) -> int:
    if isinstance(one, Lookup):
        return len(one.planned) * len(one.passes)
    return sum(call.calls for call in one.planned) * one.passes


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
            own[name] = (calls + 1, measured_s + op.took_s, before_s + planned_s)
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
        return value_at(result.costs.ops[segment, op.mark.op].time_s, index)
    if op.mark.op in result.requests:
        return float(result.requests[op.mark.op].time_s.max())
    return result.costs.edges[stage].time_s if op.mark.op == "send" and stage < len(result.costs.edges) else 0.0
