"""The timeline as trace events: tracks, spans and counters, one rank after the other, for any trace format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..base.axes import STAGES
from ..base.collectives import ACROSS
from ..base.frozen import record
from ..cost.records import index_at, value_at
from ..ir.op import COMM, COMPUTE, COPY
from ..ir.requests import request_moves
from ..plan.result import PhaseResult
from ..view.facts.critical import Visit, critical
from ..view.facts.timeline import (
    Index,
    Key,
    Member,
    Slice,
    classes,
    everyone,
    labels,
    rank_of,
    representatives,
    requests,
    slices,
)
from ..view.facts.unroll import lane_letter

FURTHER = 1 << 32
"""Tracks from here on are those of what goes across."""
PATH_FLOW = 1
"""The flow id of the critical path."""
Value = str | int | float | bool


@record
class Process:
    """A node of the cluster."""

    pid: int
    name: str


@record
class Track:
    """A stream of a rank, or with a `unit` a counter. `uuid` is unique over a trace; `order` sorts a node's tracks."""

    uuid: int
    pid: int
    order: int
    name: str
    unit: str = ""


@record
class EventSpan:
    """A slice on a track, in whole nanoseconds. Flows join a send and what first waits for it, and the critical path."""

    track: Track
    name: str
    category: str
    start_ns: int
    end_ns: int
    args: Mapping[str, Value]
    sends: int = 0  # the id of the flow that starts here
    receives: tuple[int, ...] = ()  # the ids of flows that end here
    path: str = ""  # of the critical path: start, step or end


@record
class Count:
    """A counter's value from a moment on."""

    track: Track
    at_ns: int
    value: float


Event = Process | Track | EventSpan | Count


def nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def events(result: PhaseResult, ranks: str = "folded") -> Iterator[Event]:
    """Every event of a phase: of a rank a class and stage, or with `ranks="all"` of every rank."""
    writer = _Writer(result, ranks == "all")
    nodes: set[int] = set()
    for member in everyone(result) if ranks == "all" else writer.members:
        node = member.gpu // result.per_node
        if node not in nodes:
            nodes.add(node)
            yield Process(node + 1, f"node {node}, pid")  # viewers write the pid behind the name
        yield from writer.rank(member)
    yield from front_end(result, nodes)


def front_end(result: PhaseResult, known: Collection[int]) -> Iterator[Event]:
    """What it hands out and takes in, on tracks of their own at the node of the phase's first GPU, where it is. `known`: nodes that
    have been named."""
    graph, ids = result.graph, result.gpus
    node = graph.stages[0].gpus[0] // result.per_node
    moves = {move.kind: move for move in request_moves(graph)}
    if moves and node not in known:
        yield Process(node + 1, f"node {node}")
    order = 4 * (max(ids) + 1)
    for k, (kind, move) in enumerate(moves.items()):
        track, cost = Track(2 * FURTHER + k, node + 1, order + k, f"front end, {kind}"), result.requests[kind]
        yield track
        end = 0
        for piece in (one for one in requests(result, move.stage) if one.kind == kind):
            start = max(nanoseconds(piece.start_s), end)
            end = max(nanoseconds(piece.end_s), start)
            args: dict[str, Value] = {"kind": kind, "microbatch": piece.microbatch}
            args |= {"lane": "ab"[piece.lane]} if graph.lanes > 1 else {}
            args |= {"bound": cost.bound, "group": "+".join(graph.the_mesh.label(move.axes))}
            args |= {"group_size": graph.the_mesh.size(move.axes), "algorithm": cost.algorithm}
            args |= {"payload_B": cost.payload_B, "wire_B": cost.wire_B, "time_us": float(cost.time_s.max()) * 1e6}
            yield EventSpan(track, kind, kind, start, end, args)


