"""A table that the head shares with the embedding is trained as one: its two gradients are one sum, of which each copy makes the same
new table."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from conftest import examples
from mutants.sources import SourceMutant, sampled, source_mutants
from tiers import spread
from training_steps import Step, small_step, training_text

import dagc
from dagc.api import Plan
from dagc.base.axes import ENDS
from dagc.base.pipeline_schedules import SCHEDULES
from dagc.cost.schedule.training.schedule_table import make
from dagc.execute.inputs import random_weight
from dagc.execute.prove import single
from dagc.execute.prove_training import TrainingProof, compared, whole_model
from dagc.execute.training import TrainingMachine
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import PassError
from dagc.ir.op import Op
from dagc.ir.ops.attributes.moves import MoveAttrs
from dagc.ir.ops.attributes.training import AccumulateAttrs, AdamAttrs
from dagc.ir.segment import Segment
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError
from dagc.passes import tie
from dagc.passes.zero import ZeroRedundancy

MODEL = (
    "layers = 4, hidden = 16, vocab = 32, dtype = bf16, tied = {tied}\n"
    "attention {{ heads = 4, kv_heads = 2 }}\nmlp {{ hidden = 24 }}"
)
TABLE = 16 * 32
PHASES = {
    "one rank": "gpus = [0]",
    "one stage": "gpus = 0..3, dp = 2, tp = 2, microbatches = 2, zero = 1",
    "no zero": "gpus = 0..7, pp = 2, dp = 2, tp = 2, microbatches = 2",
    "zero 1": "gpus = 0..7, pp = 2, dp = 2, tp = 2, microbatches = 2, zero = 1, sequence_parallel = true",
    "zero 2": "gpus = 0..7, pp = 4, dp = 2, microbatches = 4, zero = 2, optimizer = sgd",
    "one stage, zero 3": "gpus = 0..3, dp = 2, tp = 2, microbatches = 2, zero = 3",
    "zero 3": "gpus = 0..7, pp = 2, dp = 4, microbatches = 2, zero = 3",
    "context": "gpus = 0..7, pp = 4, sp = 2, microbatches = 4, zero = 1, recompute = full",
    "a loop": "gpus = 0..3, pp = 2, dp = 2, microbatches = 2, schedule = interleaved, virtual = 2",
    "a V": "gpus = 0..3, pp = 2, dp = 2, microbatches = 4, schedule = zb_v, zero = 2",
}
NOT_NOTICED = "block=summed.block"
"""A mutant that leaves it out: only pictures ask for the block of an op."""
APART = ("no zero", "zero 1", "zero 2", "zero 3", "context", "a loop")


def step(phase: str, tied: str = "true") -> Step:
    return small_step(PHASES[phase], MODEL.format(tied=tied))


def proof(of: Step, placed: Graph | None = None) -> TrainingProof:
    return compared(whole_model(of.unit), placed or of.placed, of.inputs(), of.unit.phase.gpu_count)


def at_ends(graph: Graph) -> list[Op]:
    return [op for segment in graph.segments for op in segment.ops if ENDS in op.axes]


def plan(phase: str, tied: str = "true") -> Plan:
    return dagc.compile_text(training_text(PHASES[phase], MODEL.format(tied=tied)))


# -- one table, one gradient -------------------------------------------------------------------------


def test_the_model_has_one_table() -> None:
    """Alone on a rank: what the head reads is what the embedding reads, and its gradient is the sum of both parts."""
    one, two = step("one rank"), step("one rank", "false")
    shared, apart = (TrainingMachine(s.model, s.inputs(), single()) for s in (one, two))
    shared.step()
    embed = shared.shards.whole_weight(one.model.embedding, -1, "@embed.We")
    head = shared.shards.whole_weight(one.model.head, 4, "@lm_head.Wo")
    assert np.shares_memory(embed, head) and np.array_equal(embed.T, head)
    assert (4, "lm_head.Wo") not in shared.gradients and (4, "lm_head.Wo") not in shared.weights

    def same_numbers(segment: Segment, layer: int, weight: object) -> object:
        table = two.model.embedding.weight["@embed.We"]
        if getattr(weight, "name", "") == "@lm_head.Wo":
            return random_weight(two.model.embedding, -1, table).T
        return random_weight(segment, layer, weight)  # type: ignore[arg-type]

    apart.inputs = apart.shards.inputs = replace(two.inputs(), weights=same_numbers)  # type: ignore[arg-type]
    apart.step()
    assert shared.loss == pytest.approx(apart.loss, rel=1e-14)
    both = apart.gradients[-1, "embed.We"][2][0], apart.gradients[4, "lm_head.Wo"][2][0].T
    found = shared.gradients[-1, "embed.We"][2][0]
    np.testing.assert_allclose(found, sum(both), rtol=1e-12)
    assert all(np.abs(found - part).max() > 1e-3 * np.abs(found).max() for part in both)


@pytest.mark.parametrize("phase", spread(PHASES, {"one stage", "zero 1", "a V"}))
def test_every_lowering_has_the_gradient_and_the_table_of_the_model(phase: str) -> None:
    """Loss, the sum of both gradients, and every copy of the new table."""
    own = step(phase)
    found = proof(own)
    assert found.holds, found
    assert len(at_ends(own.placed)) == (2 if phase in APART else 0)
    stored = [op.name for s in own.placed.segments for op in s.ops if isinstance(op.attrs, AdamAttrs)]
    assert ("lm_head.Wo.new" in stored) == (phase in APART) and "embed.We.new" in stored


def changed(graph: Graph, segment: Segment, ops: list[Op]) -> Graph:
    own = replace(segment, ops=tuple(ops))
    return replace(graph, segments=tuple(own if s is segment else s for s in graph.segments))


def test_copies_that_do_not_meet_are_found() -> None:
    """Each end makes a table of its own gradients."""
    own = step("zero 1")
    graph = own.placed
    for segment in (graph.embedding, graph.head):
        ops = [
            replace(op, attrs=op.attrs.but(over=())) if isinstance(op.attrs, AccumulateAttrs) and op.attrs.over else op
            for op in segment.ops
        ]
        (met,) = (op for op in ops if ENDS in op.axes)
        ops = [
            replace(op, inputs=tuple(met.inputs[0] if n == met.name else n for n in op.inputs))
            for op in ops
            if op is not met
        ]
        graph = changed(graph, graph.segment(segment.name), ops)
    found = proof(own, graph)
    assert found.verdict == "differs" and found.weight_error > 1e-3 and found.first == "lm_head[4]/lm_head.Wo.stored"


def test_a_copy_that_is_not_updated_is_found() -> None:
    own = step("zero 1")
    head = own.placed.head
    ops = [op for op in head.ops if not (op.cell == "update" and op.name.startswith("lm_head.Wo"))]
    found = proof(own, changed(own.placed, head, ops))
    assert found.verdict != "equal"


def test_a_head_that_keeps_its_gradient_is_found() -> None:
    """On one stage, as if the matrix were its own."""
    own, other = step("one stage"), step("one stage", "false")
    found = compared(whole_model(own.unit), other.placed, own.inputs(), 4)
    assert found.verdict == "differs" and found.gradient_error == np.inf


def test_ends_that_do_not_both_call_are_refused() -> None:
    graph = step("zero 1").placed
    (met,) = (op for op in graph.head.ops if ENDS in op.axes)
    smaller = replace(met, axes=("dp",), attrs=MoveAttrs())
    with pytest.raises(VerifyError):
        verify(changed(graph, graph.head, [smaller if op is met else op for op in graph.head.ops]))
    rest = [
        replace(op, inputs=tuple(met.inputs[0] if n == met.name else n for n in op.inputs))
        for op in graph.head.ops
        if op is not met
    ]
    with pytest.raises(VerifyError):
        verify(changed(graph, graph.head, rest))


def test_its_text_reads_back() -> None:
    graph = step("zero 2").placed
    text = print_graph(graph)
    assert "over=ends" in text and "partial(sum ends" in text and "over ends" in text
    assert parse_graph(text) == graph


# -- what it costs -------------------------------------------------------------------------------------


def test_groups_over_the_ends_are_of_the_first_and_the_last_stage() -> None:
    mesh = step("zero 2").placed.the_mesh
    assert mesh.groups((ENDS,)).tolist() == [[0, 6], [1, 7]]
    assert mesh.size((ENDS,)) == 2 and mesh.group((ENDS,)).ranks == 2


@pytest.mark.parametrize(("phase", "ranks"), [("no zero", 2), ("zero 1", 4), ("zero 2", 2)])
def test_each_end_sends_its_part_of_the_sum_once(phase: str, ranks: int) -> None:
    """An all-reduce of two: as many bytes each way as a rank has of the fp32 sum."""
    result = plan(phase).trainings["step"]
    for op in at_ends(result.graph):
        segment = next(s for s in result.graph.segments if op in s.ops)
        cost = result.costs.ops[segment.name, op.name]
        assert cost.payload_B == cost.wire_B == TABLE / ranks * 4
        assert float(cost.time_s.max()) > 0
    assert result.update_moved_s > plan(phase, "false").trainings["step"].update_moved_s or phase == "zero 2"


def states(of: Plan) -> list[tuple[float, float, float]]:
    return [(m.weights_B, m.gradients_B, m.optimizer_B) for m in of.trainings["step"].memory]


@pytest.mark.parametrize("phase", spread(PHASES, {"one stage", "zero 1", "a V"}))
def test_it_is_held_once_where_both_ends_are_on_one_gpu(phase: str) -> None:
    """Weight in bf16, sum in fp32, master copy and two moments in fp32, over the ranks that share them; a copy on each end otherwise."""
    own, other = states(plan(phase)), states(plan(phase, "false"))
    saved = [tuple(b - a for a, b in zip(x, y, strict=True)) for x, y in zip(own, other, strict=True)]
    none = (0.0, 0.0, 0.0)
    wanted = {
        "one rank": [(TABLE * 2, TABLE * 4, TABLE * 12)],
        "one stage": [(TABLE * 2 / 2, TABLE * 4 / 2, TABLE * 12 / 4)],
        "one stage, zero 3": [(TABLE * 2 / 4, TABLE * 4 / 4, TABLE * 12 / 4)],
        "a V": [(TABLE * 2, TABLE * 4 / 2, TABLE * 12 / 2), none],
    }
    assert saved == wanted.get(phase, [none] * len(saved))


def test_flops_are_those_of_a_matrix_of_its_own() -> None:
    own, other = (plan("zero 1", tied).trainings["step"] for tied in ("true", "false"))
    assert own.flops == other.flops
    assert [a - b for a, b in zip(plan("one rank", "false").params, plan("one rank").params, strict=True)] == [
        TABLE
    ] * 2


def test_schedules_know_whether_their_ends_meet() -> None:
    """As their seats have it, of four GPUs."""
    for name, known in SCHEDULES.items():
        schedule = make(name, 4, 8, known.chunks or 2)
        meet = all(route.seats[0].gpu == route.seats[-1].gpu for route in schedule.routes)
        copies = len(
            {route.seats[0].gpu for route in schedule.routes} | {route.seats[-1].gpu for route in schedule.routes}
        )
        assert known.ends_meet == (meet or (len(schedule.routes) == 2 and copies == 2)), name


def test_a_table_that_is_split_in_two_ways_is_refused() -> None:
    """As a plugin's pass could have it."""
    graph = step("one stage").levels["pp"]
    ops = [op.annotate("vocab", ()) for op in graph.head.ops]
    with pytest.raises(PassError, match="split in one way in the first layer, and in another in the head"):
        ZeroRedundancy(1).run(changed(graph, graph.head, ops))


# -- the pass broken on purpose ----------------------------------------------------------------------------


@cache
def mutants() -> tuple[SourceMutant, ...]:
    return tuple(source_mutants(tie))


def test_no_broken_pass_goes_unnoticed() -> None:
    """One comparison, branch or element changed: the lowering stops, is refused or differs, or the copies are not where they belong."""
    escaped = []
    for mutant in sampled([m for m in mutants() if NOT_NOTICED not in m.name], examples(10, 4), seed=1):
        with mutant.applied():
            try:
                fine = all(
                    proof(own).holds and len(at_ends(own.placed)) == (2 if phase in APART else 0)
                    for phase in ("one stage", "zero 1", "a V")
                    for own in [step(phase)]
                )
            except Exception:
                fine = False
        if fine:
            escaped.append(mutant.name)
    assert escaped == []
