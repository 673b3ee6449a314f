"""The textual IR: every graph level prints, and reads back equal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ..base.dtypes import DTYPE_BYTES
from ..base.units import show_runs
from .graph import SCOPES, Graph, Loops, Op, Segment, Stage, StageEdge, Weight
from .mesh import GpuMap, Mesh
from .ops.attributes import RECORDS, AttributeFault, Attrs, Value, record, schema, stated
from .sharding import Axes, Sharding


def print_graph(graph: Graph) -> str:
    """The graph as text; `parse_graph` reads it back equal."""
    lines = [f"graph {graph.phase} {graph.kind} {graph.level} microbatches={graph.microbatches} lanes={graph.lanes}"]
    if graph.mesh is not None:
        lines.append(_mesh_line(graph.mesh, placed=any(stage.gpus for stage in graph.stages)))
    for stage in graph.stages:
        layers = ", ".join(f"{name} x {count}" for name, count in stage.layers)
        gpus = f" gpus {show_runs(stage.gpus, separator=',')}" if stage.gpus else ""
        lines.append(f"stage {stage.index} {{ {layers} }}{gpus}")
    for edge in graph.sends:
        layout = _layout(edge.dims, edge.sharding)
        lines.append(f"send {edge.source} -> {edge.target} %{edge.value} : {layout} {edge.dtype}")
    for segment in graph.segments:
        lines += ["", *_segment_lines(segment)]
    return "\n".join(lines) + "\n"


def _mesh_line(mesh: Mesh, placed: bool) -> str:
    """Placed stages have the GPU ids of the mesh."""
    atoms = ", ".join(f"{name}={size}" for name, size in mesh.atoms)
    axes = ", ".join(f"{name}={mesh.degrees.get(name, 1)}:{_axes(atoms)}" for name, atoms in mesh.axes.items())
    extra = ", ".join(f"{n}={d}" for n, d in mesh.degrees.items() if n not in mesh.axes)
    dealt = f" zigzag [{_axes(mesh.zigzag)}]" if mesh.zigzag else ""
    ids = per_node = ""
    if mesh.gpus is not None:
        ids = "" if placed else f" gpus {show_runs(mesh.gpus.ids, separator=',')}"
        per_node = "" if mesh.gpus.per_node == PER_NODE else f" per_node {mesh.gpus.per_node}"
    return f"mesh stages={mesh.stages} atoms [{atoms}] axes [{axes}] degrees [{extra}]{dealt}{ids}{per_node}"


def _segment_lines(segment: Segment) -> list[str]:
    entry = "" if segment.entry is None else f" {_layout(segment.input_dims, segment.entry)}"
    entry = entry or f" [{', '.join(segment.input_dims)}]"
    sizes = ", ".join(f"{d}={_number(v)}" for d, v in segment.sizes.items())
    lines = [f"segment {segment.name} x {segment.repeat} (%{segment.input}:{entry} {segment.input_dtype}) {{"]
    lines.append(f"  sizes [{sizes}]")
    for weight in segment.weights:
        layout = (
            f"[{', '.join(weight.dims)}]" if weight.sharding is None else "=" + _layout(weight.dims, weight.sharding)
        )
        tied = f" tied {weight.tied}" if weight.tied else ""
        lines.append(f"  weight {weight.name} {layout} {weight.dtype} {weight.scope}{tied}")
    lines += [f"  {_op_line(op)}" for op in segment.ops]
    return [*lines, f"  return %{segment.output}", "}"]


def lines_around(segment: Segment, name: str, margin: int = 2) -> tuple[str, ...]:
    """The op's line, marked, and those next to it."""
    at = next(i for i, op in enumerate(segment.ops) if op.name == name)
    shown = enumerate(segment.ops[max(0, at - margin) : at + margin + 1], start=max(0, at - margin))
    return tuple(f"{'>' if i == at else ' '} {_op_line(op)}" for i, op in shown)


def _op_line(op: Op) -> str:
    inputs = ", ".join(n if n.startswith("@") else f"%{n}" for n in op.inputs)
    parts = [f"%{op.name} = {op.kind}({inputs})"]
    if op.axes:
        parts.append(f"over {_axes(op.axes)}")
    layout = f"[{', '.join(op.dims)}]" if op.sharding is None else "=" + _layout(op.dims, op.sharding)
    parts.append(f": {layout} {op.dtype} {op.scope}")
    if op.block:
        parts.append(f"in {op.block}")
    if op.loops:
        parts.append("loops {" + ", ".join(f"{d}/{_axes(a)}" for d, a in op.loops) + "}")
    attrs = stated(op.attrs)
    if attrs:
        parts.append("attrs {" + ", ".join(f"{k}={_attr(v)}" for k, v in attrs) + "}")
    return " ".join(parts)


def _layout(dims: tuple[str, ...], sharding: Sharding) -> str:
    inside = ", ".join(d + (f"/{_axes(a)}" if a else "") for d, a in zip(dims, sharding.dims, strict=True))
    text = f"[{inside}]"
    if sharding.partial:
        text += f" partial({sharding.reduce} {_axes(sharding.partial)})"
    return text


