"""Text back to graphs.

    graph PHASE (KIND, LEVEL, DTYPE, microbatches=N, lanes=N)
    mesh [axis=DEGREE:ATOMS, ...] atoms [atom=SIZE, ...] stages=N degrees [pp=N] zigzag [AXES] per_node=N domains [N, ...] nics=N/N gpus 0..7, 9
    stage I { SEGMENT x COUNT, ... } gpus 0..7, 9
    send I -> J %x : TYPE
    send I -> J %name = KIND : TYPE
    sizes [dim=SIZE, ...]
    segment NAME x COUNT (%x: TYPE, %y.grad: TYPE) {
      sizes [dim=SIZE, ...]
      @w, ... : TYPE SCOPE tied @other placed WAY
      %y, ... = KIND(%x, @w, attribute=VALUE) over AXES : (TYPE, ...) -> TYPE, ... SCOPE in BLOCK loops {dim/AXES, ...}
      cell CELL
      return %y, %x.grad
    }

TYPE is `[dim/AXES, ...] partial(sum AXES) DTYPE`, AXES are names joined by `+`. Most of it may be left out (see `implied`). A
line indented by four columns or more continues the one before; `#` begins a comment line.

Files written before have every field of every op written out, one op per line (`older`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...base.dtypes import DTYPE_BYTES
from ...base.frozen import field, mutable, replace
from ...base.phase_kinds import PHASE_KINDS
from ...base.schema.phase import PLACINGS
from ..graph import Graph, Stage, StageEdge
from ..mesh import GpuMap
from ..op import CELLS, FORWARD, Loops, Op, Taken, Value, Weight, is_scope
from ..ops.op_set import OPS
from ..requests import IDS
from ..segment import Segment
from ..sharding import AT_EXPERTS, Axes, Sharding
from . import attr_words, implied, older
from .implied import AxisNames
from .mesh_line import MOST, a_mesh, gpu_ids, older_mesh
from .scan import Cursor, TextError, lines_of


class Type(NamedTuple):
    """Of a value: `layout` is what the brackets say, `mark` what precedes them."""

    dims: tuple[str, ...]
    layout: Sharding
    dtype: str
    mark: str


def parse_graph(text: str) -> Graph:
    """Read what `print_graph` printed, today or for older files. Raises TextError."""
    lines = lines_of(text)
    reader = Reader(lines)
    for number, line in lines:
        reader.number = number
        try:
            reader.statement(Cursor(line))
        except (TextError, ValueError) as error:
            raise TextError(f"line {reader.number}: {error}") from None
    if not reader.begun:
        raise TextError("line 1: no `graph` line")
    return reader.done()


@mutable
class Reader:
    """The graph as far as it is read."""

    lines: Iterator[tuple[int, str]]
    number: int = 0
    begun: bool = False
    older: bool = False
    dtype: str = ""
    common: dict[str, float] = field(default_factory=dict)
    graph: Graph = field(default_factory=lambda: Graph("", "", "", ()))
    names: AxisNames = field(default_factory=lambda: AxisNames(None))

    @property
    def sharded(self) -> bool:
        return self.graph.level in implied.SHARDED

    def statement(self, at: Cursor) -> None:
        graph = self.graph
        if at.takes("graph"):
            self.head(at)
        elif at.takes("mesh"):
            mesh = (older_mesh if self.older else a_mesh)(at)
            self.names = AxisNames(None if self.older else mesh)
            self.graph = replace(graph, mesh=mesh)
        elif at.takes("sizes"):
            self.common = dict(at.list("[", lambda: size(at), "]"))
        elif at.takes("stage"):
            self.graph = replace(graph, stages=(*graph.stages, stage(at)))
        elif at.takes("send"):
            self.graph = replace(graph, sends=self.send(at, graph.sends))
        elif at.takes("segment"):
            self.graph = replace(graph, segments=(*graph.segments, self.segment(at)))
        else:
            raise TextError(f"unknown word {at.rest().split(' ')[0]!r}")

    def done(self) -> Graph:
        """The graph; the GPUs of placed stages are those of the mesh."""
        mesh = self.graph.mesh
        placed = tuple(gpu for stage in self.graph.stages for gpu in stage.gpus)
        if mesh is not None and placed:
            before = mesh.gpus or GpuMap((), implied.PER_NODE)
            mesh = replace(mesh, gpus=replace(before, ids=placed))
        elif mesh is not None and mesh.gpus is not None and not mesh.gpus.ids:
            raise TextError("per_node, but no GPU ids")
        return replace(self.graph, mesh=mesh)

    def head(self, at: Cursor) -> None:
        phase = at.name()
        self.older = not at.takes("(")
        counts = {"microbatches": 1, "lanes": 1}
        kind = at.name()
        if kind not in PHASE_KINDS:
            raise TextError(f"unknown kind of phase {kind}")
        if not self.older:
            at.mark(",")
        level = at.name()
        if not self.older:
            at.mark(",")
            self.dtype = a_dtype(at)
        while at.rest() and not at.takes(")"):
            if not self.older:
                at.mark(",")
            name = at.name()
            if name not in counts:
                raise TextError(f"unknown word {name!r}")
            at.mark("=")
            counts[name] = at.count()
        at.end()
        self.begun = True
        self.graph = Graph(phase, kind, level, (), counts["microbatches"], counts["lanes"])

    def send(self, at: Cursor, before: tuple[StageEdge, ...]) -> tuple[StageEdge, ...]:
        """The edges with that of the line, or with what it sends beside the residual stream of the last one."""
        source = at.count()
        at.mark("->")
        target = at.count()
        value = at.value()
        if at.takes("="):
            one = self.made(value, at)
            at.end()
            if not before or (before[-1].source, before[-1].target) != (source, target):
                raise TextError(f"sends %{value} beside nothing")
            return (*before[:-1], replace(before[-1], beside=(*before[-1].beside, one)))
        at.mark(":")
        of = self.type(at)
        at.end()
        return (*before, StageEdge(source, target, value, of.dims, of.dtype, of.layout))

    def made(self, name: str, at: Cursor) -> Taken:
        """What follows the name of a value that a layer hands on."""
        kind = at.name()
        if kind not in OPS and kind != IDS:
            raise TextError(f"unknown op {kind}")
        at.mark(":")
        of = self.type(at)
        if of.dtype not in DTYPE_BYTES:
            raise TextError(f"unknown dtype {of.dtype}")
        return Taken(name, of.dims, of.dtype, kind, a_scope(at) if at.rest() else "dense", self.layout(of))

    def segment(self, at: Cursor) -> Segment:
        name = at.name()
        repeat = at.count() if at.takes("x") else 1
        at.mark("(")
        taken = at.value()
        at.mark(":")
        of = self.type(at)
        upstream = self.upstream(at) if at.takes(",") else None
        at.mark(")")
        at.mark("{")
        at.end()
        entry = of.layout if of.mark == "=" or (self.sharded and of.mark != "?") else None
        known = {taken: (of.dims, entry, of.dtype)}
        if upstream is not None:
            known[upstream.name] = upstream.dims, upstream.sharding, upstream.dtype
        body = Body(self, taken, known, dict(self.common))
        for number, line in self.lines:
            self.number = number
            if line == "}":
                sharded = any(op.sharding is not None for op in body.ops)
                return Segment(
                    name, repeat, taken, of.dims, of.dtype, tuple(body.ops), body.output, tuple(body.weights),
                    body.sizes, entry if sharded or not self.older else None, upstream, body.downstream,
                    tuple(body.taken_values), tuple(body.handed), tuple(body.gets), tuple(body.gives),
                )  # fmt: skip
            body.statement(Cursor(line))
        raise TextError("the segment does not end")

    def upstream(self, at: Cursor) -> Value:
        """The gradient that the layer behind hands back."""
        name = at.value()
        at.mark(":")
        return self.value(name, self.type(at))

    def value(self, name: str, of: Type) -> Value:
        if of.dtype not in DTYPE_BYTES:
            raise TextError(f"unknown dtype {of.dtype}")
        return Value(name, of.dims, of.dtype, self.layout(of))

    def axes(self, at: Cursor) -> Axes:
        return self.names.atoms(at.axes())

    def type(self, at: Cursor) -> Type:
        mark = next((mark for mark in "=?" if at.takes(mark)), "")
        pairs = at.list("[", lambda: (at.name(), self.axes(at) if at.takes("/") else ()), "]")
        partial: Axes = ()
        reduce = "sum"
        on = at.name() if at.takes("on") else ""
        if at.takes("partial"):
            at.mark("(")
            reduce, partial = at.name(), self.axes(at)
            at.mark(")")
        if on not in ("", AT_EXPERTS):
            raise TextError(f"no ranks are called {on}")
        layout = Sharding(tuple(axes for _, axes in pairs), partial, reduce, on)
        of_dtype = self.dtype if not self.older and at.ends_type() else at.name()
        return Type(tuple(dim for dim, _ in pairs), layout, of_dtype, mark)

    def layout(self, of: Type) -> Sharding | None:
        """The layout that a type states at this level."""
        placed = of.mark == "=" if self.older or not self.sharded else of.mark != "?"
        return of.layout if placed else None


Known = tuple[tuple[str, ...], Sharding | None, str]
"""Dims, layout and dtype of a value."""


@mutable
class Body:
    """A segment as far as it is read. `taken`: its input; `known`: its values and weights."""

    reader: Reader
    taken: str
    known: dict[str, Known]
    sizes: dict[str, float] = field(default_factory=dict)
    weights: list[Weight] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    made: dict[str, Op] = field(default_factory=dict)
    output: str = ""
    downstream: str = ""
    cell: str = FORWARD
    taken_values: list[Taken] = field(default_factory=list)
    handed: list[tuple[str, str]] = field(default_factory=list)
    gets: list[tuple[str, Value]] = field(default_factory=list)
    gives: list[tuple[str, str]] = field(default_factory=list)

    def statement(self, at: Cursor) -> None:
        if at.takes("sizes"):
            self.sizes |= dict(at.list("[", lambda: size(at), "]"))
        elif at.takes("weight") or at.rest().startswith("@"):
            self.weights += self.alike(at)
        elif at.takes("takes"):
            self.taken_values.append(self.takes(at))
        elif at.takes("gets"):
            self.gets.append(self.got(at))
        elif (hands := at.takes("hands")) or at.takes("gives"):
            name = at.name()
            at.mark("=")
            (self.handed if hands else self.gives).append((name, at.value()))
        elif at.takes("cell"):
            self.cell = a_cell(at)
        elif at.takes("return"):
            self.output = at.value()
            self.downstream = at.value() if at.takes(",") else ""
        else:
            self.ops.append(self.op(at))
        at.end()

    def got(self, at: Cursor) -> tuple[str, Value]:
        """A gradient that layers behind hand back, and the name of what it is of."""
        own = at.value()
        at.mark("=")
        name = at.name()
        at.mark(":")
        value = self.reader.value(own, self.reader.type(at))
        self.known[own] = value.dims, value.sharding, value.dtype
        return name, value

    def takes(self, at: Cursor) -> Taken:
        """A value that an earlier layer handed on."""
        name = at.value()
        at.mark("=")
        found = self.reader.made(name, at)
        self.known[name] = found.dims, found.sharding, found.dtype
        return found

    def alike(self, at: Cursor) -> list[Weight]:
        """The weights of a line."""
        names = [at.value()]
        while at.takes(","):
            names.append(at.value())
        at.takes(":")
        of = self.reader.type(at)
        if of.dtype not in DTYPE_BYTES:
            raise TextError(f"unknown dtype {of.dtype}")
        scope, tied, placed = "dense", "", ""
        while at.rest():
            if at.takes("tied"):
                tied = at.value()
            elif at.takes("placed"):
                placed = at.name()
                if placed not in PLACINGS:
                    raise TextError(f"experts are placed {', '.join(PLACINGS)}, not {placed}")
            else:
                scope = a_scope(at)
        layout = self.reader.layout(of)
        self.known |= dict.fromkeys(names, (of.dims, layout, of.dtype))
        return [Weight(name, of.dims, of.dtype, scope, layout, tied, placed) for name in names]

    def op(self, at: Cursor) -> Op:
        name = at.value()
        others: list[str] = []
        while at.takes(","):
            others.append(at.value())
        at.mark("=")
        kind = at.name()
        inputs, attrs = operands(at)
        over = self.reader.axes(at) if at.takes("over") else ()
        at.mark(":")
        if at.takes("("):
            at.at -= 1
            self.check(inputs, at.list("(", lambda: self.reader.type(at), ")"))
            at.mark("->")
        of = self.reader.type(at)
        more = []
        for further in others:
            at.mark(",")
            more.append(self.reader.value(further, self.reader.type(at)))
        scope = implied.scope(of.dims)
        block = "" if self.reader.older else implied.block(name, self.taken)
        order: Loops | None = None
        other: Loops = ()
        kernel = ""
        while at.rest():
            if at.takes("in"):
                block = "" if at.takes("-") else at.name()
            elif at.takes("kernel"):
                kernel = at.name()
            elif at.takes("all"):
                at.mark("loops")
                order = self.loops(at)
            elif at.takes("loops"):
                other = self.loops(at)
            elif at.takes("attrs"):
                attrs = at.list("{", lambda: attr_words.pair(at), "}")
            else:
                scope = a_scope(at)
        if of.dtype not in DTYPE_BYTES:
            raise TextError(f"unknown dtype {of.dtype}")
        layout = self.reader.layout(of)
        values = attr_words.values(attrs, self.reader.names)
        if self.reader.older:
            kind, values = older.renamed(kind, values)
        given = attr_words.attributes(kind, values)
        op = Op(
            name, kind, inputs, of.dims, of.dtype, block, scope, given, (), over, layout, tuple(more), of.layout.on, self.cell, kernel,
        )  # fmt: skip
        if order is None:
            order = other if self.reader.older else implied.corrected(self.said(op, of), other)
        op = replace(op, loops=order)
        op = older.completed(op, self.made) if self.reader.older else op
        self.made[op.name] = op
        for value in op.results:
            self.known[value.name] = (value.dims, value.sharding, value.dtype)
        return op

    def loops(self, at: Cursor) -> Loops:
        def loop() -> tuple[str, Axes]:
            dim = at.name()
            at.mark("/")
            return dim, self.reader.axes(at)

        return tuple(at.list("{", loop, "}"))

    def said(self, op: Op, of: Type) -> Loops:
        """What the rest of the line says of its loops."""
        if op.sharding is None and not self.reader.sharded:
            return tuple(zip(of.dims, of.layout.dims, strict=True))
        return implied.loops(op, [self.known[name][:2] for name in op.inputs if name in self.known])

    def check(self, inputs: tuple[str, ...], types: list[Type]) -> None:
        """The types of operands are those of the values."""
        if len(types) != len(inputs):
            raise TextError(f"{len(types)} types of {len(inputs)} operands")
        for i, (name, of) in enumerate(zip(inputs, types, strict=True), start=1):
            if name not in self.known:
                raise TextError(f"operand {i} ({name}) is not defined before")
            if (of.dims, self.reader.layout(of), of.dtype) != self.known[name]:
                raise TextError(f"operand {i} ({name}) has another type where it is defined")


def stage(at: Cursor) -> Stage:
    index = at.count()
    layers = at.list("{", lambda: (at.name(), at.count() if at.takes("x") else 1), "}")
    gpus = gpu_ids(at) if at.takes("gpus") else ()
    at.end()
    if sum(count for _, count in layers) > MOST:
        raise TextError(f"a stage of more than {MOST:,} layers")
    return Stage(index, tuple(layers), gpus)


def size(at: Cursor) -> tuple[str, float]:
    name = at.until("=,]")
    at.mark("=")
    return name, float(at.until(",]"))


def a_dtype(at: Cursor) -> str:
    word = at.name()
    if word not in DTYPE_BYTES:
        raise TextError(f"unknown dtype {word}")
    return word


def a_cell(at: Cursor) -> str:
    word, known = at.name(), {cell or implied.FORWARD: cell for cell in CELLS}
    if word not in known:
        raise TextError(f"unknown cell {word}: one of {', '.join(known)}")
    return known[word]


def a_scope(at: Cursor) -> str:
    word = at.name()
    if not is_scope(word):
        raise TextError(f"unknown scope {word}")
    return word


def operands(at: Cursor) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Values first, then attributes."""
    inputs: list[str] = []
    attrs: list[tuple[str, str]] = []

    def one() -> None:
        if at.rest()[:1] in ("%", "@"):
            inputs.append(at.value())
        else:
            attrs.append(attr_words.pair(at))

    at.list("(", one, ")")
    return tuple(inputs), attrs
