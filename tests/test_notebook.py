"""The notebook runs from top to bottom, and a plan in it shows its verdict first, and pictures."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import ROOT, compiled
from tiers import exhaustive

from dagc.view.facts.plan_answer import answer

TOUR = ROOT / "examples" / "tour.ipynb"


@exhaustive
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """Committed without outputs, run in a kernel of its own as a reader's is."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    tour = nbformat.read(TOUR, as_version=4)
    nbformat.validate(tour)
    cells = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    nbclient.NotebookClient(tour, timeout=600, resources={"metadata": {"path": tmp_path / "examples"}}).execute()
    shown = [output for cell in cells for output in cell.outputs if output.output_type != "stream"]
    assert {"text/html", "image/svg+xml"} <= {kind for output in shown for kind in output.data}
    first = cells[0].outputs[0].data["text/html"]
    assert re.sub("<[^>]*>", "", first).startswith("qwen3-235b-a22b: passed: all 3 requirements hold")
    said = "".join(output.text for cell in cells for output in cell.outputs if output.output_type == "stream")
    assert "complete: 1,536 plans" in said and 'did you mean "h100-sxm"?' in said


class Nested(HTMLParser):
    """Elements that are open, and SVG documents."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.append(tag)


@pytest.mark.parametrize("name", ["plan_a", "mixtral_8xh100"])
def test_a_plan_shows_its_verdict_then_pictures(name: str) -> None:
    plan = compiled(name)
    html = plan._repr_html_()
    reader = Nested()
    reader.feed(html)
    assert reader.names.count("svg") == 2 * len(plan.phases)
    assert not {"script", "style"} & {*reader.names}, "it would be the notebook's"
    at = [html.index(part) for part in (answer(plan).verdict, "<table", "<svg")]
    assert at == sorted(at)
    drawn = html[html.index("<svg") :]
    assert "var(" not in drawn and re.search(r'<rect[^>]*fill="#', drawn), "colours of their own, on paper of their own"
