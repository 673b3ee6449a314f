"""What commands print: whatever a name or a file contains, it controls neither a terminal nor the CI that reads the log."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..base.harmless import CONTROL, plain
from .manner import color

_UNSAFE = rf"\r\n|\x1b\[[0-9;]*m|{CONTROL}"
_COMMAND = r"##(?=\[|vso\[)"
"""Azure Pipelines, and older GitHub runners, take these as commands anywhere in a line."""


class Harmless:
    """A text stream through which control characters pass as U+FFFD, but for the colours that dagc itself prints, and no
    line begins with `::`, which GitHub takes for a command. `write_commands` is for lines that are meant as such."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.begun = ""  # the first two visible characters of the line so far

    def write(self, text: str) -> int:
        if not plain(text):
            text = re.sub(_UNSAFE, self._kept, text)
        if "##" in text:
            text = re.sub(_COMMAND, "# #", text)
        lines = text.split("\n")
        self._out("\n".join(self._line(line, k > 0) for k, line in enumerate(lines)))
        return len(text)

    def _out(self, text: str) -> None:
        """Whoever read this may have gone (`| head`): what the command does and ends with stays the same."""
        try:
            self.stream.write(text)
        except BrokenPipeError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def write_commands(self, text: str) -> None:
        self._out(text)

    def _kept(self, found: re.Match[str]) -> str:
        terminal = found[0] == "\r" or len(found[0]) > 1
        kept = found[0] == "\r\n" or (terminal and (color(self) if len(found[0]) > 1 else self.stream.isatty()))
        return found[0] if kept else "\N{REPLACEMENT CHARACTER}"

    def _line(self, line: str, new: bool) -> str:
        before = "" if new else self.begun
        self.begun = (before + line.lstrip())[:2] if not before else (before + line)[:2]
        if self.begun != "::" or before == "::":
            return line
        at = line.index(":" if before else "::")
        if line[at:].startswith("::: "):  # the arrow to a second place in a file: no command has such a name
            return line
        self.begun = "./"
        return f"{line[:at]}./{line[at:]}" if not before else f"/{line}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def harmless_streams() -> Iterator[None]:
    """Standard output and error, as `Harmless` streams."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Harmless(sys.stdout), Harmless(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
