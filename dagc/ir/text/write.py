"""Graphs as text that reads back equal: nothing that the same page says already (`implied`), at most 120 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from ...base.axes import STAGES
from ...base.frozen import record, replace
from ...base.units import show_runs
from ..graph import Graph, Stage, StageEdge
from ..mesh import Mesh
from ..op import FORWARD, Op, Taken, Value, Weight
from ..segment import Segment
from ..sharding import Axes, Sharding
from . import attr_words, implied
from .implied import AxisNames

COLUMNS = 120
DEEPER = "    "
"""What a line that continues the one before begins with, beyond its indentation."""


def print_graph(graph: Graph, *, types: bool = False) -> str:
    """The graph as text; `types`: with the types of operands, too."""
    return _text(graph, Form.of(graph, types))


def lines_around(graph: Graph, segment: Segment, name: str, margin: int = 2, *, types: bool = False) -> tuple[str, ...]:
    """The op's line, marked, and those next to it; `types`: with the types of operands, too."""
    form = Form.of(graph, types)
    at = next(i for i, op in enumerate(segment.ops) if op.name == name)
    shown = enumerate(segment.ops[max(0, at - margin) : at + margin + 1], start=max(0, at - margin))
    return tuple(f"{'>' if i == at else ' '} {form.op(segment, op)}" for i, op in shown)


def _text(graph: Graph, form: Form) -> str:
    lines = [form.head(graph)]
    if graph.mesh is not None:
        lines.append(form.mesh(graph.mesh, placed=any(stage.gpus for stage in graph.stages)))
    lines += [form.stage(stage) for stage in graph.stages]
    lines += [line for edge in graph.sends for line in form.send(edge)]
    lines += form.sizes(form.common)
    for segment in graph.segments:
        lines += ["", form.segment(segment)]
        own = {d: size for d, size in segment.sizes.items() if d not in form.common}
        lines += [f"  {line}" for line in form.sizes(own)]
        lines += [f"  {form.taken(one)}" for one in segment.taken]
        lines += [f"  {form.got(name, value)}" for name, value in segment.gets]
        alike = groupby(segment.weights, lambda weight: replace(weight, name=""))
        lines += [f"  {form.weights(tuple(group))}" for _, group in alike]
        before = FORWARD
        for cell, ops in groupby(segment.ops, lambda op: op.cell):
            lines += [f"  cell {cell or implied.FORWARD}"] if cell != before else []
            lines += [f"  {form.op(segment, op)}" for op in ops]
            before = cell
        lines += [f"  hands {name} = %{value}" for name, value in segment.handed]
        lines += [f"  gives {name} = %{value}" for name, value in segment.gives]
        lines += [f"  return {_returned(segment)}", "}"]
    return "\n".join(part for line in lines for part in form.wrapped(line)) + "\n"


