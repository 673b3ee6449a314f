"""Where the files are that come with dagc."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def folder(package: str) -> Path:
    """The folder of a package; `importlib.resources` would load a twentieth of a whole `dagc check`, for archives that dagc is never
    imported from."""
    found = find_spec(package)
    assert found is not None and found.submodule_search_locations is not None
    return Path(next(iter(found.submodule_search_locations)))