def _axes(axes: Axes) -> str:
    return "+".join(axes) or "-"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _attr(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    value = "+".join(value) if isinstance(value, tuple) else value
    return f'"{value}"' if isinstance(value, str) else repr(value)


class TextError(ValueError):
    """The text is not printed IR. The message names the line."""


class _LineError(TextError):
    """One that names its line."""


PER_NODE = 8
"""GPUs per node, where the mesh does not say it."""
MOST = 10**6
"""GPU ids, and layers of a stage, that are read."""


def parse_graph(text: str) -> Graph:
    """Read what `print_graph` printed. Raises TextError."""
    lines = enumerate(text.splitlines(), start=1)
    graph: Graph | None = None
    mesh: Mesh | None = None
    stages: list[Stage] = []
    sends: list[StageEdge] = []
    segments: list[Segment] = []
    for number, line in lines:
        try:
            if not line.strip():
                continue
            word = line.split(" ", 1)[0]
            if word == "graph":
                m = _match(r"graph (\S+) (\S+) (\S+) microbatches=(\d+) lanes=(\d+)", line)
                graph = Graph(m[1], m[2], m[3], (), int(m[4]), int(m[5]))
            elif word == "mesh":
                mesh = _parse_mesh(line)
            elif word == "stage":
                stages.append(_parse_stage(line))
            elif word == "send":
                sends.append(_parse_send(line))
            elif word == "segment":
                segments.append(_parse_segment(line, lines))
            else:
                raise TextError(f"unknown word {word!r}")
        except _LineError:
            raise
        except (TextError, ValueError) as error:
            raise _LineError(f"line {number}: {error}") from None
    if graph is None:
        raise TextError("line 1: no `graph` line")
    placed = tuple(gpu for stage in stages for gpu in stage.gpus)
    if mesh is not None and placed:
        per_node = mesh.gpus.per_node if mesh.gpus is not None else PER_NODE
        mesh = replace(mesh, gpus=GpuMap(placed, per_node))
    elif mesh is not None and mesh.gpus is not None and not mesh.gpus.ids:
        raise TextError("per_node, but no GPU ids")
    return replace(graph, segments=tuple(segments), mesh=mesh, stages=tuple(stages), sends=tuple(sends), _index={})


def _match(pattern: str, text: str) -> re.Match[str]:
    found = re.fullmatch(pattern, text)
    if found is None:
        raise TextError(f"cannot read {text.strip()!r}")
    return found


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_axes(text: str) -> Axes:
    return () if text == "-" else tuple(text.split("+"))


def _parse_mesh(line: str) -> Mesh:
    m = _match(
        r"mesh stages=(\d+) atoms \[(.*?)\] axes \[(.*?)\] degrees \[(.*?)\](?: zigzag \[(.*?)\])?(?: gpus (\S+))?"
        r"(?: per_node ([1-9]\d*))?",
        line,
    )
    atoms = tuple((n, int(s)) for n, s in (part.split("=") for part in _split(m[2])))
    axes: dict[str, Axes] = {}
    degrees = {n: int(d) for n, d in (part.split("=") for part in _split(m[4]))}
    for part in _split(m[3]):
        name, rest = part.split("=", 1)
        degree, held = rest.split(":", 1)
        axes[name] = _read_axes(held)
        degrees[name] = int(degree)
    ids = _read_ids(m[6] or "")
    gpus = GpuMap(ids, int(m[7] or PER_NODE)) if ids or m[7] else None
    return Mesh(atoms, axes, degrees, int(m[1]), _read_axes(m[5] or "-"), gpus)


def _read_ids(text: str) -> tuple[int, ...]:
    """GPU ids in runs: `0..3,8..11`."""
    gpus: list[int] = []
    for part in _split(text):
        low, _, high = part.partition("..")
        if int(high or low) >= MOST:
            raise TextError(f"GPU {high or low} is beyond {MOST:,}")
        gpus.extend(range(int(low), int(high or low) + 1))
        if len(gpus) > MOST:
            raise TextError(f"more than {MOST:,} GPUs")
    return tuple(gpus)


def _parse_stage(line: str) -> Stage:
    m = _match(r"stage (\d+) \{ (.*?) \}(?: gpus (\S+))?", line)
    layers = tuple((n, int(c)) for n, c in (part.split(" x ") for part in _split(m[2])))
    if sum(count for _, count in layers) > MOST:
        raise TextError(f"a stage of more than {MOST:,} layers")
    return Stage(int(m[1]), layers, _read_ids(m[3] or ""))


def _parse_send(line: str) -> StageEdge:
    m = _match(r"send (\d+) -> (\d+) %(\S+) : (\[.*?\]) (\S+)", line)
    dims, layout = _read_layout(m[4])
    return StageEdge(int(m[1]), int(m[2]), m[3], dims, m[5], layout)


def _parse_segment(line: str, lines: Iterator[tuple[int, str]]) -> Segment:
    m = _match(r"segment (\S+) x (\d+) \(%(\S+): (\[.*?\](?: partial\(.*?\))?) (\S+)\) \{", line)
    dims, entry = _read_layout(m[4])
    sizes: dict[str, float] = {}
    weights: list[Weight] = []
    ops: list[Op] = []
    output = ""
    for number, raw in lines:
        text = raw.strip()
        if text == "}":
            sharded = any(op.sharding is not None for op in ops)
            return Segment(
                m[1],
                int(m[2]),
                m[3],
                dims,
                m[5],
                tuple(ops),
                output,
                tuple(weights),
                sizes,
                entry if sharded else None,
            )
        try:
            if text.startswith("sizes"):
                sizes = {d: float(v) for d, v in (p.split("=") for p in _split(_match(r"sizes \[(.*)\]", text)[1]))}
            elif text.startswith("weight"):
                weights.append(_parse_weight(text))
            elif text.startswith("return"):
                output = _match(r"return %(\S+)", text)[1]
            else:
                ops.append(_parse_op(text))
        except (TextError, ValueError) as error:
            raise _LineError(f"line {number}: {error}") from None
    raise TextError("the segment does not end")


def _parse_weight(text: str) -> Weight:
    m = _match(r"weight (@\S+) (=?)(\[.*?\]) (\S+) (\S+)(?: tied (\S+))?", text)
    dims, layout = _read_layout(m[3])
    if m[4] not in DTYPE_BYTES or m[5] not in SCOPES:
        raise TextError(f"unknown dtype {m[4]}" if m[4] not in DTYPE_BYTES else f"unknown scope {m[5]}")
    return Weight(m[1], dims, m[4], m[5], layout if m[2] else None, m[6] or "")


_OP = re.compile(
    r"%(?P<name>\S+) = (?P<kind>\w+)\((?P<inputs>.*?)\)(?: over (?P<axes>\S+))? : (?P<eq>=?)"
    r"(?P<layout>\[.*?\](?: partial\(.*?\))?) (?P<dtype>\S+) (?P<scope>\S+)(?: in (?P<block>\S+))?"
    r"(?: loops \{(?P<loops>.*?)\})?(?: attrs \{(?P<attrs>.*)\})?"
)


def _parse_op(text: str) -> Op:
    m = _OP.fullmatch(text)
    if m is None:
        raise TextError(f"cannot read {text!r}")
    dims, layout = _read_layout(m["layout"])
    loops: Loops = tuple((d, _read_axes(a)) for d, a in (p.split("/") for p in _split(m["loops"] or "")))
    attrs = _read_attrs(m["kind"], _split(m["attrs"] or ""))
    inputs = tuple(n if n.startswith("@") else n[1:] for n in _split(m["inputs"]))
    axes = _read_axes(m["axes"] or "-")
    sharding = layout if m["eq"] else None
    for word, known, what in ((m["dtype"], DTYPE_BYTES, "dtype"), (m["scope"], SCOPES, "scope")):
        if word not in known:
            raise TextError(f"unknown {what} {word}")
    return Op(
        m["name"], m["kind"], inputs, dims, m["dtype"], m["block"] or "", m["scope"], attrs, loops, axes, sharding
    )


def _read_layout(text: str) -> tuple[tuple[str, ...], Sharding]:
    m = _match(r"\[(.*?)\](?: partial\((\w+) (\S+)\))?", text)
    dims, axes = [], []
    for part in _split(m[1]):
        dim, _, held = part.partition("/")
        dims.append(dim)
        axes.append(_read_axes(held) if held else ())
    partial = _read_axes(m[3]) if m[3] else ()
    return tuple(dims), Sharding(tuple(axes), partial, m[2] or "sum")


OLD_NAMES = {"from": "source_dim", "to": "target_dim", "of": "part"}
"""Attributes by the names that they have in older files."""


AXES_FIELDS = frozenset(
    name for choices in RECORDS.values() for c in choices for name, a in schema(c).items() if a.kind == "axes"
)


def _read_attrs(kind: str, parts: list[str]) -> Attrs:
    """The record of what a line states; of older files too."""
    found: dict[str, Value] = {}
    for part in parts:
        name, _, text = part.partition("=")
        name = OLD_NAMES.get(name, name)
        if name in found:
            raise TextError(f"attribute {name} is given twice")
        found[name] = _read_attr(text)
    if "part" in found or found.get("reduce") == "softmax":  # it reduces as its part is reduced
        found.setdefault("part", "output")
        found.pop("reduce", None)
    for name in AXES_FIELDS & found.keys():
        found[name] = _read_axes(str(found[name]) or "-")
    try:
        return record(kind, found.items())
    except AttributeFault as error:
        raise TextError(str(error)) from None


def _read_attr(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"'):
        return text[1:-1]
    return float(text) if any(c in text for c in ".einf") else int(text)
