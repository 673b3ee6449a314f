"""The parser that tree-sitter's own generator makes of grammar/tree_sitter/, where the program is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT

PROGRAM = shutil.which("tree-sitter")
needs_generator = pytest.mark.skipif(PROGRAM is None, reason="tree-sitter is not installed")


def ran(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The program in a folder that has a copy of the grammar."""
    assert PROGRAM is not None
    own = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "XDG_CONFIG_HOME": str(folder / "config")}
    return subprocess.run([PROGRAM, *words], cwd=folder, capture_output=True, text=True, timeout=120, env=own)


def generated(folder: Path) -> Path:
    """A copy of the grammar with its parser."""
    shutil.copytree(ROOT / "grammar" / "tree_sitter", folder, dirs_exist_ok=True)
    made = ran(folder, "generate")
    assert made.returncode == 0, made.stderr
    return folder


def trees(folder: Path, texts: Sequence[str]) -> list[str | None]:
    """Trees in a line each, without comments and with quantities as one token; None of a text that has an error."""
    paths = [folder / f"{number}.moe" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    (folder / "paths.txt").write_text("\n".join(map(str, paths)))
    printed = ran(folder, "parse", "--no-ranges", "--paths", "paths.txt").stdout
    roots = re.findall(r"^\(.*(?:\n [^\n]*|\n\))*", printed, flags=re.MULTILINE)
    assert len(roots) == len(texts), printed[-2000:]
    wrong = {Path(name) for name in re.findall(r"^(\S+)\s+Parse:.*\((?:ERROR|MISSING)", printed, flags=re.MULTILINE)}
    return [None if path in wrong else _line(root) for path, root in zip(paths, roots, strict=True)]


def _line(root: str) -> str:
    text = re.sub(r"\(comment\)", "", re.sub(r"\s+", " ", root))
    return re.sub(r"\s+", " ", re.sub(r"\(quantity(?: \(\w+\))*\)", "(quantity)", text)).replace(" )", ")")
