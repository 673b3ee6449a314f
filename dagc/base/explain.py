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


def refilled(text: str, width: int) -> str:
    """Its paragraphs and entries of lists in lines of a terminal. Code keeps its own."""
    import textwrap

    found: list[str] = []
    for part in re.split(r"\n(?=\n|- |    )|(?<=\n)\n", text):
        if part.startswith("    ") or not part.strip():
            found.append(part)
            continue
        indent = "  " if part.lstrip("\n").startswith("- ") else ""
        before = part[: len(part) - len(part.lstrip("\n"))]
        found.append(before + textwrap.fill(part, max(width, 20), subsequent_indent=indent, break_on_hyphens=False))
    return "\n".join(found).rstrip("\n") + "\n"
