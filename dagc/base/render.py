"""Diagnostics as text, one-liners, JSON, GitHub annotations or SARIF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .codes import TABLE
from .diagnostic import Diagnostic
from .harmless import harmless, in_json
from .source import Span

SHOWN_COLUMNS = 120
_COLORS = {"error": "31;1", "warning": "33;1", "failed": "31;1"}


def render(diagnostics: Sequence[Diagnostic], fmt: str = "text", color: bool = False) -> str:
    """All diagnostics in one format: text, concise, json, github or sarif. No trailing newline."""
    if fmt == "json":
        return _dumps(as_records(diagnostics))
    if fmt == "sarif":
        return _dumps(_sarif(diagnostics))
    one = {"concise": _concise, "github": _github}.get(fmt)
    if one is not None:
        return "\n".join(one(d) for d in diagnostics)
    return "\n\n".join(_text(d, color) for d in diagnostics)


def _dumps(value: object) -> str:
    import json

    text = in_json(json.dumps(value, indent=2, ensure_ascii=False))
    return text.encode("utf-8", "replace").decode("utf-8")  # a file name may contain bytes that are not text


# -- rustc layout ----------------------------------------------------------------------------------


def _text(d: Diagnostic, color: bool) -> str:
    def paint(text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if color else text

    kind = "requirement" if d.severity == "failed" else d.severity
    lines = [paint(f"{kind}[{d.code}]", _COLORS[d.severity]) + paint(f": {harmless(d.message)}", "1")]
    gutter = " "
    if d.span is not None:
        numbers = [s.source.position(s.start)[0] for s in (d.span, *(a.span for a in d.also))]
        gutter = " " * len(str(max(numbers)))
        lines += _snippet(d.span, d.label, gutter, "^", "-->", paint)
        for other in d.also:
            lines += _snippet(other.span, other.text, gutter, "-", ":::", paint)
        if d.because or d.help:
            lines.append(f"{gutter} |")
    lines += [f"{gutter} = because: {harmless(text)}" for text in d.because]
    lines += [f"{gutter} = {paint('help', '36')}: {harmless(text)}" for text in d.help]
    return "\n".join(lines)


def _snippet(span: Span, label: str, gutter: str, mark: str, arrow: str, paint: Any) -> list[str]:
    line, column = span.source.position(span.start)
    text = span.source.line(line)
    length = max(1, min(span.end, span.start + len(text) - column + 1) - span.start)
    text, column, length = _window(text, column, length)
    under = " " * (column - 1) + paint(mark * length + (f" {harmless(label)}" if label else ""), "31")
    return [
        f"{gutter}{arrow} {harmless(span.source.name)}:{line}:{span.source.position(span.start)[1]}",
        f"{gutter} |",
        f"{line:>{len(gutter)}} | {harmless(text)}".rstrip(),
        f"{gutter} | {under}",
    ]


def _window(text: str, column: int, length: int) -> tuple[str, int, int]:
    """The part of a long line around the span."""
    if len(text) <= SHOWN_COLUMNS:
        return text, column, length
    start = max(0, column - 1 - SHOWN_COLUMNS // 3)
    cut = text[start : start + SHOWN_COLUMNS]
    head = "..." if start else ""
    tail = "..." if start + SHOWN_COLUMNS < len(text) else ""
    column = column - start + len(head)
    return head + cut + tail, column, max(1, min(length, len(head) + len(cut) - column + 1))


# -- machine formats -------------------------------------------------------------------------------


def _place(span: Span | None) -> tuple[str, int, int, int, int]:
    if span is None:
        return "", 0, 0, 0, 0
    line, column = span.source.position(span.start)
    end_line, end_column = span.source.position(max(span.start, span.end))
    return span.source.name, line, column, end_line, end_column


def _concise(d: Diagnostic) -> str:
    name, line, column, _, _ = _place(d.span)
    where = f"{harmless(name)}:{line}:{column}: " if d.span else ""
    also = "".join(f"; {harmless(text)}" for text in _also(d))
    return f"{where}{d.code} {harmless(d.message)}{also}"


def _also(d: Diagnostic) -> list[str]:
    """The other places in words: `first here (plan.moe:3:14)`."""
    rows = []
    for label in d.also:
        name, line, column, _, _ = _place(label.span)
        rows.append(f"{label.text} ({name}:{line}:{column})")
    return rows


def as_records(diagnostics: Sequence[Diagnostic]) -> list[dict[str, Any]]:
    """Plain data, as in `--json`."""
    out = []
    for d in diagnostics:
        name, line, column, end_line, end_column = _place(d.span)
        out.append(
            {
                "code": d.code,
                "severity": d.severity,
                "message": d.message,
                "file": name or None,
                "line": line or None,
                "column": column or None,
                "end_line": end_line or None,
                "end_column": end_column or None,
                "label": d.label,
                "also": [
                    {
                        "label": label.text,
                        **dict(
                            zip(("file", "line", "column", "end_line", "end_column"), _place(label.span), strict=True)
                        ),
                    }
                    for label in d.also
                ],
                "because": list(d.because),
                "help": list(d.help),
            }
        )
    return out


def _github(d: Diagnostic) -> str:
    name, line, column, end_line, _ = _place(d.span)
    level = "warning" if d.severity == "warning" else "error"
    text = "\n".join([d.message, *_also(d), *d.because, *(f"help: {h}" for h in d.help)])
    fields = [f"file={_property(name)}", f"line={line}", f"endLine={end_line}", f"col={column}"] if d.span else []
    fields.append(f"title={_property(f'dagc {d.code}')}")
    return f"::{level} {','.join(fields)}::{_data(text)}"


def _data(text: str) -> str:
    """Escapes of GitHub's workflow commands; control characters never reach the log."""
    lines = (harmless(line) for line in text.replace("\r", "").replace("%", "%25").split("\n"))
    return "%0A".join(lines)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _physical(span: Span) -> dict[str, Any]:
    from urllib.parse import quote

    name, line, column, end_line, end_column = _place(span)
    region = {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": max(end_column, 1)}
    return {"artifactLocation": {"uri": quote(name.encode("utf-8", "surrogateescape"))}, "region": region}


def _sarif(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """SARIF 2.1.0, one run."""
    results = []
    for d in diagnostics:
        result: dict[str, Any] = {
            "ruleId": d.code,
            "level": "warning" if d.severity == "warning" else "error",
            "message": {"text": " ".join([d.message, *d.because, *d.help])},
        }
        if d.span:
            result["locations"] = [{"physicalLocation": _physical(d.span)}]
        if d.also:
            result["relatedLocations"] = [
                {"id": i, "message": {"text": label.text}, "physicalLocation": _physical(label.span)}
                for i, label in enumerate(d.also)
            ]
        results.append(result)
    rules = [{"id": c.code, "shortDescription": {"text": c.title}, "fullDescription": {"text": c.about}} for c in TABLE]
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "dagc", "rules": rules}},
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }
