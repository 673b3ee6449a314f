"""The server's life: what an editor opens, changes, saves and closes; and the loop over standard input and output."""

from __future__ import annotations

import os
from typing import Any

from lsprotocol import types

from ..buffer import Settings
from . import wire
from .answers import add_answers
from .changes import add_changes
from .spec_server import SpecServer


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
            one.document = one.document.again()
            ls.open.recheck(one)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(ls: SpecServer, params: types.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        ls.open.drop(uri)
        ls.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))

    @server.feature(types.SHUTDOWN)
    def ended(ls: SpecServer, params: None) -> None:
        ls.open.end()

    add_answers(server)
    add_changes(server)
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
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = make_server(settings)
    try:
        server.start_io(questions, answers)
    finally:
        server.open.end()
