"""The plan as rows: plain dicts of numbers and text in SI units, which any DataFrame library takes as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...ir.graph import Op, Segment
from ...plan.plan import CompiledPlan
from ...plan.result import PhaseResult

TABLES = ("ops", "phases", "collectives", "memory", "pools", "critical_path", "requirements")
Row = dict[str, Any]


def rows(plan: CompiledPlan, table: str = "ops") -> list[Row]:
    """All rows of a table have the same keys. ValueError when there is no such table."""
    makers = {
        "ops": _ops,
        "phases": _phase,
        "collectives": _collectives,
        "memory": _memory,
        "critical_path": _path,
    }
    if table == "pools":
        return list(_pools(plan))
    if table == "requirements":
        return list(_requirements(plan))
    if table not in makers:
        raise ValueError(f"no table {table!r}: {', '.join(TABLES)}")
    if table == "memory":
        rooms = {name: plan.kv_tokens(name) for name in plan.phases}
        return [
            {"phase": name, **row, "kv_tokens": room}
            for name, result in plan.phases.items()
            for row, room in zip(_memory(result), rooms[name], strict=True)
        ]
    return [{"phase": name, **row} for name, result in plan.phases.items() for row in makers[table](result)]


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
        "group_size": mesh.size(op.axes),
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


def _phase(result: PhaseResult) -> Iterator[Row]:
    yield {
        "kind": result.graph.kind,
        "gpus": len(result.gpus),
        "stages": len(result.graph.stages),
        "microbatches": result.graph.microbatches,
        "time_s": result.time_s,
        "makespan_s": result.schedule.latency_s,
        "passes": result.passes,
        "floor_s": result.floor_s,
        "throughput_tok_s": result.throughput_tok_s,
        "throughput_per_gpu_tok_s": result.throughput_tok_s / len(result.gpus),
        "utilization": result.utilization,
        "bubble": result.schedule.bubble,
        "imbalance": result.costs.imbalance,
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


def _memory(result: PhaseResult) -> Iterator[Row]:
    for s in result.memory.stages:
        yield {
            "stage": s.stage,
            "weights_B": s.weights_B,
            "kv_cache_B": s.kv_cache_B,
            "activations_B": s.activations_B,
            "buffers_B": s.buffers_B,
            "reserve_B": s.reserve_B,
            "engine_B": s.engine_B,
            "peak_B": s.peak_B,
            "capacity_B": s.capacity_B,
        }


def _pools(plan: CompiledPlan) -> Iterator[Row]:
    """Sets of GPUs that the same phases use, with what the fullest of each holds."""
    for pool in plan.pools:
        yield {
            "phases": "+".join(pool.phases),
            "gpus": len(pool.gpus),
            "fullest_gpu": pool.fullest,
            "weights_B": pool.weights_B,
            "copies_B": pool.copies_B,
            "kv_cache_B": pool.kv_cache_B,
            "work_B": pool.work_B,
            "reserve_B": pool.reserve_B,
            "peak_B": pool.peak_B,
            "capacity_B": pool.capacity_B,
        }


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
