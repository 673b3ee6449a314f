"""Traces of `dagc run`, in which ops have their names: each op of the plan is looked up."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan

from ...execute.marks import Mark
from .deviations import EXTRA, GROUP, MISSING, SIZE, Deviation
from .planned_calls import PlannedCall
from .rank_calls import MarkedOp
from .seen_calls import SeenCall

OUTSIDE = ("scatter", "gather")
"""What the front end does: the plan has no collective of ranks for it."""


Arrivals = dict[tuple[int, tuple[int, str, str]], tuple[float, float, float]]
"""(pass, key of a planned call) -> when a rank began it and ended it, and how long it did other things before."""


@dataclass
class Lookup:
    """One rank: what it called beside what it should have. `by_elements`: values have another dtype than the plan's, so that numbers of
    elements are compared."""

    rank: int
    planned: Sequence[PlannedCall]
    ops: Sequence[MarkedOp]
    passes: Sequence[tuple[float, float]]
    seen: Sequence[SeenCall]
    by_elements: bool
    deviations: list[Deviation] = field(default_factory=list)
    arrived: Arrivals = field(default_factory=dict)
    counted: int = 0
    same: int = 0

    def run(self) -> None:
        calls = self._inside()
        wanted = {call.key: call for call in self.planned}
        ends: dict[int, float] = {number: begin for number, (begin, _) in enumerate(self.passes)}
        had: set[tuple[int, tuple[int, str, str]]] = set()
        for at, op in enumerate(self.ops):
            key = (op.mark.part, op.mark.layer, op.mark.op)
            inside = calls.get(at, [])
            call = wanted.get(key)
            if call is None:
                if op.mark.layer or op.mark.op not in OUTSIDE:
                    self._extra(inside, op)
                    self.counted += len(inside)
                continue
            self.counted += 1
            if (op.number, key) in had:
                self._add(EXTRA, call, op.number, "called twice")
            elif not inside:
                self._add(MISSING, call, op.number, "nothing was called in its place")
                self.counted -= 1
            elif not self._other(call, op.number, inside):
                self.same += 1
            had.add((op.number, key))
            self.arrived[op.number, key] = (op.start_s, op.end_s, op.start_s - ends.get(op.number, op.start_s))
            ends[op.number] = op.end_s
        for number in range(len(self.passes)):
            for call in self.planned:
                if (number, call.key) not in had:
                    self._add(MISSING, call, number, "")
        self._between(calls.get(-1, []))

    def _inside(self) -> dict[int, list[SeenCall]]:
        """The calls within each op, by its index; at -1 those of a pass that are within none."""
        begins = [op.start_s for op in self.ops]
        out: dict[int, list[SeenCall]] = {}
        for call in self.seen:
            at = bisect_right(begins, call.launched_s) - 1
            within = at >= 0 and call.launched_s <= self.ops[at].end_s
            if within or any(begin <= call.launched_s <= end for begin, end in self.passes):
                out.setdefault(at if within else -1, []).append(call)
        return out

    def _other(self, call: PlannedCall, number: int, inside: Sequence[SeenCall]) -> bool:
        """Whether it is of another kind, size or group. An op that takes several calls is not looked into."""
        if len(inside) != 1 or call.calls != 1:
            return False
        (seen,) = inside
        found = list(differences(call, seen, self.by_elements))
        for word, detail in found:
            self._add(word, call, number, detail)
        return bool(found)

    def _extra(self, inside: Sequence[SeenCall], op: MarkedOp) -> None:
        for seen in inside:
            name = f"{op.mark.layer}/{op.mark.op}" if op.mark.layer else op.mark.op
            text = f"{said(seen)}, in an op that has none"
            self.deviations.append(Deviation(EXTRA, self.rank, seen.kind, name, op.mark.part, op.number, text))

    def _between(self, calls: Sequence[SeenCall]) -> None:
        begins = [op.start_s for op in self.ops]
        for seen in calls:
            at = bisect_right(begins, seen.launched_s) - 1
            before = self.ops[at] if at >= 0 else None
            mark = before.mark if before is not None else Mark("")
            where = f"after {mark.layer}/{mark.op}" if mark.layer else f"after {mark.op}" if mark.op else "at the start"
            number = before.number if before is not None else 0
            self.deviations.append(Deviation(EXTRA, self.rank, seen.kind, where, mark.part, number, said(seen)))
            self.counted += 1

    def _add(self, word: str, call: PlannedCall, number: int, detail: str) -> None:
        self.deviations.append(Deviation(word, self.rank, call.kind, call.name, call.part, number, detail))


def said(seen: SeenCall) -> str:
    """Its size, as far as it is known."""
    if not isnan(seen.payload_B):
        return f"{seen.payload_B:,.0f} B"
    return "" if isnan(seen.elements) else f"{seen.elements:,.0f} elements"


CLOSE = 0.01
"""Relative: sizes within it are the same."""


def differences(call: PlannedCall, seen: SeenCall, by_elements: bool = False) -> Iterator[tuple[str, str]]:
    """(word, what was planned and what was seen). What is not known is not compared."""
    if seen.kind != call.kind:
        yield GROUP, f"{call.kind} planned, {seen.kind} seen"
        return
    planned, found, unit = (
        (call.elements, seen.elements, "elements") if by_elements else (call.payload_B, seen.payload_B, "B")
    )
    if not (isnan(planned) or isnan(found)) and abs(planned - found) > CLOSE * max(planned, found):
        yield SIZE, f"{planned:,.0f} {unit} planned, {found:,.0f} seen"
    if call.ranks and seen.ranks and seen.ranks != call.ranks:
        yield GROUP, f"ranks {listed(call.ranks)} planned, {listed(seen.ranks)} seen"
    elif call.ranks and seen.size and seen.size != len(call.ranks):
        yield GROUP, f"{len(call.ranks)} ranks planned, {seen.size} seen"


def listed(ranks: Sequence[int]) -> str:
    """`0-3, 8`"""
    runs: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
