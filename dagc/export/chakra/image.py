"""Trace files as bytes. The nodes of a layer are encoded once; layers in a row whose numbers take equally many bytes are
copies of them with the numbers written over, and so are equal ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ...base.frozen import record
from ..protobuf import LENGTH, VARINT, patch, tag, text, varint, widths
from . import messages as schema
from .program import Pattern, Program, TraceLayer, TraceNode
from .ranks import Hole

Ints = NDArray[np.int64]

LAYER, MICROBATCH, TAG, DURATION = range(4)
"""Numbers of a row that are not ids."""


@record(slots=False)
class Columns:
    """What the numbers of a pattern are, in their order: `kind`, -1 for ids, and which one. Of each node:
    how many numbers, and the bytes between them."""

    kind: Ints
    index: Ints
    counts: tuple[int, ...]
    parts: tuple[tuple[bytes, bytes], ...]
    nodes: tuple[TraceNode, ...]


_HOLES = {
    schema.SEND: ("comm_dst", "int32"),
    schema.RECV: ("comm_src", "int32"),
    schema.COLL: ("pg_name", "string"),
}


@record
class Record:
    """A node with gaps where its numbers go, and where its rank's own value goes."""

    data: bytes
    gaps: tuple[int, ...]
    hole: int | None


@record
class Template:
    """The nodes of a layer with gaps."""

    data: bytes
    gaps: Ints
    holes: dict[Hole, Ints]


def columns(pattern: Pattern, stage: int) -> Columns:
    """Numbers of each node: id, control and data dependencies, duration, micro-batch, layer, tag."""
    kind: list[int] = []
    index: list[int] = []
    counts = []
    parts = []
    for k, node in enumerate(pattern.nodes):
        ids = (k, *node.control, *node.data)
        kind += [-1] * len(ids) + [DURATION, MICROBATCH, LAYER]
        index += [*ids, k, 0, 0]
        if node.tag is not None:
            kind.append(TAG)
            index.append(node.tag)
        counts.append(len(ids) + 3 + (node.tag is not None))
        head = text(schema.NAME, node.name) + tag(schema.TYPE, VARINT) + varint(node.kind)
        fixed = schema.attribute("is_cpu_op", "bool", 0) + node.attributes
        fixed += schema.attribute("stage", "int64", stage) + schema.attribute("lane", "int64", node.lane)
        parts.append((head, fixed))
    return Columns(np.asarray(kind), np.asarray(index), tuple(counts), tuple(parts), pattern.nodes)


@dataclass
class Image:
    """A rank's file, and where in it the rank's own values are."""

    data: NDArray[np.uint8]
    holes: Mapping[Hole, tuple[Ints, int]]
    nodes: int

    def write_over(self, values: Mapping[Hole, int]) -> memoryview:
        """The file of an equal rank: the same bytes with its own values (which take as many bytes)."""
        for key, (positions, size) in self.holes.items():
            self.data[positions[:, None] + np.arange(size)] = np.frombuffer(encoded(key, values[key]), dtype=np.uint8)
        return self.data.data


def encoded(key: Hole, value: int) -> bytes:
    """A rank's own value: the name of a group, or the number of a rank."""
    return str(value).encode() if key[0] == "group" else varint(value)


@dataclass
class Templates:
    """Encoded layers of the ranks of a stage whose own values (`holes`) take equally many bytes."""

    program: Program
    columns: dict[int, Columns] = field(default_factory=dict)
    layers: dict[tuple[int, bytes], Template] = field(default_factory=dict)
    records: dict[tuple[int, int, tuple[int, ...]], Record] = field(default_factory=dict)

    def of(self, pattern: Pattern) -> Columns:
        if id(pattern) not in self.columns:
            self.columns[id(pattern)] = columns(pattern, self.program.stage)
        return self.columns[id(pattern)]

    def layer(self, known: Columns, size: Ints) -> Template:
        """The nodes of a layer with gaps of the given sizes."""
        key = (id(known), size.tobytes())
        if key not in self.layers:
            self.layers[key] = self.joined(known, size.tolist())
        return self.layers[key]

    def joined(self, known: Columns, size: list[int]) -> Template:
        out = bytearray()
        gaps: list[int] = []
        holes: dict[Hole, list[int]] = {}
        first = 0
        for k, node in enumerate(known.nodes):
            last = first + known.counts[k]
            own = tuple(size[first:last])
            first = last
            record = self.records.get((id(known), k, own))
            if record is None:
                record = self.records[id(known), k, own] = self.record(node, *known.parts[k], own)
            start = len(out)
            gaps += [start + at for at in record.gaps]
            if record.hole is not None and node.hole is not None:
                holes.setdefault(node.hole, []).append(start + record.hole)
            out += record.data
        return Template(bytes(out), np.asarray(gaps), {key: np.asarray(at) for key, at in holes.items()})

    def record(self, node: TraceNode, head: bytes, fixed: bytes, sizes: tuple[int, ...]) -> Record:
        """A node with its length before it."""
        gaps: list[int] = []
        out = bytearray(tag(schema.ID, VARINT))
        left = iter(sizes)

        def gap(size: int) -> None:
            gaps.append(len(out))
            out.extend(bytes(size))

        gap(next(left))
        out += head
        for number, refs in ((schema.CONTROL, node.control), (schema.DATA, node.data)):
            of_refs = [next(left) for _ in refs]
            if of_refs:
                out += tag(number, LENGTH) + varint(sum(of_refs))
                for size in of_refs:
                    gap(size)
        out += tag(schema.DURATION, VARINT)
        gap(next(left))
        out += fixed
        names = (("microbatch", "int64"), ("layer", "int64"), ("comm_tag", "int32"))
        for (name, kind), size in zip(names, left, strict=False):
            out += schema.open_attribute(name, kind, size)
            gap(size)
        hole = None
        if node.hole is not None:
            name, kind = _HOLES[node.kind]
            size = self.program.holes[node.hole]
            extra = varint(size) if kind == "string" else b""
            out += schema.open_attribute(name, kind, len(extra) + size) + extra
            hole = len(out)
            out += bytes(size)
        prefix = varint(len(out))
        moved = tuple(at + len(prefix) for at in gaps)
        return Record(prefix + bytes(out), moved, None if hole is None else hole + len(prefix))


