"""A comparison of two plans as text, as Markdown and as plain data."""

from __future__ import annotations

from textwrap import shorten
from typing import Any

from ...base.harmless import harmless
from ...base.units import unit_name
from .diff import Change, Diff, Figure
from .markdown_text import escaped
from .markdown_text import table as markdown_table
from .terminal_text import WIDTH, or_lines

ABSENT = "-"


def arrow(figure: Figure) -> str:
    return "↑" if figure.after > figure.before else "↓"


def percent(figure: Figure) -> str:
    """`+12.3%`; a change from zero has none."""
    return "from zero" if figure.ratio is None else f"{figure.ratio:+.1%}"


def judged(figure: Figure) -> str:
    return {True: "better", False: "worse", None: ""}[figure.better]


def _was(passed: bool | None) -> str:
    return {True: "pass", False: "FAIL", None: ABSENT}[passed]


def text(diff: Diff, a: str, b: str, width: int = WIDTH) -> str:
    """For a terminal."""
    if diff.empty:
        return f"{a} and {b} are the same\n"
    lines = [f"{a} -> {b}"]
    for head, changes in (("inputs", diff.inputs), ("structure", diff.structure)):
        rows = [(_sign(c), harmless(c.name), _short(c.before), "->", _short(c.after)) for c in changes]
        lines += ["", head, *(or_lines(rows, "<<<<<", width) if rows else ["    no change"])]
    results = [
        (f.name, f.shown(f.before), "->", f.shown(f.after), arrow(f), percent(f), judged(f)) for f in diff.results
    ]
    lines += ["", "results", *(or_lines(results, "<><><><", width) if results else ["    no change"])]
    if diff.requirements:
        turns = [(harmless(t.label), _was(t.before), "->", _was(t.after)) for t in diff.requirements]
        lines += ["", "requirements", *or_lines(turns, "<<<<", width)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _sign(change: Change) -> str:
    return "+" if change.before is None else "-" if change.after is None else "~"


def _short(value: str | None) -> str:
    """One line that fits a terminal."""
    return ABSENT if value is None else shorten(harmless(value), 44, placeholder="...")


def markdown(diff: Diff, a: str, b: str) -> str:
    """For a pull request."""
    lines = [f"## {escaped(a)} → {escaped(b)}"]
    if diff.empty:
        return "\n".join([*lines, "", "No difference."]) + "\n"
    if diff.requirements:
        turns = [(t.label, _was(t.before), _was(t.after)) for t in diff.requirements]
        lines += ["", "### Requirements", "", *markdown_table(["requirement", "before", "after"], turns, "<<<")]
    for head, changes in (("Inputs", diff.inputs), ("Structure", diff.structure)):
        if changes:
            rows = [(c.name, _short(c.before), _short(c.after)) for c in changes]
            lines += ["", f"### {head}", "", *markdown_table(["", "before", "after"], rows, "<<<")]
    if diff.results:
        figures = [
            (f.name, f.shown(f.before), f.shown(f.after), f"{arrow(f)} {percent(f)}", judged(f)) for f in diff.results
        ]
        lines += ["", "### Results", "", *markdown_table(["", "before", "after", "change", ""], figures, "<>>><")]
    return "\n".join(lines) + "\n"


def plain(diff: Diff, a: str, b: str) -> dict[str, Any]:
    """Plain data, SI units; its schema is `diff.schema.json` of dagc.export."""
    return {
        "schema": 2,
        "a": a,
        "b": b,
        "inputs": [{"name": c.name, "before": c.before, "after": c.after} for c in diff.inputs],
        "structure": [{"name": c.name, "before": c.before, "after": c.after} for c in diff.structure],
        "results": [
            {
                "name": f.name,
                "unit": unit_name(f.dim),
                "before": f.before,
                "after": f.after,
                "change": f.ratio,
                "better": f.better,
            }
            for f in diff.results
        ],
        "requirements": [{"name": t.label, "before": t.before, "after": t.after} for t in diff.requirements],
    }
