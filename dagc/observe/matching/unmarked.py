"""Traces of other programs, whose collectives have no names of the plan: matched by kind, size, group and order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from statistics import median

from .alignment import MOST_EDITS, aligned, beside
from .deviations import EXTRA, MISSING, Deviation
from .marked import CLOSE, Arrivals, differences, said
from .planned_calls import SEND_RECV, PlannedCall
from .seen_calls import SeenCall

ALL_TO_ALL = "all_to_all"
FEW = 3
"""Calls that are missing of whole passes, rather than beyond the ends of a trace."""
MOST_FREE = 20_000
"""Calls of a pass, up to which it is found where in it a trace begins."""


@dataclass
class Ordered:
    """One rank: what it called beside what it should have, in order. `passes`: about how many the trace has of the plan's."""

    rank: int
    planned: Sequence[PlannedCall]
    seen: Sequence[SeenCall]
    deviations: list[Deviation] = field(default_factory=list)
    arrived: Arrivals = field(default_factory=dict)
    passes: int = field(default=1, init=False)
    by_elements: bool = field(default=False, init=False)
    counted: int = 0
    same: int = 0

    def run(self) -> None:
        planned = as_seen(unfolded(self.planned), self.seen)
        kinds = {call.kind for call in planned}
        seen = [call for call in self.seen if call.kind in kinds]
        for kind, n in Counter(call.kind for call in self.seen if call.kind not in kinds).items():
            detail = f"{n:,} in the trace: a kind that the plan does not have"
            self.deviations.append(Deviation(EXTRA, self.rank, kind, "", 0, 0, detail))
            self.counted += n
        if not seen:
            self._nothing(planned)
            return
        self.passes = passes_of(planned, seen)
        self.by_elements = any(isnan(c.payload_B) for c in seen) and not any(isnan(c.elements) for c in seen)
        symbols = Symbols(planned, seen, self.by_elements)
        wanted, found = [symbols.planned(c) for c in planned], [symbols.seen(c) for c in seen]
        count, pairs = best_aligned(wanted, found, self.passes)
        if pairs is None:
            self._too_far(planned, seen)
            return
        wanted = wanted * count
        self._walk(
            beside(wanted, pairs, len(found)), list(planned) * count, seen, len(planned), cut=count > self.passes
        )

    def _nothing(self, planned: Sequence[PlannedCall]) -> None:
        for call in planned:
            self._missing(call, 0)

    def _too_far(self, planned: Sequence[PlannedCall], seen: Sequence[SeenCall]) -> None:
        self.counted += len(seen)
        wanted, found = Counter(c.kind for c in planned), Counter(c.kind for c in seen)
        text = ", ".join(f"{kind} {found[kind]:,} seen, {wanted[kind]:,} a pass planned" for kind in wanted)
        detail = f"more than {MOST_EDITS} calls differ: {text}"
        self.deviations.append(Deviation(EXTRA, self.rank, "", "the whole trace", 0, 0, detail))

    def _walk(
        self,
        pairs: Sequence[tuple[int, int]],
        whole: Sequence[PlannedCall],
        seen: Sequence[SeenCall],
        period: int,
        cut: bool,
    ) -> None:
        """Of a trace that is `cut`, what is before the first planned call that was seen, or behind the last, is outside of it."""
        self.counted += len(seen)
        if cut and not pairs:
            self._nothing(whole[:period])
        base = pairs[0][0] // period if cut and pairs else 0
        x, y = (pairs[0][0], 0) if cut and pairs else (0, 0)
        before_end = None
        for i, j in [*pairs, (-1, len(seen))]:
            last = whole[x - 1] if x else None
            stop = i if i >= 0 else x if cut else len(whole)
            self._gap(whole[x:stop], seen[y:j], last, x // period - base)
            if i < 0:
                break
            self.same += 1
            number = i // period - base
            call, found = whole[i], seen[j]
            gap = found.start_s - before_end if before_end is not None else 0.0
            self.arrived[number, call.key] = (found.start_s, found.end_s, gap)
            before_end = found.end_s
            x, y = i + 1, j + 1

    def _gap(
        self, missing: Sequence[PlannedCall], extra: Sequence[SeenCall], last: PlannedCall | None, number: int
    ) -> None:
        """Of one place: where both have calls of a kind these are the same ones, of another size or group."""
        rest = list(extra)
        for call in missing:
            found = next((one for one in rest if one.kind == call.kind), None)
            if found is None:
                self._missing(call, number)
                continue
            rest.remove(found)
            words = list(differences(call, found, self.by_elements)) or [(MISSING, "in another order")]
            for word, detail in words:
                self.deviations.append(Deviation(word, self.rank, call.kind, call.name, call.part, number, detail))
        for one in rest:
            where = f"after {last.name}" if last is not None else "at the start"
            part = last.part if last is not None else 0
            self.deviations.append(Deviation(EXTRA, self.rank, one.kind, where, part, max(0, number), said(one)))

    def _missing(self, call: PlannedCall, number: int) -> None:
        self.deviations.append(Deviation(MISSING, self.rank, call.kind, call.name, call.part, max(0, number), ""))


def best_aligned(planned: Sequence[int], seen: Sequence[int], passes: int) -> tuple[int, list[tuple[int, int]] | None]:
    """How many passes `seen` is laid beside, and which calls are the same: whole passes, unless a trace that begins and ends in the middle
    of one explains much more."""
    whole = aligned(list(planned) * passes, seen)
    missing = len(planned) * passes - len(whole) if whole is not None else MOST_EDITS
    if missing <= FEW:
        return passes, whole
    cut = aligned(list(planned) * (passes + 1), seen, len(planned) if len(planned) <= MOST_FREE else 0)
    if cut is None:
        return passes, whole
    absent = cut[-1][0] - cut[0][0] + 1 - len(cut) if cut else MOST_EDITS
    return (passes, whole) if whole is not None and missing <= absent + FEW else (passes + 1, cut)


def unfolded(calls: Sequence[PlannedCall]) -> list[PlannedCall]:
    """Each call by itself: a ring turn has one in each step."""
    return [replace(call, calls=1, time_s=call.time_s / call.calls) for call in calls for _ in range(call.calls)]


def as_seen(planned: list[PlannedCall], seen: Sequence[SeenCall]) -> list[PlannedCall]:
    """An all-to-all is sends and receives to NCCL: where no metadata say more, a trace has those."""
    if any(call.kind == ALL_TO_ALL for call in seen) or not any(call.kind == SEND_RECV for call in seen):
        return planned
    return [replace(call, kind=SEND_RECV, ranks=()) if call.kind == ALL_TO_ALL else call for call in planned]


def passes_of(planned: Sequence[PlannedCall], seen: Sequence[SeenCall]) -> int:
    """As most kinds say; at least one."""
    wanted, found = Counter(c.kind for c in planned), Counter(c.kind for c in seen)
    return max(1, round(median(found[kind] / n for kind, n in wanted.items())))


class Symbols:
    """Calls as numbers that are equal where the calls are the same, as far as the trace tells: a kind of which some calls have no size
    or no group is compared without."""

    def __init__(self, planned: Sequence[PlannedCall], seen: Sequence[SeenCall], by_elements: bool = False) -> None:
        self.by_elements = by_elements
        kinds = {c.kind for c in planned}
        self.sized = (
            kinds - {c.kind for c in seen if isnan(self.size(c))} - {c.kind for c in planned if isnan(self.size(c))}
        )
        apart = {c.kind for c in planned if not c.ranks}
        self.counted = kinds - {c.kind for c in seen if not c.size} - apart
        self.listed = kinds - {c.kind for c in seen if not c.ranks} - apart
        self.sizes: dict[str, set[float]] = {}
        for call in planned:
            self.sizes.setdefault(call.kind, set()).add(self.size(call))
        self.numbers: dict[object, int] = {}

    def size(self, call: PlannedCall | SeenCall) -> float:
        """In bytes, or where a trace has no dtypes in elements."""
        return call.elements if self.by_elements else call.payload_B

    def planned(self, call: PlannedCall) -> int:
        return self._number(call.kind, self.size(call), len(call.ranks), call.ranks)

    def seen(self, call: SeenCall) -> int:
        near = (s for s in sorted(self.sizes[call.kind]) if abs(s - self.size(call)) <= CLOSE * s)
        return self._number(call.kind, next(near, self.size(call)), call.size, call.ranks)

    def _number(self, kind: str, payload_B: float, size: int, ranks: tuple[int, ...]) -> int:
        key = (
            kind,
            payload_B if kind in self.sized else None,
            size if kind in self.counted else 0,
            ranks if kind in self.listed else (),
        )
        return self.numbers.setdefault(key, len(self.numbers))
