"""Pages of `dagc explain`."""

from __future__ import annotations

from importlib import resources

from .codes import TITLES


def explain(code: str) -> str | None:
    """The page of a diagnostic code, or None."""
    if code not in TITLES:
        return None
    return (resources.files("dagc.base") / "pages" / f"{code}.md").read_text(encoding="utf-8")
