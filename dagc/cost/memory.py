"""memory: what one GPU of each stage must hold: weights, KV cache, live activations, buffers, and what an engine keeps."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod

from ..base.dtypes import dtype
from ..base.frozen import replace
from ..ir.graph import Graph, Stage
from ..ir.handed_on import Made, crossing, made_in
from ..ir.mesh import Mesh
from ..ir.op import Op, Weight
from ..ir.ops.kind import Tokens
from ..ir.ops.op_set import OPS, scratch_bytes
from ..ir.ops.sizes import local_bytes, local_count
from ..ir.routed_dims import resident_share, stem
from ..ir.segment import Segment
from ..ir.sharding import Axes
from ..spec.phase import EngineMemory
from ..spec.unit import Unit
from .footprint import Memory, StageMemory
from .host_copies import copy_buffers
from .kv_cache import CachePolicy, cache_bytes, cache_policy, passing_bytes
from .records import Costs


def stage_memory(graph: Graph, costs: Costs, unit: Unit, *, alone: bool = False) -> Memory:
    """Bytes per GPU by stage. Does not judge. Activations are at least those of the largest batch of tokens that
    the engine profiles: it keeps that much free of cache. Of a layer (`live_B`) they are those of the stage where they are most. `alone`:
    without what layers hand on beside the residual stream."""
    mesh = graph.the_mesh
    policy = cache_policy(unit.phase)
    stages = []
    engine = unit.phase.memory
    most_B: dict[str, float] = {}
    for on in graph.sides:
        hardware = unit.spec.experts_on(unit.phase) if on else unit.spec.hardware
        live_B = {s.name: graph.lanes * peak_live_bytes(s, graph, costs.imbalance, policy, on) for s in graph.segments}
        profiled_B = {s.name: live_B[s.name] * profile_ratio(s, graph, engine.tokens) for s in graph.segments[:-1]}
        head = graph.head
        sampled_B = 0.0 if on else SCORE_B * engine.sequences * _vocabulary(head)
        profiled_B[head.name] = max(live_B[head.name], sampled_B)
        most_B = most_B or live_B
        held_B = dict[str, float]()
        layers: dict[tuple[str, bool], tuple[float, float, float, float]] = {}
        for stage in graph.stages:
            weights = kv = live = buffers = padding = 0.0
            beside_B = {} if on or alone else held_beside(graph, stage)
            tables = graph.embedding.weight if stage.index == 0 else {}
            for name, count in stage.layers:
                if (name, bool(tables)) not in layers:
                    segment = graph.segment(name)
                    layers[name, bool(tables)] = (
                        weight_bytes(segment, mesh, tables, on),
                        padding_bytes(segment, mesh, engine, on),
                        0.0 if on else cache_bytes(segment, mesh, graph.kind, policy),
                        staging_bytes(segment, costs, on) + (0.0 if on else copy_buffers(segment, costs, graph.lanes)),
                    )
                own_B, padded_B, cached_B, staged_B = layers[name, bool(tables)]
                weights += count * own_B
                padding += count * padded_B
                kv += count * cached_B * graph.microbatches * graph.lanes
                live = max(live, profiled_B[name])
                if beside_B and (found := graph.lanes * left_of(beside_B, graph.segment(name), graph)):
                    more = found * profile_ratio(graph.segment(name), graph, engine.tokens)
                    live = max(live, profiled_B[name] + more)
                    held_B[name] = max(held_B.get(name, 0.0), found)
                buffers = max(buffers, staged_B)
            if mesh.stages > 1 and not on:
                ends = costs.edges[max(0, stage.index - 1) : stage.index + 1] or costs.edges[:1]
                buffers += 2 * max(edge.payload_B for edge in ends)  # one micro-batch arriving while one leaves
            padding = padding if engine.padding_B is None else engine.padding_B
            beside = engine.graphs_B + engine.communication_B + padding
            index = stage.index + (len(graph.stages) if on else 0)
            need = StageMemory(index, weights, kv, live, buffers, hardware.reserve_B, hardware.memory_B, beside, on=on)
            stages.append(replace(need, capacity_B=capacity(need, hardware.memory_B, engine)))
        most_B |= {name: most_B[name] + size_B for name, size_B in held_B.items()}
    experts_B = hardware.memory_B if len(graph.sides) > 1 else None
    return Memory(tuple(stages), unit.spec.hardware.memory_B, most_B, engine, experts_B)


def capacity(need: StageMemory, total_B: float, engine: EngineMemory) -> float:
    """What a stage may hold in all, where the engine fills a share of the GPU with everything it stores, with weights and cache
    alone (what else there is comes on top, within the GPU), or what everything else leaves of it with the cache."""
    outside = {
        "all": 0.0,
        "static": need.peak_B - need.weights_B - need.kv_cache_B,
        "free": (1.0 - engine.fraction) * (need.peak_B - need.kv_cache_B),
    }[engine.of]
    return min(total_B, engine.fraction * total_B + outside)


def with_drafter(
    need: Memory, graph: Graph, own: StageMemory, unit: Unit, layers: int, *, has_table: bool
) -> tuple[Memory, float]:
    """The memory of a phase whose last stage also holds a drafter of so many layers, and the bytes of its weights. `graph`,
    `own`: of a pass of one layer. Its head is the model's, and so is its embedding where the last stage has the table."""
    mesh, engine, last = graph.the_mesh, unit.phase.memory, need.stages[-1]
    weights = sum(weight_size(s, w, mesh) for s in graph.segments for w in drafter_weights(s, graph)) * layers
    if not has_table:
        tables = (w for w in graph.embedding.weights if w not in drafter_weights(graph.embedding, graph))
        weights += sum(weight_size(graph.embedding, table, mesh) for table in tables)
    padding = sum(padding_bytes(s, mesh, engine) for s in graph.body) * layers if engine.padding_B is None else 0.0
    both = replace(
        last,
        weights_B=last.weights_B + weights,
        kv_cache_B=last.kv_cache_B + own.kv_cache_B * layers,
        activations_B=max(last.activations_B, own.activations_B),
        buffers_B=max(last.buffers_B, own.buffers_B),
        engine_B=last.engine_B + padding,
        drafter_B=weights,
    )
    both = replace(both, capacity_B=capacity(both, need.total_B, engine))
    return replace(need, stages=(*need.stages[:-1], both)), weights


