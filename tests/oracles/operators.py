"""Single operators on sharded operands: dagc's cheapest annotation of their loops against XLA's collectives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from dagc.base.dtypes import DTYPE_BYTES
from dagc.ir.chains import Chains
from dagc.ir.mesh import Mesh, refine
from dagc.ir.op import Op
from dagc.ir.ops.op_set import attrs_of, whole_dims
from dagc.ir.ops.sizes import local_count, loop_dims
from dagc.ir.segment import Segment
from dagc.ir.sharding import Axes, Sharding
from dagc.passes.norms import split_norms
from dagc.passes.reshard import Resharder

from . import reshards
from .case import Collective, collective, group_of_zero
from .layout import NotExpressible
from .records import DATA, axes_of
from .reshards import WirePrices

AXIS_SIZE = 4
"""Devices along every mesh axis of the table."""

RESULT_DTYPE = {"route": "int64", "argmax": "int64"}
"""As the expander types them: eight bytes are an index and a value of four."""
GIVEN: Mapping[str, tuple[tuple[str, float], ...]] = {"route": (("top_k", 8.0),), "scale": (("factor", 2.0),)}
"""Attributes of kinds that must have them; `k` is 8."""

MISSING = {
    "sort": "blocks have no sort: tokens are ordered by expert inside `dispatch`",
    "cumsum": "blocks have no scan",
    "scatter": "blocks have no scatter: `combine` is the one form of it",
    "reshape": "dimensions have names and are never merged or cut",
    "split": "dimensions have names and are never cut: q, k and v are weights of their own",
    "concat": "dimensions have names and are never joined",
    "roll|shift": "blocks have no shift along a dimension",
    "softmax": "softmax stands inside `attend` and `route` only",
    "conv": "blocks have no convolution",
}
"""What the language has no word for, by what the operator's name says."""


@dataclass(frozen=True, slots=True)
class Row:
    """An operator by its description; its operands, each (shape, dtype, axes by dimension); the result's axes."""

    op: str
    inputs: tuple[tuple[tuple[int, ...], str, tuple[Axes, ...]], ...]
    output: tuple[Axes, ...]
    collectives: tuple[Collective, ...]


@dataclass(frozen=True, slots=True)
class Sketch:
    """A small program: dimensions of each operand, then (kind, operands, result dimensions) of each op."""

    operands: tuple[str, ...]
    ops: tuple[tuple[str, tuple[str, ...], str], ...]


def sketch_of(row: Row) -> Sketch:
    """The program that an operator's description names; one letter a dimension, operands a, b, ..., results v0, v1..."""
    text = row.op.lower()
    for words, reason in MISSING.items():
        if re.search(words, text):
            raise NotExpressible(reason)
    if text.startswith(("rms_norm", "layer_norm")):
        return Sketch(("mn",), ((text.split()[0], ("a",), "mn"),))
    if text.startswith("top_k"):
        return Sketch(("mn",), (("route", ("a",), "mk"),))
    if text.startswith("argmax"):
        return Sketch(("mn",), (("argmax", ("a",), "m"),))
    if text.startswith(("gather", "lookup", "embedding")):
        return Sketch(("vn", "m"), (("lookup", ("b", "a"), "mn"),))
    if text.startswith("reshard"):
        return Sketch(("mn",), ())
    if einsum := re.search(r"(\w+),(\w+)->(\w+)", text):
        left, right, out = einsum.groups()
        ops: tuple[tuple[str, tuple[str, ...], str], ...] = (("contract", ("a", "b"), out),)
        if "combine" in text:
            return Sketch((left, right, "gsec"), (*ops, ("contract", ("v0", "c"), "gsm")))
        return Sketch((left, right), ops)
    if text.startswith("two matmuls"):
        both = (("contract", ("a", "b"), "mn"), ("contract", ("c", "d"), "mn"))
        return Sketch(("mk", "kn", "mj", "jn"), (*both, ("add", ("v0", "v1"), "mn")))
    if "residual" in text:
        return Sketch(("mk", "kn", "mn"), (("contract", ("a", "b"), "mn"), ("add", ("v0", "c"), "mn")))
    if "then matmul" in text:
        scaled = (("contract", ("a", "b"), "mn"), ("scale", ("v0",), "mn"))
        return Sketch(("mk", "kn", "no"), (*scaled, ("contract", ("v1", "c"), "mo")))
    if text.startswith("matmul"):
        return Sketch(("mk", "kn"), (("contract", ("a", "b"), "mn"),))
    raise NotExpressible("no block function of that name")


def measure(row: Row) -> list[Collective]:
    """The cheapest over every way to split the loops of the program's ops."""
    sketch = sketch_of(row)
    segment = segment_of(row, sketch)
    mesh = refine([[(a, AXIS_SIZE) for a in axes_in(row)]], {})
    found = [run(row, sketch, segment, mesh, ops) for ops in splits(segment, sketch, mesh)]
    return min(found, key=lambda cs: (sum(c.wire_B for c in cs), len(cs)))


def axes_in(row: Row) -> Axes:
    layouts = [*(layout for _, _, layout in row.inputs), row.output]
    return tuple(sorted({a for layout in layouts for axes in layout for a in axes}))


