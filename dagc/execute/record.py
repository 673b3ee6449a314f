"""What a run on all ranks counted besides its numbers, to be compared with what the passes state."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..base.frozen import record
from ..ir.op import Op
from ..ir.routed_dims import routed, skipped
from ..ir.segment import Segment

Turn = tuple[int, int]
"""Layer, and first sequence of the micro-batch."""
OpKey = tuple[str, str]
"""(segment, op)."""


@dataclass
class Moved:
    """Of one collective, per rank and call: elements in the local buffer, and elements put on the wire.
    `routed`: rows of routed tokens, whose number differs from rank to rank; of those `crossing`, the part of the payload
    that crosses the wire where every row is equally likely. `across`: between two sets of ranks, `payload` of those that get and
    `wire` of those that send."""

    routed: bool = False
    crossing: float | None = None
    payload: list[float] = field(default_factory=list)
    wire: list[float] = field(default_factory=list)
    across: bool = False


@record
class Handed:
    """Between the front end, which is at the root of a group, and its ranks: elements of the local input of one call (of a scatter
    the root's, of a gather a rank's), and elements that the root sends or takes in."""

    payload: int
    wire: int


@dataclass
class Record:
    """`traffic`: of each collective every call; `requests`: of scatter and gather every call of every group; `sent`: elements that ranks hand over, by stages and value; `work`: FLOPs of each op,
    every call, a number per rank; `kept`: of each router that leaves out choices (segment, choice dim) the share that it kept, by turn; `turns`: of every call of each op, where some router does; `caches`: shapes of each rank's part of a cache or state."""

    traffic: dict[OpKey, list[Moved]] = field(default_factory=dict)
    requests: dict[str, list[Handed]] = field(default_factory=dict)
    sent: dict[tuple[int, int, str], list[int]] = field(default_factory=dict)
    work: dict[OpKey, list[list[float]]] = field(default_factory=dict)
    kept: dict[OpKey, dict[Turn, float]] = field(default_factory=dict)
    turns: dict[OpKey, list[Turn]] = field(default_factory=dict)
    caches: dict[OpKey, list[tuple[int, ...]]] = field(default_factory=dict)


def kept_of(segment: Segment, op: Op, record: Record, calls: int) -> list[float]:
    """By what each call's rows are divided to be those that are stated: the choices that its router kept over those that it was
    expected to keep; 1 for what is not of a router that skips any."""
    rows = routed(segment, op)
    shares = None if rows is None else record.kept.get((segment.name, rows.choice))
    if rows is None or shares is None:
        return [1.0] * calls
    expected = 1.0 - skipped(segment, rows)
    return [expected / shares[turn] for turn in record.turns[segment.name, op.name]]