def with_model(need: Memory, graph: Graph, own: StageMemory, unit: Unit) -> tuple[Memory, float]:
    """The memory of a phase whose last stage also holds another model, and the bytes of its weights. `graph`, `own`: of its pass."""
    mesh, engine, last = graph.the_mesh, unit.phase.memory, need.stages[-1]
    repeats = [(segment, segment.repeat) for segment in graph.body]
    padding = sum(n * padding_bytes(s, mesh, engine) for s, n in repeats) if engine.padding_B is None else 0.0
    both = replace(
        last,
        weights_B=last.weights_B + own.weights_B,
        kv_cache_B=last.kv_cache_B + own.kv_cache_B,
        activations_B=max(last.activations_B, own.activations_B),
        buffers_B=max(last.buffers_B, own.buffers_B),
        engine_B=last.engine_B + padding,
        drafter_B=own.weights_B,
    )
    both = replace(both, capacity_B=capacity(both, need.total_B, engine))
    return replace(need, stages=(*need.stages[:-1], both)), own.weights_B


def drafter_weights(segment: Segment, graph: Graph) -> tuple[Weight, ...]:
    """Weights that a layer for further tokens has for itself: all but the table of the embedding and the head's matrix."""
    if segment.name == graph.head.name:
        return tuple(w for w in segment.weights if len(w.dims) == 1)
    tables = {name for op in segment.ops if OPS[op.kind].reads_rows for name in op.inputs}
    return tuple(w for w in segment.weights if w.name not in tables)


SCORE_B = 2 + 4 + 4
"""Bytes of one score of the head while the next token is sampled: as computed, in fp32, and as a probability (vLLM:
v1/sample/sampler.py)."""


