"""The server: one handler per request, each of which asks the editor package and translates its answer."""

from __future__ import annotations

import os
from typing import Any

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from ...base.version import VERSION
from ..buffer import Document, Settings
from ..layout import formatting
from ..symbols import folds, symbols
from . import wire
from .open_documents import OpenDocument, OpenDocuments

NAME = "dagc"


class SpecServer(LanguageServer):
    """Texts come whole with every change: they are short, and no two sides can count lines differently."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(NAME, VERSION, text_document_sync_kind=types.TextDocumentSyncKind.Full)
        self.open = OpenDocuments(self.tell, settings)

    @property
    def encoding(self) -> str:
        """In which positions count, as agreed with the editor."""
        agreed = self.server_capabilities.position_encoding
        return str(getattr(agreed, "value", agreed or "utf-16"))

    def one(self, uri: str) -> OpenDocument:
        """An open document; one that is not open counts as empty."""
        return self.open.known.get(uri) or OpenDocument(uri, 0, Document("", wire.path_of(uri), self.open.settings))

    def tell(self, one: OpenDocument) -> None:
        """Publish the findings of a document."""
        found = [wire.diagnostic_of(one.document, one.uri, f, self.encoding) for f in one.findings]
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(one.uri, found, one.version))


def make_server(settings: Settings) -> SpecServer:
    """With all its handlers."""
    server = SpecServer(settings)

    @server.feature(types.INITIALIZE)
    def start(ls: SpecServer, params: types.InitializeParams) -> None:
        ls.open.settings = _with_options(settings, params.initialization_options)

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    async def opened(ls: SpecServer, params: types.DidOpenTextDocumentParams) -> None:
        it = params.text_document
        ls.open.put(it.uri, wire.path_of(it.uri), it.text, it.version)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    async def changed(ls: SpecServer, params: types.DidChangeTextDocumentParams) -> None:
        it = params.text_document
        ls.open.put(it.uri, wire.path_of(it.uri), ls.workspace.get_text_document(it.uri).source, it.version)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    async def saved(ls: SpecServer, params: types.DidSaveTextDocumentParams) -> None:
        for one in ls.open.known.values():  # any of them may import it
            ls.open.recheck(one)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(ls: SpecServer, params: types.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        ls.open.drop(uri)
        ls.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))

    @server.feature(types.SHUTDOWN)
    def ended(ls: SpecServer, params: None) -> None:
        ls.open.end()

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    def formatted(ls: SpecServer, params: types.DocumentFormattingParams) -> list[types.TextEdit]:
        document = ls.one(params.text_document.uri).document
        return wire.edits_of(document, formatting(document), ls.encoding)

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

    return server


def _with_options(settings: Settings, options: Any) -> Settings:
    """What the editor's own settings add: `{"set": {"rate": "4"}, "allowImport": ["/models"]}`."""
    if not isinstance(options, dict):
        return settings
    params, folders = options.get("set"), options.get("allowImport")
    told = {str(k): str(v) for k, v in params.items()} if isinstance(params, dict) else {}
    more = tuple(str(f) for f in folders) if isinstance(folders, list) else ()
    return Settings({**settings.params, **told}, (*settings.allow_import, *more))


def serve(settings: Settings) -> None:
    """Over standard input and output, until the editor goes. Whatever else prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = make_server(settings)
    try:
        server.start_io(os.fdopen(os.dup(0), "rb"), answers)
    finally:
        server.open.end()
