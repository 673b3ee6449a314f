"""Trace files as bytes. The nodes of a layer are encoded once; layers in a row whose numbers take equally many bytes are
copies of them with the numbers written over, and so are equal ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import record
from ..protobuf import LENGTH, VARINT, digits, patch, patch_text, tag, text, varint, widths
from . import messages as schema
from .rank_program import RankProgram
from .ranks import Hole
from .trace_rows import DURATION, ID, LAYER, MICROBATCH, TAG, Pattern, Tensor, TraceLayer, TraceNode, Words

Ints = NDArray[np.int64]


@record(slots=False)
class Columns:
    """What the numbers of a pattern are, in their order: `kind`, for ids `index` of which node, and whether they are `text`. Of
    each node: how many numbers, and the bytes between them."""

    kind: Ints
    index: Ints
    text: NDArray[np.bool_]
    counts: tuple[int, ...]
    parts: tuple[tuple[bytes, bytes], ...]
    nodes: tuple[TraceNode, ...]

    def widths(self, values: Ints) -> Ints:
        """Bytes that each number takes."""
        return np.where(self.text, digits(values), widths(values))


_HOLES = {
    schema.SEND: ("comm_dst", "int32"),
    schema.RECV: ("comm_src", "int32"),
    schema.COLL: ("pg_name", "string"),
}


@record
class Gap:
    """Bytes that are written over: with a number of the row, or with what is a rank's own."""

    size: int
    hole: bool = False


Pieces = list[bytes | Gap]


def length(pieces: Pieces) -> int:
    return sum(len(p) if isinstance(p, bytes) else p.size for p in pieces)


def framed(number: int, pieces: Pieces) -> Pieces:
    """A field with its length before it."""
    return [tag(number, LENGTH) + varint(length(pieces)), *pieces]


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
    """Numbers of each node: id, those of its name, control and data dependencies, duration, micro-batch, layer, tag, and those of
    the names of the tensors that it reads and writes."""
    found: list[tuple[int, int, bool]] = []
    counts = []
    parts = []
    for k, node in enumerate(pattern.nodes):
        before = len(found)
        found.append((ID, k, False))
        found += [(kind, index, True) for kind, index in node.name.numbers]
        found += [(ID, ref, False) for ref in (*node.control, *node.data)]
        found.append((DURATION, k, False))
        found += [(MICROBATCH, 0, False)] * node.batched
        found += [(LAYER, 0, False)] * node.layered
        if node.tag is not None:
            found.append((TAG, node.tag, False))
        found += [(kind, index, True) for one in (*node.reads, *node.writes) for kind, index in one.name.numbers]
        counts.append(len(found) - before)
        head = tag(schema.TYPE, VARINT) + varint(node.kind)
        fixed = schema.attribute("is_cpu_op", "bool", 0) + node.attributes
        fixed += schema.attribute("stage", "int64", stage) + schema.attribute("lane", "int64", node.lane)
        parts.append((head, fixed))
    kind, index, text = zip(*found, strict=True)
    return Columns(
        np.asarray(kind), np.asarray(index), np.asarray(text, dtype=bool), tuple(counts), tuple(parts), pattern.nodes
    )


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

    program: RankProgram
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
        left = iter(sizes)

        def words(text: Words) -> Pieces:
            out: Pieces = [text.parts[0].encode()]
            for part in text.parts[1:]:
                out += [Gap(next(left)), part.encode()]
            return out

        def attribute(name: str, kind: str, value: Pieces) -> Pieces:
            return [schema.open_attribute(name, kind, length(value)), *value]

        def tensors(name: str, found: tuple[Tensor, ...]) -> Pieces:
            values: Pieces = []
            for one in found:
                values += [*framed(1, words(one.name)), text(1, str(one.size_B))]
            return attribute(name, "string_list", [varint(length(values)), *values])

        pieces: Pieces = [tag(schema.ID, VARINT), Gap(next(left)), *framed(schema.NAME, words(node.name)), head]
        for number, refs in ((schema.CONTROL, node.control), (schema.DATA, node.data)):
            if refs:
                pieces += framed(number, [Gap(next(left)) for _ in refs])
        pieces += [tag(schema.DURATION, VARINT), Gap(next(left)), fixed]
        if node.batched:
            pieces += attribute("microbatch", "int64", [Gap(next(left))])
        if node.layered:
            pieces += attribute("layer", "int64", [Gap(next(left))])
        if node.tag is not None:
            pieces += attribute("comm_tag", "int32", [Gap(next(left))])
        pieces += tensors("inputs", node.reads) + tensors("outputs", node.writes)
        if node.hole is not None:
            name, kind = _HOLES[node.kind]
            own = Gap(self.program.holes[node.hole], hole=True)
            pieces += attribute(name, kind, [varint(own.size), own] if kind == "string" else [own])
        return _flat([varint(length(pieces)), *pieces])


def _flat(pieces: Pieces) -> Record:
    out = bytearray()
    gaps: list[int] = []
    hole = None
    for piece in pieces:
        if isinstance(piece, bytes):
            out += piece
            continue
        if piece.hole:
            hole = len(out)
        else:
            gaps.append(len(out))
        out += bytes(piece.size)
    return Record(bytes(out), tuple(gaps), hole)


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
        size = known.widths(values)
        start = 0
        changes = np.flatnonzero((size[1:] != size[:-1]).any(axis=1)) + 1
        for stop in (*changes.tolist(), len(rows)):
            self.block(known, values[start:stop], size[start])
            start = stop
        self.nodes += len(rows) * len(known.nodes)

    def values(self, rows: list[TraceLayer], known: Columns) -> Ints:
        out = np.empty((len(rows), len(known.kind)), dtype=np.int64)
        base = np.asarray([row.base for row in rows])[:, None]
        own = (known.kind == ID) & (known.index >= 0)
        out[:, own] = base + known.index[own]
        given = (known.kind == ID) & (known.index < 0)
        outside = np.asarray([row.outside for row in rows], dtype=np.int64).reshape(len(rows), -1)
        out[:, given] = outside[:, -1 - known.index[given]]
        out[:, known.kind == DURATION] = self.durations(len(rows), known.nodes)
        out[:, known.kind == MICROBATCH] = np.asarray([row.microbatch for row in rows])[:, None]
        out[:, known.kind == LAYER] = np.asarray([row.layer for row in rows])[:, None]
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
        numbers = ~known.text
        patch(block, template.gaps[numbers], size[numbers], values[:, numbers])
        patch_text(block, template.gaps[known.text], size[known.text], values[:, known.text])
        starts = self.size + np.arange(len(values)) * length
        for key, at in template.holes.items():
            self.found.setdefault(key, []).append((starts[:, None] + at).ravel())
        self.append(block.tobytes())
