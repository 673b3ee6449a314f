"""Choices of experts that a phase skips: what follows from their share, and a real rule that is run."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from one_placement import busiest_rank

import dagc
from dagc.base.diagnostics import SpecError
from dagc.base.frozen import replace
from dagc.cost.busiest import most_of_some
from dagc.cost.expert_load import rank_work
from dagc.execute.numpy.router import Router
from dagc.execute.prove import Alone, model_graph, prove, prove_graph, random_inputs, random_weight
from dagc.export.engines.launch import export
from dagc.ir.ops.attributes.experts import DispatchAttrs, RouteAttrs
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.lang.printer.print_spec import print_spec
from dagc.plan.plan import CompiledPlan
from dagc.spec.workload import Routing

SPEC = """moe 1
hardware pool {
  gpus = 8, per_node = 8, compute = 400 TFLOP/s, memory = 64 GB, hbm = 2 TB/s
  link node { bandwidth = 450 GB/s, latency = 2 us }, link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
model small { layers = 2, hidden = 32, vocab = 64
  attention { heads = 4, kv_heads = 2, head_dim = 8 }
  experts { count = 8, top_k = 4, hidden = 16, MORE } }
workload { sequences = 16, prompt = 8 tok, output = 4 tok }
PHASES
"""
WAYS = {
    "exchange": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8, SKIP } }",
    "flat": "phase decode { gpus = 0..7, dp = 2, ep = 2, tp = 2, experts { SKIP } }",
    "gather": "phase prefill { gpus = 0..7, attention { dp = 4, tp = 2 }, experts { ep = 8, SKIP }, dispatch = allgather }",
    "copies": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 4, tp = 2, SKIP }, redundant = 4, pp = 1 }",
    "turns": "phase decode { gpus = 0..3, attention { dp = 4 }, experts { gpus = 4..7, ep = 4, SKIP }, microbatches = 2 }",
}


def compiled(phases: str, skip: str = "skip = 0", more: str = "score = softmax") -> CompiledPlan:
    return dagc.compile_text(SPEC.replace("PHASES", phases.replace("SKIP", skip)).replace("MORE", more))


@pytest.fixture(scope="module")
def plans() -> dict[str, CompiledPlan]:
    """Everything counts; a quarter of the choices is skipped."""
    phases = WAYS["exchange"]
    return {"all": compiled(phases.replace(", SKIP", "")), "some": compiled(phases, "skip = 25%, skip_below = 60%")}


# -- the rule ------------------------------------------------------------------------------------


def test_weights_below_a_share_of_the_largest_are_none() -> None:
    scores = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    chosen, weights = Router(3, normalize=False, skip=0.2, skip_below=0.4)(scores, None)
    assert chosen.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(weights, [[0.5, 0.3, 0.0]])
    _, every = Router(3, normalize=False, skip=0.0, skip_below=0.4)(scores, None)
    np.testing.assert_allclose(every, [[0.5, 0.3, 0.15]])


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sparsemixer", "sqrtsoftplus"])
def test_both_backends_skip_the_same(score: str) -> None:
    scores = np.random.default_rng(3).standard_normal((4, 5, 8))
    rule = Router(3, score, jitter=0.1, skip=0.3, skip_below=0.7)
    chosen, weights = rule(scores, None)
    torch = pytest.importorskip("torch")
    from dagc.execute.torch.router import Router as TorchRouter

    theirs, other = TorchRouter(rule)(torch.tensor(scores), None)
    assert np.array_equal(chosen, theirs.numpy())
    np.testing.assert_allclose(weights, other.numpy(), rtol=1e-12)
    assert 0 < np.count_nonzero(weights == 0) < weights.size and (weights.max(axis=-1) > 0).all()


# -- what follows from the share -------------------------------------------------------------------


def test_nothing_skipped_is_the_same_plan(plans: dict[str, CompiledPlan]) -> None:
    other = compiled(WAYS["exchange"])
    assert other.to_json() == plans["all"].to_json()
    assert "skip" not in print_spec(other.spec) and "skip" not in print_graph(other.phases["decode"].graph)


def test_flops_and_traffic_of_experts_follow_from_the_share(plans: dict[str, CompiledPlan]) -> None:
    one, other = (plans[name].phases["decode"] for name in ("all", "some"))
    for key, cost in one.costs.ops.items():
        op = one.graph.segment(key[0]).by_name[key[1]]
        less = 0.75 if op.scope == "experts" or op.kind == "combine" or op.is_token_exchange else 1.0
        assert other.costs.ops[key].flops == pytest.approx(less * cost.flops)
        assert other.costs.ops[key].payload_B == pytest.approx(less * cost.payload_B)
    assert other.graph.segment("sparse").sizes["slot"] == 0.75 * one.graph.segment("sparse").sizes["slot"]


def test_expected_reads_are_the_closed_form(plans: dict[str, CompiledPlan]) -> None:
    """Of 16 tokens each picks any expert with chance 1/2, 3/8 of them with a quarter skipped."""
    for name, chance in (("all", 4 / 8), ("some", 3 / 8)):
        read = plans[name].phases["decode"].costs.distinct_experts
        assert read == pytest.approx(8 * (1 - (1 - chance) ** 16), rel=1e-12)


@pytest.mark.parametrize("routing", [Routing(), Routing("zipf", 1.2)], ids=["uniform", "zipf"])
@pytest.mark.parametrize("tokens", [1, 7, 300])
def test_more_that_is_skipped_is_less_to_do(routing: Routing, tokens: int) -> None:
    works = [rank_work(routing, 16, 4, 4, 0, tokens, skip=skip) for skip in (0.0, 0.05, 0.2, 0.5, 0.9)]
    rows = [float(work.kernel.rows.max()) for work in works]
    assert rows == sorted(rows, reverse=True)
    distinct = [work.distinct for work in works]
    assert distinct == sorted(distinct, reverse=True)
    means = [float(work.slot_rows.sum()) for work in works]
    assert means[-1] < means[0]


def test_the_busiest_rank_of_one_token_is_exact() -> None:
    """Against every subset of its choices, each kept or skipped."""
    ranks, per_rank, top_k, skip = 3, 2, 3, 0.3
    expected = 0.0
    for chosen in combinations(range(ranks * per_rank), top_k):
        for kept in range(top_k + 1):
            for some in combinations(chosen, kept):
                most = max(np.bincount([e // per_rank for e in some], minlength=ranks)) if some else 0
                expected += float(most) * (1 - skip) ** kept * skip ** (top_k - kept)
    assert most_of_some(ranks, per_rank, top_k, skip) == pytest.approx(expected / comb(6, 3), rel=1e-12)


def test_a_share_for_each_choice() -> None:
    """The first is always kept, the others sometimes: on average as often as with one share, and never none of a token."""
    plan = compiled(WAYS["exchange"], "skip = [0, 20%, 40%, 60%]")
    assert plan.spec.phase("decode").experts.skip == pytest.approx(0.3)
    even = compiled(WAYS["exchange"], "skip = 30%").phases["decode"]
    own = plan.phases["decode"]
    assert own.graph.segment("sparse").sizes["slot"] == pytest.approx(even.graph.segment("sparse").sizes["slot"])
    assert own.costs.distinct_experts == pytest.approx(even.costs.distinct_experts)
    assert dagc.compile_text(print_spec(plan.spec)).spec.phase("decode").experts == plan.spec.phase("decode").experts
    assert compiled(WAYS["exchange"], "skip = [30%, 30%, 30%, 30%]").phases["decode"].time_s == even.time_s
    assert most_of_some(2, 4, 2, (0.0, 1.0)) == pytest.approx(1.0)
    assert most_of_some(3, 2, 3, (0.3, 0.3, 0.3)) == pytest.approx(most_of_some(3, 2, 3, 0.3))
    assert prove(plan, "decode").verdict == "equal"


def test_drawn_steps_skip_as_often_as_they_are_to() -> None:
    p, slots = np.full(16, 0.25), np.arange(16).reshape(2, 8)
    some = busiest_rank(p, slots, 16, tile=1, skip=0.5)
    every = busiest_rank(p, slots, 16, tile=1)
    mean = 16 * 4 * 0.5 / 2
    assert mean < some.rows < every.rows and some.rows == pytest.approx(mean * 1.2, rel=0.1)


# -- proof ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_rule_is_run_and_compared(way: str) -> None:
    plan = compiled(WAYS[way], "skip = 30%, skip_below = 60%")
    (name,) = plan.phases
    assert prove(plan, name).verdict == "equal"


def test_a_lowering_that_skips_otherwise_is_noticed(plans: dict[str, CompiledPlan]) -> None:
    plan, unit = plans["some"], plans["some"].units["decode"]
    result = plan.phases["decode"]
    model = Alone(model_graph(unit), random_inputs(unit, random_weight))

    def changed(route: dict[str, float], dispatch: dict[str, bool]) -> str:
        graph = result.graph.map_ops(
            lambda _, op: (
                replace(op, attrs=op.attrs.but(**(route if isinstance(op.attrs, RouteAttrs) else dispatch)))
                if isinstance(op.attrs, RouteAttrs | DispatchAttrs)
                else op
            ),
            result.graph.level,
        )
        return prove_graph(graph, unit, result.costs, alone=model).verdict

    assert changed({}, {}) == "equal"
    assert changed({"skip_below": 0.2}, {}) == "differs"
    assert changed({"skip": 0.0}, {}) == "differs"
    assert changed({}, {"skips": False}) == "differs"  # rows of no weight are sent, which nobody stated


# -- words ---------------------------------------------------------------------------------------


def test_texts_say_it_and_are_read_back(plans: dict[str, CompiledPlan]) -> None:
    graph = plans["some"].phases["decode"].graph
    text = print_graph(graph)
    assert "skip=0.25, skip_below=0.6)" in text and "skips=true" in text
    assert print_graph(parse_graph(text)) == text
    again = dagc.compile_text(print_spec(plans["some"].spec))
    assert again.spec.phase("decode").experts == plans["some"].spec.phase("decode").experts


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "megatron"])
def test_engines_refuse_it(engine: str, plans: dict[str, CompiledPlan]) -> None:
    with pytest.raises(SpecError) as error:
        export(plans["some"], engine, "org/model", "p", None)
    said = [line for d in error.value.diagnostics for line in (d.message, *d.because)]
    assert {d.code for d in error.value.diagnostics} == {"E05"} and any("skip = 25%" in line for line in said)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("phase decode { gpus = 0..7, tp = 2, dp = 4, experts { skip = 100% } }", "E09"),
        ("phase decode { gpus = 0..7, tp = 2, dp = 4, experts { skip = [0, 10%] } }", "E03"),
        ("phase decode { gpus = 0..7, tp = 2, dp = 4, experts { skip_below = 20% } }", "E10"),
        ("phase t { kind = train, gpus = 0..7, tp = 2, dp = 4, experts { skip = 10% } }", "E12"),
    ],
)
def test_what_does_not_go_is_said(text: str, code: str) -> None:
    with pytest.raises(SpecError) as error:
        compiled(text)
    assert code in {d.code for d in error.value.diagnostics}


def test_a_dense_model_has_nothing_to_skip() -> None:
    spec = SPEC.replace("experts { count = 8, top_k = 4, hidden = 16, MORE }", "mlp { hidden = 16 }")
    with pytest.raises(SpecError) as error:
        dagc.compile_text(
            spec.replace("PHASES", "phase decode { gpus = 0..7, tp = 2, dp = 4, experts { skip = 10% } }")
        )
    assert any("needs routed experts" in d.message for d in error.value.diagnostics)
