"""Where calibrations are that dagc comes with, and of which GPUs: what a spec asks before any is read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..base.packaged import folder as packaged


def folder() -> Path:
    """A folder per GPU, and what belongs to no GPU."""
    return packaged("dagc.grammar.library") / "calibration"


def available() -> list[str]:
    """GPUs with a calibration in the library."""
    return _folders(folder())


@lru_cache(maxsize=4)
def _folders(at: Path) -> list[str]:
    return sorted(entry.name for entry in at.iterdir() if entry.is_dir())