@dataclass
class _Writer:
    result: PhaseResult
    all: bool
    members: list[Member] = field(init=False)
    held: tuple[tuple[int, int], list[Slice]] | None = None

    def __post_init__(self) -> None:
        path = critical(self.result)
        self.kinds = {s.index: labels(self.result, s.index)[0] for s in self.result.seats}
        self.members = [] if self.all else [*self.chosen(path)]
        self.shown = {(m.stage, m.index) for m in self.members}
        self.on_path: dict[tuple[int, Index], dict[Key, str]] = {}
        kept = [(visit, self.home(visit)) for visit in path]
        drawn = [(visit, home) for visit, home in kept if home is not None]
        for k, (visit, home) in enumerate(drawn):
            word = "start" if k == 0 else "end" if k == len(drawn) - 1 else "step"
            key = (visit.microbatch, visit.layer, visit.op, visit.lane)
            self.on_path.setdefault((visit.stage, home), {})[key] = word
        self.live = self.result.memory.live_B

    def home(self, visit: Visit) -> Index | None:
        """The rank that a visit is drawn on: one that behaves as it does, if any is shown."""
        own = _whole(self.result, visit)
        if self.all or (visit.stage, own) in self.shown:
            return own
        return next((m.index for m in self.members if (m.stage, m.group) == (visit.stage, self.kind(visit))), None)

    def kind(self, visit: Visit) -> int:
        """The class of the rank that a visit is on."""
        return int(self.kinds[visit.stage][rank_of(self.result, visit.stage, visit.index)])

    def chosen(self, path: Iterable[Visit]) -> Iterator[Member]:
        """The representatives, and of each stage a rank of the class that the critical path is most on."""
        visited = Counter((visit.stage, self.kind(visit)) for visit in path)
        wanted = {stage: kind for (stage, kind), _ in reversed(visited.most_common())}
        members = representatives(self.result)
        for stage in range(len(self.result.seats)):
            mine = [m for m in members if m.stage == stage]
            kind = wanted.get(stage, mine[0].group)
            known = any(m.group == kind for m in mine)
            yield from (*mine, *(m for m in classes(self.result, stage) if m.group == kind and not known))

    def rank(self, member: Member) -> Iterator[Event]:
        gpu, pid = member.gpu, member.gpu // self.result.per_node + 1
        alike = f", one of {member.alike} alike" if member.alike > 1 else ""
        base = 16 + 4 * gpu
        tracks = {
            COMPUTE: Track(base, pid, 4 * gpu, f"GPU {gpu} compute ({self.result.seats[member.stage].name}{alike})"),
            COMM: Track(base + 1, pid, 4 * gpu + 1, f"GPU {gpu} communication"),
        }
        for k, kind in enumerate(
            ACROSS if self.result.takes_turns else ()
        ):  # each way beside the other, and beside all else
            tracks[kind] = Track(FURTHER + len(ACROSS) * gpu + k, pid, 4 * gpu + 1, f"GPU {gpu} {kind}")
        if self.result.graph.copies:
            tracks[COPY] = Track(3 * FURTHER + gpu, pid, 4 * gpu + 1, f"GPU {gpu} copies from and to its host")
        memory = Track(base + 2, pid, 4 * gpu + 2, f"GPU {gpu} memory", "B")
        link = Track(base + 3, pid, 4 * gpu + 3, f"GPU {gpu} link", "B/s")
        yield from (*tracks.values(), memory, link)
        spans = self.slices(member)
        yield from self.memory(memory, member, spans)
        ends = dict.fromkeys(tracks, 0)
        first: set[tuple[int, int]] = set()
        for piece in spans:
            start = max(nanoseconds(piece.start_s), ends[piece.stream])
            end = max(nanoseconds(piece.end_s), start)
            opens = piece.kind != "send" and (piece.microbatch, piece.lane) not in first
            first.add((piece.microbatch, piece.lane))
            if piece.stream == COMM:
                yield from _link(link, start, end, ends[COMM], self.wire(piece, member.stage))
            ends[piece.stream] = end
            yield self.span(tracks[piece.stream], member, piece, start, end, opens)
        if ends[COMM]:
            yield Count(link, ends[COMM], 0.0)

    def slices(self, member: Member) -> list[Slice]:
        """Of one rank; equal neighbours share them."""
        key = (member.stage, member.group)
        if self.held is None or self.held[0] != key:
            self.held = key, list(slices(self.result, member))
        return self.held[1]

    def span(self, track: Track, member: Member, piece: Slice, start: int, end: int, opens: bool) -> EventSpan:
        sends = self.flow(member.stage, piece, member.index) if piece.kind == "send" else 0
        receives: tuple[int, ...] = ()
        if opens and member.stage and (self.all or (member.stage - 1, member.index) in self.shown):
            receives = (self.flow(member.stage - 1, piece, member.index),)
        if sends and not self.all and (member.stage + 1, member.index) not in self.shown:
            sends = 0
        word = self.on_path.get((member.stage, member.index), {}).get(piece.key, "")
        args = self.args(piece, member) | ({"critical": True} if word else {})
        return EventSpan(track, piece.op, piece.kind, start, end, args, sends, receives, word)

    def flow(self, stage: int, piece: Slice, index: Index) -> int:
        """An id for the message that a rank of a stage sends for a lane of a micro-batch."""
        graph = self.result.graph
        rank = 0
        for size, i in zip(graph.the_mesh.shape, index, strict=True):
            rank = rank * size + i
        message = (stage * graph.microbatches + piece.microbatch) * graph.lanes + piece.lane
        return PATH_FLOW + 1 + message * len(graph.stages[stage].gpus) + rank

    def wire(self, piece: Slice, stage: int) -> float:
        costs = self.result.costs
        if piece.kind == "host":
            return 0.0
        return costs.edges[stage].payload_B if piece.kind == "send" else costs.ops[piece.segment, piece.op].wire_B

    def args(self, piece: Slice, member: Member) -> dict[str, Value]:
        """Bytes, FLOPs, group, layer and bound of a slice."""
        out: dict[str, Value] = {"kind": piece.kind, "microbatch": piece.microbatch}
        if self.result.graph.lanes > 1:
            out["lane"] = lane_letter(piece.lane)
        if piece.kind == "send":
            transfer = self.result.costs.edges[member.stage]
            return out | {
                "bound": transfer.bound,
                "group": STAGES,
                "payload_B": transfer.payload_B,
                "wire_B": transfer.payload_B,
            }
        if piece.kind == "host":
            return out | {"bound": "host"}
        cost = self.result.costs.ops[piece.segment, piece.op]
        op = self.result.graph.segment(piece.segment).by_name[piece.op]
        assert piece.layer is not None
        out |= {"layer": self.result.graph.layer_name(piece.segment, piece.layer), "bound": cost.bound}
        if op.is_collective:
            mesh = self.result.graph.the_mesh
            group = "+".join(mesh.label(op.axes, op.scope))
            out |= {"group": group, "group_size": mesh.ranks_of(op.kind, op.axes), "algorithm": cost.algorithm}
            out |= {"payload_B": cost.payload_B, "wire_B": cost.wire_B}
        else:
            out |= {"flops": cost.flops, "bytes": cost.bytes}
        if cost.time_s.size > 1:
            out["mean_ratio"] = value_at(cost.time_s, member.index) / float(cost.time_s.mean())
        return out | {"times_from": cost.family or "model"}

    def memory(self, track: Track, member: Member, found: list[Slice]) -> Iterator[Count]:
        """What a stage's GPU holds: weights, cache, buffers and reserve at all times, activations by layer."""
        need = self.result.memory.stages[member.stage]
        base = need.peak_B - need.activations_B
        yield Count(track, 0, base)
        value, moment, end = base, 0, 0
        for piece in found:
            if not piece.segment:
                continue
            begin = nanoseconds(piece.start_s)
            if begin > end:  # the pipeline is idle
                yield Count(track, max(end, moment), base)
                value, moment = base, end
            end = max(end, nanoseconds(piece.end_s))
            wanted = base + self.live[piece.segment]
            if wanted != value and begin >= moment:
                yield Count(track, begin, wanted)
                value, moment = wanted, begin
        yield Count(track, end, base)


def _whole(result: PhaseResult, visit: Visit) -> Index:
    """The path tells ranks apart only where they differ: the coordinates of one rank."""
    shape = result.graph.the_mesh.side_shape(result.seats[visit.stage].on)
    return index_at(visit.index, shape)


def _link(track: Track, start: int, end: int, before: int, wire_B: float) -> Iterable[Count]:
    """Bytes per second that a rank puts on the wire during a collective."""
    if start > before:
        yield Count(track, before, 0.0)
    yield Count(track, start, wire_B / (end - start) * 1e9 if end > start else 0.0)
