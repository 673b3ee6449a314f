"""Every command of README.md and docs/ is run, and what pages show of its output, and say of its figures, is what it prints."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT
from doc_commands import BLOCK, NOT_RUN, Ran, calls, run, scratch, shortened, steps, timeless, why_not_run
from tiers import spread

from dagc.cli.help_pages import PAGES as HELP

pytestmark = pytest.mark.usefixtures("shared_servings")

RUN_ELSEWHERE = {
    "docs/commands.md": "tests/test_help.py runs the table that it is made of",
    "docs/search.md": "tests/test_search_answer.py: how far a search gets to explain itself depends on the machine",
}
OF_HELP = {example.command for page in HELP.values() for example in page.examples}
"""tests/test_help.py runs them, and asserts the same."""
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
COMMANDS = [
    name
    for name in PAGES
    if name not in RUN_ELSEWHERE and any(s.kind in ("command", "python") for s in steps(PAGES[name]))
]


@cache
def followed(name: str) -> tuple[list[Ran], dict[str, bytes]]:
    """What the commands of a page print, and the pictures that they leave behind."""
    with scratch() as folder:
        ran = list(run(PAGES[name], OF_HELP))
        return ran, {path.name: path.read_bytes() for path in folder.glob("*.svg")}


SLOW = {"docs/audit.md", "docs/cookbook.md", "docs/techniques.md", "docs/fit.md", "docs/serving.md", "docs/training.md"}
"""Pages whose commands compile whole examples, search, survive the loss of a GPU of a large plan, serve it, or train: tests of these commands do so on less."""


@pytest.mark.parametrize("name", spread(COMMANDS, lambda name: name not in SLOW))
def test_commands_print_what_the_page_shows(name: str) -> None:
    for ran in followed(name)[0]:
        wrong = re.search(r"error\[E(?!04)", ran.printed)  # E04: a plan, which does not fit
        assert ran.code == 2 if wrong else ran.code in (0, 1), (ran.step.text, ran.printed)
        if ran.step.shown is not None:
            again = f"python tools/doc_commands.py {name}"
            assert timeless(ran.step.shown) == timeless(shortened(ran.printed, ran.step.shown)), again


@pytest.mark.parametrize("name", COMMANDS)
def test_pictures_beside_a_page_are_those_that_its_commands_draw(name: str) -> None:
    page = ROOT / name
    for target in re.findall(rf"!\[[^]]*\]\(({page.stem}/[^)]+)\)", PAGES[name]):
        assert (page.parent / target).read_bytes() == followed(name)[1][Path(target).name], target


def test_what_is_not_run_is_in_pages() -> None:
    """The table has no reason that nothing needs."""
    words = [
        one for page in PAGES.values() for step in steps(page) if step.kind == "command" for one in calls(step.text)
    ]
    assert {why_not_run(one) for one in words} - {None} == set(NOT_RUN)


NUMBER = re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?")
SMALL = {"0", "1", "2", "3"}


def prose(page: str) -> str:
    """Without blocks, links and names of things."""
    return re.sub(r"\]\([^)]*\)|`[^`]*`", " ", BLOCK.sub(" ", page))


def figures(text: str) -> set[str]:
    return {one.replace(",", "") for one in NUMBER.findall(text)}


def test_figures_of_the_tutorial_are_in_its_outputs() -> None:
    """Or in the paragraph that is checked there, and in what was written of it."""
    name = "docs/tutorial.md"
    said, shown = prose(PAGES[name]), "".join(ran.printed for ran in followed(name)[0])
    plan = "".join(line for line in said.splitlines(True) if line.startswith(">"))
    written = "".join(step.text for step in steps(PAGES[name]))
    assert len(figures(said)) > 10
    assert not figures(said) - figures(plan) - figures(written) - figures(shown) - SMALL
