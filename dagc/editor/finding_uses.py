"""From a name to its definition, to all its uses, and to another name."""

from __future__ import annotations

import re
from pathlib import Path

from ..base.frozen import record
from ..base.phase_kinds import PHASE_KINDS
from ..base.syntax.build import MAX_NAME
from ..base.syntax.errors import WORDS
from .bindings import (
    CONSTANT,
    DIM,
    LOCAL,
    MODEL_SIZE,
    OWNERS,
    PHASE,
    POOL,
    SERVING,
    VALUE,
    WORD,
    Names,
    Use,
    names_of,
)
from .buffer import Document, Edit
from .known_sections import path_of
from .library_files import library_folder, named_path, strings_of, unquoted
from .statement_tree import ASSIGN, SECTION, Statement, walk
from .tokens import STRING, Token

RENAMED = ("constant", PHASE, SERVING, POOL, "block", "layer", *LOCAL)
"""Kinds of names that can be renamed."""
TOGETHER = (CONSTANT, PHASE, SERVING, POOL)
"""Kinds of which a requirement may name each: no two may have one name."""


@record
class Place:
    """Characters of a file; of the document itself where `path` is empty. `text`: of that file."""

    path: str
    start: int
    end: int
    text: str = ""


class Refused(Exception):
    """Why a name cannot be changed."""


def definitions_at(document: Document, offset: int) -> list[Place]:
    """Where what is at an offset is defined: a name, a file that is named, a size of the model."""
    names = names_of(document)
    for kind, token in strings_of(names.statements):
        if token.start <= offset <= token.end:
            path = named_path(document, kind, unquoted(token))
            return [] if path is None else [Place(path, 0, 0)]
    use = names.at(offset)
    if use is None:
        return []
    if use.role in LOCAL:
        return [Place("", u.token.start, u.token.end) for u in names.uses if u.key == use.key and u.defines][:1]
    if use.role in (DIM, MODEL_SIZE):
        return _size(document, names, use.name.split(".")[-1])
    if use.role == "attribute" and use.path == "":
        return []
    return [Place(d.path, d.token.start, d.token.end, d.text) for d in names.defined.get((use.role, use.name), ())]


def _size(document: Document, names: Names, name: str) -> list[Place]:
    """Where the model has an attribute: in the document, else in a file that it brings in."""
    from .library_files import beside

    trees: list[tuple[str, str, tuple[Statement, ...]]] = [("", "", names.statements)]
    trees += [(b.path, b.text, b.statements) for b in beside(document, names.statements)]
    for path, text, statements in trees:
        for s, above in walk(statements):
            if s.kind == ASSIGN and s.word == name and path_of(above).startswith("model"):
                return [Place(path, s.start, s.start + len(name), text)]
    return []


def uses_at(document: Document, offset: int) -> list[Use]:
    """All uses of the name at an offset, its definitions included; none where nothing is named."""
    names = names_of(document)
    use = names.at(offset)
    if use is None or use.role not in RENAMED:
        return []
    return [u for u in names.uses if u.key == use.key]


def renamed_at(document: Document, offset: int) -> Token:
    """The word that would be renamed. Raises Refused."""
    names = names_of(document)
    use = names.at(offset)
    if use is None or use.role not in RENAMED:
        raise Refused("this is not a name that the file defines")
    home = home_of(document, use)
    if home is None:
        raise Refused(f"`{use.name}` is not defined")
    if home and Path(home).is_relative_to(library_folder()):
        raise Refused(f"`{use.name}` is of the library, which is read only")
    if use.token.kind == STRING:
        return Token(use.token.kind, use.name, use.token.start + 1)
    return use.token


def home_of(document: Document, use: Use) -> str | None:
    """The path of the file that defines a name: empty for the document itself, None for no file."""
    names = names_of(document)
    if any(u.defines for u in names.uses if u.key == use.key):
        return ""
    known = () if use.role in LOCAL else names.defined.get((use.role, use.name), ())
    return known[0].path if known else None


def rename(document: Document, offset: int, new: str) -> list[Edit]:
    """Edits that give the name at an offset another name everywhere in its document. Raises Refused."""
    old = renamed_at(document, offset).text
    use = names_of(document).at(offset)
    assert use is not None
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", new) or len(new) > MAX_NAME:
        raise Refused("a name has letters, digits and `_`, and does not begin with a digit")
    if new in WORDS:
        raise Refused(f"`{new}` is a reserved word")
    return [] if new == old else renamed_uses(document, use, new)


def renamed_uses(document: Document, use: Use, new: str) -> list[Edit]:
    """Edits of all uses of what `use` names, which may be a use in another document. Raises Refused where `new` has a meaning."""
    names = names_of(document)
    _clash(names, use, new)
    edits = [
        Edit(u.token.start, u.token.end, f'"{new}"' if u.token.kind == STRING else new)
        for u in names.uses
        if u.key == use.key
    ]
    return edits if use.role != PHASE else [*edits, *_kept_kind(names, use.name)]


def _clash(names: Names, use: Use, new: str) -> None:
    """No other name of the file may be taken for the new one."""
    kinds = TOGETHER if use.role in TOGETHER else (use.role,)
    if use.role in LOCAL:
        inside = [
            u
            for u in names.uses
            if u.scope == use.scope or (use.scope and use.scope[0] <= u.token.start < use.scope[1])
        ]
        if any(u.name == new and u.role in (*LOCAL, DIM, MODEL_SIZE, CONSTANT) for u in inside):
            raise Refused(f"`{new}` has a meaning in this block")
        return
    if any((kind, new) in names.defined for kind in kinds):
        raise Refused(f"`{new}` is defined already")
    if use.role in TOGETHER and new in OWNERS:
        raise Refused(f"`{new}` is the name of a section")
    if use.role == CONSTANT and any(u.name == new and u.role in (WORD, VALUE, MODEL_SIZE) for u in names.uses):
        raise Refused(f"`{new}` is a word that the file uses: it would become the constant's value")


def _kept_kind(names: Names, old: str) -> list[Edit]:
    """A phase whose name says its kind is told it when it gets another name."""
    return [
        Edit(s.inside[0], s.inside[0], f" kind = {old}," if s.body else f" kind = {old}")
        for s in names.statements
        if s.kind == SECTION and s.word == "phase" and s.name is not None and unquoted(s.name) == old
        and old in PHASE_KINDS and s.inside is not None and s.attribute("kind") is None
    ]  # fmt: skip
