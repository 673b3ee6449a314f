"""Experts that do nothing: what follows from their share of the choices, and the rule that is run."""

from __future__ import annotations

import json
from pathlib import Path

import forked_ranks
import numpy as np
import pytest
from test_training_run import needs_torch
from tiers import in_turn, spread

import dagc
from dagc.base.diagnostics import SpecError
from dagc.base.frozen import replace
from dagc.execute.numpy.router import Router, taken_at_most
from dagc.execute.prove import prove, prove_graph
from dagc.ir.op import Op
from dagc.ir.ops.attributes.experts import DispatchAttrs
from dagc.ir.ops.attributes.training import AccumulateAttrs
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import verify
from dagc.plan.plan import CompiledPlan

SPEC = """moe 1
hardware pool {
  gpus = 8, per_node = 8, compute = 400 TFLOP/s, memory = 64 GB, hbm = 2 TB/s
  link node { bandwidth = 450 GB/s, latency = 2 us }, link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
block some(x) {
  let expert = experts.count
  let empty = 4
  let ffn = experts.hidden
  h = rms_norm(x)
  s[batch, seq, expert] = h * Wr[hidden, expert]
  e[batch, seq, empty] = h * We[hidden, empty]
  r = route(s, top_k = experts.top_k, MORE)
  t[expert, slot, hidden] = dispatch(h, r)
  u[expert, slot, ffn] = t * Wu[expert, hidden, ffn]
  d[expert, slot, hidden] = silu(u) * Wd[expert, ffn, hidden]
  y[batch, seq, hidden] = combine(d, r)
  return x + y + h * EMPTY
}
layer sparse { gqa, some }
model small { hidden = 32, vocab = 64, stack = [embed, each(2, sparse), lm_head]
  attention { heads = 4, kv_heads = 2, head_dim = 8 }
  experts { count = 8, top_k = 4, hidden = 16 } }
workload { sequences = 16, prompt = 8 tok, output = 4 tok }
PHASE
"""
WAYS = {
    "exchange": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8, SKIP } }",
    "flat": "phase decode { gpus = 0..7, dp = 2, ep = 2, tp = 2, experts { SKIP } }",
    "gather": "phase prefill { gpus = 0..7, attention { dp = 4, tp = 2 }, experts { ep = 8, SKIP }, dispatch = allgather }",
    "copies": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 4, tp = 2, SKIP }, redundant = 4, pp = 1 }",
    "turns": "phase decode { gpus = 0..3, attention { dp = 4 }, experts { gpus = 4..7, ep = 4, SKIP }, microbatches = 2 }",
}
WITH = "empty = e, bias = Wb[expert], empty_bias = Web[empty], normalize = false, scale = 2"


def compiled(way: str, skip: str = "skip = 0", more: str = WITH, empty: str = "empty_weight(r)") -> CompiledPlan:
    return dagc.compile_text(text_of(WAYS.get(way, way).replace("SKIP", skip), more, empty))


def text_of(phase: str, more: str = WITH, empty: str = "empty_weight(r)") -> str:
    return SPEC.replace("PHASE", phase).replace("MORE", more).replace("EMPTY", empty)


@pytest.fixture(scope="module")
def plans() -> dict[str, CompiledPlan]:
    """Eight experts alone; the same beside four empty ones, so that a third of the choices does nothing."""
    return {"alone": compiled("exchange", more="normalize = false, scale = 2", empty="2"), "some": compiled("exchange")}


def test_work_and_traffic_of_experts_follow_from_the_share(plans: dict[str, CompiledPlan]) -> None:
    one, other = (plans[name].phases["decode"] for name in ("alone", "some"))
    shared = {key: cost for key, cost in one.costs.ops.items() if key in other.costs.ops}
    compared = 0
    for key, cost in shared.items():
        op = one.graph.segment(key[0]).by_name[key[1]]
        routed = op.scope == "experts" or op.kind == "combine" or op.is_token_exchange
        less = 8 / 12 if routed else 1.0
        assert other.costs.ops[key].flops == pytest.approx(less * cost.flops)
        assert other.costs.ops[key].payload_B == pytest.approx(less * cost.payload_B)
        compared += routed
    assert compared >= 5
    chance = 4 / 12  # that a token chooses an expert
    assert other.costs.distinct_experts == pytest.approx(8 * (1 - (1 - chance) ** 16), rel=1e-12)


