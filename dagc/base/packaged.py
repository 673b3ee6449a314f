"""Where the files are that come with dagc."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_DAGC = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@cache
def folder(package: str) -> Path:
    """The folder of a package of dagc; `importlib.resources` would load a twentieth of a whole `dagc check`, for archives that dagc is
    never imported from."""
    return Path(_DAGC, *package.split(".")[1:])
