"""Results as CSV tables, with the columns that `dagc.calib.fitting.tables` reads, together with rows measured before."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..base.files import MAX_GRAPH_BYTES, Unreadable, read_text
from .timer import Result

Row = Mapping[str, str]
FACTS = ("latency_us", "spread", "samples", "clock", "device", "torch", "cuda")
"""Columns that say how a row was measured; the others, which come first, say what."""


def rows(results: Iterable[Result], gpu: str, device: str, versions: Mapping[str, str]) -> dict[str, list[Row]]:
    """Rows of each table, by its file name."""
    found: dict[str, list[Row]] = {}
    for result in results:
        columns = result.job.columns()
        if result.timing is None or columns is None:
            continue
        timing = result.timing
        facts = {
            "latency_us": f"{timing.median_s * 1e6:.6g}", "spread": f"{timing.spread:.3g}",
            "samples": str(timing.samples), "clock": timing.clock, "device": device, **versions,
        }  # fmt: skip
        shape = {name: str(value) for name, value in columns.items()}
        found.setdefault(result.job.table, []).append({"gpu": gpu, **shape, **facts})
    return found


def merged(path: Path, fresh: list[Row]) -> bytes:
    """The table with the fresh rows; those of the same GPU and sizes give way to them.

    Raises ValueError when the file there has other columns.
    """
    names = list(fresh[0])
    kept: list[Row] = []
    if path.exists():
        try:
            reader = csv.DictReader(io.StringIO(read_text(path, MAX_GRAPH_BYTES), newline=""))
        except Unreadable as error:
            raise ValueError(f"cannot read {path}: {error}") from None
        if list(reader.fieldnames or ()) != names:
            raise ValueError(f"{path} has other columns than these measurements: write them into another folder")
        kept = list(reader)
    known = {_shape(row) for row in fresh}
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*(row for row in kept if _shape(row) not in known), *fresh])
    return out.getvalue().encode()


def _shape(row: Row) -> tuple[str, ...]:
    return tuple(value for name, value in row.items() if name not in FACTS)
