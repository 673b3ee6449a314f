"""Files beside a document: those that it imports or takes sections from, as the language finds them, and the library's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

from ..base.files import UNSAVED, Reach, Unreadable, read_text
from ..base.frozen import record, replace
from ..base.source import Source
from ..lang import library
from .buffer import MAX_CHECKED, Document
from .statement_tree import IMPORT, SECTION, Statement, statements_of
from .tokens import STRING, Token

MOST_FILES = 32
"""That are looked at for names."""


@record(slots=False)
class Beside:
    """A file that a document names, and its statements. `whole`: all of its names count, as of an import; of a preset, blocks and
    layers do."""

    path: str
    text: str
    statements: tuple[Statement, ...]
    whole: bool = True


def unquoted(token: Token) -> str:
    return token.text.strip('"')


def library_folder() -> Path:
    return Path(str(resources.files(library.PACKAGE)))


def in_library(document: Document) -> bool:
    """A file of the library itself, which is read only."""
    return document.path is not None and Path(document.path).is_relative_to(library_folder())


def preset_path(kind: str, name: str) -> str | None:
    """Where the file of a preset is: of the library or of an installed package."""
    source = library.preset(kind, name)
    if source is None:
        return None
    from ..base.entry_points import libraries

    roots = [library_folder(), *(Path(str(root)) for _, root in libraries()[0])]
    files = (root / library.folder(kind) / f"{name}.moe" for root in roots)
    return next((str(file) for file in files if file.is_file()), None)


def named_path(document: Document, kind: str, text: str) -> str | None:
    """The real path of what a string names: `import` or the kind of a section. None where it may not be read or is not there."""
    if kind != IMPORT and not text.endswith((".moe", ".json")):
        return preset_path(kind, text)
    try:
        path = Reach.of(document.path, document.settings.allow_import).find(text)
    except Unreadable:
        return None
    return str(path) if path.is_file() else None


def strings_of(statements: Sequence[Statement]) -> Iterator[tuple[str, Token]]:
    """What names files at the top: `import` or the kind of the section, and the string."""
    for s in statements:
        if s.kind == IMPORT and s.value and s.value[0].kind == STRING:
            yield IMPORT, s.value[0]
        elif s.kind == SECTION and s.preset is not None:
            yield s.word, s.preset


def beside(document: Document, statements: Sequence[Statement]) -> list[Beside]:
    """Files that bring names: imports, and those that they import; then presets, which bring blocks and layers."""
    found: dict[str, Beside] = {}
    ahead = [(document, kind, token) for kind, token in strings_of(statements)]
    while ahead and len(found) < MOST_FILES:
        owner, kind, token = ahead.pop(0)
        path = named_path(owner, kind, unquoted(token))
        if path is None or path in found or not path.endswith(".moe"):
            continue
        read = read_beside(path)
        if read is None:
            continue
        found[path] = read if kind == IMPORT else replace(read, whole=False)
        inner = Document(read.text, path, document.settings)
        ahead += [(inner, kind, token) for kind, token in strings_of(read.statements) if kind == IMPORT]
    return list(found.values())


def read_beside(path: str) -> Beside | None:
    """A file, read again when it has changed; of one that is open, its text in the editor."""
    held = UNSAVED.get(path)
    if held is not None:
        return Beside(path, held, statements_of(held))
    try:
        seen = Path(path).stat()
    except OSError:
        return None
    return _read(path, seen.st_mtime_ns, seen.st_size)


@lru_cache(256)
def _read(path: str, changed_ns: int, size: int) -> Beside | None:
    try:
        text = read_text(path, MAX_CHECKED).replace("\r\n", "\n")
    except Unreadable:
        return None
    return Beside(path, text, statements_of(text))


def stock_blocks() -> Beside:
    """The blocks of the library."""
    found = read_beside(str(library_folder() / "blocks.moe"))
    assert found is not None, "the library is installed"
    return found


def path_of(source: Source, document: Document) -> str | None:
    """The real path of a file that a diagnostic names: the document's own has none, and neither has a text in no file."""
    if source.name == document.name:
        return None
    if source.name.startswith("library/"):
        path = library_folder() / source.name.removeprefix("library/")
        return str(path) if path.is_file() else None
    path = document.folder / source.name
    return str(path) if path.is_file() else None
