"""The plan as rows: plain dicts of numbers and text in SI units, which any DataFrame library takes as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ...ir.op import Op
from ...ir.segment import Segment
from ...plan.held_memory import parts
from ...plan.plan import CompiledPlan
from ...plan.pools import sizes
from ...plan.result import PhaseResult
from ...plan.subject import keyed, result_metrics, training_metrics
from ...spec.metrics.known_metrics import of_serving, of_training

if TYPE_CHECKING:
    from ...plan.trained import TrainingResult

Row = dict[str, Any]


def rows(plan: CompiledPlan, table: str = "ops") -> list[Row]:
    """All rows of a table have the same keys. ValueError when there is no such table."""
    if table not in MAKERS:
        raise ValueError(f"no table {table!r}: {', '.join(MAKERS)}")
    return list(MAKERS[table](plan))


def _each(make: Callable[[PhaseResult], Iterator[Row]]) -> Callable[[CompiledPlan], Iterator[Row]]:
    """The rows of every phase, which its name begins."""
    return lambda plan: ({"phase": name, **row} for name, result in plan.phases.items() for row in make(result))


def _ops(result: PhaseResult) -> Iterator[Row]:
    """An op of each kind of layer, with the cost of one execution on the slowest rank."""
    on_path = {(s.segment, s.op): s.time_s for s in result.path}
    for segment in result.graph.segments:
        for op in segment.ops:
            yield _op(result, segment, op, on_path.get((segment.name, op.name), 0.0))


def _op(result: PhaseResult, segment: Segment, op: Op, critical_s: float) -> Row:
    cost, mesh = result.costs.ops[segment.name, op.name], result.graph.the_mesh
    return {
        "layer": segment.name,
        "layers": segment.repeat,
        "op": op.name,
        "kind": op.runtime_kind,
        "block": op.block,
        "stream": op.stream,
        "group": "+".join(mesh.label(op.axes, op.scope)) if op.axes else "",
        "group_size": mesh.ranks_of(op.kind, op.axes),
        "time_s": float(cost.time_s.max()),
        "time_min_s": float(cost.time_s.min()),
        "floor_s": float(cost.floor_s.max()),
        "critical_s": critical_s,
        "bound": cost.bound,
        "flops": cost.flops,
        "bytes": cost.bytes,
        "payload_B": cost.payload_B,
        "wire_B": cost.wire_B,
        "measured": cost.family,
        "error": cost.error if cost.family else None,
    }


def _phases(plan: CompiledPlan) -> Iterator[Row]:
    return ({"phase": name, **_phase(plan, result)} for name, result in plan.phases.items())


def _phase(plan: CompiledPlan, result: PhaseResult) -> Row:
    beside = {"makespan_s": ("passes", result.passes), "utilization": ("bubble", result.bubble)}
    return {
        "kind": result.phase_kind.name,
        **({"hardware": result.hardware} if result.hardware else {}),
        "gpus": len(result.gpus),
        "stages": len(result.graph.stages),
        "microbatches": result.graph.microbatches,
        **keyed(plan.subject(result.name), lambda metric: metric.row, beside),
        "peak_B": result.memory.worst.peak_B,
        "capacity_B": result.memory.capacity_B,
    }


def _collectives(result: PhaseResult) -> Iterator[Row]:
    for c in result.collectives:
        yield {
            "kind": c.kind,
            "group": "+".join(c.axes),
            "group_size": c.group_size,
            "count": c.count,
            "payload_B": c.payload_B,
            "wire_B": c.wire_B,
            "time_s": c.time_s,
        }


def _memory(plan: CompiledPlan) -> Iterator[Row]:
    """Every stage; `kv_tokens`: what it has room for."""
    for name, result in plan.phases.items():
        for s, room in zip(result.memory.stages, plan.kv_tokens(name), strict=True):
            yield {"phase": name, "stage": s.stage, **parts(s), "capacity_B": s.capacity_B, "kv_tokens": room}


def _pools(plan: CompiledPlan) -> Iterator[Row]:
    """Sets of GPUs that the same phases use, with what the fullest of each holds."""
    for pool in plan.pools:
        head: Row = {"hardware": pool.hardware} if pool.hardware else {}
        head |= {"phases": "+".join(pool.phases), "gpus": len(pool.gpus), "fullest_gpu": pool.fullest}
        yield head | sizes(pool)


def _path(result: PhaseResult) -> Iterator[Row]:
    total = sum(s.time_s for s in result.path) or 1.0
    for s in result.path:
        yield {
            "layer": s.segment,
            "op": s.op,
            "kind": s.kind,
            "count": s.count,
            "time_s": s.time_s,
            "share": s.time_s / total,
            "bound": s.bound,
        }


def _requirements(plan: CompiledPlan) -> Iterator[Row]:
    for v in plan.requirements:
        yield {
            "requirement": v.requirement.label,
            "test": v.requirement.text,
            "value": v.value,
            "bound": v.bound,
            "passed": v.passed,
        }


def _servings(plan: CompiledPlan) -> Iterator[Row]:
    """Those that were simulated, with every metric that they all have."""
    found = {name: result_metrics(plan.subject(), result) for name, result in plan.servings.items()}
    known = [m.name for m in of_serving() if all(m.name in own for own in found.values())]
    for name, own in found.items():
        yield {"serving": name, "verdict": plan.servings[name].verdict, **{key: own[key] for key in known}}


def _trainings(plan: CompiledPlan) -> Iterator[Row]:
    """Phases that train, with every metric that they all have."""
    found = {name: training_metrics(plan.subject(name)) for name in plan.trainings}
    known = [m.name for m in of_training() if all(m.name in own for own in found.values())]
    for name, result in plan.trainings.items():
        schedule = result.steps.schedule
        yield {
            "phase": name,
            **({"hardware": result.hardware} if result.hardware else {}),
            "schedule": schedule.name,
            "stages": schedule.gpus,
            "chunks": schedule.chunks,
            "microbatches": result.graph.microbatches,
            **{key: found[name][key].value for key in known},
        }


def _training(
    make: Callable[[TrainingResult, int], Iterator[Row]],
) -> Callable[[CompiledPlan], Iterator[Row]]:
    """The rows of every stage of every phase that trains, which their names begin."""
    return lambda plan: (
        {"phase": name, "stage": stage, **row}
        for name, result in plan.trainings.items()
        for stage in range(result.steps.schedule.gpus)
        for row in make(result, stage)
    )


def _step_ops(result: TrainingResult, stage: int) -> Iterator[Row]:
    """Ops of a GPU of the pipeline, with all calls of a step."""
    from ...plan.step_totals import step_ops

    for one in step_ops(result, stage):
        cost = result.costs.ops[one.layer, one.op]
        yield {
            "layer": one.layer,
            "op": one.op,
            "kind": one.kind,
            "cell": one.cell,
            "count": one.count,
            "time_s": one.time_s,
            "bound": one.bound,
            "flops": cost.flops * one.count,
            "bytes": cost.bytes * one.count,
            "wire_B": cost.wire_B * one.count,
        }


def _step_collectives(result: TrainingResult, stage: int) -> Iterator[Row]:
    from ...plan.step_totals import step_collectives

    for one in step_collectives(result, stage):
        yield {
            "cell": one.cell,
            "kind": one.total.kind,
            "group": "+".join(one.total.axes),
            "group_size": one.total.group_size,
            "count": one.total.count,
            "payload_B": one.total.payload_B,
            "wire_B": one.total.wire_B,
            "time_s": one.total.time_s,
        }


def _step_memory(result: TrainingResult, stage: int) -> Iterator[Row]:
    """What a GPU of the pipeline holds, and how its step goes."""
    from ...plan.step_totals import shares
    from ..facts.training_words import PARTS, part_B

    need, part = result.memory[stage], shares(result, stage)
    yield {
        **{f"{name}_B": part_B(need, name) for name in PARTS},
        "peak_B": need.peak_B,
        "capacity_B": need.capacity_B,
        "in_flight": need.in_flight,
        "compute_s": part.compute_s,
        "exposed_s": part.exposed_s,
        "bubble_s": part.bubble_s,
    }


def _step_cells(plan: CompiledPlan) -> Iterator[Row]:
    """Cells of each kind of layer."""
    for name, result in plan.trainings.items():
        for (layer, cell), cost in result.cells.items():
            yield {
                "phase": name,
                "layer": layer,
                "layers": result.graph.segment(layer).repeat,
                "cell": cell,
                "time_s": cost.time_s,
                "exposed_s": cost.exposed_s,
                "collectives_s": cost.moved_s,
            }


MAKERS: dict[str, Callable[[CompiledPlan], Iterator[Row]]] = {
    "ops": _each(_ops),
    "phases": _phases,
    "collectives": _each(_collectives),
    "memory": _memory,
    "pools": _pools,
    "critical_path": _each(_path),
    "requirements": _requirements,
    "servings": _servings,
    "trainings": _trainings,
    "training_stages": _training(_step_memory),
    "training_cells": _step_cells,
    "training_collectives": _training(_step_collectives),
    "training_ops": _training(_step_ops),
}
"""Table -> its rows."""
