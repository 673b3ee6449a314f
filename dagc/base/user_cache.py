"""What dagc found out and keeps for its next run, in the user's cache folder (`$XDG_CACHE_HOME/dagc`, else `~/.cache/dagc`).

Entries are plain JSON, named by a digest of all that they follow from, the installed version of dagc included. A folder or
file that anybody else may write, links, and what is damaged, too large or of another form counts as absent; so does everything
where nothing can be written, or with DAGC_CACHE=off. No entry is needed, and none may change an answer."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

MAX_BYTES = 64 * 1024
"""Of an entry."""
MAX_ENTRIES = 512
"""The oldest go."""
_ENDING = ".json"
_DIGEST = 64
"""Characters of a digest."""


def folder() -> str | None:
    """Where entries are; None: nowhere."""
    if os.environ.get("DAGC_CACHE", "").lower() in ("off", "0", "no"):
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "dagc", "kept") if os.path.isabs(base) else None


def identity() -> str | None:
    """Tells one installed dagc from any other: the hashes of all its files, as its installer wrote them down. None for a checkout,
    whose files change, and where nothing is written down."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    site = os.path.dirname(package)
    records = []
    with suppress(OSError, UnicodeDecodeError):
        for name in sorted(os.listdir(site)):
            if name.startswith("dagc_moe-") and name.endswith(".dist-info"):  # two where an upgrade was interrupted
                with open(os.path.join(site, name, "RECORD"), encoding="utf-8") as file:
                    records.append(file.read())
    ours = "\ndagc/base/user_cache.py,sha256="
    return digest("\n".join(records)) if any(ours in f"\n{record}" for record in records) else None


def surroundings() -> str | None:
    """All that an answer follows from beside what it was asked of: the installed dagc, its Python and NumPy. None where one of them is
    not known. NumPy is not imported for it."""
    from importlib.machinery import PathFinder

    own, numpy = identity(), PathFinder.find_spec("numpy")
    if own is None or numpy is None or numpy.origin is None:
        return None
    versions = []
    with suppress(OSError):
        names = os.listdir(os.path.dirname(os.path.dirname(numpy.origin)))
        versions = [name for name in sorted(names) if name.startswith("numpy-") and name.endswith(".dist-info")]
    return "\n".join([own, sys.version, *os.uname()[0::4], *versions]) if versions else None


class Use:
    """Of a command that keeps figures while it runs. Few of them: a simulation would ask for hundreds."""

    MOST = 8
    """Entries that were not there, after which none is looked for."""

    def __init__(self) -> None:
        own = identity() if folder() is not None else None
        self.own = None if own is None else "\n".join([own, sys.version, *os.uname()[0::4]])
        self.left = self.MOST

    def key(self, what: str, words: str | None) -> str | None:
        """The name of an entry; None where it is not kept. `words`: what it follows from beside the installed dagc and its Python."""
        if self.own is None or words is None or not self.left:
            return None
        return digest("\n".join([self.own, what, words]))

    def keep(self, key: str, entry: Any) -> None:
        self.left -= 1
        write(key, entry)


_used: list[Use] = []


def in_use() -> Use | None:
    """Of what runs; None: figures are not kept."""
    return _used[-1] if _used else None


@contextmanager
def using() -> Iterator[None]:
    """Figures are kept meanwhile."""
    _used.append(Use())
    try:
        yield
    finally:
        _used.pop()


def digest(text: str) -> str:
    found: str = _sha256()(text.encode()).hexdigest()
    return found


def _sha256() -> Any:
    """Python's own, as `random` takes its: `hashlib` loads all of OpenSSL, a tenth of what a kept verdict takes."""
    found: Any
    try:
        from _sha2 import sha256 as found  # type: ignore[import-not-found, no-redef]
    except ImportError:
        try:  # before Python 3.12
            from _sha256 import sha256 as found  # type: ignore[import-not-found, no-redef]
        except ImportError:
            from hashlib import sha256 as found
    return found


def read(key: str) -> Any:
    """The entry of a key; None: there is none."""
    import json

    where = folder()
    if where is None or not _own(where):
        return None
    try:
        handle = os.open(os.path.join(where, key + _ENDING), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not _safe(os.fstat(handle), stat.S_IFREG):
            return None
        data = os.read(handle, MAX_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(handle)
    if len(data) > MAX_BYTES:
        return None
    try:
        head, _, body = data.decode().partition("\n")
        return json.loads(body) if head == digest(key + body) else None
    except (ValueError, RecursionError):
        return None


def write(key: str, entry: Any) -> None:
    """Keeps an entry, whole or not at all."""
    import json

    where = folder()
    if where is None:
        return
    body = json.dumps(entry)
    data = f"{digest(key + body)}\n{body}".encode()
    if len(data) > MAX_BYTES:
        return
    with suppress(OSError):
        os.makedirs(where, mode=0o700, exist_ok=True)
        if not _own(where):
            return
        name = os.path.join(where, f"tmp{os.urandom(16).hex()}")
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(data)
            os.replace(name, os.path.join(where, key + _ENDING))
        except OSError:
            os.unlink(name)
            return
        _thin_out(where)


def _own(where: str) -> bool:
    """Whether a folder is the user's alone to write."""
    try:
        return _safe(os.lstat(where), stat.S_IFDIR)
    except OSError:
        return False


def _safe(found: os.stat_result, kind: int) -> bool:
    """Of this kind, the user's own, and not for others to write."""
    return stat.S_IFMT(found.st_mode) == kind and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _thin_out(where: str) -> None:
    if len(os.listdir(where)) <= MAX_ENTRIES:
        return
    with os.scandir(where) as found:
        files = [(entry.stat(follow_symlinks=False).st_mtime, entry.path) for entry in found if _named(entry.name)]
    for _, path in sorted(files)[: max(0, len(files) - MAX_ENTRIES)]:
        with suppress(OSError):
            os.unlink(path)


def _named(name: str) -> bool:
    """Is it a file of this module? Nothing else is deleted."""
    return name.startswith("tmp") or (name.endswith(_ENDING) and len(name) == _DIGEST + len(_ENDING))
