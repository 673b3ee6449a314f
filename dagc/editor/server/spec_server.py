"""The server as an object: its open documents, the settings, and the encoding agreed with the editor."""

from __future__ import annotations

import os
from typing import Any

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from ...base.version import VERSION
from ..buffer import Document, Settings
from ..over_files import specs_in
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

    def others(self, one: OpenDocument) -> list[Document]:
        """Documents that may use a name of this one: those that are open, and specs of the folders that the editor has open, or of
        the document's own. Raises Refused where they are too many."""
        roots = [wire.path_of(folder.uri) for folder in self.workspace.folders.values()]
        folders = [root for root in roots if root]
        beside = specs_in(folders or [str(one.document.folder)], one.document, below=bool(folders))
        return [*(other.document for other in self.open.known.values()), *beside]

    def known_as(self, document: Document) -> tuple[str, int | None, Document]:
        """The name by which the editor has a document, and the version; of a file that is not open there is none."""
        path = None if document.path is None else os.path.realpath(document.path)
        for other in self.open.known.values():
            held = other.document
            if held is document or (path and held.path and os.path.realpath(held.path) == path):
                return other.uri, other.version, held
        assert document.path is not None, "a text in no file is open"
        return wire.uri_of(document.path), None, document

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
