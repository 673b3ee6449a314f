"""The mutations: each yields every graph that differs from the given one by a single fault of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from dagc.ir.graph import Graph, Stage
from dagc.ir.op import CELLS, Op
from dagc.ir.ops.attributes.attrs import Value, stated
from dagc.ir.ops.attributes.experts import ExchangeAttrs
from dagc.ir.ops.attributes.moves import MoveAttrs
from dagc.ir.ops.attributes.training import WeightAttrs
from dagc.ir.segment import Segment
from dagc.ir.sharding import Axes, Sharding

SWAPPABLE = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "permute")


@dataclass(frozen=True)
class Mutant:
    """`before` and `after`: the op that changed, where a single one did."""

    kind: str
    where: str
    graph: Graph
    before: Op | None = None
    after: Op | None = None


Mutation = Callable[[Graph], Iterator[Mutant]]


def with_segment(graph: Graph, old: Segment, new: Segment) -> Graph:
    return replace(graph, segments=tuple(new if s is old else s for s in graph.segments))


def with_op(kind: str, graph: Graph, segment: Segment, op: Op, new: Op, what: str = "") -> Mutant:
    ops = tuple(new if o is op else o for o in segment.ops)
    where = f"{segment.name}/{op.name}{': ' if what else ''}{what}"
    return Mutant(kind, where, with_segment(graph, segment, replace(segment, ops=ops)), op, new)


def ops_of(graph: Graph) -> Iterator[tuple[Segment, Op]]:
    return ((segment, op) for segment in graph.segments for op in segment.ops)


def collectives(graph: Graph) -> Iterator[tuple[Segment, Op]]:
    return ((segment, op) for segment, op in ops_of(graph) if op.is_collective)


# -- collectives -------------------------------------------------------------------------------------


def remove_collective(graph: Graph) -> Iterator[Mutant]:
    """Its consumers take its input instead. A slice counts: a rank then keeps what it should drop."""
    for segment, op in ops_of(graph):
        if not (op.is_collective or op.kind == "slice"):
            continue
        source = op.inputs[0]
        ops = tuple(
            replace(o, inputs=tuple(source if n == op.name else n for n in o.inputs))
            for o in segment.ops
            if o is not op
        )
        output = source if segment.output == op.name else segment.output
        changed = with_segment(graph, segment, replace(segment, ops=ops, output=output))
        yield Mutant("remove a collective", f"{segment.name}/{op.name}", changed)


def swap_kind(graph: Graph) -> Iterator[Mutant]:
    for segment, op in collectives(graph):
        for other in SWAPPABLE:
            if other != op.kind:
                yield with_op("swap a collective's kind", graph, segment, op, replace(op, kind=other), other)


def change_group(graph: Graph) -> Iterator[Mutant]:
    """One axis of the group dropped, exchanged for another, or added."""
    for segment, op in collectives(graph):
        others = [a for a, _ in graph.the_mesh.atoms if a not in op.axes]
        for i, axis in enumerate(op.axes):
            dropped = op.axes[:i] + op.axes[i + 1 :]
            yield with_op("drop a group axis", graph, segment, op, replace(op, axes=dropped), axis)
            for other in others:
                axes = (*op.axes[:i], other, *op.axes[i + 1 :])
                yield with_op("swap a group axis", graph, segment, op, replace(op, axes=axes), f"{axis} -> {other}")
        for other in others:
            yield with_op("add a group axis", graph, segment, op, replace(op, axes=(*op.axes, other)), other)


def change_attribute(graph: Graph) -> Iterator[Mutant]:
    """What an op says besides its inputs: steps of a ring, operator of a reduction, group of an exchange."""
    for segment, op in ops_of(graph):
        said = dict(stated(op.attrs))
        if op.kind == "all_reduce" and isinstance(op.attrs, MoveAttrs):
            said["reduce"] = op.attrs.reduce
        if isinstance(op.attrs, ExchangeAttrs):
            said["exchange"] = op.attrs.exchange
        for name, value in said.items():
            if name in ("steps", "reduce", "exchange", "ring", "axes", "source_dim", "target_dim", "placed"):
                for new in _other_values(name, value, graph):
                    attrs = op.attrs.but(**{name: new})
                    what = f"{name} = {new}"
                    yield with_op("change an attribute", graph, segment, op, replace(op, attrs=attrs), what)


def _other_values(name: str, value: Any, graph: Graph) -> list[Value]:
    if name == "steps":
        return [value + 1, max(0, value - 1)]
    if name == "placed":
        return ["", "linear"]  # another placement by loads may be the same one
    if name == "reduce":
        return [v for v in ("sum", "max") if v != value]
    if name in ("source_dim", "target_dim"):
        return ["hidden", "batch", ""]
    return [v for v in ((), *((a,) for a, _ in graph.the_mesh.atoms)) if v != value]


# -- layouts -----------------------------------------------------------------------------------------


def change_partial(graph: Graph) -> Iterator[Mutant]:
    """One partial axis more or less than the value has; or a reduction of another kind."""
    for segment, op in ops_of(graph):
        layout = op.sharding
        assert layout is not None
        for axis in layout.partial:
            less = replace(layout, partial=tuple(a for a in layout.partial if a != axis))
            yield with_op("drop a partial sum", graph, segment, op, replace(op, sharding=less), axis)
        for axis, _ in graph.the_mesh.atoms:
            if axis not in layout.used:
                more = replace(layout, partial=(*layout.partial, axis))
                yield with_op("add a partial sum", graph, segment, op, replace(op, sharding=more), axis)
        if layout.partial:
            other = replace(layout, reduce="max" if layout.reduce == "sum" else "sum")
            yield with_op("another reduction", graph, segment, op, replace(op, sharding=other), other.reduce)


def change_layout(graph: Graph) -> Iterator[Mutant]:
    """A split of a result dropped, added, moved to another dim, or its axes in another order."""
    for segment, op in ops_of(graph):
        assert op.sharding is not None
        for what, layout in _other_layouts(op.sharding, tuple(a for a, _ in graph.the_mesh.atoms)):
            yield with_op("change a result's layout", graph, segment, op, replace(op, sharding=layout), what)


def change_weight_layout(graph: Graph) -> Iterator[Mutant]:
    for segment in graph.segments:
        for weight in segment.weights:
            assert weight.sharding is not None
            for what, layout in _other_layouts(weight.sharding, tuple(a for a, _ in graph.the_mesh.atoms)):
                weights = tuple(replace(w, sharding=layout) if w is weight else w for w in segment.weights)
                changed = with_segment(graph, segment, replace(segment, weights=weights))
                yield Mutant("change a weight's layout", f"{segment.name}/{weight.name}: {what}", changed)


def change_weight_placement(graph: Graph) -> Iterator[Mutant]:
    """The experts of a weight, or of all of a layer, put on ranks as they are numbered."""
    for segment in graph.segments:
        stored = [w for w in segment.weights if w.placed]
        for some in [*([w] for w in stored), *([stored] if stored else [])]:
            weights = tuple(replace(w, placed="") if w in some else w for w in segment.weights)
            changed = with_segment(graph, segment, replace(segment, weights=weights))
            yield Mutant("put experts elsewhere", f"{segment.name}: {', '.join(w.name for w in some)}", changed)


def change_entry_layout(graph: Graph) -> Iterator[Mutant]:
    for segment in graph.segments:
        assert segment.entry is not None
        for what, layout in _other_layouts(segment.entry, tuple(a for a, _ in graph.the_mesh.atoms)):
            changed = with_segment(graph, segment, replace(segment, entry=layout))
            yield Mutant("change a layer's entry", f"{segment.name}: {what}", changed)


def _other_layouts(layout: Sharding, atoms: Axes) -> Iterator[tuple[str, Sharding]]:
    for i, axes in enumerate(layout.dims):
        for axis in axes:
            without = layout.with_dim(i, tuple(a for a in axes if a != axis))
            yield f"dim {i} without {axis}", without
            for j, held in enumerate(layout.dims):
                if j != i:
                    yield f"{axis} from dim {i} to {j}", without.with_dim(j, (*held, axis))
        if len(axes) > 1:
            yield f"dim {i} reversed", layout.with_dim(i, axes[::-1])
        for axis in atoms:
            if axis not in layout.used:
                yield f"dim {i} with {axis}", layout.with_dim(i, (*axes, axis))


def change_loops(graph: Graph) -> Iterator[Mutant]:
    """One axis of a split loop dropped, or moved to another loop of the op."""
    for segment, op in ops_of(graph):
        for dim, axes in op.loops:
            for axis in axes:
                less = op.annotate(dim, tuple(a for a in axes if a != axis))
                yield with_op("drop an axis from a loop", graph, segment, op, less, f"{dim}/{axis}")
                for other in op.dims:
                    if other != dim:
                        moved = less.annotate(other, (*less.loop(other), axis))
                        yield with_op("move an axis between loops", graph, segment, op, moved, f"{axis} to {other}")


# -- data flow ---------------------------------------------------------------------------------------


def swap_inputs(graph: Graph) -> Iterator[Mutant]:
    for segment, op in ops_of(graph):
        for i, j in combinations(range(len(op.inputs)), 2):
            inputs = list(op.inputs)
            inputs[i], inputs[j] = inputs[j], inputs[i]
            yield with_op("swap two inputs", graph, segment, op, replace(op, inputs=tuple(inputs)), f"{i}, {j}")


def rewire_input(graph: Graph) -> Iterator[Mutant]:
    """An op reads another value of the same dims that is there before it."""
    for segment in graph.segments:
        known = [segment.input]
        for op in segment.ops:
            for i, name in enumerate(op.inputs):
                if name.startswith("@"):
                    continue
                for other in known:
                    if other != name and segment.dims_of(other) == segment.dims_of(name):
                        inputs = (*op.inputs[:i], other, *op.inputs[i + 1 :])
                        changed = replace(op, inputs=inputs)
                        yield with_op("read another value", graph, segment, op, changed, f"{name} -> {other}")
            known.append(op.name)


def change_output(graph: Graph) -> Iterator[Mutant]:
    for segment in graph.segments:
        for op in segment.ops:
            if op.name != segment.output and op.dims == segment.dims_of(segment.output):
                changed = with_segment(graph, segment, replace(segment, output=op.name))
                yield Mutant("return another value", f"{segment.name}: {op.name}", changed)


# -- training steps ------------------------------------------------------------------------------------


def change_cell(graph: Graph) -> Iterator[Mutant]:
    """An op of a training step runs at another time: gradients of weights behind what makes new ones, sums over ranks with every
    micro-batch."""
    for segment, op in ops_of(graph):
        for cell in CELLS if segment.upstream is not None or segment.downstream else ():
            if cell != op.cell:
                yield with_op("run in another cell", graph, segment, op, replace(op, cell=cell), f"{op.cell} -> {cell}")


def change_weight(graph: Graph) -> Iterator[Mutant]:
    """A gradient is added to that of another weight, or makes that one new."""
    for segment, op in ops_of(graph):
        for weight in segment.weights if isinstance(op.attrs, WeightAttrs) else ():
            name = weight.name.removeprefix("@")
            if name != op.attrs.weight and weight.dims == op.dims:  # type: ignore[attr-defined]
                attrs = op.attrs.but(weight=name)
                yield with_op("of another weight", graph, segment, op, replace(op, attrs=attrs), name)


def change_downstream(graph: Graph) -> Iterator[Mutant]:
    """A layer hands back another value than the gradient of what it was given."""
    for segment in graph.segments:
        dims = segment.dims_of(segment.downstream) if segment.downstream else ()
        for op in segment.ops if segment.downstream else ():
            if op.name != segment.downstream and op.dims == dims:
                changed = with_segment(graph, segment, replace(segment, downstream=op.name))
                yield Mutant("hand back another value", f"{segment.name}: {op.name}", changed)


# -- stages ------------------------------------------------------------------------------------------


def change_sends(graph: Graph) -> Iterator[Mutant]:
    """A stage edge lost, doubled, between other stages, in another order, or of something else."""
    sends = graph.sends

    def mutant(kind: str, what: str, changed: tuple[object, ...]) -> Mutant:
        return Mutant(kind, what, replace(graph, sends=changed))  # type: ignore[arg-type]

    for i, edge in enumerate(sends):
        before, after = sends[:i], sends[i + 1 :]
        yield mutant("lose a stage edge", f"{i}", (*before, *after))
        yield mutant("double a stage edge", f"{i}", (*before, edge, edge, *after))
        for source in range(len(graph.stages)):
            if source != edge.source:
                what = f"{i} from {source}"
                yield mutant("change a stage edge's ends", what, (*before, replace(edge, source=source), *after))
            if source != edge.target:
                what = f"{i} to {source}"
                yield mutant("change a stage edge's ends", what, (*before, replace(edge, target=source), *after))
        for what, layout in _other_layouts(edge.sharding, tuple(a for a, _ in graph.the_mesh.atoms)):
            changed = (*before, replace(edge, sharding=layout), *after)
            yield mutant("send in another layout", f"{i}: {what}", changed)
        others = {
            "value": replace(edge, value="y"),
            "dims": replace(edge, dims=edge.dims[::-1]),
            "dtype": replace(edge, dtype="int64"),
        }
        for what, other in others.items():
            yield mutant("send another value", f"{i}: {what}", (*before, other, *after))
    for i, j in combinations(range(len(sends)), 2):
        changed = list(sends)
        changed[i] = replace(sends[i], source=sends[j].source)
        changed[j] = replace(sends[j], source=sends[i].source)
        yield mutant("swap two stages' inputs", f"{i}, {j}", tuple(changed))


def change_stages(graph: Graph) -> Iterator[Mutant]:
    """Layers of two stages exchanged, a layer more or less, two layers out of order, a GPU in two stages."""
    stages = graph.stages

    def mutant(kind: str, what: str, changed: list[Stage]) -> Mutant:
        return Mutant(kind, what, replace(graph, stages=tuple(changed)))

    for i, stage in enumerate(stages):
        for k, (name, count) in enumerate(stage.layers):
            for new in (count - 1, count + 1):
                layers = (*stage.layers[:k], *(((name, new),) if new else ()), *stage.layers[k + 1 :])
                changed = [*stages[:i], replace(stage, layers=layers), *stages[i + 1 :]]
                yield mutant("a layer too few or too many", f"stage {i}: {name} x {new}", changed)
        for k in range(len(stage.layers) - 1):
            layers = list(stage.layers)
            layers[k], layers[k + 1] = layers[k + 1], layers[k]
            changed = [*stages[:i], replace(stage, layers=tuple(layers)), *stages[i + 1 :]]
            yield mutant("layers out of order", f"stage {i}: {k}", changed)
        yield mutant("a rank without a GPU", f"stage {i}", [
            *stages[:i], replace(stage, gpus=stage.gpus[1:]), *stages[i + 1 :]
        ])  # fmt: skip
    for i, j in combinations(range(len(stages)), 2):
        changed = list(stages)
        changed[i], changed[j] = (
            replace(stages[i], layers=stages[j].layers),
            replace(stages[j], layers=stages[i].layers),
        )
        yield mutant("swap two stages' layers", f"{i}, {j}", changed)
        changed = list(stages)
        changed[j] = replace(stages[j], gpus=(stages[i].gpus[0], *stages[j].gpus[1:]))
        yield mutant("a GPU with two ranks", f"{i}, {j}", changed)


MUTATIONS: tuple[Mutation, ...] = (
    remove_collective,
    swap_kind,
    change_group,
    change_attribute,
    change_partial,
    change_layout,
    change_weight_layout,
    change_weight_placement,
    change_entry_layout,
    change_loops,
    swap_inputs,
    rewire_input,
    change_output,
    change_cell,
    change_weight,
    change_downstream,
    change_sends,
    change_stages,
)
