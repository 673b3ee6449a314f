"""Pages of `dagc explain`."""

from __future__ import annotations

import re
from importlib import resources

from .codes import TITLES

_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)*([^)]+)\)")


def explain(code: str) -> str | None:
    """The page of a diagnostic code in Markdown, or None."""
    if code not in TITLES:
        return None
    return (resources.files("dagc.base") / "pages" / f"{code}.md").read_text(encoding="utf-8")


def plain(page: str) -> str:
    """A page for a terminal: code is indented, and a link says where it leads."""
    indented = _BLOCK.sub(lambda block: re.sub(r"^(?=.)", "    ", block[1], flags=re.MULTILINE).rstrip("\n"), page)
    return _LINK.sub(r"\1 (\2)", indented)
