"""Names that several files share by `import`: all their uses, and another name in each of them at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..base.files import UNSAVED
from .bindings import LOCAL, Use, names_of
from .buffer import MAX_CHECKED, Document, Edit
from .finding_uses import RENAMED, Refused, home_of, rename, renamed_uses
from .library_files import read_beside

MOST_SPECS, MOST_FOLDERS = 1_000, 10_000
"""That are looked at for uses of a name."""


def uses_over_files(document: Document, offset: int, others: Iterable[Document]) -> list[tuple[Document, list[Use]]]:
    """All uses of the name at an offset, by document: the document itself first, then those of `others` where it is the same name."""
    use = names_of(document).at(offset)
    if use is None or use.role not in RENAMED:
        return []
    return [(one, [u for u in names_of(one).uses if u.key == use.key]) for one in _sharing(document, use, others)]


def rename_over_files(
    document: Document, offset: int, new: str, others: Iterable[Document]
) -> list[tuple[Document, list[Edit]]]:
    """Edits, by document, that give the name at an offset another name wherever it is that name. Raises Refused, with the file
    where the new name has a meaning."""
    edits = rename(document, offset, new)
    use = names_of(document).at(offset)
    assert use is not None, "it was renamed"
    if not edits:
        return []
    found = [(document, edits)]
    for one in list(_sharing(document, use, others))[1:]:
        try:
            found.append((one, renamed_uses(one, use, new)))
        except Refused as why:
            raise Refused(f"{os.path.basename(one.name)}: {why}") from None
    return found


def _sharing(document: Document, use: Use, others: Iterable[Document]) -> Iterator[Document]:
    """Documents where a name means what it means here: this one, where it is defined, and those that import it from there."""
    yield document
    home = home_of(document, use)
    if use.role in LOCAL or home is None:
        return
    own = None if document.path is None else os.path.realpath(document.path)
    home = home or own
    seen = {own}
    if home is None:
        return  # of a text in no file, which none can import
    for one in (*_read([home], document), *others):
        path = None if one.path is None else os.path.realpath(one.path)
        if path is None or path in seen:
            continue
        seen.add(path)
        defined = names_of(one).defined.get((use.role, use.name), ())
        if defined and os.path.realpath(defined[0].path or path) == home:
            yield one


def specs_in(folders: Sequence[str], like: Document, *, below: bool) -> list[Document]:
    """The specs in folders, and in those below, as the editor has them where they are open. Raises Refused where they are too many."""
    found: list[str] = []
    looked = 0
    for folder in folders:
        for root, inner, files in os.walk(folder):
            shown = [name for name in inner if not name.startswith((".", "node_modules", "__pycache__"))]
            inner[:] = sorted(shown) if below else []
            found += [os.path.join(root, name) for name in sorted(files) if name.endswith(".moe")]
            looked += 1
            if len(found) > MOST_SPECS or looked > MOST_FOLDERS:
                raise Refused(
                    f"more than {MOST_SPECS} specs or {MOST_FOLDERS} folders may use it: open a smaller folder"
                )
    return _read(found, like)


def _read(paths: Iterable[str], like: Document) -> list[Document]:
    read: list[Document] = []
    for path in paths:
        held = UNSAVED.get(os.path.realpath(path))
        if held is None and (not Path(path).is_file() or Path(path).stat().st_size > 4 * MAX_CHECKED):
            continue
        one = read_beside(os.path.realpath(path))
        if one is not None:
            read.append(Document(one.text, path, like.settings))
    return read
