"""Broken passes: what they lower is refused by the verifier, found different by the proof, or not what the strategy says.

A fixed sample of the mutants; `python -m tests.mutants passes` and `python -m tests.mutants expand` try all of them. A mutant that nobody
notices is listed with the reason in `mutants/survivors.txt`.
"""

from __future__ import annotations

from functools import cache

import pytest
from conftest import examples
from mutants import copies, expansion, passes
from mutants.sources import SourceMutant, sampled
from mutants.strategy import not_carried_out, wrong_ids
from mutants.survivors import reason, survivors
from tiers import spread

COUNT = examples(10, 5)


@cache
def of_passes() -> tuple[SourceMutant, ...]:
    return tuple(passes.mutants())


@cache
def of_expand() -> tuple[SourceMutant, ...]:
    return tuple(expansion.source_mutants_of_expand())


@pytest.mark.parametrize(
    "name", spread([*passes.PLANS, *passes.MORE, *passes.OWN], [*passes.PLANS, *passes.MORE, *passes.OWN][::3])
)
def test_true_plans_do_what_their_strategy_says(name: str) -> None:
    graph, phase = passes.true_graph(name), passes.unit_of(name).phase
    assert not wrong_ids(graph, phase)
    assert not_carried_out(graph, phase) == ""


def test_no_broken_pass_goes_unnoticed() -> None:
    unlisted = [m for m in of_passes() if not reason(m.name)]
    verdicts = [passes.judge(m) for m in sampled(unlisted, COUNT, seed=1)]
    assert [v.mutant.name for v in verdicts if v.survived] == []
    by = {v.killed.split(":")[0] for v in verdicts}
    assert "stopped" in by and by & {"strategy", "GPU ids", "differs"}, "not by what stops alone"


def test_no_broken_expansion_goes_unnoticed() -> None:
    unlisted = [m for m in of_expand() if not reason(m.name)]
    verdicts = [expansion.judge_source(m) for m in sampled(unlisted, COUNT, seed=0)]
    assert [v.mutant.name for v in verdicts if not v.caught] == []


@pytest.mark.parametrize(
    ("name", "plan"),
    spread([(name, plan) for name, (_, plans) in copies.OF.items() for plan in plans], of=lambda case: case[0]),
)
def test_true_phases_copy_and_quantise_what_they_say(name: str, plan: str) -> None:
    phase = copies.OF[name][1][plan]
    assert copies.not_as_said(copies.true_graph(phase), copies.unit_of(phase)) == ""


@pytest.mark.parametrize("name", list(copies.OF))
def test_no_broken_copy_goes_unnoticed(name: str) -> None:
    unlisted = [m for m in copies.mutants(name) if not reason(m.name)]
    verdicts = [copies.judge(name, m) for m in sampled(unlisted, COUNT, seed=2)]
    assert [v.mutant.name for v in verdicts if v.survived] == []
    assert {v.killed.split(":")[0] for v in verdicts} & {"strategy"}, "not by what stops alone"


def test_every_survivor_has_a_reason_and_most_mutants_do_not_survive() -> None:
    assert all(len(reason) > 20 for reason in survivors().values())
    names = {m.name for m in (*of_passes(), *of_expand(), *(m for name in copies.OF for m in copies.mutants(name)))}
    assert len(names) > 1200
    assert {name for name in survivors() if not name.endswith("*")} <= names, "listed, and no mutant any more"
    assert len(names & set(survivors())) < 0.25 * len(names)