@pytest.mark.parametrize(("skip", "way"), in_turn(["skip = 0", "skip = 30%, skip_below = 60%"], WAYS))
def test_the_rule_is_run_and_compared(way: str, skip: str) -> None:
    plan = compiled(way, skip)
    (name,) = plan.phases
    assert prove(plan, name).verdict == "equal"


@needs_torch
def test_processes_compute_what_the_model_alone_does(tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    phase = "phase decode { gpus = 0..1, attention { dp = 2 }, experts { ep = 2, skip = 20%, skip_below = 40% } }"
    spec.write_text(SPEC.replace("PHASE", phase).replace("MORE", WITH).replace("EMPTY", "empty_weight(r)"))
    done = forked_ranks.run(spec, 2, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["holds"] is True


def test_shares_of_each_choice_and_of_empty_ones_are_both_left_out() -> None:
    one, other = (compiled("exchange", s).phases["decode"] for s in ("skip = 30%", "skip = [0, 20%, 40%, 60%]"))
    assert one.costs.distinct_experts == pytest.approx(8 * (1 - (1 - 0.7 * 4 / 12) ** 16), rel=1e-12)
    assert other.costs.distinct_experts == pytest.approx(one.costs.distinct_experts)


def test_a_lowering_that_sends_empty_choices_is_noticed(plans: dict[str, CompiledPlan]) -> None:
    plan = plans["some"]

    def sent(_: object, op: Op) -> Op:
        return replace(op, attrs=op.attrs.but(skips=False)) if isinstance(op.attrs, DispatchAttrs) else op

    result = plan.phases["decode"]
    graph = result.graph.map_ops(sent, result.graph.level)
    assert prove_graph(graph, plan.units["decode"], result.costs).verdict == "differs"


def test_texts_say_it_and_are_read_back(plans: dict[str, CompiledPlan]) -> None:
    graph = plans["some"].phases["decode"].graph
    text = print_graph(graph)
    assert "empty=true" in text and print_graph(parse_graph(text)) == text
    assert "empty=true" not in print_graph(plans["alone"].phases["decode"].graph)


def test_parameters_are_those_that_its_makers_state(tmp_path: Path) -> None:
    """Of LongCat-Flash (arXiv 2509.01322, abstract): 560 billion, of which a token uses 27 on average."""
    given = json.loads((Path(__file__).parent / "data" / "config_defaults.json").read_text())["models"]["longcat_flash"]
    (tmp_path / "config.json").write_text(json.dumps(given["config"]))
    (tmp_path / "s.moe").write_text(
        SPEC.split("block some")[0].replace("gpus = 8,", "gpus = 128,").replace("64 GB", "80 GB")
        + 'model longcat from "config.json"\nworkload { sequences = 128, prompt = 8 tok, output = 4 tok }\n'
        "phase decode { gpus = 0..127, attention { dp = 128 }, experts { ep = 128 } }\n"
    )
    plan = dagc.compile(tmp_path / "s.moe")
    assert plan.params[0] == pytest.approx(560e9, rel=0.005)
    assert plan.params[1] == pytest.approx(27e9, rel=0.05)


@pytest.mark.parametrize(
    ("more", "empty", "message", "code"),
    [
        ("bias = Wb[expert]", "empty_weight(r)", "this `route` has no empty experts", "E13"),
        ("empty = s", "empty_weight(r)", "of experts of its own", "E13"),
        ("empty = h + 1, bias = Wb[expert]", "empty_weight(r)", "`bias` and `empty_bias` go together", "E13"),
        ("empty = e, bias = Wb[expert], empty_bias = Web[ffn]", "2", "one number for each of [empty]", "E13"),
        ("empty_bias = Web[empty]", "2", "`route` has none", "E13"),
        ("empty = e, score = sigmoid", "2", "`score = sigmoid` and empty experts are not there together", "E18"),
        ("empty = e, groups = 2, groups_limit = 2", "2", "`groups = 2` and empty experts", "E18"),
        ("empty = e", "empty_weight(h)", "`empty_weight` needs the result of `route`", "E13"),
        ("empty = e", "empty_weight(empty_weight(r))", "`empty_weight` needs the result of `route`", "E13"),
    ],
)
def test_what_does_not_go_is_said(more: str, empty: str, message: str, code: str) -> None:
    with pytest.raises(SpecError) as error:
        compiled("exchange", more=more, empty=empty)
    found = [d for d in error.value.diagnostics if message in d.message]
    assert [d.code for d in found] == [code] and found[0].span is not None, error.value


STEPS = {
    "flat": "gpus = 0..7, tp = 2, dp = 4",
    "exchange": "gpus = 0..7, microbatches = 2\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }",
    "stages": "gpus = 0..7, pp = 2, dp = 2, ep = 2, microbatches = 2, recompute = full, schedule = zb_h1",
    "split sequences": "gpus = 0..7, sp = 2, tp = 2, ep = 2, sequence_parallel = true, zero = 2",
}


@pytest.mark.parametrize("words", spread(STEPS.values(), (STEPS["exchange"],)), ids=list(STEPS))
def test_routers_learn_through_choices_that_do_nothing(words: str) -> None:
    """Loss, every gradient and new weight, bytes and FLOPs on ranks; that they are right is in `test_gradients.py`, by transformers' LongCat Flash."""
    plan = compiled(f"phase t {{ kind = train, {words} }}")
    proof = plan.prove("t")
    assert proof.verdict == "equal", proof
    segment = plan.trainings["t"].graph.segment("sparse")
    assert {f"@some.{name}" for name in ("Wr", "We", "Wu", "Wd")} == {
        f"@{op.attrs.weight}"
        for op in segment.ops
        if isinstance(op.attrs, AccumulateAttrs) and op.attrs.weight.startswith("some.W")
    }


def capped(phase: str, capacity: float = 0.75) -> CompiledPlan:
    """The experts that compute have a capacity."""
    text = SPEC.replace("hidden = 16 }", f"hidden = 16, capacity = {capacity} }}").replace("MORE", WITH)
    return dagc.compile_text(text.replace("PHASE", phase).replace("EMPTY", "empty_weight(r)"))


@pytest.mark.parametrize("way", spread(["exchange", "gather", "stages"], 2))
def test_a_capacity_beside_empty_experts_drops_the_same_on_ranks(way: str) -> None:
    phase = WAYS[way].replace("SKIP", "skip = 0") if way in WAYS else f"phase t {{ kind = train, {STEPS[way]} }}"
    plan = capped(phase)
    assert plan.prove(next(iter((*plan.phases, *plan.trainings)))).verdict == "equal"


def test_a_capacity_is_of_the_mean_of_all_experts() -> None:
    """Of many tokens: 0.75 of the choices of each of eight experts beside four that have none; choices of those are never dropped."""
    many = WAYS["exchange"].replace("SKIP", "skip = 0").replace("exchange", "")
    text = SPEC.replace("sequences = 16", "sequences = 65536").replace(
        "hidden = 16 }", "hidden = 16, capacity = 0.75 }"
    )
    plan = dagc.compile_text(text.replace("MORE", WITH).replace("PHASE", many).replace("EMPTY", "empty_weight(r)"))
    assert plan.phases["decode"].costs.dropped == pytest.approx(0.25, abs=0.01)
    rule = Router(2, capacity=0.75, empty=True, normalize=False)
    chosen, weights = rule(np.random.default_rng(7).standard_normal((4, 24, 6)), None)
    kept = rule.capped(chosen, weights, np.zeros((4, 24), dtype=int), 6, empty=2)
    for expert in range(6):
        own = (chosen == expert).sum()
        assert (kept[chosen == expert] > 0).sum() == (own if expert > 3 else min(own, taken_at_most(0.75, 192, 6)))


def test_losses_of_routers_say_that_they_are_not_there() -> None:
    with pytest.raises(SpecError, match="losses of routers are not there yet where some experts do nothing") as error:
        compiled("phase t { kind = train, gpus = 0..7, tp = 2, dp = 4, aux_loss = 0.01 }")
    assert [(d.code, d.span is not None) for d in error.value.diagnostics] == [("E18", True)]


def test_a_graph_with_other_operands_is_refused(plans: dict[str, CompiledPlan]) -> None:
    text = print_graph(plans["some"].phases["decode"].graph)
    line = next(line for line in text.splitlines() if "empty=true" in line)
    with pytest.raises(Exception, match=r"operand 4 \(bias\): found"):
        verify(parse_graph(text.replace(line, line.replace("%some.e,", "%some.s,"))))
