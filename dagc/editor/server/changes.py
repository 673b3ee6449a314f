"""Requests that may change the text: completion, renaming, formatting, fixes."""

from __future__ import annotations

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from ..buffer import Document, Edit
from ..checked import PLAN
from ..completions import completions
from ..finding_uses import Refused, renamed_at
from ..fixes import Fix, candidates, touches
from ..layout import formatting
from ..over_files import rename_over_files
from . import wire
from .open_documents import OpenDocument
from .spec_server import SpecServer

ITEMS = {
    "attribute": types.CompletionItemKind.Property, "section": types.CompletionItemKind.Module,
    "keyword": types.CompletionItemKind.Keyword, "value": types.CompletionItemKind.EnumMember,
    "preset": types.CompletionItemKind.Constant, "file": types.CompletionItemKind.File, "metric": types.CompletionItemKind.Field,
    "dim": types.CompletionItemKind.TypeParameter, "constant": types.CompletionItemKind.Variable,
    "function": types.CompletionItemKind.Function, "unit": types.CompletionItemKind.Unit, "name": types.CompletionItemKind.Reference,
}  # fmt: skip
TRIGGERS = [".", '"', "=", "[", "(", "{"]


def add_changes(server: SpecServer) -> None:
    """Register the handlers."""

    @server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=TRIGGERS))
    def completed(ls: SpecServer, params: types.CompletionParams) -> types.CompletionList:
        one, offset = ls.at(params)
        document = one.document
        items = completions(document, offset, one.facts, snippets=_snippets(ls.client_capabilities))
        return types.CompletionList(
            False,
            [
                types.CompletionItem(
                    label=item.label,
                    kind=ITEMS[item.kind],
                    detail=item.detail or None,
                    documentation=types.MarkupContent(types.MarkupKind.Markdown, item.about) if item.about else None,
                    sort_text=f"{item.rank}{i:04}",
                    insert_text_format=types.InsertTextFormat.Snippet
                    if item.snippet
                    else types.InsertTextFormat.PlainText,
                    text_edit=types.TextEdit(ls.range(document, item.start, offset), item.insert or item.label),
                )
                for i, item in enumerate(items)
            ],
        )

    @server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
    def renamable(ls: SpecServer, params: types.PrepareRenameParams) -> types.PrepareRenamePlaceholder | None:
        one, offset = ls.at(params)
        try:
            token = renamed_at(one.document, offset)
        except Refused as why:
            raise JsonRpcInvalidParams(str(why)) from None
        return types.PrepareRenamePlaceholder(ls.range(one.document, token.start, token.end), token.text)

    @server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
    def renamed(ls: SpecServer, params: types.RenameParams) -> types.WorkspaceEdit:
        one, offset = ls.at(params)
        try:
            found = rename_over_files(one.document, offset, params.new_name, ls.others(one))
        except Refused as why:
            raise JsonRpcInvalidParams(str(why)) from None
        return _edits(ls, [(*ls.known_as(document), edits) for document, edits in found if edits])

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    def formatted(ls: SpecServer, params: types.DocumentFormattingParams) -> list[types.TextEdit]:
        document = ls.one(params.text_document.uri).document
        return wire.edits_of(document, formatting(document), ls.encoding)

    kinds = [types.CodeActionKind.QuickFix, types.CodeActionKind.Source]

    @server.feature(types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=kinds))
    async def acted(ls: SpecServer, params: types.CodeActionParams) -> list[types.CodeAction]:
        one = ls.one(params.text_document.uri)
        document = one.document
        # Some editors ask at the cursor for what is wrong in its whole line.
        places = [ls.offsets(document, r) for r in (params.range, *(d.range for d in params.context.diagnostics))]
        start, end = min(first for first, _ in places), max(last for _, last in places)
        wanted = params.context.only
        actions: list[types.CodeAction] = []
        if wanted is None or any(kind.startswith("quickfix") for kind in wanted):
            actions = [_action(ls, one, fix) for fix in await _fixes(ls, one, start, end)]
        if one.document is not document:
            return []  # of an older text
        edits = formatting(document) if wanted is None or "source" in wanted else []
        if edits:
            title = "Format as dagc fmt does"
            actions.append(types.CodeAction(title, types.CodeActionKind.Source, edit=_edit(ls, one, edits)))
        return actions


async def _fixes(ls: SpecServer, one: OpenDocument, start: int, end: int) -> list[Fix]:
    """Those of the spec soon; those of the compiled plan where there is a finding of it."""
    document = one.document
    here = [f for f in one.findings if touches(f, start, end) and next(candidates(document, f), None) is not None]
    if not here:
        return []
    found = await ls.open.quick.fixes(one.uri, document, start, end)
    rest = {(f.code, f.message) for f in here} - {(f.code, f.message) for f in found}
    if rest and one.checked.stage == PLAN and one.document is document:
        found += await ls.open.costly.fixes(one.uri, document, start, end)
    return found


def _action(ls: SpecServer, one: OpenDocument, fix: Fix) -> types.CodeAction:
    ended = [f for f in one.findings if (f.code, f.message) == (fix.code, fix.message)]
    return types.CodeAction(
        fix.title,
        types.CodeActionKind.QuickFix,
        diagnostics=[wire.diagnostic_of(one.document, one.uri, f, ls.encoding) for f in ended],
        edit=_edit(ls, one, list(fix.edits)),
    )


def _edit(ls: SpecServer, one: OpenDocument, edits: list[Edit]) -> types.WorkspaceEdit:
    return _edits(ls, [(one.uri, one.version, one.document, edits)])


def _edits(ls: SpecServer, found: list[tuple[str, int | None, Document, list[Edit]]]) -> types.WorkspaceEdit:
    """Of these versions: an editor refuses them for other ones. A file that is not open has none."""
    told = [(uri, version, wire.edits_of(document, edits, ls.encoding)) for uri, version, document, edits in found]
    workspace = ls.client_capabilities.workspace
    if workspace is not None and workspace.workspace_edit is not None and workspace.workspace_edit.document_changes:
        versioned = types.OptionalVersionedTextDocumentIdentifier
        return types.WorkspaceEdit(
            document_changes=[types.TextDocumentEdit(versioned(uri, version), edits) for uri, version, edits in told]
        )
    return types.WorkspaceEdit(changes={uri: edits for uri, _, edits in told})


def _snippets(capabilities: types.ClientCapabilities) -> bool:
    document = capabilities.text_document
    item = document.completion.completion_item if document is not None and document.completion is not None else None
    return bool(item is not None and item.snippet_support)
