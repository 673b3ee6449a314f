"""CSV of a run: samples that nvidia-smi or a dashboard wrote at moments, and requests one by one."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import isfinite, nan
from pathlib import Path

import numpy as np

from ...base.arrays import NDArray
from ...base.foreign_lines import TraceError, lines
from ...base.frozen import record
from .exposition import ABSENT, LABEL, MOST_BYTES
from .series import MOST_SERIES, Labels, Server, TooMany
from .sources import sources

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
EQUAL = 1 - 1e-6
"""A time of at least this share of another is not shorter: files round."""
MOST_ROWS = 5_000_000
MOST_COLUMNS = 10_000
HEAD = re.compile(r"^([A-Za-z_][\w.:]*)\s*(?:\[([^\]]*)\])?\s*(\{.*\})?$")
NUMBER = re.compile(r"^\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(?:%|MiB|W|MHz|C)?\s*$")
DATE = re.compile(r"^\d{4}[/-]\d\d[/-]\d\d[ T][\d:.]+Z?$")
NOTHING = (
    "",
    "[n/a]",
    "n/a",
    "nan",
    "[not supported]",
    "[unknown error]",
    "[not found]",
    "[gpu is lost]",
    "[insufficient permissions]",
)

Column = NDArray[np.float64]


@record
class Requests:
    """Of a file, a column each, nan where a row has nothing: what `sources().columns` names, times in seconds."""

    columns: dict[str, Column]
    name: str

    def __getitem__(self, name: str) -> Column | None:
        return self.columns.get(name)


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row. Raises TraceError."""
    length = 0
    for number, line in lines(path):
        length += len(line) + 1
        if length > MOST_BYTES:
            raise TraceError(path, number, f"the file is longer than {MOST_BYTES:,} bytes")
        text = line.decode(errors="replace")
        try:
            cells = next(csv.reader([text], skipinitialspace=True))
        except (csv.Error, StopIteration):
            raise TraceError(path, number, "this is no row of CSV") from None
        if len(cells) > MOST_COLUMNS:
            raise TraceError(path, number, f"it has more than {MOST_COLUMNS:,} columns")
        yield number, [cell.strip() for cell in cells]


def table(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The head, and the rows below it; files that were put together have it again. Raises TraceError."""
    body = rows(path)
    _, head = next(body)

    def below() -> Iterator[tuple[int, list[str]]]:
        for number, cells in body:
            if cells == head:
                continue
            if len(cells) != len(head):
                raise TraceError(path, number, f"{len(cells)} cells, and {len(head)} in the head")
            yield number, cells

    return head, below()


def request_columns(head: Sequence[str]) -> dict[str, tuple[int, float]]:
    """What a head has of a request: name -> (column, to seconds or as it is). Empty where the file has something else."""
    found: dict[str, tuple[int, float]] = {}
    for place, cell in enumerate(head):
        word = cell.strip().lower()
        stem, _, unit = word.rpartition("_")
        for name, words in sources().columns.items():
            timed = name.endswith("_s")
            if timed and stem in words and unit in UNITS:
                found.setdefault(name, (place, UNITS[unit]))
            elif not timed and word in words:
                found.setdefault(name, (place, 1.0))
    return found if found.keys() & {"ttft_s", "tpot_s", "e2e_s"} else {}


def is_samples(head: Sequence[str]) -> bool:
    """Does a head have a column that is known?"""
    known = sources().aliases
    return any((named := HEAD.match(cell)) and named[1] in known for cell in head)


def read_requests(path: Path) -> Requests:
    """Raises TraceError."""
    head, body = table(path)
    places = request_columns(head)
    kept = {name: array("d") for name in places}
    count = 0
    for number, cells in body:
        count += 1
        if count > MOST_ROWS:
            raise TraceError(path, number, f"more than {MOST_ROWS:,} requests")
        for name, (place, scale) in places.items():
            text = cells[place]
            try:
                value = float(text) * scale if text else nan
            except ValueError:
                raise TraceError(path, number, f"column {place + 1} is not a number") from None
            if value < 0 or value == float("inf"):
                raise TraceError(path, number, f"column {place + 1} is {'negative' if value < 0 else 'infinite'}")
            kept[name].append(value)
        if kept.keys() >= {"ttft_s", "e2e_s"} and kept["e2e_s"][-1] < kept["ttft_s"][-1] * EQUAL:
            raise TraceError(path, number, "its last token comes before its first")
    if not count:
        raise TraceError(path, 0, "it has no requests")
    return Requests({name: np.frombuffer(data, dtype=np.float64) for name, data in kept.items()}, path.name)


def read_samples(path: Path, server: Server) -> int:
    """Adds the cells of known columns to the server; the columns that name a GPU are its labels. Returns the number of samples. Raises TraceError."""
    head, body = table(path)
    known, aliases = sources(), sources().aliases
    values: list[tuple[int, str, Labels]] = []
    labels: list[tuple[int, str]] = []
    time = None
    for place, cell in enumerate(head):
        word = cell.strip()
        named = HEAD.match(word)
        if named and named[1] in aliases:
            given = named[3].strip("{}") if named[3] else ""
            values.append((place, aliases[named[1]], tuple(sorted((m[1], m[2]) for m in LABEL.finditer(given)))))
        elif word.lower() in known.gpu_columns:
            labels.append((place, word.lower()))
        elif word.lower() in known.time_columns and time is None:
            time = place
    found, moments = 0, set[float]()
    for number, cells in body:
        at_s = _time(cells[time], path, number) if time is not None else None
        if at_s is not None and len(moments) < MOST_SERIES:
            moments.add(at_s)
        gpu = tuple((name, cells[place][:200]) for place, name in labels)
        for place, name, more in values:
            text = cells[place]
            if text.lower() in NOTHING:
                continue
            number_ = NUMBER.match(text)
            if number_ is None:
                raise TraceError(path, number, f"column {place + 1} is not a number")
            value = float(number_[1])
            if not isfinite(value) or value >= ABSENT:
                continue
            try:
                server.add(name, tuple(sorted((*gpu, *more))), value, at_s)
            except TooMany:
                raise TraceError(path, number, f"it has more than {MOST_SERIES:,} series") from None
            found += 1
    server.scrapes += len(moments) or 1
    return found


def _time(text: str, path: Path, number: int) -> float | None:
    """Seconds of a moment: a number, or a date."""
    if text.lower() in NOTHING:
        return None
    try:
        value = float(text)
    except ValueError:
        try:
            return datetime.fromisoformat(text.replace("/", "-").removesuffix("Z")).replace(tzinfo=UTC).timestamp()
        except (ValueError, OverflowError):
            pass
        raise TraceError(path, number, "its time cannot be read", "seconds, or 2026/01/31 12:00:00.000") from None
    if not isfinite(value):
        raise TraceError(path, number, "its time is not a number")
    return value / 1000 if abs(value) >= 1e11 else value
