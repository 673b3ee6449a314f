"""Files that a spec, or the command line, names: read to a limit and never waited for, and those that a spec names only
inside its project."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from .frozen import record
from .heard import LISTENERS
from .packaged import folder as packaged

MARKS = (".git", "pyproject.toml")
"""What marks the top folder of a project."""
MAX_TEXT_BYTES = 4_000_000
"""Of a spec, a config.json, a histogram or a calibration."""
MAX_GRAPH_BYTES = 512_000_000
"""Of a placed graph, which lists every node."""
MOST_NAMES = 1000
"""Of a folder, among which one is looked for that may be meant."""
_DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""Where a shell puts a pipe that it has opened for the command: `dagc check <(generate)`."""


UNSAVED: dict[str, str] = {}
"""Texts that an editor has of files and that are not saved yet, by real path: read instead of what is on disk."""


class Unreadable(Exception):
    """Why a file cannot be read, and what would help."""

    def __init__(self, reason: str, *help: str) -> None:
        super().__init__(reason)
        self.help = help


class TooLong(Unreadable):
    """It is longer than what is read."""


def stamp(path: Path | str) -> tuple[int, ...]:
    """Another one where a file was written anew or replaced, also by one that claims to be as old. Raises OSError."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def read_bytes(path: Path | str, most: int, *, named: bool = False) -> bytes:
    """A regular file of at most `most` bytes. `named`: by the command line, which may pass a pipe that the shell has
    opened. Raises Unreadable."""
    held = UNSAVED.get(os.path.realpath(path)) if UNSAVED else None
    if held is not None:
        data = held.encode("utf-8", "replace")
    else:
        with open_regular(path, named=named) as file:
            try:
                data = file.read(most + 1)
            except OSError as error:
                raise Unreadable(_reason(error)) from None
    if len(data) > most:
        raise TooLong(f"it is longer than {most:,} bytes")
    return data


def open_regular(path: Path | str, *, named: bool = False) -> BinaryIO:
    """A regular file, opened. Raises Unreadable."""
    text = str(path)
    for one in LISTENERS:
        one.opened(text)
    try:
        # Opening a pipe without a writer would wait for one.
        handle = os.open(text, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0))
    except FileNotFoundError as error:
        raise Unreadable(_reason(error), *(_files_meant(text) if named else ())) from None
    except (OSError, ValueError) as error:
        raise Unreadable(_reason(error)) from None
    try:
        mode = os.fstat(handle).st_mode
        pipe = stat.S_ISFIFO(mode) and named and text.startswith(_DESCRIPTORS)
        if not stat.S_ISREG(mode) and not pipe:
            below = (f"files in it: {os.path.join(text, '*.moe')}",) if named and stat.S_ISDIR(mode) else ()
            raise Unreadable(f"it is {_kind(mode)}, not a regular file", *below)
        os.set_blocking(handle, True)
        return open(handle, "rb")
    except OSError as error:
        os.close(handle)
        raise Unreadable(_reason(error)) from None
    except Unreadable:
        os.close(handle)
        raise


def read_named(path: str, most: int, allowed: Sequence[str | Path] = ()) -> bytes:
    """A file that the command line names. A link that leads out of its project leads nowhere, but for `allowed` folders:
    it may have come with the project. Raises Unreadable."""
    if os.path.islink(path):
        Reach.of(path, allowed).find(os.path.abspath(path))
    return read_bytes(path, most, named=True)


def read_text(path: Path | str, most: int = MAX_TEXT_BYTES) -> str:
    """A regular file of UTF-8 text. Raises Unreadable."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8 text (byte {error.start})") from None


def _files_meant(path: str) -> tuple[str, ...]:
    """The help where the command line names a file that is not there."""
    from .suggest import did_you_mean

    folder, name = os.path.split(path)
    try:
        with os.scandir(folder or ".") as entries:
            there = [entry.name for entry in islice(entries, MOST_NAMES)]
    except OSError:
        return (f"there is no folder `{folder}`",)
    near = did_you_mean(name, sorted(there))
    return (f"did you mean `{os.path.join(folder, near)}`?",) if near else ()


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


@record
class Reach:
    """Files that a spec may name: those below `roots`, real paths. A link counts by where it leads. `base`: the folder
    of the spec."""

    base: Path
    roots: tuple[Path, ...]

    @classmethod
    def of(cls, spec: str | Path | None, allowed: Sequence[str | Path] = ()) -> Reach:
        """Of a spec file (None or `-`: text without a file, treated as one in the current folder): its project,
        the library, and the folders that the user allows. Raises Unreadable."""
        nowhere = spec is None or str(spec) == "-"
        try:
            outer = Path(os.path.abspath("." if nowhere else Path(str(spec)).parent))
            base = outer if nowhere else Path(os.path.realpath(str(spec))).parent
        except (OSError, ValueError) as error:
            raise Unreadable(_reason(error)) from None
        marked = (p for p in (outer, *outer.parents) if any(os.path.exists(p / mark) for mark in MARKS))
        library = str(packaged("dagc.grammar.library"))
        roots = (next(marked, outer), library, *allowed)
        return cls(base, tuple(Path(os.path.realpath(root)) for root in roots))

    def find(self, given: str | Path, base: Path | None = None) -> Path:
        """The real path of a file that is named from `base` (the spec's folder). Raises Unreadable when it is
        elsewhere, whether or not there is such a file."""
        try:
            path = Path(os.path.realpath((base or self.base) / given))
        except (OSError, ValueError) as error:
            raise Unreadable(_reason(error)) from None
        if not any(path.is_relative_to(root) for root in self.roots):
            raise Unreadable(
                f"it is outside the project `{self.roots[0]}`",
                "`--allow-import DIR` lets specs read files of a folder",
            )
        return path
