"""Pages of `dagc explain`."""

from __future__ import annotations

from importlib import resources


def explain(code: str) -> str | None:
    """The page of a diagnostic code, or None."""
    if not code.isalnum():
        return None
    page = resources.files("dagc.lang") / "pages" / f"{code}.md"
    return page.read_text(encoding="utf-8") if page.is_file() else None
