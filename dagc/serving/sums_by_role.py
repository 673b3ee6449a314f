"""What several workers come to together: by role, over time, and at its most."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from .worker import SAMPLES, Worker

_WHAT = ("waiting", "running", "blocks")


class Totals:
    """Requests that wait and run, and blocks held, summed over the workers of each role. `roles`: of each worker. A worker's
    figures are those of the last look at it; it is looked at after everything that changes them, blocks that decode takes in the meantime
    excepted, which a sample counts as of its moment."""

    def __init__(self, workers: Sequence[Worker], roles: Sequence[str]) -> None:
        self._workers = workers
        names = list(dict.fromkeys(roles))
        self._role = [names.index(role) for role in roles]
        self._names = names
        self._of_worker = [[0, 0, 0] for _ in workers]
        self._now = [[0, 0, 0] for _ in names]
        self._most = [[0, 0, 0] for _ in names]
        self._queued_s: list[float] = [0] * len(names)
        self._since: list[float] = [0] * len(names)
        self._step_s, self._next_s = 1 / 64, 0.0
        self._times = array("d")
        self._columns = [[array("d") for _ in _WHAT] for _ in names]

    def look(self, w: int, now: float) -> None:
        """Worker `w` has changed at `now`; times never fall."""
        worker, before, role = self._workers[w], self._of_worker[w], self._role[w]
        if self._next_s <= now:
            self.sample(now)
        shared = worker.shared
        after = [shared.waiting_all, shared.running_all, shared.held]
        if after == before:
            return
        totals, most = self._now[role], self._most[role]
        if before[0] != after[0]:
            waited = totals[0]
            if not waited:
                self._since[role] = now
            elif waited == before[0] and not after[0]:
                self._queued_s[role] += now - self._since[role]
        for what in range(3):
            total = totals[what] = totals[what] + after[what] - before[what]
            if total > most[what]:
                most[what] = total
        self._of_worker[w] = after

    def sample(self, now: float) -> None:
        """The series up to `now`, before what happens then. A full one keeps every second row and goes on at half the rate."""
        while self._next_s <= now:
            blocks = [0] * len(self._names)
            for worker, role in zip(self._workers, self._role, strict=True):
                blocks[role] += worker.held_at(self._next_s)
            values = [value for each, held in zip(self._now, blocks, strict=True) for value in (each[0], each[1], held)]
            for most, held in zip(self._most, blocks, strict=True):
                most[2] = max(most[2], held)
            self._times.append(self._next_s)
            columns = [column for each in self._columns for column in each]
            for column, value in zip(columns, values, strict=True):
                column.append(value)
            if len(self._times) >= SAMPLES:
                self._times = self._times[::2]
                self._columns = [[column[::2] for column in each] for each in self._columns]
                self._step_s *= 2
                self._next_s = self._times[-1]
            self._next_s += self._step_s

    def series(self) -> dict[str, array[float]]:
        """`time_s`, and by role and what."""
        out = {"time_s": self._times}
        for name, columns in zip(self._names, self._columns, strict=True):
            out |= {f"{name}.{what}": column for what, column in zip(_WHAT, columns, strict=True)}
        return out

    def most(self) -> dict[str, int]:
        """Peaks, by role and what; of blocks of several workers as far as they were looked at."""
        for worker, role in zip(self._workers, self._role, strict=True):
            self._most[role][2] = max(self._most[role][2], worker.shared.most_blocks)
        return {
            f"{name}.{what}": value
            for name, values in zip(self._names, self._most, strict=True)
            for what, value in zip(_WHAT, values, strict=True)
        }

    def loads(self) -> dict[str, tuple[int, ...]]:
        """By role: tokens of what has ended on each rank of each worker."""
        return {
            name: tuple(
                rank.tokens
                for worker, its in zip(self._workers, self._role, strict=True)
                if its == role
                for rank in worker.ranks
            )
            for role, name in enumerate(self._names)
        }

    def integrals(self) -> dict[str, float]:
        """Over time, by role: of the workers, and seconds in which anything waited."""
        out: dict[str, float] = {}
        for name in self._names:
            out |= {f"{name}.{what}": 0 for what in self._workers[0].integrals if what != "queued"}
        for worker, role in zip(self._workers, self._role, strict=True):
            for what, value in worker.integrals.items():
                if what != "queued":
                    out[f"{self._names[role]}.{what}"] += value
        for name, queued_s in zip(self._names, self._queued_s, strict=True):
            out[f"{name}.queued"] = queued_s
        return out
