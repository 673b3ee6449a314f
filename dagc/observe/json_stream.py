"""A large JSON document, gzipped or not, one element of its array after the other: memory follows the largest element, not the file."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast

from ..base.files import Unreadable, open_regular
from .trace_fault import TraceFault

CHUNK_BYTES = 1 << 22
"""Read at a time."""
MOST_ELEMENT_BYTES = 1 << 24
"""Of one element, or of one field beside the array."""
MOST_BYTES = 1 << 33
"""Of a whole document, unzipped: a file of zeros unzips to a thousand times its size."""
MOST_DEPTH = 24
MOST_KEYS = 10_000
"""Fields beside the array."""
BOM = b"\xef\xbb\xbf"
GZIP, ZIP, ZSTD = b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd"

_STRING = rb'"(?:[^"\\]++|\\[\s\S])*+"'


def _nested(depth: int) -> bytes:
    """What is between the brackets of a value; possessive, so that no text makes it slow."""
    inside = rb'(?:[^{}\[\]"]++|' + _STRING + rb")"
    for _ in range(depth):
        inside = rb'(?:[^{}\[\]"]++|' + _STRING + rb"|[{\[]" + inside + rb"*+[}\]])"
    return inside


_ELEMENT = re.compile(rb"[{\[]" + _nested(MOST_DEPTH) + rb"*+[}\]]")
_NEXT = re.compile(rb"[\s,]*+([{\[]" + _nested(MOST_DEPTH) + rb"*+[}\]])")
_SCALAR = re.compile(_STRING + rb'|[^\s,\]}{\["]++(?=[\s,\]}])')
_TOKEN = re.compile(_STRING + rb'|[{}\[\]"]')
_SPACE = re.compile(rb"[ \t\r\n]*+")


class JsonStream:
    """Of a file. `elements(name)` yields the text of each element of the array of that name in the outermost object, or of the document
    itself where that is an array; `fields` has what else there is in it, as far as it was read."""

    def __init__(self, path: Path, kept: tuple[str, ...] = ()) -> None:
        self.path, self.kept = path, kept
        self.fields: dict[str, Any] = {}
        self.buffer, self.at, self.before, self.ended = b"", 0, 0, False
        self.file: IO[bytes]

    def elements(self, name: str) -> Iterator[bytes]:
        """Raises TraceFault."""
        try:
            raw = open_regular(self.path, named=True)
        except Unreadable as error:
            raise TraceFault(self.path, f"cannot be read: {error}", *error.help) from None
        with raw:
            head = cast(BufferedReader, raw).peek(4)[:4]
            if head in (ZIP, ZSTD):
                raise TraceFault(self.path, "is packed by a program that dagc does not read", "unpack it, or gzip it")
            self.file = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if head.startswith(GZIP) else raw
            yield from self._document(name)

    # -- bytes -----------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """More of the file behind what is not used yet; whether there was any."""
        if self.ended:
            return False
        try:
            more = self.file.read(CHUNK_BYTES)
        except EOFError:
            reason = "is a gzip file that was cut off"
            raise TraceFault(self.path, reason, "copy it again: the profiler may still have been writing it") from None
        except (gzip.BadGzipFile, zlib.error):
            reason = "is a damaged gzip file"
            raise TraceFault(self.path, reason, "copy it again") from None
        except OSError as error:
            raise TraceFault(self.path, f"cannot be read: {error.strerror}") from None
        self.ended = not more
        self.before += self.at
        self.buffer, self.at = self.buffer[self.at :] + more, 0
        if self._read > MOST_BYTES:
            raise TraceFault(self.path, f"has more than {MOST_BYTES:,} bytes", "profile fewer steps")
        return bool(more)

    @property
    def _read(self) -> int:
        return self.before + len(self.buffer)

    def _peek(self) -> bytes:
        """The next byte that is no space; nothing at the end."""
        while True:
            found = _SPACE.match(self.buffer, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.buffer):
                return self.buffer[self.at : self.at + 1]
            if not self._fill():
                return b""

    def _take(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        """What matches here."""
        while True:
            found = pattern.match(self.buffer, self.at)
            if found is not None:
                self.at = found.end()
                return found[0]
            if len(self.buffer) - self.at > MOST_ELEMENT_BYTES:
                raise self._wrong(f"{what} is longer than {MOST_ELEMENT_BYTES:,} bytes, or no JSON")
            if not self._fill():
                raise self._wrong(
                    f"{what} does not end: the file was cut off, or is nested deeper than {MOST_DEPTH} levels"
                )

    def _wrong(self, reason: str) -> TraceFault:
        return TraceFault(self.path, f"is not the JSON of a trace: at byte {self.before + self.at:,}, {reason}")

    # -- the document ----------------------------------------------------------------------------

    def _document(self, name: str) -> Iterator[bytes]:
        self._fill()
        if self.buffer.startswith(BOM):
            self.at = len(BOM)
        first = self._peek()
        if not first:
            raise TraceFault(self.path, "is empty")
        if first == b"[":
            self.at += 1
            yield from self._array(open_end=True)
            return
        if first != b"{":
            raise TraceFault(self.path, "is no JSON", "a trace is what `torch.profiler` exports: `export_chrome_trace`")
        self.at += 1
        found = False
        for _ in range(MOST_KEYS):
            byte = self._peek()
            if byte == b",":
                self.at += 1
                continue
            if byte == b"}":
                break
            key = self._key()
            if key == name and self._peek() == b"[":
                if found:
                    raise self._wrong(f"`{name}` is there twice")
                found = True
                self.at += 1
                yield from self._array(open_end=False)
            elif key in self.kept:
                self.fields[key] = self._value(key)
            else:
                self._skip()
        else:
            raise self._wrong(f"there are more than {MOST_KEYS:,} fields")
        if not found:
            raise TraceFault(
                self.path, f"has no list `{name}`", "a trace is what `torch.profiler` exports: `export_chrome_trace`"
            )

    def _array(self, open_end: bool) -> Iterator[bytes]:
        """`open_end`: a list of events by itself may lack its end, which Chrome's format allows."""
        while True:
            while (found := _NEXT.match(self.buffer, self.at)) is not None:
                self.at = found.end()
                yield found[1]
            byte = self._peek()
            if byte == b",":
                self.at += 1
            elif byte == b"]":
                self.at += 1
                return
            elif byte in (b"{", b"["):
                yield self._take(_ELEMENT, "an event")
            elif not byte and open_end:
                return
            elif not byte:
                raise self._wrong("the list of events does not end: the file was cut off")
            else:
                raise self._wrong("there is no event")

    def _key(self) -> str:
        if self._peek() != b'"':
            raise self._wrong("a name is missing")
        text = self._take(_SCALAR, "a name")
        if self._peek() != b":":
            raise self._wrong("there is no `:` behind a name")
        self.at += 1
        return text[1:-1].decode("utf-8", "replace")

    def _value(self, key: str) -> Any:
        text = self._take(_ELEMENT if self._peek() in (b"{", b"[") else _SCALAR, f"`{key}`")
        return self.decoded(text)

    def decoded(self, text: bytes) -> Any:
        """An element as Python's values. Profilers also write what no JSON has: NaN, and text that is not UTF-8. Raises TraceFault."""
        import json

        import orjson

        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
        try:
            return json.loads(text.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            raise TraceFault(
                self.path, f"is not the JSON of a trace: before byte {self.before + self.at:,}, an event is broken"
            ) from None

    def _skip(self) -> None:
        """A value that nobody reads, of any size."""
        if self._peek() not in (b"{", b"["):
            self._take(_SCALAR, "a value")
            return
        depth = 0
        while True:
            found = _TOKEN.search(self.buffer, self.at)
            token = b"" if found is None else found[0]
            if found is None or token == b'"':
                self.at = len(self.buffer) if found is None else found.start()
                if len(self.buffer) - self.at > MOST_ELEMENT_BYTES:
                    raise self._wrong(f"a text is longer than {MOST_ELEMENT_BYTES:,} bytes")
                if not self._fill():
                    raise self._wrong("the file was cut off")
                continue
            self.at = found.end()
            if token in (b"{", b"["):
                depth += 1
            elif token in (b"}", b"]"):
                depth -= 1
                if not depth:
                    return
