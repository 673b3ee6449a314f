"""What an engine's log says of memory, line by line and rank by rank."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

from ...base.foreign_lines import TraceError, lines
from ...base.frozen import record
from ..metrics.series import Server

NUMBER = r"([0-9][0-9,]*(?:\.[0-9]+)?)"
UNITS = {"GiB": float(1 << 30), "tok": 1.0, "of_one": 1.0}
MOST_BYTES = 2_000_000_000
MOST_RANKS = 100_000
PROCESS = "pid"
"""The label that says no rank: the front end's process tells of all engines."""


@record
class Line:
    """A line of a log: `kind` of memory, `kv_tokens` or `imbalance`; `word`: what every such line has, looked for first; `adds`: several of one rank
    are of different things."""

    engine: str
    kind: str
    pattern: re.Pattern[str]
    scale: float
    word: str
    adds: bool


@record
class Sample:
    """A number that an engine tells at intervals: of which series of metrics it is one."""

    engine: str
    word: str
    pattern: re.Pattern[str]
    series: str
    scale: float


@record
class Table:
    lines: tuple[Line, ...]
    samples: tuple[Sample, ...]
    starts: tuple[re.Pattern[str], ...]
    ranks: Mapping[str, re.Pattern[str]]
    data_parallel: str
    frames: tuple[tuple[str, re.Pattern[str]], ...]


@cache
def table() -> Table:
    """The table of `lines.json`."""
    data = json.loads((resources.files(__package__) / "lines.json").read_text())
    found = []
    for row in data["lines"]:
        pattern = row["pattern"].replace("{n}", NUMBER).replace("{m}", NUMBER)
        found.append(
            Line(
                row["engine"], row["kind"], re.compile(pattern), UNITS[row["unit"]], row["word"], row.get("adds", False)
            )
        )
    ranks = {row["label"]: re.compile(row["pattern"]) for row in data["ranks"]}
    frames = tuple((row["kind"], re.compile(row["pattern"])) for row in data["frames"])
    starts = tuple(re.compile(pattern) for pattern in data["starts"])
    samples = tuple(
        Sample(r["engine"], r["word"], re.compile(r["pattern"].replace("{n}", NUMBER)), r["series"], r["scale"])
        for r in data["samples"]
    )
    return Table(tuple(found), samples, starts, ranks, data["data_parallel"], frames)


@dataclass(slots=True)
class Log:
    """`sizes`: kind -> rank -> bytes, what several lines of one rank say of different things added up; `tokens`: of cache, by
    data-parallel rank; `server`: what it tells at intervals; `balance_sum`: mean over largest of the experts' ranks, one of each line that says it."""

    name: str = ""
    engines: set[str] = field(default_factory=set)
    sizes: dict[str, dict[str, float]] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    server: Server = field(default_factory=Server)
    balance_sum: float = 0.0
    balance_count: int = 0

    @property
    def known(self) -> bool:
        return bool(self.sizes or self.tokens or self.balance_count or self.server.series)

    @property
    def fullest(self) -> Mapping[str, float]:
        """Kind -> bytes on the rank that has most of it."""
        return {kind: max(ranks.values()) for kind, ranks in self.sizes.items()}


def read(path: Path) -> Log:
    """Raises TraceError."""
    log, length = Log(path.name), 0
    for number, line in lines(path):
        length += len(line) + 1
        if length > MOST_BYTES:
            raise TraceError(path, number, f"the file is longer than {MOST_BYTES:,} bytes")
        text = line[:4000].decode(errors="replace")
        if any(start.search(text) for start in table().starts):
            log = Log(path.name)
        for one in table().lines:
            if one.word in text and (found := one.pattern.search(text)) is not None:
                numbers = [float(part.replace(",", "")) for part in found.groups() if part]
                _take(log, one, sum(numbers) * one.scale, text[: found.start()])
        for sample in table().samples:
            if sample.word in text and (found := sample.pattern.search(text)) is not None:
                _sample(log, sample, float(found[1].replace(",", "")), text[: found.start()])
    return log


def _sample(log: Log, sample: Sample, value: float, before: str) -> None:
    if log.server.size < MOST_RANKS:
        log.engines.add(sample.engine)
        labels = tuple(sorted((label, number) for label, number in _ranks(before).items() if label != PROCESS))
        log.server.add(sample.series, labels, value * sample.scale)


def _ranks(text: str) -> dict[str, str]:
    """Label -> number, of those that a line has."""
    found = ((label, pattern.search(text)) for label, pattern in table().ranks.items())
    return {label: one["n"] for label, one in found if one is not None}


def _take(log: Log, line: Line, value: float, before: str) -> None:
    log.engines.add(line.engine)
    if line.kind == "imbalance":
        if 0 < value <= 1:
            log.balance_sum += value
            log.balance_count += 1
        return
    if line.kind == "kv_tokens":
        if len(log.tokens) < MOST_RANKS:
            log.tokens[_ranks(before).get(table().data_parallel, "")] = value
        return
    rank = " ".join(f"{label} {number}" for label, number in _ranks(before).items())
    of_kind = log.sizes.setdefault(line.kind, {})
    if rank in of_kind or len(of_kind) < MOST_RANKS:
        before_B = of_kind.get(rank, 0.0)
        of_kind[rank] = before_B + value if line.adds else max(before_B, value)
