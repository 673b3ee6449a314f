"""Measured tables (CSV, one row per kernel call, latency_us) of the families: parts, folds of rows and of shapes.

Columns: see docs/calibration.md.
"""

from __future__ import annotations

import csv
import zlib
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...base.arrays import NDArray
from ..family import Family, Row, Table, column

AnyFamily = Family[Any]


class TableError(ValueError):
    """A table is not what its columns say."""


class Key(NamedTuple):
    """What a part is of."""

    gpu: str
    engine: str
    family: str
    variant: str


def read(path: Path) -> list[Row]:
    """Rows of a table. Raises TableError when a row has more or fewer values than the header."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(path: Path, changed_ns: int) -> list[Row]:
    """Several families may read one table."""
    with path.open(encoding="utf-8", newline="") as file:
        rows: list[Row] = list(csv.DictReader(file))
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise TableError(
                f"{path.name}, line {number}: the number of values differs from the number of names in the header"
            )
    return rows


def groups(family: AnyFamily, folders: Sequence[Path]) -> tuple[dict[Key, list[Row]], list[str]]:
    """Rows of a family by part, under its own column names, from every folder that has a table of it; and the tables that
    no folder has. Raises TableError when a column is missing or has something that is not a number."""
    whole: dict[Key, list[Row]] = defaultdict(list)
    absent = []
    for table in family.sources:
        paths = [folder / table.file for folder in folders if (folder / table.file).exists()]
        absent += [] if paths else [table.file]
        for path in paths:
            for key, rows in parts(family, table, read(path)).items():
                whole[key] += rows
    return dict(whole), absent


def parts(family: AnyFamily, table: Table, rows: Sequence[Row]) -> dict[Key, list[Row]]:
    """Rows of one table by part, under the family's column names. Raises TableError."""
    found: dict[Key, list[Row]] = defaultdict(list)
    try:
        for row in table.select(rows):
            own = table.adapt(row)
            if own is not None and (variant := family.variant(own)) is not None:
                found[Key(own["gpu"], table.engine(row), family.name, variant)].append(own)
        for part in found.values():
            for name in (*family.shapes, "latency_us"):
                column(part, name)
    except KeyError as error:
        raise TableError(f"{table.file}: no column {error.args[0]}") from None
    except ValueError as error:
        raise TableError(f"{table.file}: {error}") from None
    return found


def row_names(family: AnyFamily, rows: Sequence[Row]) -> list[str]:
    """What tells rows of a part apart, their position among equal ones too."""
    seen: dict[str, int] = defaultdict(int)
    names = []
    for row in rows:
        name = ",".join(f"{float(row[column]):g}" for column in (*family.shapes, "latency_us"))
        seen[name] += 1
        names.append(f"{name},{seen[name]}")
    return names


def shape_names(family: AnyFamily, rows: Sequence[Row]) -> list[str]:
    """The shape of each row, by the same name on every GPU and engine."""
    columns = family.unseen or family.shapes
    return [",".join(f"{float(row[name]):g}" for name in columns) for row in rows]


def shape_numbers(family: AnyFamily, rows: Sequence[Row]) -> NDArray[np.int64]:
    """Equal where rows are of one shape."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in shape_names(family, rows)], dtype=np.int64)


def folds(names: Sequence[str], count: int) -> NDArray[np.int64]:
    """Fold of each name; equal names share one. Which one follows from the name alone, so that a shape is in the same fold
    on every GPU and engine, unless that leaves fewer than two folds with names: then they take turns."""
    found = np.array([zlib.crc32(name.encode()) % count for name in names], dtype=np.int64)
    if len(set(found.tolist())) > 1:
        return found
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] % count for name in names], dtype=np.int64)
