"""Measured tables (CSV, one row per kernel call, latency_us) of the families: groups of rows, validation split, errors.

Columns: see docs/calibration.md.
"""

from __future__ import annotations

import csv
import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..family import US, Family, Row, column
from ..shape import Floats

AnyFamily = Family[Any]


class TableError(ValueError):
    """A table is not what its columns say."""


def read(path: Path) -> list[Row]:
    """Rows of a table. Raises TableError when a row has more or fewer values than the header."""
    with path.open(encoding="utf-8", newline="") as file:
        rows: list[Row] = list(csv.DictReader(file))
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise TableError(
                f"{path.name}, line {number}: the number of values differs from the number of names in the header"
            )
    return rows


def groups(family: AnyFamily, rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by (gpu, variant). Raises TableError when a column is missing or has something that is not a number."""
    tables: dict[tuple[str, str], list[Row]] = defaultdict(list)
    try:
        for row in rows:
            if (variant := family.variant(row)) is not None:
                tables[row["gpu"], variant].append(row)
        for part in tables.values():
            for name in (*family.shapes, "latency_us"):
                column(part, name)
    except KeyError as error:
        raise TableError(f"{family.file}: no column {error.args[0]}") from None
    except ValueError as error:
        raise TableError(f"{family.file}: {error}") from None
    return dict(tables)


def validation_rows(name: str, rows: list[Row], every: int = 4) -> NDArray[np.bool_]:
    """One row in `every`, at random among neighbours in latency; the seed is the name of the table's part."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    order = np.argsort(column(rows, "latency_us"), kind="stable")
    held_out = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(order) - 1, every):
        held_out[rng.choice(order[start : start + every])] = True
    return held_out


def relative_error(family: AnyFamily, constants: Any, rows: list[Row]) -> Floats:
    """|estimate / measurement - 1| of each row."""
    estimate = family.time_s(constants, *family.arguments(rows))
    return np.abs(estimate / (column(rows, "latency_us") * US) - 1)
