"""No broken graph passes: every mutant is caught, by the verifier or by the numeric proof, or computes the same by rule."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from conftest import examples
from mutants.judge import Verdict, judge, numeric, sample, structural
from mutants.mutations import remove_collective
from mutants.plans import PLANS, STEPS, placed
from tiers import spread

from dagc.ir.op import UPDATE
from dagc.ir.ops.kind import Tokens
from dagc.ir.ops.op_set import OPS
from dagc.pipeline.lower import lower

COUNT = examples(150, 100)
OF_STEPS = examples(75, 18)
"""Each is proved by a step forward and back, which takes as long as seven passes."""


@cache
def verdicts() -> tuple[Verdict, ...]:
    return tuple(judge(plan, mutant) for plan, mutant in sample(COUNT, seed=0))


@cache
def of_steps() -> tuple[Verdict, ...]:
    return tuple(judge(plan, mutant) for plan, mutant in sample(OF_STEPS, 0, STEPS))


@pytest.mark.parametrize("plan", spread([*PLANS, *STEPS], [*PLANS, *STEPS][::4]))
def test_the_whole_graph_passes(plan: str) -> None:
    graph, unit, costs = placed(plan)
    assert structural(graph) == "" and numeric(graph, unit, costs) == "same"


def test_no_mutant_escapes() -> None:
    assert len(verdicts()) == COUNT
    assert [str(v) for v in verdicts() if v.escaped] == []


def test_no_mutant_of_a_training_step_escapes() -> None:
    """Sums of gradients that are left out, gradients of other weights, values that are handed back, ops in other cells."""
    assert len(of_steps()) == OF_STEPS
    assert [str(v) for v in of_steps() if v.escaped] == []
    kinds = {v.mutant.kind for v in of_steps()}
    assert {"remove a collective", "run in another cell", "of another weight", "hand back another value"} <= kinds
    assert any(not v.structural and v.numeric == "differs" for v in of_steps())


def test_every_sum_of_gradients_is_missed() -> None:
    """Each collective behind the last gradient of a data-parallel step, left out, is told by the verifier or the proof."""
    graph, unit, costs = placed("step, dp")
    sums = {op.name for s in graph.segments for op in s.ops if op.is_collective and op.cell == UPDATE}
    left_out = [m for m in remove_collective(graph) if m.where.partition("/")[2] in sums]
    assert len(left_out) == len(sums) > 10
    assert [m.where for m in left_out[::4] if not judge("step, dp", m).caught] == []
    assert numeric(left_out[0].graph, unit, costs) == "differs"


def test_a_mutant_is_caught_beside_the_graph_that_it_was_made_of() -> None:
    """What the verifier does not look at again hides nothing."""
    again = [(v, structural(v.mutant.graph, placed(v.plan)[0])) for v in verdicts()]
    assert any(found for _, found in again) and [str(v) for v, found in again if found != v.structural] == []


def test_a_wrong_annotation_is_caught_beside_the_graph_before_the_pass() -> None:
    _, unit, _ = placed(next(iter(PLANS)))
    graphs = dict(lower(unit))
    for before, after in pairwise(name for name, graph in graphs.items() if graph.level == "annotated"):
        for at, segment in enumerate(graphs[after].segments):
            for k, op in enumerate(segment.ops):
                if not op.loops or OPS[op.kind].tokens is Tokens.AT_HOME:
                    continue
                twice = replace(op, loops=(*op.loops, *((f"{dim}2", axes) for dim, axes in op.loops if axes)))
                ops = (*segment.ops[:k], twice, *segment.ops[k + 1 :])
                segments = list(graphs[after].segments)
                segments[at] = segment.with_ops(ops)
                wrong = replace(graphs[after], segments=tuple(segments))
                assert "each axis in one of them" in structural(wrong, graphs[before])


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
