"""Experts that a token's id chooses: what is computed, where it is run, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import forked_ranks
import numpy as np
import pytest
from test_stretched_rope import BLOCK
from test_training_run import needs_torch
from tiers import spread

import dagc
from dagc.base.diagnostics import SpecError
from dagc.base.frozen import replace
from dagc.cli import main
from dagc.execute.prove import alone, prove
from dagc.ir.graph import Graph
from dagc.ir.ops.attributes.training import AccumulateAttrs
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import VerifyError, verify
from dagc.plan.plan import CompiledPlan

SPEC = """moe 1
hardware pool {
  gpus = 8, per_node = 8, compute = 400 TFLOP/s, memory = 64 GB, hbm = 2 TB/s
  link node { bandwidth = 450 GB/s, latency = 2 us }, link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
block by_id(x, tokens) {
  let expert = experts.count
  let picks = experts.top_k
  let ffn = experts.hidden
  h = rms_norm(x)
  s[batch, seq, expert] = h * Wr[hidden, expert]
  r = route(s, top_k = experts.top_k, score = sqrtsoftplus, scale = 1.5MORE)
  t[expert, slot, hidden] = dispatch(h, r)
  u[expert, slot, ffn] = t * Wu[expert, hidden, ffn]
  d[expert, slot, hidden] = silu(clamp(u, high = 10)) * Wd[expert, ffn, hidden]
  y[batch, seq, hidden] = combine(d, r)
  return x + y + lookup(tokens, Wy[vocab, hidden])
}
layer hashed { gqa, by_id }
layer scored { gqa, moe }
model small { hidden = 32, vocab = 64, stack = [embed, each(2, hashed), scored, lm_head]
  attention { heads = 4, kv_heads = 2, head_dim = 8 }
  experts { count = 8, top_k = 2, hidden = 16 } }
workload { sequences = 16, prompt = 8 tok, output = 4 tok }
PHASE
"""
BY_ID = "tokens = tokens, table = Wt[vocab, picks]"
EXCHANGE = "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 } }"
WAYS = {
    "exchange": EXCHANGE,
    "flat": "phase decode { gpus = 0..7, dp = 2, ep = 2, tp = 2, experts { skip = 20%, skip_below = 60% } }",
    "gather": "phase prefill { gpus = 0..7, attention { dp = 4, tp = 2 }, experts { ep = 8 }, dispatch = allgather }",
    "copies": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 4, tp = 2 }, redundant = 4 }",
    "turns": "phase decode { gpus = 0..3, attention { dp = 4 }, experts { gpus = 4..7, ep = 4 }, microbatches = 2 }",
    "zigzag": "phase prefill { gpus = 0..7, sp = 4, dp = 2, sp_layout = zigzag, experts { ep = 8 } }",
    "stages": "phase decode { gpus = 0..5, pp = 3, attention { dp = 2 }, experts { ep = 2 } }",
    "mixed": "phase mixed { gpus = 0..3, dp = 1, ep = 2, tp = 2, decode = 4, prompts = [4, 3] }",
    "exits": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 }, sequences = 160, exit = [at(layers = 2, share = 10%)] }",
    "host": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8, resident = 8, cache = lru } }",
}


def compiled(way: str, more: str = BY_ID, spec: str = SPEC) -> CompiledPlan:
    return dagc.compile_text(spec.replace("PHASE", WAYS.get(way, way)).replace("MORE", f", {more}" if more else ""))


@pytest.fixture(scope="module")
def plan() -> CompiledPlan:
    return compiled("exchange")


@pytest.mark.parametrize("way", spread(WAYS, ("exchange", "flat", "turns", "zigzag", "stages", "mixed", "exits")))
def test_ranks_compute_what_the_model_does(way: str) -> None:
    (name,) = (plan := compiled(way)).phases
    assert prove(plan, name).verdict == "equal"


def test_ids_choose_and_scores_weigh(plan: CompiledPlan) -> None:
    """Of every token, by the table that was drawn and the formula as it is written down."""
    model = alone(plan.units["decode"])
    seen: dict[str, Any] = {}
    machine, inputs = model.seen.machine, model.inputs

    def kept(segment: Any, layer: int, op: Any, values: list[Any]) -> None:
        if segment.name == "hashed" and layer == 0:
            seen[op.name] = values[0]

    machine.watch = kept
    machine.run()
    segment = machine.graph.segment("hashed")
    table = inputs.weights(segment, 0, segment.weight["@by_id.Wt"]).astype(int)
    assert table.shape == (64, 2) and table.min() >= 0 and table.max() < 8
    assert (table[:, 0] != table[:, 1]).all() and len(np.unique(table)) == 8
    assert np.array_equal(seen["by_id.r"], table[inputs.tokens])
    scores = np.take_along_axis(np.sqrt(np.log1p(np.exp(seen["by_id.s"]))), table[inputs.tokens], axis=-1)
    weights = 1.5 * scores / scores.sum(axis=-1, keepdims=True)
    each = seen["by_id.h"] @ inputs.weights(segment, 0, segment.weight["@by_id.Wu"])[:, None]
    gone = np.minimum(each, 10) / (1 + np.exp(-np.minimum(each, 10)))
    each = gone @ inputs.weights(segment, 0, segment.weight["@by_id.Wd"])[:, None]
    batch, seq = np.indices(inputs.tokens.shape)
    wanted = sum(weights[..., k, None] * each[table[inputs.tokens][..., k], batch, seq] for k in range(2))
    np.testing.assert_allclose(seen["by_id.y"], wanted, rtol=1e-9, atol=1e-12)


@needs_torch
def test_processes_compute_what_the_model_alone_does(tmp_path: Path) -> None:
    """By ids, behind attention whose rotary frequencies are learned."""
    spec = tmp_path / "p.moe"
    phase = "phase decode { gpus = 0..1, attention { dp = 2 }, experts { ep = 2 } }"
    text = SPEC.replace("block by_id", f"{BLOCK}block by_id").replace("{ gqa, by_id }", "{ learned, by_id }")
    spec.write_text(text.replace("PHASE", phase).replace("MORE", f", {BY_ID}"))
    done = forked_ranks.run(spec, 2, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["holds"] is True


def test_a_table_is_stored_and_no_parameter(plan: CompiledPlan) -> None:
    other = compiled("exchange", "")
    assert plan.params == other.params
    one, two = (p.phases["decode"] for p in (plan, other))
    tables = 2 * 64 * 2 * 4  # of two layers, on every rank
    assert one.memory.stages[0].weights_B - two.memory.stages[0].weights_B == tables
    cost, less = (p.costs.ops["hashed", "by_id.r"] for p in (one, two))
    assert cost.bytes - less.bytes == pytest.approx(2 * 4 + 2 * 2 * 4)  # 2 tokens of a rank: ids, and rows of 2 numbers
    assert cost.flops == less.flops


def test_what_experts_get_is_as_of_scores(plan: CompiledPlan) -> None:
    one, two = (p.phases["decode"].costs for p in (plan, compiled("exchange", "")))
    assert one.distinct_experts == two.distinct_experts == pytest.approx(8 * (1 - (1 - 2 / 8) ** 16))
    for key, cost in two.ops.items():
        if key[1] != "by_id.r":
            assert one.ops[key] == cost


def test_texts_say_it_and_are_read_back(plan: CompiledPlan) -> None:
    text = print_graph(plan.phases["decode"].graph)
    assert "by_token=true" in text and "takes %tokens = tokens" in text and "hands tokens = %tokens" in text
    assert print_graph(parse_graph(text)) == text
    assert "tokens =" not in print_graph(compiled(EXCHANGE, "", SPEC.replace(" + lookup(tokens, Wy[vocab, hidden])", "").replace("(x, tokens)", "(x)")).phases["decode"].graph)  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@by_id.Wt : [vocab, picks] int32", "@by_id.Wt : [vocab, picks]", "wanted int32 or int64"),
        ("%tokens, @by_id.Wt", "%by_id.s, @by_id.Wt", "operand 2"),
        ("@by_id.Wt : [vocab, picks] int32", "@by_id.Wt : [vocab, expert] int32", "operand 3"),
        ("  hands tokens = %tokens\n", "", "takes tokens, which no layer"),
        ("@gqa.h_gain : [hidden]", "@gqa.h_gain : [hidden] int32", "is for indices"),
    ],
)
def test_a_graph_with_other_operands_is_refused(plan: CompiledPlan, old: str, new: str, message: str) -> None:
    text = print_graph(plan.phases["decode"].graph)
    assert old in text
    with pytest.raises(VerifyError, match=message):
        verify(parse_graph(text.replace(old, new, 1)))


def test_a_table_without_its_ids_is_refused(plan: CompiledPlan) -> None:
    graph: Graph = plan.phases["decode"].graph
    broken = graph.map_ops(lambda _, op: replace(op, inputs=op.inputs[:2]) if op.kind == "route" and len(op.inputs) == 3 else op, graph.level)  # fmt: skip
    with pytest.raises(VerifyError, match="is for indices"):
        verify(broken)


@pytest.mark.parametrize(
    ("more", "message", "code"),
    [
        ("tokens = tokens", "`tokens` and `table` go together", "E13"),
        ("table = Wt[vocab, picks]", "`tokens` and `table` go together", "E13"),
        ("tokens = s, table = Wt[vocab, picks]", "`tokens` is the ids that the model is given", "E13"),
        ("tokens = tokens, table = Wt[vocab, expert]", "`table` is a weight [rows, choices] of 2 choices", "E13"),
        ("tokens = tokens, table = h", "`table` is a weight [rows, choices]", "E13"),
        (f"{BY_ID}, groups = 2, groups_limit = 2", "`groups = 2` is of a choice by scores", "E18"),
        (f"{BY_ID}, bias = Wb[expert]", "a bias or empty experts and a table", "E18"),
        ("bias = tokens", "the bias [batch, seq]", "E13"),
    ],
)
def test_what_does_not_go_is_said(more: str, message: str, code: str) -> None:
    with pytest.raises(SpecError) as error:
        compiled("exchange", more)
    found = [d for d in error.value.diagnostics if message in d.message]
    assert [d.code for d in found] == [code] and found[0].span is not None, error.value


@pytest.mark.parametrize(
    "phase",
    spread(
        [
            "gpus = 0..7, dp = 8, zero = 3, aux_loss = 0.01",
            "gpus = 0..5, dp = 2, pp = 3, microbatches = 6, experts { ep = 2 }",
        ],
        lambda phase: "pp = 3" in phase,
    ),
)
def test_scores_train_and_tables_stay(phase: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SPEC.replace("PHASE", f"phase t {{ kind = train, {phase} }}").replace("MORE", f", {BY_ID}")
    (tmp_path / "t.moe").write_text(text)
    assert main(["verify", str(tmp_path / "t.moe")]) == 0
    assert "t: equal on" in capsys.readouterr().out
    segment = dagc.compile(tmp_path / "t.moe").trainings["t"].graph.segment("hashed")
    changed = {op.attrs.weight for op in segment.ops if isinstance(op.attrs, AccumulateAttrs)}
    assert "by_id.Wr" in changed and "by_id.Wt" not in changed


def test_no_sequence_leaves_before_a_layer_that_takes_ids() -> None:
    with pytest.raises(SpecError) as error:
        compiled(
            "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 }, exit = [at(layers = 1, share = 10%)] }"
        )
    assert ["its layers hand values on" in d.message for d in error.value.diagnostics] == [True]


def test_ids_go_to_later_stages_with_the_residual_stream() -> None:
    sends = [line for line in print_graph(compiled("stages").phases["decode"].graph).splitlines() if "send" in line]
    assert [line.split(" :")[0] for line in sends] == [
        "send 0 -> 1 %x",
        "send 0 -> 1 %tokens = tokens",
        "send 1 -> 2 %x",
    ]


def test_ids_may_be_written_with_their_dims(plan: CompiledPlan) -> None:
    other = compiled("exchange", BY_ID.replace("tokens = tokens", "tokens = tokens[batch, seq]"))
    assert print_graph(other.phases["decode"].graph) == print_graph(plan.phases["decode"].graph)
    with pytest.raises(SpecError, match="E13"):
        compiled("exchange", BY_ID.replace("tokens = tokens", "tokens = tokens[batch, seq, hidden]"))


def test_ids_are_no_tensor_to_compute_with() -> None:
    with pytest.raises(SpecError) as error:
        compiled("exchange", BY_ID, SPEC.replace("lookup(tokens, Wy[vocab, hidden])", "h * tokens"))
    assert "token ids is not a tensor to compute with" in error.value.diagnostics[0].message


def test_a_table_has_a_row_for_each_id() -> None:
    for more, spec in ((BY_ID.replace("vocab", "hidden"), SPEC), (BY_ID, SPEC.replace("Wy[vocab", "Wy[few"))):
        with pytest.raises(SpecError, match=r"a table of 32 rows .* has none for the last of 64 token ids"):
            compiled("exchange", more, spec.replace("let picks", "let few = 32\n  let picks"))
    larger = SPEC.replace("let picks", "let rows = 128\n  let picks").replace("Wy[vocab", "Wy[rows")
    assert compiled("exchange", BY_ID, larger).phases
