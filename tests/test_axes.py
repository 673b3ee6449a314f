"""Axes of a strategy: one table names them, and a new one needs its entry, its degree and its pass."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

from conftest import ROOT

from dagc.base.axes import AXES, DEGREES, EXPERT_REPLICA, EXPERT_SIDE, REPLICA, STAGES
from dagc.base.phase_kinds import MIXED, SERVED
from dagc.base.schema.phase import PHASE
from dagc.calib.accuracy import BESIDE
from dagc.cost.schedule.pipelines import PIPELINES
from dagc.passes import GRAPH_PASSES
from dagc.spec.strategy import Strategy
from dagc.view.report.terminal import ALONE

NAMING = {
    "dagc/base/axes.py": "the table",
    "dagc/base/synonyms.py": "what others call them",
    "dagc/engines/": "what engines call them",
    "dagc/export/engines/": "what each engine makes of them",
    "dagc/importers/engines/": "what options of engines say of them",
    "dagc/lang/fits.py": "what must divide by which, in words",
    "dagc/pipeline/cures.py": "which degree to raise first, and which to lower for it",
    "passes/": "what each does to a graph",
}
"""Which files may name an axis literally, and why."""


def test_only_who_has_a_reason_names_an_axis_literally() -> None:
    found = set()
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, DEGREES))})\b")
    for folder in ("dagc", "passes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            where = path.relative_to(ROOT).as_posix()
            if not named.search(text := path.read_text(encoding="utf-8")):
                continue
            docs = _docstrings(tree := ast.parse(text))
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and node.value in DEGREES and node not in docs:
                    found.add(
                        next((allowed for allowed in NAMING if where.startswith(allowed)), f"{where}:{node.lineno}")
                    )
    assert found == set(NAMING)


def _docstrings(tree: ast.Module) -> list[ast.expr]:
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]


def test_every_axis_has_a_degree_a_pass_and_a_line_of_docs() -> None:
    language = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    degrees = {field.name for field in fields(Strategy)}
    for axis in AXES.values():
        assert axis.name in degrees and axis.name in PHASE, axis
        assert axis.name in [one.name for one in GRAPH_PASSES], axis
        assert f"| `{axis.name}` | {axis.about} |" in language, axis


def test_order_and_degrees_follow_the_table() -> None:
    assert Strategy().order == tuple(AXES) and AXES[STAGES] is next(iter(AXES.values()))
    assert set(DEGREES) == {*AXES, *EXPERT_SIDE, REPLICA} and len(DEGREES) == len(set(DEGREES))
    assert EXPERT_SIDE[0] == EXPERT_REPLICA


def test_every_kind_of_phase_is_in_the_tables_that_ask_by_kind() -> None:
    """Servings tell the time of a prefill or a decode step alone; a mixed step's is in no table."""
    assert set(PIPELINES) == set(SERVED)
    assert set(BESIDE) == set(ALONE) == set(SERVED) - {MIXED.name}