@record
class Form:
    """Lines for people. `dtype` and the `common` sizes are those of the whole graph, said once."""

    names: AxisNames
    level: str
    dtype: str
    common: Mapping[str, float]
    types: bool = False

    @classmethod
    def of(cls, graph: Graph, types: bool = False) -> Form:
        return cls(AxisNames(graph.mesh), graph.level, _usual_dtype(graph), _common_sizes(graph), types)

    def head(self, graph: Graph) -> str:
        counts = (("microbatches", graph.microbatches), ("lanes", graph.lanes))
        more = "".join(f", {name}={count}" for name, count in counts if count != 1)
        return f"graph {graph.phase} ({graph.kind}, {graph.level}, {self.dtype}{more})"

    def sizes(self, sizes: Mapping[str, float]) -> list[str]:
        return [_sizes(sizes)] if sizes else []

    def mesh(self, mesh: Mesh, placed: bool) -> str:
        """Every axis with its degree, and its atoms unless it is one; what follows from these is left out, and the GPUs
        where stages have them."""
        axes = []
        for name, atoms in mesh.axes.items():
            degree = mesh.degrees.get(name, 1)
            alone: Axes = () if degree == 1 else (name,)
            axes.append(f"{name}={degree}" + ("" if atoms == alone else f":{_joined(atoms)}"))
        text = f"mesh [{', '.join(axes)}]"
        if mesh.atoms != tuple((n, mesh.degrees.get(n, 1)) for n, a in mesh.axes.items() if a == (n,)):
            text += f" atoms [{', '.join(f'{name}={size}' for name, size in mesh.atoms)}]"
        if mesh.stages != 1:
            text += f" stages={mesh.stages}"
        others = {name: degree for name, degree in mesh.degrees.items() if name not in mesh.axes}
        if others != {STAGES: mesh.stages}:
            text += f" degrees [{', '.join(f'{name}={degree}' for name, degree in others.items())}]"
        text += f" zigzag [{self.names.show(mesh.zigzag)}]" if mesh.zigzag else ""
        if mesh.gpus is None:
            return text
        text += "" if mesh.gpus.per_node == implied.PER_NODE else f" per_node={mesh.gpus.per_node}"
        text += f" domains [{', '.join(map(str, mesh.gpus.beyond))}]" if mesh.gpus.beyond else ""
        text += "" if mesh.gpus.nics is None else f" nics={mesh.gpus.nics[0]}/{mesh.gpus.nics[1]}"
        text += "" if placed else f" gpus {show_runs(mesh.gpus.ids)}"
        if mesh.apart is not None:
            own = mesh.apart.gpus
            text += f" experts [{', '.join(mesh.apart.atoms)}] on {show_runs(own.ids)}"
            text += f" linked [{', '.join(map(str, (own.per_node, *own.beyond)))}]" if mesh.apart.linked else ""
            text += f" ports={own.nics[0]}/{own.nics[1]}" if mesh.apart.linked and own.nics is not None else ""
        return text

    def stage(self, stage: Stage) -> str:
        layers = ", ".join(name if count == 1 else f"{name} x {count}" for name, count in stage.layers)
        return f"stage {stage.index} {{ {layers} }}" + (f" gpus {show_runs(stage.gpus)}" if stage.gpus else "")

    def send(self, edge: StageEdge) -> list[str]:
        """A line for the residual stream, and one for each value beside it."""
        start = f"send {edge.source} -> {edge.target}"
        own = f"{start} %{edge.value} : {self.type(edge.dims, edge.sharding, edge.dtype)}"
        return [own, *(f"{start} {self.made(one)}" for one in edge.beside)]

    def segment(self, segment: Segment) -> str:
        count = "" if segment.repeat == 1 else f" x {segment.repeat}"
        taken = f"%{segment.input}: {self.type(segment.input_dims, segment.entry, segment.input_dtype)}"
        if segment.upstream is not None:
            of = segment.upstream
            taken += f", %{of.name}: {self.type(of.dims, of.sharding, of.dtype)}"
        return f"segment {segment.name}{count} ({taken}) {{"

    def taken(self, one: Taken) -> str:
        """A value that an earlier layer handed on."""
        return f"takes {self.made(one)}"

    def got(self, name: str, value: Value) -> str:
        """A gradient that layers behind hand back."""
        return f"gets %{value.name} = {name} : {self.type(value.dims, value.sharding, value.dtype)}"

    def made(self, one: Taken) -> str:
        scope = "" if one.scope == "dense" else f" {one.scope}"
        return f"%{one.name} = {one.kind} : {self.type(one.dims, one.sharding, one.dtype, one.scope)}{scope}"

    def weights(self, alike: Sequence[Weight]) -> str:
        """Neighbours that differ in their names alone are on one line."""
        weight = alike[0]
        parts = [
            f"{', '.join(w.name for w in alike)} : {self.type(weight.dims, weight.sharding, weight.dtype, weight.scope)}"
        ]
        parts += [weight.scope] if weight.scope != "dense" else []
        parts += [f"tied {weight.tied}"] if weight.tied else []
        parts += [f"placed {weight.placed}"] if weight.placed else []
        return " ".join(parts)

    def op(self, segment: Segment, op: Op) -> str:
        given = ", ".join((*(_value(n) for n in op.inputs), *attr_words.shown(op.attrs, self.names, op.scope)))
        parts = [f"{_names(op)} = {op.kind}({given})"]
        if op.axes:
            parts.append(f"over {self.names.show(op.axes, op.scope)}")
        parts.append(":")
        if self.types and all(_known(segment, name) for name in op.inputs):
            operands = ", ".join(self.type_of(segment, name) for name in op.inputs)
            parts.append(f"({operands}) ->")
        shown, loops = self.loops(segment, op)
        more = (self.type(v.dims, v.sharding, v.dtype, op.scope) for v in op.more)
        parts.append(", ".join((shown + self.of_dtype(op.dtype), *more)))
        parts += [op.scope] if op.scope != implied.scope(op.dims) else []
        parts += [f"in {op.block or '-'}"] if op.block != implied.block(op.name, segment.input) else []
        parts += [f"kernel {op.kernel}"] if op.kernel else []
        return " ".join(parts) + loops

    def loops(self, segment: Segment, op: Op) -> tuple[str, str]:
        """The layout of the result, and the loops that it does not imply."""
        if op.sharding is None and self.level not in implied.SHARDED:
            split = tuple(op.loop(d) for d in op.dims)
            said = tuple((d, a) for d, a in zip(op.dims, split, strict=True) if a)
            shown = self.dims(op.dims, split, op.scope) + (f" on {op.on}" if op.on else "")
        else:
            operands = [(segment.dims_of(n), segment.sharding_of(n)) for n in op.inputs if _known(segment, n)]
            said = implied.loops(op, operands)
            shown = self.layout(op.dims, op.sharding, op.scope)
        other = implied.differing(op, said)
        if other is None:
            return shown, f" all loops {{{self.pairs(op.loops, op.scope)}}}"
        return shown, f" loops {{{self.pairs(other, op.scope)}}}" if other else ""

    def pairs(self, loops: tuple[tuple[str, Axes], ...], scope: str) -> str:
        return ", ".join(f"{d}/{self.axes(d, a, scope)}" for d, a in loops)

    def axes(self, dim: str, axes: Axes, scope: str) -> str:
        return self.names.show(axes, implied.scope_of_dim(dim, scope))

    def type_of(self, segment: Segment, name: str) -> str:
        scope = segment.scope_of(name)
        return self.type(segment.dims_of(name), segment.sharding_of(name), segment.dtype_of(name), scope)

    def type(self, dims: tuple[str, ...], layout: Sharding | None, dtype: str, scope: str = "dense") -> str:
        return self.layout(dims, layout, scope) + self.of_dtype(dtype)

    def of_dtype(self, dtype: str) -> str:
        return "" if dtype == self.dtype else f" {dtype}"

    def layout(self, dims: tuple[str, ...], layout: Sharding | None, scope: str = "dense") -> str:
        """A mark says when there is a layout before the level has them (`=`), or none where it has (`?`)."""
        sharded = self.level in implied.SHARDED
        if layout is None:
            return ("?" if sharded else "") + self.dims(dims, ((),) * len(dims), scope)
        text = ("" if sharded else "=") + self.dims(dims, layout.dims, scope)
        text += f" on {layout.on}" if layout.on else ""
        if layout.partial:
            text += f" partial({layout.reduce} {self.names.show(layout.partial, scope)})"
        return text

    def dims(self, dims: tuple[str, ...], split: tuple[Axes, ...], scope: str) -> str:
        pairs = zip(dims, split, strict=True)
        return "[" + ", ".join(f"{d}/{self.axes(d, a, scope)}" if a else d for d, a in pairs) + "]"

    def wrapped(self, line: str) -> list[str]:
        """The line in pieces of at most 120 columns; a deeper indentation continues a line."""
        out: list[str] = []
        start = (len(line) - len(line.lstrip())) * " " + DEEPER
        while len(line) > COLUMNS:
            cut = _cut(line, len(start))
            if cut < 0:
                break
            out.append(line[:cut])
            line = start + line[cut + 1 :]
        return [*out, line]


