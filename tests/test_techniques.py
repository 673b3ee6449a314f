"""Examples of techniques: each compiles, is proved, has its row in the table, and fails exactly what it says does not hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT, TECHNIQUES, compiled
from tiers import spread

from dagc.cli import main

PAGE = ROOT / "docs" / "techniques.md"
REFUTED = re.compile(r'^# Does not hold\b.*(?:\n#.*)*\nrequire "([^"]+)"', re.MULTILINE)
"""A comment in the spec, above the requirement that fails."""
COLUMNS = 8
PROVED_ELSEWHERE = {"chunk_work", "early_exit", "packing", "plan_techniques", "training_memory"}
"""The largest: smaller plans with these words are proved in test_chunk_work.py, test_early_exits.py, test_prompt_lengths.py and others."""


@pytest.mark.parametrize("path", TECHNIQUES, ids=lambda p: p.stem)
def test_what_does_not_hold_says_so(path: Path) -> None:
    plan = compiled(f"techniques/{path.stem}")
    failed = {verdict.requirement.label for verdict in plan.requirements if not verdict.passed}
    assert plan.requirements
    assert failed == set(REFUTED.findall(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", spread(TECHNIQUES, lambda p: p.stem not in PROVED_ELSEWHERE), ids=lambda p: p.stem)
def test_each_is_proved(path: Path) -> None:
    assert main(["verify", str(path)]) == 0


def test_the_table_has_every_example_and_no_empty_cell() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert TECHNIQUES
    assert {path.name for path in TECHNIQUES} <= set(re.findall(r"examples/techniques/(\w+\.moe)", text))
    rows = re.findall(r"^\| (.*) \|$", text.partition("| technique |")[2], re.MULTILINE)
    for row in rows:
        cells = re.split(r"(?<!\\) \| ", row)
        assert len(cells) in (COLUMNS, COLUMNS - 1) and all(cell.strip() for cell in cells), row
