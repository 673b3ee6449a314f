"""DOT text: escaping, attributes, and the palette that every picture shares."""

from __future__ import annotations

import re
from html import escape

FONT = "Helvetica,Arial,sans-serif"
INK = "#1a1a1a"
SOFT = "#6b7280"
PAPER = "#ffffff"
COMPUTE = "#f3f4f6"
CRITICAL = "#b3261e"

# Okabe and Ito's palette for all kinds of colour vision.
COLORS = {
    "all_reduce": "#E69F00",
    "all_gather": "#56B4E9",
    "reduce_scatter": "#009E73",
    "all_to_all": "#CC79A7",
    "permute": "#F0E442",
    "send": "#D55E00",
}


def quote(text: str) -> str:
    """A DOT string. Newlines become line breaks; backslashes and quotes stay what they are."""
    body = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "\\n")
    return f'"{"".join(c if c.isprintable() else " " for c in body)}"'


def html(text: str) -> str:
    """Text inside an HTML-like label."""
    return escape("".join(c if c.isprintable() else " " for c in text), quote=True)


def identifier(*parts: object) -> str:
    """A stable id made of names: letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9]+", "_", "_".join(str(p) for p in parts)).strip("_") or "n"


class Html(str):
    """An HTML-like label, brackets included. Plain text is never taken for one, whatever it begins with."""


def attributes(**values: object) -> str:
    """`[key="value", ...]`"""
    parts = [f"{key}={value if isinstance(value, Html) else quote(str(value))}" for key, value in values.items()]
    return f" [{', '.join(parts)}]" if parts else ""


def node(name: str, **values: object) -> str:
    return f"  {quote(name)}{attributes(id=identifier(name), **values)};"


def edge(source: str, target: str, **values: object) -> str:
    return f"  {quote(source)} -> {quote(target)}{attributes(**values)};"


def digraph(name: str, title: str, body: list[str], **graph: object) -> str:
    """A whole graph with the shared look."""
    look = {
        "fontname": FONT,
        "fontsize": 15,
        "fontcolor": INK,
        "labelloc": "t",
        "bgcolor": PAPER,
        "pad": 0.25,
        "label": title,
    } | graph
    head = [
        f"digraph {quote(name)} {{",
        f"  graph{attributes(**look)};",
        f"  node{attributes(fontname=FONT, fontsize=11, fontcolor=INK, color=SOFT)};",
        f"  edge{attributes(fontname=FONT, fontsize=9, color=SOFT, fontcolor=SOFT, arrowsize=0.6)};",
    ]
    return "\n".join([*head, *body, "}"]) + "\n"


def legend(kinds: list[str], *, critical: bool = True) -> Html:
    """A small table: a swatch for each collective that is drawn."""
    rows = [f'<tr><td bgcolor="{COLORS[k]}" width="18"> </td><td align="left">{html(k)}</td></tr>' for k in kinds]
    rows.insert(0, f'<tr><td bgcolor="{COMPUTE}" width="18"> </td><td align="left">compute</td></tr>')
    if critical:
        rows.append('<tr><td><b>bold</b></td><td align="left">critical path</td></tr>')
    return Html(f'<<table border="0" cellborder="0" cellspacing="3">{"".join(rows)}</table>>')