def segment_of(row: Row, sketch: Sketch) -> Segment:
    """Operands are ops without inputs, so that the pass may move any of them."""
    names = [chr(ord("a") + i) for i in range(len(sketch.operands))]
    sizes: dict[str, float] = {"k": 8.0}
    for dims, (shape, _, _) in zip(sketch.operands, row.inputs, strict=True):
        sizes |= dict(zip(dims, map(float, shape), strict=True))
    dtypes = [{"float32": "fp32"}.get(dtype, dtype) for _, dtype, _ in row.inputs]
    operands = [Op(n, "operand", (), tuple(d), t) for n, d, t in zip(names, sketch.operands, dtypes, strict=True)]
    ops = [
        Op(
            f"v{i}",
            kind,
            inputs,
            tuple(dims),
            RESULT_DTYPE.get(kind, "fp32"),
            attrs=attrs_of(kind, GIVEN.get(kind, ())),
        )
        for i, (kind, inputs, dims) in enumerate(sketch.ops)
    ]
    every = (*operands, *ops)
    return Segment("row", 1, "", (), "fp32", every, every[-1].name, (), sizes)


def splits(segment: Segment, sketch: Sketch, mesh: Mesh) -> Iterator[tuple[Op, ...]]:
    """Every op with each mesh axis on one of its loops or on none."""
    ops = segment.ops[len(sketch.operands) :]
    axes = tuple(name for name, _ in mesh.atoms)
    options = []
    for op in ops:
        whole = whole_dims(segment, op) if op.kind in ("rope", "attend", "route") else set()
        dims = [None, *(d for d in loop_dims(segment, op) if d not in whole)]
        options.append([annotated(op, dict(zip(axes, c, strict=True))) for c in product(dims, repeat=len(axes))])
    for choice in product(*options):
        if all(segment.size(d) % prod(mesh.sizes[a] for a in on) == 0 for op in choice for d, on in op.loops):
            yield choice


def annotated(op: Op, split: Mapping[str, str | None]) -> Op:
    for axis, dim in split.items():
        if dim is not None:
            op = op.annotate(dim, (*op.loop(dim), axis))
    return op


def run(row: Row, sketch: Sketch, segment: Segment, mesh: Mesh, ops: tuple[Op, ...]) -> list[Collective]:
    """Collectives that the pass inserts for one annotation."""
    ops = split_norms(replace(segment, ops=ops)).ops
    segment = replace(segment, ops=(*segment.ops[: len(sketch.operands)], *ops))
    work = Resharder(segment, mesh, Chains(WirePrices(), mesh), ((), (), ()), last=True)
    for op, (_, _, layout) in zip(segment.ops, row.inputs, strict=False):
        work.put(op.name, op.dims, Sharding(layout))
    for op in segment.ops[len(sketch.operands) :]:
        work.visit(op)
    work.reach(segment.output, Sharding(row.output))
    sizes = dict(mesh.atoms)
    found = []
    for op in (o for o in work.ops if o.is_collective):
        source = op.inputs[0]
        held = work.layout[op.name if op.kind == "permute" else source]
        count = local_count(segment, work.dims[source], held.dims, mesh, "dense")
        group = group_of_zero(sizes, op.axes)
        payload = count * DTYPE_BYTES[op.dtype] * (len(group) if op.kind == "all_gather" else 1)
        found.append(collective(op.kind, group, payload, 1))
    return found


# -- the table -------------------------------------------------------------------------------------------------------


def read_operators(directory: Path) -> list[Row]:
    path = directory / "jax_op_table.json"
    return [row_of(r) for r in json.loads(path.read_text())["rows"]] if path.exists() else []


def row_of(r: Mapping[str, Any]) -> Row:
    inputs = tuple((tuple(i["shape"]), i["dtype"], axes_of(i["sharding"])) for i in r["inputs"])
    return Row(r["op"], inputs, axes_of(r["output_sharding"]), tuple(step_of(s) for s in r["steps"]))


def step_of(s: Mapping[str, Any]) -> Collective:
    kind, wire = reshards.step_of(s)
    axes = s["mesh_axes"]
    group = tuple(range(s["group_size"])) if axes is None else group_of_zero(dict.fromkeys(axes, AXIS_SIZE), axes)
    return Collective(kind, group, float(s["payload_bytes"]), 1, wire)


def dump_operators(rows: Iterable[Row], source: str) -> str:
    def entry(r: Row) -> dict[str, Any]:
        return {
            "op": r.op,
            "inputs": [[list(s), t, [list(a) for a in axes]] for s, t, axes in r.inputs],
            "output": [list(a) for a in r.output],
            "collectives": [[c.kind, list(c.group), c.payload_B, c.executions, c.wire_B] for c in r.collectives],
        }

    lines = ",\n".join(json.dumps(entry(r), separators=(",", ":")) for r in rows)
    return f'{{"source": {json.dumps(source)},\n"rows": [\n{lines}\n]}}\n'


def stored_operators() -> list[Row]:
    return [
        Row(
            r["op"],
            tuple((tuple(s), t, tuple(tuple(a) for a in axes)) for s, t, axes in r["inputs"]),
            tuple(tuple(a) for a in r["output"]),
            tuple(Collective(k, tuple(g), p, n, w) for k, g, p, n, w in r["collectives"]),
        )
        for r in json.loads((DATA / "oracle_operators.json").read_text())["rows"]
    ]
