"""No broken graph passes: every mutant is caught, by the verifier or by the numeric proof, or computes the same by rule."""

from __future__ import annotations

from functools import cache

import pytest
from conftest import examples
from mutants.judge import Verdict, judge, numeric, sample, structural
from mutants.plans import PLANS, placed

COUNT = examples(150)


@cache
def verdicts() -> tuple[Verdict, ...]:
    return tuple(judge(plan, mutant) for plan, mutant in sample(COUNT, seed=0))


@pytest.mark.parametrize("plan", PLANS)
def test_the_whole_graph_passes(plan: str) -> None:
    graph, unit, costs = placed(plan)
    assert structural(graph) == "" and numeric(graph, unit, costs) == "same"


def test_no_mutant_escapes() -> None:
    assert len(verdicts()) == COUNT
    assert [str(v) for v in verdicts() if v.escaped] == []


def test_every_kind_of_mutation_is_tried() -> None:
    tried = {v.mutant.kind for v in verdicts()}
    assert len(tried) >= 25 and {"remove a collective", "swap two inputs", "change a stage edge's ends"} <= tried


def test_neither_check_is_idle() -> None:
    """Some mutants are seen by the verifier alone, others by the proof alone."""
    assert sum(bool(v.structural) and v.numeric == "same" for v in verdicts()) > COUNT / 6
    assert sum(not v.structural and v.proved_wrong for v in verdicts()) > COUNT / 30


def test_what_is_equal_by_rule_computes_the_same() -> None:
    """The rules excuse no mutant whose result the proof finds different."""
    excused = [v for v in verdicts() if v.equal]
    assert excused and [str(v) for v in excused if v.numeric == "differs"] == []
