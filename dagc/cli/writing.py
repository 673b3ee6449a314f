"""Files and directories written all or none: each is made next to its place first, then renamed."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..base.diagnostics import Diagnostic, SpecError
from ..base.files import Reach, Unreadable

Files = Mapping[Path, bytes | Iterable[bytes]]
Folders = Mapping[Path, Callable[[Path], None]]


def write_all(files: Files, folders: Folders | None = None, *, force: bool = False) -> None:
    """A file in pieces is streamed; a folder is filled by its function, and replaces one that is not empty only by
    `force`. Raises SpecError with E05 when any of them cannot be written: then none is."""
    files = {_place(path): data for path, data in files.items()}
    made: list[tuple[Path, Path]] = []
    created: list[Path] = []
    folders = {_place(path): fill for path, fill in (folders or {}).items()}
    for path in folders:
        refuse_existing(path, force)
    target = Path()
    try:
        for target in (*files, *folders):
            if target in files and os.path.isdir(target):
                raise IsADirectoryError(21, "it is a directory", str(target))
            for parent in reversed([p for p in target.parents if not os.path.exists(p)]):
                parent.mkdir()
                created.append(parent)
        for target, data in files.items():
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            made.append((Path(name), target))
            with os.fdopen(handle, "wb") as file:
                file.writelines((data,) if isinstance(data, bytes) else data)
            _permit(Path(name), target)
        for target, fill in folders.items():
            made.append((Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.")), target))
            made[-1][0].chmod(0o777 & ~_umask())
            fill(made[-1][0])
        for temporary, target in made:
            _renamed(temporary, target)
    except BaseException as error:
        for temporary, _ in made:
            _removed(temporary)
        for parent in reversed(created):
            with suppress(OSError):
                parent.rmdir()  # only what is empty
        if not isinstance(error, OSError):
            raise
        raise SpecError([Diagnostic("E05", f"cannot write {target}: {error.strerror or error}")]) from None


def seen_from(spec: str, path: str | Path) -> str:
    """The path by which a spec finds a file: from its own folder, or from where dagc runs for one of standard input."""
    return (
        str(path) if spec == "-" else os.path.relpath(os.path.realpath(path), os.path.dirname(os.path.realpath(spec)))
    )


def check_folder(path: Path) -> None:
    """Before long work whose result goes there. Raises SpecError with E05 for a folder that cannot be, or be written to."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
    why = (
        "it is not a directory"
        if not there.is_dir()
        else ""
        if os.access(there, os.W_OK | os.X_OK)
        else "not permitted"
    )
    if why:
        raise SpecError([Diagnostic("E05", f"cannot write to `{there}`: {why}")])


def _permit(made: Path, target: Path) -> None:
    """What may be done with a new file: as with the one in whose place it comes."""
    try:
        before = target.stat()
    except FileNotFoundError:
        made.chmod((0o777 if target.suffix == ".sh" else 0o666) & ~_umask())
        return
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(OSError):
            os.chown(made, before.st_uid, before.st_gid)
    made.chmod(stat.S_IMODE(before.st_mode))


def refuse_existing(directory: Path, force: bool) -> None:
    """What is in an output directory stays, unless told otherwise."""
    if not force and os.path.exists(directory) and (not os.path.isdir(directory) or any(directory.iterdir())):
        message = f"`{directory}` exists already"
        raise SpecError([Diagnostic("E05", message, help=("--force replaces it",))])


def _place(path: Path) -> Path:
    """Where a file or folder really goes: a link is followed within its project, as it may have come with the project.
    Raises SpecError for one that leads out of it, for a pipe and for a device."""
    try:
        real = Reach.of(path).find(os.path.abspath(path))
    except Unreadable as error:
        help_ = (
            (f"a link leads to `{os.path.realpath(path)}`: name that place with `-o` instead",) if error.help else ()
        )
        raise SpecError([Diagnostic("E05", f"cannot write `{path}`: {error}", help=help_)]) from None
    path = real if os.path.islink(path) else path
    if os.path.islink(path):
        raise SpecError([Diagnostic("E05", f"cannot write `{path}`: it is a link to itself")])
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise SpecError([Diagnostic("E05", f"`{path}` is not a regular file")])
    return path


def _renamed(temporary: Path, target: Path) -> None:
    """In the place of what was there, which is removed only when the new one is in place."""
    if not temporary.is_dir() or not target.exists():
        if target.is_file() and target.stat().st_nlink > 1:
            shutil.copyfile(temporary, target)  # its other names stay names of it
            temporary.unlink()
        else:
            temporary.replace(target)
        return
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
    target.rename(aside / target.name)
    temporary.rename(target)
    _removed(aside)


def _removed(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
