"""Between the editor package's records and the protocol's types."""

from __future__ import annotations

from pathlib import Path

from lsprotocol import types
from pygls import uris

from ..buffer import Document, Edit
from ..checked import ERROR, INFORMATION, WARNING, Finding, Spot
from ..symbols import Symbol

SEVERITIES = {
    ERROR: types.DiagnosticSeverity.Error,
    WARNING: types.DiagnosticSeverity.Warning,
    INFORMATION: types.DiagnosticSeverity.Information,
}
SOURCE = "dagc"
SYMBOLS = {
    "section": types.SymbolKind.Module, "block": types.SymbolKind.Function, "layer": types.SymbolKind.Class,
    "let": types.SymbolKind.Constant, "param": types.SymbolKind.Variable, "assign": types.SymbolKind.Property,
    "require": types.SymbolKind.Event, "import": types.SymbolKind.File, "link": types.SymbolKind.Interface,
}  # fmt: skip


def path_of(uri: str) -> str | None:
    """The file of a document; None of one that is in no file yet."""
    return str(uris.to_fs_path(uri)) if uri.startswith("file:") else None


def uri_of(path: str) -> str:
    return str(uris.from_fs_path(path))


def range_of(document: Document, start: int, end: int, encoding: str) -> types.Range:
    return types.Range(_position(document, start, encoding), _position(document, max(start, end), encoding))


def _position(document: Document, offset: int, encoding: str) -> types.Position:
    return types.Position(*document.position(offset, encoding))


def location_of(document: Document, uri: str, spot: Spot, encoding: str) -> types.Location:
    """Of a place, in this document or another file."""
    if not spot.path:
        return types.Location(uri, range_of(document, spot.start, spot.end, encoding))
    ends = types.Position(spot.line, spot.column), types.Position(spot.end_line, spot.end_column)
    return types.Location(uri_of(spot.path), types.Range(*ends))


def diagnostic_of(document: Document, uri: str, finding: Finding, encoding: str) -> types.Diagnostic:
    page = Path(__file__).parent.parent.parent / "base" / "pages" / f"{finding.code}.md"
    return types.Diagnostic(
        range=range_of(document, finding.spot.start, finding.spot.end, encoding),
        message=finding.text,
        severity=SEVERITIES[finding.severity],
        code=finding.code or None,
        code_description=types.CodeDescription(uri_of(str(page))) if finding.code else None,
        source=SOURCE,
        related_information=[
            types.DiagnosticRelatedInformation(location_of(document, uri, note.spot, encoding), note.text or "here")
            for note in finding.also
        ],
    )


def edits_of(document: Document, edits: list[Edit], encoding: str) -> list[types.TextEdit]:
    """With the newlines of the editor's text."""
    return [
        types.TextEdit(range_of(document, e.start, e.end, encoding), e.text.replace("\n", document.newline))
        for e in edits
    ]


def symbol_of(document: Document, symbol: Symbol, encoding: str) -> types.DocumentSymbol:
    return types.DocumentSymbol(
        name=symbol.name,
        kind=SYMBOLS[symbol.kind],
        range=range_of(document, symbol.start, symbol.end, encoding),
        selection_range=range_of(document, symbol.at, symbol.until, encoding),
        detail=symbol.detail or None,
        children=[symbol_of(document, inner, encoding) for inner in symbol.inside],
    )
