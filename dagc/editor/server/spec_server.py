"""The server as an object: its open documents, the settings, and the encoding agreed with the editor."""

from __future__ import annotations

from typing import Any

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from ...base.version import VERSION
from ..buffer import Document, Settings
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

    def at(self, params: Any) -> tuple[OpenDocument, int]:
        """The document and the offset that a request is about."""
        one = self.one(params.text_document.uri)
        return one, one.document.offset(params.position.line, params.position.character, self.encoding)

    def offsets(self, document: Document, range_: types.Range) -> tuple[int, int]:
        start, end = (document.offset(p.line, p.character, self.encoding) for p in (range_.start, range_.end))
        return start, max(start, end)

    def range(self, document: Document, start: int, end: int) -> types.Range:
        return wire.range_of(document, start, end, self.encoding)

    def tell(self, one: OpenDocument) -> None:
        """Publish the findings of a document, and have hints drawn anew."""
        found = [wire.diagnostic_of(one.document, one.uri, f, self.encoding) for f in one.findings]
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(one.uri, found, one.version))
        workspace = self.client_capabilities.workspace
        if workspace is not None and workspace.inlay_hint is not None and workspace.inlay_hint.refresh_support:
            self.workspace_inlay_hint_refresh(None)