def _vocabulary(head: Segment) -> float:
    """Scores of one token, gathered on every rank."""
    found = (op.inputs[0] for op in head.ops if OPS[op.kind].reduce == "max")
    return max((head.size(head.dims_of(name)[-1]) for name in found), default=0.0)


def profile_ratio(segment: Segment, graph: Graph, tokens: int) -> float:
    """How many times the tokens of a micro-batch on a rank the profiled batch is, at least once."""
    mesh = graph.the_mesh
    split = segment.entry.dims[0] if segment.entry is not None else ()
    own = graph.lanes * segment.size("batch") / mesh.size(split) * segment.size("seq")
    return max(1.0, tokens / own)


def padding_bytes(segment: Segment, mesh: Mesh, engine: EngineMemory, on: str = "") -> float:
    """What kernels add to the weights of a layer on one rank: tiles of experts that they fill, and 16-bit copies of quantised
    weights that each head multiplies with its own part (absorbed projections of latent attention)."""
    tiles = {name: (hidden, inner) for name, hidden, inner in engine.tiles}
    total = sum(copied_bytes(segment, op, mesh) for op in segment.ops) if engine.copies and not on else 0.0
    for weight in segment.weights:
        if weight.dtype not in tiles or weight.scope != "experts":
            continue
        assert weight.sharding is not None
        if weight.sharding.on != on:
            continue
        filled = 1.0
        for dim, axes in zip(weight.dims, weight.sharding.dims, strict=True):
            if stem(dim) != "expert":
                local = segment.size(dim, weight.scope) / mesh.size(axes)
                tile = tiles[weight.dtype][stem(dim) != "hidden"]
                filled *= ceil(local / tile) * tile
        exact = prod(
            segment.size(d, weight.scope) / mesh.size(a)
            for d, a in zip(weight.dims, weight.sharding.dims, strict=True)
            if stem(d) != "expert"
        )
        count = local_count(segment, weight.dims, weight.sharding.dims, mesh, weight.scope)
        whole = count / exact * filled * dtype(weight.dtype).bytes
        total += max(0.0, whole - weight_size(segment, weight, mesh))
    return total


def copied_bytes(segment: Segment, op: Op, mesh: Mesh) -> float:
    """Bytes of the copy that a product side by side, over dimensions that both factors and the result have, works on."""
    if not OPS[op.kind].product or op.scope == "experts" or len(op.inputs) != 2 or not op.inputs[1].startswith("@"):
        return 0.0
    weight = segment.weight[op.inputs[1]]
    both = set(segment.dims_of(op.inputs[0])) & set(weight.dims) & set(op.dims)
    if not both or not dtype(weight.dtype).quantised or weight.sharding is None:
        return 0.0
    count = local_count(segment, weight.dims, weight.sharding.dims, mesh, weight.scope)
    return count * dtype(op.dtype).bytes


def weight_bytes(segment: Segment, mesh: Mesh, tables: Mapping[str, Weight], on: str = "") -> float:
    """Weights of one layer on one of the ranks `on`, each by its own sharding. `tables`: weights of the first layer, where it is on
    the same stage: a tied head in the same layout is stored once."""
    total = 0.0
    for weight in segment.weights:
        if weight.tied in tables and _lies(weight) == _lies(tables[weight.tied]):
            continue
        if weight.sharding is not None and weight.sharding.on != on:
            continue
        total += weight_size(segment, weight, mesh)
    return total


def weight_size(segment: Segment, weight: Weight, mesh: Mesh) -> float:
    """Bytes of one weight on one rank; of experts those that its GPU holds."""
    assert weight.sharding is not None
    held = dtype(weight.dtype)
    count = local_count(segment, weight.dims, weight.sharding.dims, mesh, weight.scope)
    if held.padded and weight.scope == "experts":
        # A width that is cut inside a block of scales is filled up to whole blocks.
        for dim, axes in zip(weight.dims, weight.sharding.dims, strict=True):
            local = segment.size(dim, weight.scope) / mesh.size(axes)
            if axes and stem(dim) != "expert":
                count *= ceil(local / held.block[0]) * held.block[0] / local
    return count * held.bytes * resident_share(segment, weight)


