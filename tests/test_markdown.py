"""The report in Markdown, in a notebook and as rows."""

from __future__ import annotations

import re

import pytest
from conftest import compiled, few_examples
from test_page import EVIL, evil_plan, read

from dagc.api import Plan
from dagc.cli import main
from dagc.view.report.markdown_text import escaped
from dagc.view.report.plan_rows import MAKERS

pytestmark = pytest.mark.usefixtures("shared_servings")


@few_examples
def test_tables_are_whole(example: Plan) -> None:
    """Every row of a table has as many cells as its head."""
    columns = 0
    shown = example.markdown()
    lines = shown.splitlines()
    for line in lines:
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not cells or not columns or cells == columns
        columns = cells
    assert lines.count("<details><summary>collectives</summary>") <= len(example.phases)
    assert shown.count("<details>") == shown.count("</details>")
    for v in example.requirements:
        assert escaped(v.requirement.label) in shown


@pytest.mark.parametrize("text", [*EVIL, "@everyone", "a | b", "[x](http://y)"])
def test_nothing_is_markup(text: str) -> None:
    shown = escaped(text)
    assert not re.search(r"[<\n\x1b]|(?<!\\)[|`*\[\]_]|@", shown)
    rows = [line for line in evil_plan(text).markdown().splitlines() if line.startswith(("| :x:", "| :white"))]
    assert rows and all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)


def test_commands_agree(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compile", "examples/three_link_levels.moe", "--format", "md"])
    one = capsys.readouterr().out
    main(["report", "examples/three_link_levels.moe", "--format", "md"])
    assert capsys.readouterr().out == one == compiled("three_link_levels").markdown()


@few_examples
def test_notebook(example: Plan) -> None:
    bundle = example._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/markdown", "text/html", "image/svg+xml"}
    assert bundle["text/plain"] == str(example)
    reader = read(bundle["text/html"])
    assert not {"script", "style", "html"} & {n for n, _ in reader.tags}
    for result in example.phases.values():
        assert result.name in reader.text


def test_a_notebook_gets_the_forms_it_asks_for() -> None:
    plan = compiled("plan_b")
    html = plan._repr_html_()
    assert plan._repr_mimebundle_(include=["text/html"]) == {"text/html": html}
    assert "text/html" not in plan._repr_mimebundle_(exclude=["text/html"])


@pytest.mark.parametrize("text", EVIL)
def test_nothing_is_markup_in_a_notebook(text: str) -> None:
    assert not {n for n, _ in read(evil_plan(text)._repr_html_()).tags} & {"script", "img"}


@pytest.mark.parametrize("table", MAKERS)
def test_rows(example: Plan, table: str) -> None:
    rows = example.rows(table)
    assert len({tuple(row) for row in rows}) <= 1
    assert all(isinstance(v, int | float | str | bool | None) for row in rows for v in row.values())


def test_rows_add_up() -> None:
    plan = compiled("mixtral_8xh100")
    for name, result in plan.phases.items():
        ops = [r for r in plan.rows() if r["phase"] == name]
        assert len(ops) == sum(len(s.ops) for s in result.graph.segments)
        sends = sum(s.time_s for s in result.path if not s.segment)
        total = sum(s.time_s for s in result.path)
        assert sum(r["critical_s"] for r in ops) + sends == pytest.approx(total)
        shares = [r["share"] for r in plan.rows("critical_path") if r["phase"] == name]
        assert sum(shares) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no table 'op'"):
        plan.rows("op")
