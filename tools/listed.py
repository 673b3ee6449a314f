"""Rewrites the tables of docs/ that `dagc list` prints; their text around the tables stays.

python tools/listed.py
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from dagc.cli import main

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"metrics": "metrics.md", "codes": "diagnostics.md"}
"""Topic of `dagc list` -> the page that has its table."""


def table(topic: str) -> str:
    """What `dagc list TOPIC --format md` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["list", topic, "--format", "md"])
    return out.getvalue()


def rewritten(page: str, made: str) -> str:
    """The page with its table of the same head replaced."""
    head = re.escape(made.splitlines()[0])
    return re.sub(rf"^{head}\n(?:\|.*\n)*", lambda _: made, page, count=1, flags=re.MULTILINE)


if __name__ == "__main__":
    for topic, name in PAGES.items():
        path = DOCS / name
        path.write_text(rewritten(path.read_text(), table(topic)))
