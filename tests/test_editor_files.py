"""Names that files share by import: found and renamed in all of them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagc.editor.buffer import Document, applied
from dagc.editor.checking import check_spec
from dagc.editor.finding_uses import Refused
from dagc.editor.over_files import rename_over_files, specs_in, uses_over_files

SHARED = """moe 1
let length = 4_096 tok
phase decode { gpus = 0..7, tp = 8 }
"""
USER = """moe 1
import "shared.moe"
let twice = length * 2
require decode.tpot < 50 ms
"""
OWN = """moe 1
let length = 1 tok
let other = length
"""
DEEPER = """moe 1
import "user.moe"
let more = length + twice
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"shared": SHARED, "user": USER, "own": OWN, "deeper": DEEPER}.items():
        (tmp_path / f"{name}.moe").write_text(text)
    return tmp_path


def document(folder: Path, name: str) -> Document:
    path = folder / f"{name}.moe"
    return Document(path.read_text(), str(path))


def renamed(folder: Path, name: str, word: str, new: str) -> dict[str, str]:
    """The text of each file that changes."""
    one = document(folder, name)
    found = rename_over_files(one, one.text.index(word), new, specs_in([str(folder)], one, below=False))
    assert len({other.path for other, _ in found}) == len(found)
    return {Path(str(other.path)).stem: applied(other.text, edits) for other, edits in found if edits}


@pytest.mark.parametrize("start", ["shared", "user", "deeper"])
def test_a_constant_is_renamed_wherever_it_is_the_same(folder: Path, start: str) -> None:
    """From its definition as from any use; a constant of the same name in a file of its own stays."""
    assert renamed(folder, start, "length", "span") == {
        "shared": SHARED.replace("length", "span"),
        "user": USER.replace("length", "span"),
        "deeper": DEEPER.replace("length", "span"),
    }
    assert renamed(folder, "own", "length", "span") == {"own": OWN.replace("length", "span")}


def test_a_phase_keeps_its_kind(folder: Path) -> None:
    changed = renamed(folder, "user", "decode", "steps")
    assert "phase steps { kind = decode, gpus" in changed["shared"] and "require steps.tpot" in changed["user"]
    for name, text in changed.items():
        before = {f.message for f in check_spec(document(folder, name)).findings}
        (folder / f"{name}.moe").write_text(text)
        assert {f.message.replace("steps", "decode") for f in check_spec(document(folder, name)).findings} == before


def test_a_name_that_another_file_has_is_refused(folder: Path) -> None:
    """Also one that the other file defines and that does not use the old name."""
    with pytest.raises(Refused, match=r"deeper\.moe: `twice` is defined already"):
        renamed(folder, "shared", "length", "twice")
    (folder / "deeper.moe").write_text('moe 1\nimport "user.moe"\nlet span = 1\n')
    with pytest.raises(Refused, match=r"deeper\.moe: `span` is defined already"):
        renamed(folder, "shared", "length", "span")


def test_uses_are_found_in_all_files(folder: Path) -> None:
    one = document(folder, "shared")
    found = uses_over_files(one, one.text.index("length"), specs_in([str(folder)], one, below=False))
    assert [(Path(str(d.path)).stem, len(uses)) for d, uses in found] == [("shared", 1), ("deeper", 1), ("user", 1)]


def test_specs_are_looked_for_below_but_not_in_hidden_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for inner in ("plans", ".git", "node_modules"):
        (folder / inner).mkdir()
        (folder / inner / "x.moe").write_text('moe 1\nimport "../shared.moe"\nlet y = length\n')
    one = document(folder, "shared")
    names = [Path(str(d.path)).relative_to(folder).as_posix() for d in specs_in([str(folder)], one, below=True)]
    assert names == ["deeper.moe", "own.moe", "shared.moe", "user.moe", "plans/x.moe"]
    monkeypatch.setattr("dagc.editor.over_files.MOST_SPECS", 3)
    with pytest.raises(Refused, match="open a smaller folder"):
        specs_in([str(folder)], one, below=True)


def test_a_text_in_no_file_is_renamed_alone(folder: Path) -> None:
    one = Document(SHARED)
    found = rename_over_files(one, one.text.index("length"), "span", specs_in([str(folder)], one, below=False))
    assert [d for d, _ in found] == [one]
