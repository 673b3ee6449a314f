"""space: what a phase leaves open as an open grid, row by row only where rules let it be.

A grid grows by one choice after another; a rule rejects rows as soon as it knows enough of them, together with all that they
would have grown into. So spaces of 10^12 plans are counted exactly, and only legal ones are ever listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import record
from ...spec.choice import Choice

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Word = int | str | bool
Values = dict[str, Word]
"""Path of a choice -> its value."""

MOST_ROWS = 8_000_000
"""Plans that are listed at once."""


@record
class Domain:
    """The values that a choice may have, in the order in which they are preferred among equals."""

    path: str
    values: tuple[Word, ...]

    @property
    def numbers(self) -> Ints:
        """What rules compute with: the values where they are numbers, else their places."""
        if all(isinstance(v, int) and not isinstance(v, bool) for v in self.values):
            return np.asarray(self.values, dtype=np.int64)
        return np.arange(len(self.values), dtype=np.int64)

    def place(self, value: Word) -> int:
        """Of a value; -1 where it is none of them."""
        return next(
            (k for k, v in enumerate(self.values) if v == value and isinstance(v, bool) == isinstance(value, bool)), -1
        )


@record
class Rows:
    """Some plans of a space, a column of places in each domain."""

    domains: tuple[Domain, ...]
    fixed: Mapping[str, Word]  # what is not open
    places: tuple[Ints, ...]  # one for each domain so far
    names: Mapping[str, str] = field(default_factory=dict)  # what rules call a path

    def __len__(self) -> int:
        return len(self.places[0]) if self.places else 1

    def knows(self, name: str) -> bool:
        """Whether a column of this name is there by now, or is the same everywhere."""
        return self._at(name) < len(self.places)

    def _at(self, name: str) -> int:
        path = self.names.get(name, name)
        return next((k for k, d in enumerate(self.domains) if d.path == path), -1)

    def number(self, name: str) -> Ints:
        """A column of numbers, or one number for all."""
        at = self._at(name)
        if at < 0:
            value = self.fixed[name]
            assert not isinstance(value, str)
            return np.asarray(int(value), dtype=np.int64)
        return self.domains[at].numbers[self.places[at]]

    def is_(self, name: str, value: Word) -> Flags:
        """Where a word or flag has this value."""
        at = self._at(name)
        if at < 0:
            return np.asarray(self.fixed.get(name) == value)
        found: Flags = self.places[at] == self.domains[at].place(value)
        return found

    def where(self, kept: Flags | Ints) -> Rows:
        return Rows(self.domains, self.fixed, tuple(column[kept] for column in self.places), self.names)

    def grown(self) -> Rows:
        """By the next choice, whose values vary fastest."""
        count = len(self.domains[len(self.places)].values)
        longer = tuple(np.repeat(column, count) for column in self.places)
        rows = len(self)
        return Rows(self.domains, self.fixed, (*longer, np.tile(np.arange(count, dtype=np.int64), rows)), self.names)

    def values(self, row: int) -> Values:
        """A plan by path; what it has no column of yet is the first of its values."""
        out: Values = {}
        for k, domain in enumerate(self.domains):
            out[domain.path] = domain.values[int(self.places[k][row]) if k < len(self.places) else 0]
        return out


Test = Callable[[Rows], Flags]


@record
class Rule:
    """`tests`: what must hold, each with the names that it asks. `about`: what the rule is, in words. `code`: of the diagnostic
    with which such a plan is refused."""

    name: str
    about: str
    tests: tuple[tuple[tuple[str, ...], Test], ...]
    code: str = "E03"


@record
class Rejected:
    """What a rule rejects of a space. `example`: one such plan, by path. `asks`: paths that the rule asks (none: any)."""

    rule: str
    about: str
    count: int
    example: Values
    code: str = "E03"
    asks: tuple[str, ...] = ()


class TooLarge(ValueError):
    """A space with more legal plans than can be listed: `rows` pass the first rules before the choice `path` makes `grown` of them. `size`: of
    the whole space; `widest`: the choice with the most values so far."""

    def __init__(self, rows: int, size: int, domain: Domain, known: Sequence[Domain]) -> None:
        super().__init__(f"{size:,} plans")
        self.rows, self.size, self.path, self.grown = rows, size, domain.path, rows * len(domain.values)
        self.widest = max((*known, domain), key=lambda one: len(one.values))
        self.choice: Choice | None = None
        """The widest as the spec writes it."""


class Late(Exception):
    """Time is up."""


Pause = Callable[[], None]
"""Called between steps of whatever takes long; raises Late where it has taken long enough."""


def never() -> None:
    """Nobody waits."""


@dataclass(slots=True)
class Tally:
    """Rejections by rule, in the order of first use."""

    found: dict[str, Rejected] = field(default_factory=dict)

    def add(self, rule: str, about: str, code: str, count: int, example: Values, asks: tuple[str, ...] = ()) -> None:
        before = self.found.get(rule)
        if not count:
            return
        if before is not None:
            count, example, about, asks = count + before.count, before.example, before.about, before.asks
        self.found[rule] = Rejected(rule, about, count, example, code, asks)

    @property
    def total(self) -> int:
        return sum(one.count for one in self.found.values())

    def __iter__(self) -> Iterator[Rejected]:
        return iter(self.found.values())


def size(domains: Sequence[Domain]) -> int:
    """Plans of the whole grid."""
    return prod(len(d.values) for d in domains)


def legal(
    domains: Sequence[Domain],
    fixed: Mapping[str, Word],
    names: Mapping[str, str],
    rules: Sequence[Rule],
    tally: Tally,
    pause: Pause = never,
) -> Rows:
    """The plans that no rule rejects, in the order of the grid. Counts of the others are added to `tally`. Raises TooLarge, Late."""
    rows = Rows(tuple(domains), fixed, (), names)
    done: set[tuple[str, int]] = set()
    for k in range(len(domains) + 1):
        if k:
            grown = len(rows) * len(domains[k - 1].values)
            if grown > MOST_ROWS:
                raise TooLarge(len(rows), size(domains), domains[k - 1], domains[: k - 1])
            rows = rows.grown()
        left = size(domains[k:])
        for rule in rules:
            for number, (asked, test) in enumerate(rule.tests):
                if (rule.name, number) in done or not all(map(rows.knows, asked)):
                    continue
                done.add((rule.name, number))
                pause()
                kept = np.broadcast_to(test(rows), (len(rows),))
                if kept.all():
                    continue
                out = np.flatnonzero(~kept)
                asks = tuple(rows.names.get(name, name) for name in asked)
                tally.add(rule.name, rule.about, rule.code, len(out) * left, rows.values(int(out[0])), asks)
                if len(out) < len(rows):
                    rows = rows.where(kept)
                else:
                    empty = tuple(np.zeros(0, dtype=np.int64) for _ in domains)
                    return Rows(tuple(domains), fixed, empty, names)
    return rows


def distinct(rows: Rows, key: Sequence[Ints], pause: Pause = never) -> Ints:
    """The first row of every distinct key, in order. Raises Late."""
    if not key:
        return np.arange(min(1, len(rows)))
    number = packed([np.broadcast_to(column, (len(rows),)) for column in key], pause)
    pause()
    _, first = np.unique(number, return_index=True)
    return np.sort(first)


def packed(columns: Sequence[Ints], pause: Pause = never) -> Ints:
    """One number for each row: equal where the rows are equal in all columns. Raises Late."""
    out = np.zeros(len(columns[0]), dtype=np.int64)
    count = 1  # numbers so far are below it
    for column in columns:
        if not len(column):
            return out
        pause()
        least = int(column.min())
        values = int(column.max()) - least + 1
        if values >= MOST_PACKED // count:
            _, out = np.unique(out, return_inverse=True)
            _, column = np.unique(column, return_inverse=True)
            count, least, values = int(out.max()) + 1, 0, int(column.max()) + 1
        out = out * values + (column - least)
        count *= values
    return out


MOST_PACKED = 1 << 62
