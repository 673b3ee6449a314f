"""Colours by meaning: what each word of a text is, for an editor's semantic tokens."""

from __future__ import annotations

from . import bindings as b
from .buffer import Document
from .tokens import COMMENT, OPERATOR

TYPES = (
    "keyword", "class", "property", "variable", "function", "enumMember", "number", "string", "comment", "operator",
    "namespace", "parameter", "type", "method",
)  # fmt: skip
"""Of the protocol, in the order in which they are numbered."""
MODIFIERS = ("definition", "readonly")
_TYPE = {
    b.KEYWORD: "keyword", b.KIND: "class", b.ATTRIBUTE: "property", b.CONSTANT: "variable", b.FUNCTION: "function",
    b.METRIC: "property", b.WORD: "enumMember", b.DIM: "type", b.WEIGHT: "parameter", b.AXIS: "enumMember", b.OWNER: "namespace",
    b.MODEL_SIZE: "property", b.LEVEL: "namespace", b.PHASE: "namespace", b.SERVING: "namespace", b.POOL: "namespace",
    b.BLOCK_NAME: "function", b.LAYER_NAME: "class", b.VALUE: "variable", b.SIZE: "type", "number": "number",
    "unit": "keyword", "string": "string",
}  # fmt: skip


def semantic_tokens(document: Document) -> list[tuple[int, int, str, tuple[str, ...]]]:
    """(start, end, type, modifiers) in order, none over another."""
    found = {}
    for token in document.tokens:
        if token.kind in (COMMENT, OPERATOR):
            found[token.start] = token.start, token.end, "comment" if token.kind == COMMENT else "operator", ()
    for use in b.names_of(document).uses:
        more = (*(("definition",) if use.defines else ()), *(("readonly",) if use.role == b.CONSTANT else ()))
        found[use.token.start] = use.token.start, use.token.end, _TYPE[use.role], more
    return [found[start] for start in sorted(found)]
