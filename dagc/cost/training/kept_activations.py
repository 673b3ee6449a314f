"""kept_activations: what a layer keeps of a micro-batch from its forward cell to its gradients, on one rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...base.frozen import record, replace
from ...ir.graph import Graph, Stage
from ...ir.handed_on import are_handed_on
from ...ir.naming import done_anew
from ...ir.op import FORWARD, RECOMPUTE, UPDATE, WEIGHT, Op
from ...ir.ops.attention_work import score_bytes
from ...ir.ops.attributes.attention import AttendAttrs
from ...ir.ops.attributes.training import QuantiseAttrs
from ...ir.ops.op_set import OPS
from ...ir.ops.sizes import local_bytes
from ...ir.segment import Segment
from ..kv_cache import CachePolicy
from ..memory import peak_live_bytes
from .cell_costs import WHOLE_BACKWARD, only
from .weight_moves import without


@record
class Kept:
    """Bytes of a micro-batch in one layer on one rank: from its forward cell on, and of that what stays for the gradients of
    weights."""

    whole_B: float
    late_B: float


def kept_by_layer(graph: Graph, imbalance: float) -> Mapping[str, Kept]:
    """Layer -> what it keeps."""
    return {
        s.name: Kept(sum(kept_bytes(s, graph, imbalance).values()), kept_for_weights(s, graph, imbalance))
        for s in graph.segments
    }


def kept_by_stage(kept: Mapping[str, Kept], stages: Sequence[Stage], graph: Graph) -> list[Kept]:
    """Of each virtual stage."""
    beside = kept_beside(graph) if are_handed_on(graph) else None
    found = []
    for stage in stages:
        whole_B = sum(count * kept[name].whole_B for name, count in stage.layers)
        late_B = sum(count * kept[name].late_B for name, count in stage.layers)
        if beside is not None:
            more = beside.of(stage)
            whole_B, late_B = whole_B + more.whole_B, late_B + more.late_B
        found.append(Kept(whole_B * graph.lanes, late_B * graph.lanes))
    return found


@record
class KeptBeside:
    """What gradients read of what layers take beside the residual stream. `sizes`: bytes by name; `read`, `late`: names by layer, of all gradients and of
    those of weights; `makes`: names that a layer hands on, `own`: of these those whose value it keeps itself."""

    sizes: Mapping[str, float]
    read: Mapping[str, frozenset[str]]
    late: Mapping[str, frozenset[str]]
    makes: Mapping[str, frozenset[str]]
    own: Mapping[str, frozenset[str]]

    def of(self, stage: Stage) -> Kept:
        """Each once for all layers of a stage that read it, unless the layer that hands it on is there and keeps it anyhow."""
        return Kept(self.once(stage, self.read), self.once(stage, self.late))

    def once(self, stage: Stage, read: Mapping[str, frozenset[str]]) -> float:
        total, there = 0.0, dict[str, bool]()
        for layer, _ in stage.layers:
            for name in sorted(read[layer]):
                if not there.get(name):
                    total += self.sizes[name]
                    there[name] = True
            for name in self.makes[layer]:
                there[name] = name in self.own[layer]
        return total


def kept_beside(graph: Graph) -> KeptBeside:
    sizes: dict[str, float] = {}
    read, late, makes, own = ({s.name: set[str]() for s in graph.segments} for _ in range(4))
    for s in graph.segments:
        for one in s.taken:
            if one.sharding is not None:
                sizes[one.name] = local_bytes(s, one.name, one.sharding.dims, graph.the_mesh)
        for op in s.ops:
            if op.cell not in (FORWARD, UPDATE):
                read[s.name] |= s.beside.keys() & set(op.inputs)
            if op.cell == WEIGHT:
                late[s.name] |= s.beside.keys() & set(op.inputs)
        kept = kept_values(s)
        makes[s.name] = {name for name, _ in s.handed}
        own[s.name] = {name for name, value in s.handed if value == s.input or {value, *_operands(s, value)} & kept}
    frozen = ({name: frozenset(names) for name, names in each.items()} for each in (read, late, makes, own))
    return KeptBeside(sizes, *frozen)


def _operands(segment: Segment, value: str) -> tuple[str, ...]:
    """What a cache keeps of it, which is its operand."""
    op = segment.by_name[value]
    return op.inputs[:1] if OPS[op.kind].appends else ()


def kept_bytes(segment: Segment, graph: Graph, imbalance: float) -> Mapping[str, float]:
    """Value -> bytes, of values of the forward cell that gradients read. Kernels of gradients compute element-wise ops anew from
    what is kept, as fused kernels do; caches are their operand."""
    return _sizes(segment, graph, imbalance, kept_values(segment)) | kept_scores(segment, graph)


def kept_scores(segment: Segment, graph: Graph) -> dict[str, float]:
    """The softmax of stored scores, by attention: gradients read it. Of an attention that is done anew it is there then."""
    anew = {op.name for op in segment.ops if op.cell == RECOMPUTE}
    stored = (
        op
        for op in segment.ops
        if op.cell == FORWARD
        and type(op.attrs) is AttendAttrs
        and op.attrs.kernel != "flash"
        and done_anew(op.name) not in anew
    )
    return {f"{op.name}.scores": score_bytes(segment.within(op.scope), op, graph.the_mesh) for op in stored}


def kept_for_weights(segment: Segment, graph: Graph, imbalance: float) -> float:
    """Of these the bytes that the gradients of weights still read when that of the input is there, and upstream gradients that they
    read: what a schedule keeps that puts the gradients of weights off."""
    late = {name for op in segment.ops if op.cell == WEIGHT for name in op.inputs} - segment.copies.keys()
    kept = {name for name in kept_values(segment) if name in late}
    made = {value.name for op in segment.ops if op.cell not in (FORWARD, WEIGHT, UPDATE) for value in op.results}
    own = made & late
    return sum(_sizes(segment, graph, imbalance, kept | own).values())


def kept_values(segment: Segment) -> set[str]:
    forward = {value.name: op for op in segment.ops if op.cell == FORWARD for value in op.results}
    readers: dict[str, list[Op]] = {}
    for op in segment.ops:
        if op.cell not in (FORWARD, UPDATE):
            for name in op.inputs:
                if (name in forward and name not in segment.copies) or name == segment.input:
                    readers.setdefault(name, []).append(op)
    kept = set(readers) | kept_results(segment)
    for op in reversed([op for op in segment.ops if op.cell == FORWARD]):
        if op.name in kept and OPS[op.kind].view:
            kept = kept - {op.name} | {n for n in op.inputs if not segment.is_weight(n)}
        elif op.name in kept and _anew(op) and all(OPS[r.kind].fused for r in readers.get(op.name, ())):
            inputs = {n for n in op.inputs if not segment.is_weight(n)}
            if inputs <= kept | {segment.input}:
                kept -= {op.name}
    return kept


def kept_results(segment: Segment) -> set[str]:
    """Of ops whose gradient reads their result (the output of attention), where what else reads it reads a quantised copy: else that keeps it."""
    anew = {op.name for op in segment.ops if op.cell == RECOMPUTE}
    quantised = {
        n for op in segment.ops if op.cell == FORWARD and isinstance(op.attrs, QuantiseAttrs) for n in op.inputs
    }
    return {
        op.name
        for op in segment.ops
        if op.cell == FORWARD and OPS[op.kind].kept and op.name in quantised and done_anew(op.name) not in anew
    }


def _anew(op: Op) -> bool:
    kind = OPS[op.kind]
    return kind.fused and not kind.local and not kind.appends and not op.is_collective


def _sizes(segment: Segment, graph: Graph, imbalance: float, names: set[str]) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for name in sorted(names):  # a sum of floats depends on its order
        layout = segment.sharding_of(name)
        assert layout is not None
        own = local_bytes(segment, name, layout.dims, graph.the_mesh)
        sizes[name] = own * (imbalance if segment.scope_of(name) == "experts" else 1.0)
    return sizes


def working_bytes(segment: Segment, graph: Graph, imbalance: float) -> float:
    """The largest sum of live values that are not kept, while a cell of the layer runs, beside copies of its weights."""
    segment = without(segment, segment.copies)
    policy = CachePolicy(frees=False)
    forward = replace(segment, ops=tuple(op for op in segment.ops if op.cell == FORWARD), upstream=None, downstream="")
    ahead = peak_live_bytes(forward, graph, imbalance, policy)
    backward = only(segment, WHOLE_BACKWARD)
    if not backward.ops:
        return ahead
    given = 0.0
    if segment.upstream is not None and segment.upstream.sharding is not None:
        given = local_bytes(segment, segment.upstream.name, segment.upstream.sharding.dims, graph.the_mesh)
    given += gradients_beside(graph)
    back = peak_live_bytes(replace(backward, entry=None), graph, imbalance, policy) + given
    return max(ahead, back)


def gradients_beside(graph: Graph) -> float:
    """Bytes of the gradients that go back beside that of the residual stream, through every layer."""
    sizes = {
        name: local_bytes(s, value.name, value.sharding.dims, graph.the_mesh)
        for s in graph.segments
        for name, value in s.gets
        if value.sharding is not None
    }
    return sum(sizes.values())
