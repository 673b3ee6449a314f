"""The default run leaves out what others of it show, says how many, and shows of each test something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiers
from conftest import ROOT
from tiers import NOT_SHOWN, WHOLE, in_turn, left_out, spread

SAMPLE = """
import pytest
from tiers import exhaustive, in_turn, spread

@pytest.mark.parametrize("size", spread([1, 2, 3]))
def test_of_sizes(size):
    pass

@exhaustive
def test_whole():
    pass
"""


def test_each_test_is_in_the_default_run_or_has_a_reason_not_to_be(request: pytest.FixtureRequest) -> None:
    read = {item.path.name for item in request.session.items} | {
        name.partition("::")[0] for name in request.config.stash[NOT_SHOWN]
    }
    assert request.config.stash[NOT_SHOWN] == {name for name in WHOLE if name.partition("::")[0] in read}
    assert all(len(why) > 20 for why in WHOLE.values())


def closing_line(folder: Path, asked: str, *options: str) -> str:
    (folder / "test_sample.py").write_text(SAMPLE)
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tiers", "-p", "no:anyio", "-p", "no:platformdirs", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT / "tests"), "DAGC_TESTS": asked}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.strip().rpartition("\n")[2] + found.stderr


@pytest.mark.parametrize(
    ("asked", "options", "says"),
    [
        ("", ("-n1",), "= 1 passed, 3 deselected in"),
        ("all", ("-n0",), "= 4 passed in"),
        ("", ("-n0", "test_sample.py::test_whole"), "= 1 passed in"),
        ("", ("-n0", "-m", "exhaustive"), "= 3 passed, 1 deselected in"),
        ("most", ("-n0",), "DAGC_TESTS is `all`, or is not set; not `most`"),
    ],
)
def test_the_closing_line_says_how_many_were_left_out(
    tmp_path: Path, asked: str, options: tuple[str, ...], says: str
) -> None:
    assert says in closing_line(tmp_path, asked, *options)


MARKED = type(pytest.param())


def of_default(values: list[object]) -> list[object]:
    return [value for value in values if not isinstance(value, MARKED)]


def test_parameters_of_the_default_run() -> None:
    words = ["a1", "a2", "b1", "b2", "a3"]
    assert spread(words) == ["a1", *map(left_out, words[1:])]
    assert of_default(spread(words, of=lambda word: word[0])) == ["a1", "b1"]
    assert of_default(spread(words, 2, of=lambda word: word[0])) == ["a1", "a2", "b1", "b2"]
    assert of_default(spread(words, of=frozenset)) == ["a1", "a2", "b1", "a3"]
    assert of_default(spread(words, {"b2"})) == of_default(spread(words, lambda word: word == "b2")) == ["b2"]
    turns = in_turn("abc", [1, 2])
    assert len(turns) == 6 and of_default(turns) == [("a", 1), ("b", 2), ("c", 1)]
    assert [value for value in turns if isinstance(value, MARKED)] == [
        left_out(("a", 2)),
        left_out(("b", 1)),
        left_out(("c", 2)),
    ]


def test_continuous_integration_runs_all_of_them() -> None:
    command = (
        (ROOT / "README.md").read_text().partition("Run the tests:")[2].split("```")[1].removeprefix("sh\n").strip()
    )
    step = f'step "tests" env DAGC_TESTS=all "$python" {command.partition(" ")[2]}\n'
    assert (ROOT / ".ci" / "run").read_text().count("pytest") == step.count("pytest") == 1 and step in (
        ROOT / ".ci" / "run"
    ).read_text()
    assert tiers.__doc__ and "DAGC_TESTS=all" in tiers.__doc__