def _lies(weight: Weight) -> dict[str, Axes]:
    """The axes that split each dim, whatever the order of dims."""
    assert weight.sharding is not None
    return dict(zip(weight.dims, weight.sharding.dims, strict=True))


def peak_live_bytes(segment: Segment, graph: Graph, imbalance: float, policy: CachePolicy, on: str = "") -> float:
    """Largest sum of live tensors of one of the ranks `on` in program order. Of a cache, only what it does not keep is an activation; fused
    results replace inputs."""
    mesh = graph.the_mesh
    last: dict[str, int] = dict.fromkeys((segment.output, *(value for _, value in segment.handed)), len(segment.ops))
    for i, op in enumerate(segment.ops):
        for name in segment.sources(op):
            last[name] = max(last.get(name, 0), i)
    for op in reversed(segment.ops):
        if (
            OPS[op.kind].view and op.inputs and op.inputs[0] in last
        ):  # what it looks at stays until nobody looks through it
            last[op.inputs[0]] = max(last[op.inputs[0]], last.get(op.name, -1))
    size: dict[str, float] = {}
    if segment.entry is not None and not on:
        size[segment.input] = local_bytes(segment, segment.input, segment.entry.dims, mesh)
    live = peak = size.get(segment.input, 0.0)
    for i, op in enumerate(segment.ops):
        assert op.sharding is not None
        if op.sharding.on != on:
            own = 0.0
        elif OPS[op.kind].tokens is Tokens.CACHE:
            own = passing_bytes(segment, op, mesh, policy, graph)
        elif OPS[op.kind].view:
            own = 0.0
        else:
            own = local_bytes(segment, op.name, op.sharding.dims, mesh)
        own *= imbalance if op.scope == "experts" else 1.0
        dying = [n for n in segment.sources(op) if n in size and last[n] == i]
        freed = sum(size.pop(n) for n in dying)
        in_place = min(freed, own) if OPS[op.kind].fused else 0.0
        scratch = scratch_bytes(segment, op, mesh) if op.sharding.on == on else 0.0
        peak = max(peak, live + own - in_place + scratch)
        live += own - freed
        size[op.name] = own
        if last.get(op.name, -1) < 0:
            live -= size.pop(op.name)
    return peak


def held_beside(graph: Graph, stage: Stage) -> dict[str, float]:
    """Bytes of what is on a stage beside the residual stream, by name: what its layers hand on, and what comes from the stage before. What a
    cache of its own keeps is not counted again."""
    if not any([segment.handed for segment in graph.segments]):
        return {}
    made = made_in(graph.segment(name) for name, _ in stage.layers)
    own = {name: one for name, one in made.items() if not one.is_cache}
    return bytes_beside(graph, {**crossing(graph, stage.index), **own})


def bytes_beside(graph: Graph, made: Mapping[str, Made]) -> dict[str, float]:
    """Of one rank, by name."""
    return {
        name: local_bytes(one.segment, one.value, layout.dims, graph.the_mesh)
        for name, one in made.items()
        if (layout := one.segment.sharding_of(one.value)) is not None
    }


def left_of(beside_B: Mapping[str, float], segment: Segment, graph: Graph) -> float:
    """Bytes of what a layer does not make anew: it stays for later ones."""
    own = {name for name, _ in segment.handed}
    return sum(B for name, B in beside_B.items() if name not in own) if not graph.is_end(segment.name) else 0.0


def staging_bytes(segment: Segment, costs: Costs, on: str = "") -> float:
    """One staging buffer of the ranks `on`, as large as the largest collective's local input; of what goes across what they send
    or get."""
    calls = [(op, costs.ops[segment.name, op.name]) for op in segment.ops if op.is_collective]
    sizes = [cost.payload_B for op, cost in calls if op.on == on]
    sizes += [cost.wire_B for op, cost in calls if op.is_across and op.on != on]
    return max(sizes, default=0.0)