def _cut(line: str, start: int) -> int:
    """The space at which to cut a line: before its types, else between items outside of brackets, else outside of brackets, else
    the last one; -1: there is none."""
    spaces, depth = list[tuple[int, int]](), 0
    for at, char in enumerate(line[: COLUMNS + 1]):
        depth += (char in "([{") - (char in ")]}")
        if char == " " and at >= start and line[at - 1] not in ":=":
            spaces.append((at, depth))
    if not spaces:
        return line.find(" ", COLUMNS)
    outside = [at for at, depth in spaces if depth == 0 and at > COLUMNS // 3]
    before_type = next((at for at in outside if line.startswith(" : ", at)), None)
    behind_comma = [at for at in outside if line[at - 1] == ","]
    return before_type or (behind_comma or outside or [at for at, _ in spaces])[-1]


def _usual_dtype(graph: Graph) -> str:
    """The dtype of most values and weights."""
    counts = Counter(
        dtype
        for segment in graph.segments
        for dtype in (segment.input_dtype, *(w.dtype for w in segment.weights), *(op.dtype for op in segment.ops))
    )
    return counts.most_common(1)[0][0] if counts else "bf16"


def _common_sizes(graph: Graph) -> dict[str, float]:
    """The sizes that all segments have, where there are several."""
    if len(graph.segments) < 2:
        return {}
    first, *others = (segment.sizes for segment in graph.segments)
    return {dim: size for dim, size in first.items() if all(other.get(dim) == size for other in others)}


def _sizes(sizes: Mapping[str, float]) -> str:
    return f"sizes [{', '.join(f'{dim}={_number(size)}' for dim, size in sizes.items())}]"


def _known(segment: Segment, name: str) -> bool:
    return name in segment.weight if name.startswith("@") else segment.is_given(name) or name in segment.by_name


def _returned(segment: Segment) -> str:
    """The output, and the gradient that is handed back."""
    return f"%{segment.output}" + (f", %{segment.downstream}" if segment.downstream else "")


def _names(op: Op) -> str:
    return ", ".join(f"%{value.name}" for value in op.results)


def _value(name: str) -> str:
    return name if name.startswith("@") else f"%{name}"


def _joined(axes: Axes) -> str:
    return "+".join(axes) or "-"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
