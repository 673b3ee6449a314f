"""Bytes to source text: files that the command line names, standard input, and what is not text."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..diagnostics import Diagnostic, SpecError
from ..files import MAX_TEXT_BYTES, TooLong, Unreadable, read_named
from ..source import Source, Span


def read_source(path: str, allowed: Sequence[str | Path] = ()) -> Source:
    """Read a spec that the command line names, or standard input for `-`. A link out of its project is followed into
    `allowed` folders only. Raises SpecError (E01 not text, E05 not readable)."""
    name = "<stdin>" if path == "-" else path
    if path.endswith(".json"):
        help = ("`dagc import CONFIG.json` reads a config; compile, show, report, diff and export read a .graph.json",)
        raise SpecError([Diagnostic("E05", f"`{path}` is not a spec", help=help)])
    try:
        data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1) if path == "-" else read_named(path, MAX_TEXT_BYTES, allowed)
    except TooLong as error:
        raise SpecError(
            [Diagnostic("E01", f"cannot read {name!r}: {error}", help=("split it with `import`",))]
        ) from None
    except (OSError, ValueError, Unreadable) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(
            [Diagnostic("E05", f"cannot read {name!r}: {reason}", help=getattr(error, "help", ()))]
        ) from None
    return decoded(name, data)


def folder_of(spec: str) -> Path | None:
    """Where a spec's own files are looked up; None: where dagc runs."""
    return None if spec == "-" else Path(os.path.realpath(spec)).parent


def decoded(name: str, data: bytes) -> Source:
    """The source that bytes are. Raises SpecError with E01 where they are not text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([_not_text(error.object, error.start, name)]) from None
    return Source(name, text.replace("\r\n", "\n"))


def _not_text(data: bytes, at: int, name: str) -> Diagnostic:
    """Bytes that are not UTF-8, with the line and column of the first."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Diagnostic("E01", f"`{name}` is UTF-16, not UTF-8", help=("save it as UTF-8",))
    start = len(data[:at].decode().replace("\r\n", "\n"))
    source = Source(name, data.decode("utf-8", "replace").replace("\r\n", "\n"))
    line, column = source.position(start)
    message = f"this is not UTF-8 text: line {line}, column {column} has the byte {data[at]:02x}"
    help_ = "a spec is a text file: save it as UTF-8 (editors name the old encodings Latin-1 or Windows-1252)"
    return Diagnostic("E01", message, Span(source, start, start + 1), help=(help_,))
