"""Trace files as bytes. The nodes of a layer are encoded once; layers in a row whose numbers take equally many bytes are
copies of them with the numbers written over, and so are ranks that are alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from . import schema
from .program import Pattern, Row, TraceNode
from .ranks import Hole
from .wire import patch, tag, text, varint, widths

Ints = NDArray[np.int64]

LAYER, MICROBATCH, TAG, DURATION = range(4)
"""Numbers of a row that are not ids."""


@dataclass(frozen=True)
class Columns:
    """What the numbers of a pattern are, in the order in which they stand. `own`: id within the layer, or -1 for one from
    outside; `index`: which; `kind`: of the rest, -1 for ids."""

    kind: Ints
    index: Ints
    parts: tuple[tuple[bytes, ...], ...]
    nodes: tuple[TraceNode, ...]


_HOLES = {
    schema.SEND: ("comm_dst", "int32"),
    schema.RECV: ("comm_src", "int32"),
    schema.COLL: ("pg_name", "string"),
}


def columns(pattern: Pattern, stage: int) -> Columns:
    """Numbers of each node: id, control and data dependencies, duration, micro-batch, layer, tag."""
    kind: list[int] = []
    index: list[int] = []
    parts = []
    for k, node in enumerate(pattern.nodes):
        ids = (k, *node.control, *node.data)
        kind += [-1] * len(ids) + [DURATION, MICROBATCH, LAYER]
        index += [*ids, k, 0, 0]
        if node.tag is not None:
            kind.append(TAG)
            index.append(node.tag)
        head = text(schema.NAME, node.name) + tag(schema.TYPE, 0) + varint(node.kind)
        fixed = schema.attribute("is_cpu_op", "bool", 0) + node.attributes
        fixed += schema.attribute("stage", "int64", stage) + schema.attribute("lane", "int64", node.lane)
        parts.append((head, fixed))
    return Columns(np.asarray(kind), np.asarray(index), tuple(parts), pattern.nodes)


@dataclass
class Image:
    """A rank's file, and where in it the values stand that are the rank's own."""

    data: NDArray[np.uint8]
    holes: Mapping[Hole, tuple[Ints, int]]
    nodes: int

    def write_over(self, values: Mapping[Hole, int]) -> memoryview:
        """The file of an alike rank: the same bytes with its own values (which take as many bytes)."""
        for key, (positions, size) in self.holes.items():
            self.data[positions[:, None] + np.arange(size)] = np.frombuffer(encoded(key, values[key]), dtype=np.uint8)
        return memoryview(self.data)


def encoded(key: Hole, value: int) -> bytes:
    """A rank's own value: the name of a group, or the number of a rank."""
    return str(value).encode() if key[0] == "group" else varint(value)


@dataclass
class Encoder:
    """`holes`: values of the rank that is written first."""

    stage: int
    holes: Mapping[Hole, int]
    known: dict[int, Columns] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    found: dict[Hole, list[Ints]] = field(default_factory=dict)
    size: int = 0
    nodes: int = 0
    clock: dict[str, float] = field(default_factory=lambda: {"compute": 0.0, "comm": 0.0, "": 0.0})

    def encode(self, rows: Iterable[Row]) -> Image:
        self.append(schema.metadata())
        for _, run in groupby(rows, key=lambda row: id(row.pattern)):
            self.run(list(run))
        data = np.frombuffer(bytearray().join(self.pieces), dtype=np.uint8)
        self.pieces.clear()
        holes = {k: (np.concatenate(at), len(encoded(k, self.holes[k]))) for k, at in self.found.items()}
        return Image(data, holes, self.nodes)

    def append(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size += len(data)

    def run(self, rows: list[Row]) -> None:
        """Layers of one pattern: as many at a time as have numbers of equal widths."""
        pattern = rows[0].pattern
        if id(pattern) not in self.known:
            self.known[id(pattern)] = columns(pattern, self.stage)
        known = self.known[id(pattern)]
        values = self.values(rows, known)
        size = widths(values)
        start = 0
        changes = np.flatnonzero((size[1:] != size[:-1]).any(axis=1)) + 1
        for stop in (*changes.tolist(), len(rows)):
            self.block(known, values[start:stop], size[start])
            start = stop
        self.nodes += len(rows) * len(pattern.nodes)

    def values(self, rows: list[Row], known: Columns) -> Ints:
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
            ends = np.cumsum([nodes[k].time_s * 1e6 for k in mine])
            total = float(ends[-1]) if mine else 0.0
            from_s = begun + total * np.arange(rows)[:, None]
            marks = np.floor(np.concatenate([from_s, from_s + ends], axis=1) + 0.5) if mine else np.zeros((rows, 1))
            out[:, mine] = np.diff(marks, axis=1)
            self.clock[stream] = begun + total * rows
        return out

    def block(self, known: Columns, values: Ints, size: Ints) -> None:
        """Alike layers: the bytes of one, repeated, with the numbers of each written over."""
        data, positions, holes = self.template(known, size)
        block = np.tile(np.frombuffer(data, dtype=np.uint8), (len(values), 1))
        patch(block, positions, size, values)
        starts = self.size + np.arange(len(values)) * len(data)
        for key, at in holes.items():
            self.found.setdefault(key, []).append((starts[:, None] + np.asarray(at)).ravel())
        self.append(block.tobytes())

    def template(self, known: Columns, size: Ints) -> tuple[bytes, Ints, dict[Hole, list[int]]]:
        """The nodes with gaps of the given sizes: the bytes, where each gap is, and where the rank's own values are."""
        out = bytearray()
        gaps: list[int] = []
        holes: dict[Hole, list[int]] = {}
        left = iter(size.tolist())
        for node, (head, fixed) in zip(known.nodes, known.parts, strict=True):
            record, inner, hole = self.record(node, head, fixed, left)
            prefix = varint(len(record))
            start = len(out) + len(prefix)
            gaps += [start + at for at in inner]
            if hole is not None and node.hole is not None:
                holes.setdefault(node.hole, []).append(start + hole)
            out += prefix + record
        return bytes(out), np.asarray(gaps), holes

    def record(self, node: TraceNode, head: bytes, fixed: bytes, left: Iterable[int]) -> tuple[bytearray, list[int], int | None]:
        left = iter(left)
        gaps: list[int] = []
        out = bytearray(tag(schema.ID, 0))

        def gap(size: int) -> None:
            gaps.append(len(out))
            out.extend(bytes(size))

        gap(next(left))
        out += head
        for number, refs in ((schema.CONTROL, node.control), (schema.DATA, node.data)):
            sizes = [next(left) for _ in refs]
            if sizes:
                out += tag(number, 2) + varint(sum(sizes))
                for size in sizes:
                    gap(size)
        out += tag(schema.DURATION, 0)
        gap(next(left))
        out += fixed
        for name in ("microbatch", "layer"):
            size = next(left)
            out += schema.open_attribute(name, "int64", size)
            gap(size)
        if node.tag is not None:
            size = next(left)
            out += schema.open_attribute("comm_tag", "int32", size)
            gap(size)
        hole = None
        if node.hole is not None:
            name, kind = _HOLES[node.kind]
            value = encoded(node.hole, self.holes[node.hole])
            extra = varint(len(value)) if kind == "string" else b""
            out += schema.open_attribute(name, kind, len(extra) + len(value)) + extra
            hole = len(out)
            out += value
        return out, gaps, hole