@dataclass
class Encoder:
    """One rank's file. `times`: seconds of (segment, op) on this rank."""

    templates: Templates
    times: Mapping[tuple[str, str], float]
    pieces: list[bytes] = field(default_factory=list)
    found: dict[Hole, list[Ints]] = field(default_factory=dict)
    size: int = 0
    nodes: int = 0
    clock: dict[str, float] = field(default_factory=lambda: {"compute": 0.0, "comm": 0.0, "": 0.0})

    def encode(self, rows: Iterable[TraceLayer]) -> Image:
        self.append(schema.metadata())
        for _, run in groupby(rows, key=lambda row: id(row.pattern)):
            self.run(list(run))
        data = np.frombuffer(bytearray().join(self.pieces), dtype=np.uint8)
        self.pieces.clear()
        sizes = self.templates.program.holes
        return Image(data, {k: (np.concatenate(at), sizes[k]) for k, at in self.found.items()}, self.nodes)

    def append(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size += len(data)

    def run(self, rows: list[TraceLayer]) -> None:
        """Layers of one pattern: as many at a time as have numbers of equal widths."""
        known = self.templates.of(rows[0].pattern)
        values = self.values(rows, known)
        size = widths(values)
        start = 0
        changes = np.flatnonzero((size[1:] != size[:-1]).any(axis=1)) + 1
        for stop in (*changes.tolist(), len(rows)):
            self.block(known, values[start:stop], size[start])
            start = stop
        self.nodes += len(rows) * len(known.nodes)

    def values(self, rows: list[TraceLayer], known: Columns) -> Ints:
        out = np.empty((len(rows), len(known.kind)), dtype=np.int64)
        base = np.asarray([row.base for row in rows])[:, None]
        own = (known.kind == -1) & (known.index >= 0)
        out[:, own] = base + known.index[own]
        given = (known.kind == -1) & (known.index < 0)
        outside = np.asarray([row.outside for row in rows], dtype=np.int64).reshape(len(rows), -1)
        out[:, given] = outside[:, -1 - known.index[given]]
        out[:, known.kind == DURATION] = self.durations(len(rows), known.nodes)
        out[:, known.kind == MICROBATCH] = np.asarray([row.microbatch for row in rows])[:, None]
        out[:, known.kind == LAYER] = np.asarray([max(0, row.layer) for row in rows])[:, None]
        marks = known.kind == TAG
        out[:, marks] = np.asarray([row.tag for row in rows])[:, None] + known.index[marks]
        return out

    def durations(self, rows: int, nodes: tuple[TraceNode, ...]) -> Ints:
        """Whole microseconds. What rounding takes from one node the next one of its stream gets, so that a stream's sum is
        right to one microsecond however long it is."""
        out = np.empty((rows, len(nodes)), dtype=np.int64)
        for stream, begun in self.clock.items():
            mine = [k for k, node in enumerate(nodes) if node.stream == stream]
            ends = np.cumsum([self.micros(nodes[k]) for k in mine])
            total = float(ends[-1]) if mine else 0.0
            from_s = begun + total * np.arange(rows)[:, None]
            marks = np.floor(np.concatenate([from_s, from_s + ends], axis=1) + 0.5) if mine else np.zeros((rows, 1))
            out[:, mine] = np.diff(marks, axis=1)
            self.clock[stream] = begun + total * rows
        return out

    def micros(self, node: TraceNode) -> float:
        return 0.0 if node.timed is None else self.times[node.timed] * node.share * 1e6

    def block(self, known: Columns, values: Ints, size: Ints) -> None:
        """Equal layers: the bytes of one, repeated, with the numbers of each written over."""
        template = self.templates.layer(known, size)
        length = len(template.data)
        block = np.tile(np.frombuffer(template.data, dtype=np.uint8), (len(values), 1))
        patch(block, template.gaps, size, values)
        starts = self.size + np.arange(len(values)) * length
        for key, at in template.holes.items():
            self.found.setdefault(key, []).append((starts[:, None] + at).ravel())
        self.append(block.tobytes())
