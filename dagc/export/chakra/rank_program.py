"""What one rank runs, row by row: a pattern of nodes for each kind of row, and a row of numbers for each layer of a micro-batch.

Every rank of a group takes the group's collectives in one order: a communication node waits for the one before it. Compute
nodes are ordered by control dependencies, as their stream is in the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from .ranks import Hole, Placed, Ranks
from .trace_rows import MICROBATCH, Pattern, TraceLayer, Words

FIRST_ID = 1


@dataclass
class RankProgram:
    """Rows of the ranks of a stage. `holes`: what is a rank's own, and how many bytes it takes. `first_B`: what a node moves at
    least that waits for nothing; without a nanosecond of its own the simulator's roofline stops at time 0."""

    trains: ClassVar[bool] = False
    ranks: Ranks
    stage: int
    holes: Mapping[Hole, int]
    first_B: int = 1
    patterns: dict[tuple[object, ...], Pattern] = field(default_factory=dict)

    @property
    def placed(self) -> Placed:
        return self.ranks.result

    def rows(self) -> Iterator[TraceLayer]:
        raise NotImplementedError

    def other_times(self) -> Mapping[tuple[str, str], float]:
        """Seconds of nodes that are no ops of layers, by the name that they are `timed` by."""
        raise NotImplementedError

    def cell(self, lane: int) -> Words:
        """The beginning of a placed id: `s0.m2.a`."""
        mark = "" if self.placed.graph.lanes == 1 else f".{'ab'[lane]}"
        return Words((f"s{self.stage}.m", mark), ((MICROBATCH, 0),))

    def outside_batches(self) -> Words:
        """The same of what runs once a step: `s0`."""
        return Words((f"s{self.stage}",))
