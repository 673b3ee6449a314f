"""Series of numbers over time, added up as they are read: of any length of file, with memory for the series alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]
"""(label, value), sorted by label."""
MOST_SERIES = 100_000
"""Of one server: 1,000 ranks with 50 series and a histogram each are less."""


class TooMany(Exception):
    """A server has more series than are read."""


@dataclass(slots=True)
class Series:
    """`increase`: what a counter went up by, also where it began again at zero (`resets`), or was not there before (`late`: others of its name
    were). `above`: samples greater than zero."""

    count: int = 0
    total: float = 0.0
    first: float = 0.0
    last: float = 0.0
    most: float = float("-inf")
    increase: float = 0.0
    resets: int = 0
    above: int = 0
    late: bool = False

    def add(self, value: float) -> None:
        if self.count:
            if value >= self.last:
                self.increase += value - self.last
            else:
                self.increase += value
                self.resets += 1
        else:
            self.first = value
            self.increase = value if self.late else 0.0
        self.count += 1
        self.total += value
        self.last = value
        self.most = max(self.most, value)
        self.above += value > 0

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def counted(self) -> float:
        """What a counter counted: since the first sample, or since its program began where there is one sample alone."""
        return self.increase if self.count > 1 or self.late else self.last


@dataclass(slots=True)
class Server:
    """What one place reported: a server of an engine, a frontend, or all GPUs that one program watched. `phase`: what the command line says it
    serves, and `role` the kind of that phase; `scrapes`: moments at which it was asked; `names`: of its files; `began`: name -> the
    scrape that had it first; `told`: in a log, and so
    of a server that may have been asked too; times are those that the samples say."""

    phase: str = ""
    role: str = ""
    names: list[str] = field(default_factory=list)
    series: dict[str, dict[Labels, Series]] = field(default_factory=dict)
    scrapes: int = 0
    first_s: float | None = None
    last_s: float | None = None
    size: int = 0
    began: dict[str, int] = field(default_factory=dict)
    told: bool = False

    def add(self, name: str, labels: Labels, value: float, at_s: float | None = None) -> None:
        """One sample. Raises TooMany."""
        of_name = self.series.setdefault(name, {})
        series = of_name.get(labels)
        if series is None:
            self.size += 1
            if self.size > MOST_SERIES:
                raise TooMany
            began = self.began.setdefault(name, self.scrapes)
            series = of_name[labels] = Series(late=began < self.scrapes)
        series.add(value)
        if at_s is not None:
            self.first_s = at_s if self.first_s is None else min(self.first_s, at_s)
            self.last_s = at_s if self.last_s is None else max(self.last_s, at_s)

    def of(self, name: str) -> Iterator[tuple[dict[str, str], Series]]:
        """(labels, series) of a name."""
        for labels, series in self.series.get(name, {}).items():
            yield dict(labels), series

    def has(self, name: str) -> bool:
        """Does it have series of this name, or a histogram or summary of it?"""
        return name in self.series or f"{name}_sum" in self.series

    @property
    def seconds(self) -> float | None:
        """Between its first sample and the last, where they say when."""
        if self.first_s is None or self.last_s is None or self.last_s <= self.first_s:
            return None
        return self.last_s - self.first_s

    @property
    def of_an_engine(self) -> bool:
        """Does it count requests, and is it no frontend?"""
        return any(name.startswith(("vllm:", "sglang:", "trtllm_")) for name in self.series)
