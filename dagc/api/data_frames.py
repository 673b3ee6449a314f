"""Plain rows as a data frame, by whichever library is there."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

LIBRARIES = ("pandas", "polars")
"""In the order in which one is looked for."""


def data_frame(rows: Sequence[dict[str, Any]], library: str | None = None) -> Any:
    """A `pandas.DataFrame`, or a `polars.DataFrame` where pandas is not installed or `library` says so. ImportError where neither is."""
    if library is not None and library not in LIBRARIES:
        raise ValueError(f"no data frames of {library!r}: {', '.join(LIBRARIES)}")
    found = library or next((name for name in LIBRARIES if find_spec(name) is not None), None)
    if found == "pandas":
        import pandas

        return pandas.DataFrame(list(rows))
    if found == "polars":
        import polars

        return polars.DataFrame(list(rows), infer_schema_length=None)
    raise ImportError("data frames need pandas or polars: pip install pandas")
