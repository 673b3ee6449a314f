"""DOT text: escaping, attributes, and the colours of the palette that it uses: Graphviz knows no themes."""

from __future__ import annotations

import re
from html import escape

from .palette import PALETTE

FONT = "Helvetica,Arial,sans-serif"
INK, SOFT, PAPER, COMPUTE, CRITICAL = (PALETTE[name].light for name in ("ink", "soft", "paper", "box", "critical"))
COLORS = {name.removeprefix("k-"): tone.light for name, tone in PALETTE.items() if name.startswith("k-")}
"""Kind of a collective -> its colour."""


def quote(text: str) -> str:
    """A DOT string. Newlines become line breaks; backslashes and quotes stay what they are."""
    body = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "\\n")
    return f'"{"".join(c if c.isprintable() else " " for c in body)}"'


def html(text: str) -> str:
    """Text inside an HTML-like label."""
    return escape("".join(c if c.isprintable() else " " for c in text), quote=True)


def identifier(*parts: object) -> str:
    """A stable id made of names. Different names have different ids: characters that an id cannot have are spelled out."""
    text = "/".join(str(p) for p in parts)
    body = re.sub(r"[^A-Za-z0-9_./]", lambda m: f"-x{ord(m[0]):x}-", text).replace(".", "-").replace("/", "--")
    return body if body[:1].isalpha() else f"n-{body}"


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


def cluster(name: str, label: str, body: list[str]) -> list[str]:
    """Nodes in a rounded frame."""
    key = identifier("cluster", name)
    look = attributes_of(
        id=key,
        label=label,
        style="rounded",
        color="#d1d5db",
        fontcolor=SOFT,
        fontname=FONT,
        fontsize=12,
        labeljust="l",
        margin=10,
    )
    return [f"  subgraph {quote(key)} {{ {look}", *[f"  {line}" for line in body], "  }"]


def attributes_of(**values: object) -> str:
    """Attributes as statements of a subgraph: `label="x"; color="y";`"""
    return " ".join(
        f"{key}={value if isinstance(value, Html) else quote(str(value))};" for key, value in values.items()
    )


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


def legend(kinds: list[str], *, across: bool = False) -> Html:
    """A small table: a swatch for compute and each collective that is drawn; in one row when `across`."""
    swatches = [(COMPUTE, "compute"), *((COLORS[k], k) for k in kinds)]
    cells = [f'<td bgcolor="{c}" width="18">   </td><td align="left">{html(text)}  </td>' for c, text in swatches]
    cells.append(f'<td bgcolor="{CRITICAL}" width="18">   </td><td align="left">critical path</td>')
    rows = f"<tr>{''.join(cells)}</tr>" if across else "".join(f"<tr>{cell}</tr>" for cell in cells)
    return Html(f'<<table border="0" cellborder="0" cellspacing="3">{rows}</table>>')
