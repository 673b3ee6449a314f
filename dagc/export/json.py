"""JSON: the plan object of `dagc compile --json`, and the placed graph of `--emit json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from ..base.axes import AXES, EXPERT_SIDE
from ..base.harmless import in_json
from ..base.render import as_records
from ..base.units import unit_name
from ..cost.attention_bytes import attention_bytes
from ..cost.kv_cache import cache_policy, host_bytes
from ..cost.placed_experts import placed_experts
from ..cost.records import ExpertCache, Rebalanced
from ..plan.graph_file import GRAPH_SCHEMA, hardware_data, ir_section, plan_section, step_section
from ..plan.held_memory import parts
from ..plan.plan import CompiledPlan, cached_tokens
from ..plan.pools import Pool, sizes
from ..plan.recorded import SCHEMA
from ..plan.result import Drafter, PhaseResult
from ..plan.subject import keyed
from ..view.facts.every_rank import expand_ranks
from ..view.facts.size import check_size
from ..view.facts.unroll import Edge, Node, counts, unroll
from .placement_object import placement_object

if TYPE_CHECKING:
    from ..serving.knee import Knee


def dumps(value: object, *, indent: bool = False) -> bytes:
    """Deterministic JSON: keys as built, shortest round-trip floats."""
    import orjson

    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if indent else 0)
    data = orjson.dumps(value, option=options)
    return data if data.isascii() else in_json(data.decode()).encode()


def graph_file(plan: CompiledPlan, phase: str, *, ranks: str = "folded") -> dict[str, bytes]:
    return {"graph.json": dumps(graph_object(plan, phase, ranks=ranks))}


def plan_file(plan: CompiledPlan) -> dict[str, bytes]:
    return {"json": dumps(plan_object(plan), indent=True)}


def plan_object(plan: CompiledPlan, knees: Mapping[str, Knee] | None = None) -> dict[str, Any]:
    """One object, SI units; its schema is `plan.schema.json` next to this file. `knees`: of servings, by name."""
    return {
        "schema": SCHEMA,
        "fits": plan.fits,
        "model": {
            "name": plan.spec.model.name,
            "params_total": plan.params[0],
            "params_active": plan.params[1],
            "params_stated": plan.spec.model.params_stated,
        },
        **_hardware(plan),
        "phases": {name: phase_object(plan, result) for name, result in plan.phases.items()},
        "pools": [_pool(pool) for pool in plan.pools],
        **_trainings(plan),
        **_servings(plan, knees or {}),
        "requirements": [
            {
                "name": v.requirement.label,
                "expr": v.requirement.text,
                "value": v.value,
                "bound": v.bound,
                "unit": unit_name(v.dim),
                "passed": v.passed,
            }
            for v in plan.requirements
        ],
        "diagnostics": as_records(plan.diagnostics),
    }


def _hardware(plan: CompiledPlan) -> dict[str, Any]:
    """Pools of GPUs by name, and what joins them; nothing where there is one."""
    if not plan.spec.others:
        return {}
    links = [
        {"pools": list(one.pools), "bandwidth_Bps": one.bandwidth_Bps, "latency_s": one.latency_s}
        for one in plan.spec.pool_links
    ]
    return {"hardware": {name: hardware_data(own) for name, own in plan.spec.pools.items()}, "pool_links": links}


def _trainings(plan: CompiledPlan) -> dict[str, Any]:
    """Phases that train; nothing where none does."""
    if not plan.trainings:
        return {}
    from .trained_object import training_object

    return {"training": {name: training_object(plan, result) for name, result in plan.trainings.items()}}


def _servings(plan: CompiledPlan, knees: Mapping[str, Knee]) -> dict[str, Any]:
    """Those that were simulated; nothing where none was."""
    if not plan.servings:
        return {}
    from .served_object import serving_object

    return {"servings": {name: serving_object(plan, result, knees.get(name)) for name, result in plan.servings.items()}}


def phase_object(plan: CompiledPlan, result: PhaseResult) -> dict[str, Any]:
    """The figures of one phase."""
    from ..plan.totals import collective_totals, request_totals

    graph, mesh = result.graph, result.graph.the_mesh
    nodes, edges = counts(result)
    axes = {a: mesh.degrees.get(a, 1) for a in AXES}
    axes |= {a: d for a, d in mesh.degrees.items() if a not in axes and (d > 1 or a in EXPERT_SIDE)}
    layers = [(s, s.repeat) for s in graph.segments]
    ends = [
        {"stage": s.index, **asdict(c)} for s in graph.stages for c in request_totals(graph, result.requests, s.index)
    ]
    return {
        **({"hardware": result.hardware} if result.hardware else {}),
        "gpus": [gpu for seat in result.seats if not seat.first for gpu in seat.gpus],
        **({"expert_gpus": _other_pool(result)} if result.experts_in else {}),
        "axes": axes,
        **({"alternative": asdict(known)} if (known := plan.spec.alternatives.get(result.name)) is not None else {}),
        **_figures(plan, result),
        **({"expert_layers": [asdict(own) for own in result.costs.layers]} if result.costs.layers else {}),
        **({"rebalance": _rebalanced(result.rebalanced)} if result.rebalanced is not None else {}),
        **({"expert_cache": _cached(result.expert_cache)} if result.expert_cache is not None else {}),
        **({"host_cache": hosted} if (hosted := _hosted(plan, result)) else {}),
        **(
            {"expert_placement": _experts(plan, result)}
            if plan.spec.phase(result.name).strategy.expert_placement
            else {}
        ),
        **({"drafter": _drafter(result.drafter)} if result.drafter is not None else {}),
        **({"placement": placement_object(result.placement)} if result.placement is not None else {}),
        "memory": _memory(plan, result),
        "graph": {
            "ops": sum(n * sum(not op.is_collective for op in s.ops) for s, n in layers),
            "collectives": sum(n * sum(op.is_collective for op in s.ops) for s, n in layers),
            "placed_nodes": nodes,
            "placed_edges": edges,
        },
        "collectives": [
            {"stage": seat.index, **asdict(c)}
            for seat in result.seats
            for c in collective_totals(graph, result.costs, seat.index % len(graph.stages), seat.on)
        ],
        **({"requests": ends} if ends else {}),
        "kernels": [asdict(one) for one in result.kernels],
        "critical_path": _path(result),
        "bound_by": dict(result.bound_by),
    }


def _other_pool(result: PhaseResult) -> dict[str, Any]:
    """GPUs that have the experts in a pool of their own."""
    return {"hardware": result.experts_in, "gpus": [gpu for seat in result.seats if seat.first for gpu in seat.ids]}


def _figures(plan: CompiledPlan, result: PhaseResult) -> dict[str, Any]:
    """The metrics in a phase itself; those of `memory` are inside it."""
    beside = {
        "makespan_s": ("passes", result.passes),
        "floor_s": ("time_error", _time_error(result)),
        "imbalance": ("imbalance_error", result.costs.load_error),
    }
    return keyed(plan.subject(result.name), lambda metric: metric.json, beside)


def _rebalanced(found: Rebalanced) -> dict[str, Any]:
    """What placing experts anew moves and gains."""
    return {
        "every": found.every,
        "placements": found.times,
        "imbalance": found.imbalance,
        "moved_B": found.moved_B,
        "move_s": found.move_s,
        "pass_s": found.own_s,
        "kept_pass_s": found.step_s,
        "gain": found.gain,
        **({} if found.break_even is None else {"break_even": found.break_even}),
    }


def _cached(found: ExpertCache) -> dict[str, Any]:
    """What experts in host memory take."""
    return {
        "found": found.found,
        "copied_B": found.copied_B,
        "held_B": found.held_B,
        "host_B": found.host_B,
        "fill_s": found.fill_s,
        **({} if found.load_s is None else {"load_s": found.load_s}),
        **({} if found.steps is None else {"warm_steps": found.steps}),
        "warm_s": found.warm_s,
        "pass_s": found.own_s,
        "all_pass_s": found.all_s,
        "cold_pass_s": found.cold_s,
    }


def _experts(plan: CompiledPlan, result: PhaseResult) -> dict[str, Any]:
    """Which experts each rank has, by layer."""
    layers = placed_experts(result.graph, plan.units[result.name])
    return {
        "how": plan.spec.phase(result.name).strategy.expert_placement,
        "layers": [
            {
                **({} if own.layer is None else {"layer": own.layer}),
                "kind": own.kind,
                "before": own.ranks.before,
                "after": own.ranks.after,
                "least": own.least,
                **({} if own.nodes is None else {"nodes_before": own.nodes.before, "nodes_after": own.nodes.after}),
                "experts": own.experts,
            }
            for own in layers
        ],
    }


def _drafter(drafter: Drafter) -> dict[str, Any]:
    """What drafts tokens: its passes of a step, and its part of the phase's time and of the last stage's memory."""
    return {
        "name": drafter.name,
        "layers": drafter.layers,
        "params": drafter.params,
        "passes": drafter.count,
        "time_s": drafter.time_s,
        "weights_B": drafter.weights_B,
        "kv_cache_B": drafter.kv_cache_B,
    }


def _time_error(result: PhaseResult) -> dict[str, float] | None:
    """How sure the phase's time is; None without a calibration. `median`, `p90` and `bias`: relative errors of phases
    alone against measured servings (bias signed); `kernels`: of the kernels that make up `measured_share` of the
    critical path."""
    share, kernels = result.measured
    if not share:
        return None
    from ..calib.accuracy import kernels_of, phase_errors

    whole = phase_errors(kernels_of(share, result.substituted)).get(result.phase_kind.name)
    if whole is None:
        return None
    return {"median": whole.median, "p90": whole.p90, "bias": whole.bias, "measured_share": share, "kernels": kernels}


def _hosted(plan: CompiledPlan, result: PhaseResult) -> dict[str, float]:
    """What of the KV cache is in host memory; empty: nothing."""
    host_B = host_bytes(result.graph, cache_policy(plan.spec.phase(result.name)))
    moved = attention_bytes(result.graph)
    return {"host_B": host_B, "copied_B": 0.0 if moved is None else moved.copied_B} if host_B else {}


def _memory(plan: CompiledPlan, result: PhaseResult) -> dict[str, Any]:
    memory, rooms = result.memory, plan.kv_tokens(result.name)
    return {
        **parts(memory.worst),
        "capacity_B": memory.capacity_B,
        "fraction": memory.fraction,
        "fits": memory.fits,
        "shared_peak_B": max([memory.worst.peak_B, *(p.peak_B for p in plan.shared if result.name in p.phases)]),
        "kv_tokens": _tokens(min(rooms)),
        "kv_tokens_per_dp_rank": _tokens(min(rooms) // result.batch_ways),
        "kv_tokens_used": cached_tokens(plan.spec.phase(result.name)),
        "stages": [
            {
                "stage": s.stage,
                **({"on": s.on} if s.on else {}),
                **({"hardware": seat.hardware} if seat.first else {}),
                "gpus": sorted(seat.ids),
                **parts(s),
                "capacity_B": s.capacity_B,
                "kv_tokens": _tokens(room),
            }
            for seat, s, room in zip(result.seats, memory.stages, rooms, strict=True)
        ],
    }


def _tokens(room: float) -> int | None:
    """None: nothing is cached."""
    return int(room) if isfinite(room) else None


def _pool(pool: Pool) -> dict[str, Any]:
    return {
        **({"hardware": pool.hardware} if pool.hardware else {}),
        "phases": list(pool.phases),
        "gpus": list(pool.gpus),
        "fullest_gpu": pool.fullest,
        **sizes(pool),
        "fraction": pool.fraction,
        "fits": pool.fits,
    }


def _path(result: PhaseResult) -> list[dict[str, Any]]:
    total = sum(step.time_s for step in result.path) or 1.0
    return [
        {
            "op": f"{step.segment}/{step.op}" if step.segment else step.op,
            "kind": step.kind,
            "time_s": step.time_s,
            "share": step.time_s / total,
        }
        for step in result.path
    ]


def graph_object(plan: CompiledPlan, phase: str, *, ranks: str = "folded") -> dict[str, Any]:
    """The placed graph, with all that is needed to compile it again; `ranks="all"` expands every rank. Of a training step its cells, and
    beside the IR of their layers which layers each has."""
    if phase in plan.trainings:
        return step_object(plan, phase, ranks=ranks)
    check_size(plan.phases[phase], "the placed graph")
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    items = unroll(plan.phases[phase])
    for item in expand_ranks(plan.phases[phase], items) if ranks == "all" else items:
        (nodes if isinstance(item, Node) else edges).append(_record(item))
    return {
        "schema": GRAPH_SCHEMA,
        "phase": phase,
        "ranks": ranks,
        "plan": plan_section(plan, phase),
        "ir": ir_section(plan.phases[phase].graph),
        "nodes": nodes,
        "edges": edges,
    }


def step_object(plan: CompiledPlan, phase: str, *, ranks: str = "folded") -> dict[str, Any]:
    """A training step: a node for each cell of each GPU of a pipeline, for each send between stages, and for new weights. `parts`: of each
    virtual stage its layers, and the GPUs of a pipeline that have it."""
    from ..view.facts.every_rank import expanded
    from ..view.facts.step_graph import check_cells, step_graph

    result = plan.trainings[phase]
    check_cells(result, ranks)
    cells = step_graph(result)
    items = list(expanded(cells, {}) if ranks == "all" else cells)
    seats: dict[int, list[int]] = {}
    for (gpu, _), (_, part) in sorted(result.steps.schedule.stage_at.items()):
        seats.setdefault(part, []).append(gpu)
    return {
        "schema": GRAPH_SCHEMA,
        "phase": phase,
        "ranks": ranks,
        "plan": step_section(plan, phase),
        "parts": [
            {"layers": [list(one) for one in stage.layers], "stages": sorted(set(seats[part]))}
            for part, stage in enumerate(result.stages)
        ],
        "ir": ir_section(result.graph),
        "nodes": [_record(item) for item in items if isinstance(item, Node)],
        "edges": [_record(item) for item in items if not isinstance(item, Node)],
    }


def _record(item: Node | Edge) -> dict[str, Any]:
    names = item.__slots__
    return {n: getattr(item, n) for n in names}
