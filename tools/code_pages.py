"""The pages of `dagc explain`: their examples are run, and what is printed is written into them.

python tools/code_pages.py
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from dagc.base.codes import TABLE
from dagc.cli import main

PAGES = Path(__file__).resolve().parent.parent / "dagc" / "base" / "pages"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
FILES = {"moe": "plan.moe", "text": "plan.ir"}
"""Language of a block -> the file that it is to the commands of the page."""
FIX = "## Fix\n"


@dataclass(frozen=True)
class Ran:
    """A command of a page: its diagnostics, or else its results, and its exit code."""

    command: str
    printed: str
    code: int

    @property
    def block(self) -> str:
        return f"$ {self.command}\n{self.printed}"


def run(command: str, files: dict[str, str]) -> Ran:
    """In a folder with these files alone, on a machine without PyTorch."""
    out, err = io.StringIO(), io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        patch("dagc.cli.measure.find_spec", lambda name: None),
    ):
        for name, text in files.items():
            Path(name).write_text(text)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(shlex.split(command)[1:])
    return Ran(command, err.getvalue() or out.getvalue(), code)


def commands(page: str) -> Iterator[tuple[str, Ran]]:
    """The blocks with a command of a part of a page, each with what it prints now."""
    files = example(page)
    for language, text in BLOCK.findall(page):
        if language == "console":
            yield text, run(text.splitlines()[0].removeprefix("$ "), files)


def example(page: str) -> dict[str, str]:
    return {FILES[language]: text for language, text in BLOCK.findall(page) if language in FILES}


def fixed(page: str) -> dict[str, str]:
    """The files of the example after the changes of the fix. Raises ValueError where a line is not there."""
    files = example(page)
    for language, text in BLOCK.findall(page.partition(FIX)[2]):
        if language == "diff":
            ((name, whole),) = files.items()
            files[name] = changed(whole, text.splitlines())
    return files


def changed(text: str, diff: list[str]) -> str:
    """`- ` lines replaced by the `+ ` lines behind them."""
    lines, at = text.splitlines(), 0
    for change in diff:
        sign, line = change[:1], change[2:]
        if sign == "-":
            at = lines.index(line)
            del lines[at]
        else:
            lines.insert(at, line)
            at += 1
    return "\n".join((*lines, ""))


def rewritten(page: str) -> str:
    """The page with what the commands of its example print now."""
    for block, ran in commands(page.partition(FIX)[0]):
        page = page.replace(f"```console\n{block}```", f"```console\n{ran.block}```", 1)
    return page


if __name__ == "__main__":
    for entry in TABLE:
        path = PAGES / f"{entry.code}.md"
        path.write_text(rewritten(path.read_text()))
