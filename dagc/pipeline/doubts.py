"""Warnings about a plan that compiles, and is probably not what was meant."""

from __future__ import annotations

from collections import Counter

from ..base.axes import SEQUENCE, STAGES, TENSOR
from ..base.diagnostics import Collector
from ..base.units import BYTES, show
from ..cost.expert_cache import host_expert_bytes
from ..cost.kv_cache import cache_policy, host_bytes
from ..cost.records import Costs
from ..cost.schedule.records import Schedule
from ..ir.graph import Graph
from ..ir.op import Op
from ..ir.segment import Segment
from ..plan.result import PhaseResult
from ..spec.serve import Serve
from ..spec.unit import Unit


def warn_of_idle_stages(unit: Unit, schedule: Schedule) -> None:
    """Fewer micro-batches than stages leave most of the pipeline waiting."""
    stages, parts = unit.phase.strategy.pp, unit.phase.batching.microbatches
    if schedule.bubble <= 0.5 or parts >= stages:
        return
    unit.out.add(
        "W06",
        f"the stages of `{unit.phase.name}` are idle {schedule.bubble:.0%} of the time",
        unit.phase.spans.get("microbatches", unit.phase.spans.get(STAGES, unit.phase.span)),
        because=(f"{parts} micro-batch{'es' if parts > 1 else ''} in flight over {stages} stages",),
        help=(f"microbatches = {stages} or more keeps them busy",),
    )


def warn_of_moved_cache(unit: Unit, graph: Graph, costs: Costs) -> None:
    """A decode step that moves the cache itself pays for the whole context with every token."""
    moved: dict[str, float] = {}
    for segment in graph.segments if graph.generates else ():
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
                (unit.phase.spans[a] for a in ("shard", SEQUENCE, "attention", TENSOR) if a in unit.phase.spans),
                unit.phase.span,
            ),
            because=tuple(f"{key}, {show(size, BYTES)} per GPU" for key, size in moved.items()),
            help=(
                "a cache that is not moved costs nothing per step: split batch or heads (dp, tp), not the context or a width that attention needs whole",
            ),
        )


def warn_of_full_hosts(unit: Unit, graph: Graph) -> None:
    """Host memory that is given has room for what all GPUs of a host keep there."""
    hardware = unit.spec.hardware
    if not graph.copies or hardware.host_memory_B is None:
        return
    experts_B = host_expert_bytes(graph, unit.phase.experts.cache)
    each_B = host_bytes(graph, cache_policy(unit.phase)) + experts_B
    gpus = max(Counter(gpu // hardware.per_host for gpu in unit.phase.gpus).values())
    if each_B * gpus > hardware.host_memory_B:
        unit.out.add(
            "W06", f"hosts have no room for what `{unit.phase.name}` keeps there", unit.phase.spans.get("experts" if 2 * experts_B > each_B else "kv_cache", unit.phase.span),
            because=(f"{gpus} GPUs x {show(each_B, BYTES)} = {show(each_B * gpus, BYTES)} of {show(hardware.host_memory_B, BYTES)}",),
            help=(
                "more `resident` experts, or `cache = frequency`, which needs no copies of those that GPUs hold"
                if 2 * experts_B > each_B
                else "less `offload`, a smaller `keep`, or fewer sequences",
            ),
        )  # fmt: skip


def _origin(segment: Segment, op: Op) -> Op:
    """The op whose value a chain of moves carries."""
    while (op.is_collective or op.runtime_kind == "slice") and op.inputs[0] in segment.by_name:
        op = segment.by_name[op.inputs[0]]
    return op


def warn_of_substitutes(unit: Unit, result: PhaseResult) -> None:
    """Kernels that nobody measured for this engine, GPU and dtype are priced by the nearest table, which is less sure."""
    taken = [one for one in result.kernels if one.instead_of]
    if not taken:
        return
    from ..calib.accuracy import SUBSTITUTED

    total = result.substituted
    if total >= SUBSTITUTED:
        unit.out.add(
            "W06",
            f"{total:.0%} of the time of `{unit.phase.name}` is of kernels that nobody measured: the nearest tables are taken",
            unit.phase.spans.get("engine", unit.phase.span),
            because=tuple(
                f"{one.family}, {one.share:.0%}: none of {one.instead_of}; {one.table} is off by {one.error:.0%} in the median"
                for one in taken
                if one.share >= SUBSTITUTED / 10
            )[:4],
            help=("`dagc list presets` shows which engines' kernels were measured on which GPU",),
        )


EXTRAPOLATED = 0.1
"""Share of the critical path from which on extrapolated kernel times are worth a warning."""


def warn_of_extrapolation(unit: Unit, result: PhaseResult) -> None:
    """Kernels that run at sizes nobody measured make the figure less sure than its error says."""
    extrapolated = {name: share for name, share in result.extrapolated.items() if share >= EXTRAPOLATED / 10}
    total = sum(extrapolated.values())
    if total >= EXTRAPOLATED:
        unit.out.add(
            "W06",
            f"{total:.0%} of the time of `{unit.phase.name}` is extrapolated beyond measured kernel sizes",
            unit.phase.span,
            because=tuple(
                f"{name}: {share:.0%}" for name, share in sorted(extrapolated.items(), key=lambda kv: -kv[1])[:4]
            ),
        )


DOUBTFUL = 0.05
"""Error of a step's price that is worth a word."""


def warn_of_prices(serve: Serve, error: float, out: Collector) -> None:
    """Steps of a simulated serving whose prices are not as exact as others."""
    if error > DOUBTFUL:
        message = f"prices of the steps of `{serve.name}` were off by up to {error:.0%} where they were checked"
        because = ("they stand between compiled steps, and the time of a step is not smooth there",)
        out.add("W06", message, serve.span, because=because)
