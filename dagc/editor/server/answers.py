"""Requests that only read: hover, definitions, references, outline, folding, links, hints, colours."""

from __future__ import annotations

from lsprotocol import types

from ..buffer import Document
from ..file_links import links
from ..finding_uses import Refused, definitions_at, uses_at
from ..hints import hints
from ..hovers import hover
from ..over_files import uses_over_files
from ..semantics import MODIFIERS, TYPES, semantic_tokens
from ..symbols import folds, symbols
from . import wire
from .spec_server import SpecServer

LEGEND = types.SemanticTokensLegend(list(TYPES), list(MODIFIERS))


def add_answers(server: SpecServer) -> None:
    """Register the handlers."""

    @server.feature(types.TEXT_DOCUMENT_HOVER)
    def hovered(ls: SpecServer, params: types.HoverParams) -> types.Hover | None:
        one, offset = ls.at(params)
        found = hover(one.document, offset, one.facts)
        if found is None:
            return None
        text = types.MarkupContent(types.MarkupKind.Markdown, found.text)
        return types.Hover(text, ls.range(one.document, found.start, found.end))

    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    def defined(ls: SpecServer, params: types.DefinitionParams) -> list[types.Location]:
        one, offset = ls.at(params)
        found = []
        for place in definitions_at(one.document, offset):
            document = Document(place.text) if place.path else one.document
            uri = wire.uri_of(place.path) if place.path else one.uri
            found.append(types.Location(uri, ls.range(document, place.start, place.end)))
        return found

    @server.feature(types.TEXT_DOCUMENT_REFERENCES)
    def used(ls: SpecServer, params: types.ReferenceParams) -> list[types.Location]:
        one, offset = ls.at(params)
        try:
            others = ls.others(one)
        except Refused:
            others = []
        return [
            types.Location(ls.known_as(document)[0], ls.range(document, use.token.start, use.token.end))
            for document, uses in uses_over_files(one.document, offset, others)
            for use in uses
            if params.context.include_declaration or not use.defines
        ]

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)
    def highlighted(ls: SpecServer, params: types.DocumentHighlightParams) -> list[types.DocumentHighlight]:
        one, offset = ls.at(params)
        kinds = types.DocumentHighlightKind
        return [
            types.DocumentHighlight(
                ls.range(one.document, use.token.start, use.token.end), kinds.Write if use.defines else kinds.Read
            )
            for use in uses_at(one.document, offset)
        ]

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def outlined(ls: SpecServer, params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
        document = ls.one(params.text_document.uri).document
        return [wire.symbol_of(document, s, ls.encoding) for s in symbols(document)]

    @server.feature(types.TEXT_DOCUMENT_FOLDING_RANGE)
    def folded(ls: SpecServer, params: types.FoldingRangeParams) -> list[types.FoldingRange]:
        document = ls.one(params.text_document.uri).document
        lines = ((document.position(a)[0], document.position(b)[0], comment) for a, b, comment in folds(document))
        return [
            types.FoldingRange(a, b if comment else b - 1, kind=types.FoldingRangeKind.Comment if comment else None)
            for a, b, comment in lines
            if b - (not comment) > a
        ]

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_LINK)
    def linked(ls: SpecServer, params: types.DocumentLinkParams) -> list[types.DocumentLink]:
        document = ls.one(params.text_document.uri).document
        return [
            types.DocumentLink(ls.range(document, link.start, link.end), wire.uri_of(link.path))
            for link in links(document)
        ]

    @server.feature(types.TEXT_DOCUMENT_INLAY_HINT)
    def hinted(ls: SpecServer, params: types.InlayHintParams) -> list[types.InlayHint]:
        one = ls.one(params.text_document.uri)
        start, end = ls.offsets(one.document, params.range)
        return [
            types.InlayHint(
                ls.range(one.document, hint.offset, hint.offset).start,
                hint.text,
                tooltip=hint.about or None,
                padding_left=True,
            )
            for hint in hints(one.document, one.facts, start, end)
        ]

    @server.feature(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, LEGEND)
    def coloured(ls: SpecServer, params: types.SemanticTokensParams) -> types.SemanticTokens:
        """Each token relative to the one before: lines down, units right, length, type, modifiers as bits."""
        document, data, line, column = ls.one(params.text_document.uri).document, list[int](), 0, 0
        for start, end, type_, modifiers in semantic_tokens(document):
            at, unit = document.position(start, ls.encoding)
            length = document.position(end, ls.encoding)[1] - unit
            bits = sum(1 << MODIFIERS.index(m) for m in modifiers)
            data += [at - line, unit - (column if at == line else 0), length, TYPES.index(type_), bits]
            line, column = at, unit
        return types.SemanticTokens(data)
