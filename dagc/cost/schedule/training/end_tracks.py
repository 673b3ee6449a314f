"""end_tracks: the ends of all cells of a kind on a stage, of which those that repeat a period are computed when they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ....base.frozen import record


class Gap(NamedTuple):
    """After `values`, `more` go on as the last `period` values went on from the `period` before them."""

    values: int
    more: int
    period: int


@record(slots=False)
class Track:
    """Seconds in the order in which the cells run. `values`: those that were computed."""

    values: Sequence[float]
    gaps: tuple[Gap, ...] = ()

    def __len__(self) -> int:
        return len(self.values) + sum(gap.more for gap in self.gaps)

    def __getitem__(self, at: int) -> float:
        if not 0 <= at < len(self):
            raise IndexError(at)
        if not self.gaps:
            return self.values[at]
        skipped = 0
        firsts = []
        for gap in self.gaps:
            firsts.append(gap.values + skipped)
            skipped += gap.more
        k = bisect_right(firsts, at) - 1
        if k < 0:
            return self.values[at]
        gap, inside = self.gaps[k], at - firsts[k]
        if inside >= gap.more:
            return self.values[at - sum(g.more for g in self.gaps[: k + 1])]
        return self._inside(gap, inside)

    def __iter__(self) -> Iterator[float]:
        done = 0
        for gap in self.gaps:
            yield from self.values[done : gap.values]
            yield from (self._inside(gap, k) for k in range(gap.more))
            done = gap.values
        yield from self.values[done:]

    def _inside(self, gap: Gap, k: int) -> float:
        periods, place = divmod(k, gap.period)
        last = self.values[gap.values - gap.period + place]
        return last + (periods + 1) * (last - self.values[gap.values - 2 * gap.period + place])
