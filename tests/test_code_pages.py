"""Pages of diagnostic codes: the example triggers its code and prints what the page shows; after the fix it is gone."""

from __future__ import annotations

import pytest
from code_pages import BLOCK, FIX, PAGES, changed, commands, fixed, rewritten, run
from conftest import ROOT

from dagc.base.codes import TABLE, TITLES
from dagc.base.explain import explain
from dagc.cli import main

pytestmark = pytest.mark.usefixtures("shared_servings")

NOT_OF_THE_TEXT = {"E14": "the command is what is fixed", "E16": "the machine is what is fixed"}
"""Codes whose fix changes nothing in the example."""


@pytest.mark.parametrize("code", TITLES)
def test_a_page_shows_what_is_printed_and_how_to_fix_it(code: str) -> None:
    page = (PAGES / f"{code}.md").read_text()
    example, fix = page.partition(FIX)[::2]
    assert page.startswith(f"# {code}: {TITLES[code]}\n") and "## Example\n" in example and fix
    ((block, ran),) = commands(example)
    assert block == ran.block, "python tools/code_pages.py"
    assert f"[{code}]" in ran.printed and ran.code == next(c.exit for c in TABLE if c.code == code)
    if code in NOT_OF_THE_TEXT:
        assert all(done.code == 0 and f"[{code}]" not in done.printed for _, done in commands(page) if done != ran)
        assert code == "E16" or fix.count("$ dagc ") == 1
        return
    after = run(ran.command, fixed(page))
    assert after.code == 0 and f"[{code}]" not in after.printed, after.printed


def test_a_stale_page_is_written_anew() -> None:
    page = (PAGES / "E09.md").read_text()
    stale = page.replace("error[E09]", "error[E99]")
    assert stale != page and rewritten(stale) == page


def test_a_fix_that_does_not_fit_its_example_is_an_error() -> None:
    assert changed("a\nb\nc\n", ["- b", "+ x", "+ y"]) == "a\nx\ny\nc\n"
    with pytest.raises(ValueError, match="is not in list"):
        changed("a\nb\n", ["- c", "+ d"])


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "diagnostics.md").read_text()
    assert all(f"[{code}](../dagc/base/pages/{code}.md)" in index for code in TITLES)


def test_explain_shows_pages_as_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "e02"]) == 0
    shown = capsys.readouterr().out
    page = explain("E02")
    assert page is not None and "```" in page and "```" not in shown
    for _, text in BLOCK.findall(page):
        assert "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines()) in shown
    assert "](" not in shown
