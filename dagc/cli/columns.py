"""How wide a terminal is, as `shutil.get_terminal_size` says, which imports three kinds of compression."""

from __future__ import annotations

import os
import sys

USUAL = 80


def columns() -> int:
    """What COLUMNS says, else what the terminal of standard output does."""
    try:
        said = int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        said = 0
    if said > 0:
        return said
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or USUAL  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # no such stream, or no terminal
        return USUAL
