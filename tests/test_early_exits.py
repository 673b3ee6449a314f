"""Early exits of decode steps: closed forms at shares 0 and 1, what thins out behind an exit, heads of their own, and the proof."""

from __future__ import annotations

import json
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from conftest import spec_text
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.execute.inputs import Inputs, random_weight
from dagc.execute.machine import RankMachine
from dagc.execute.prove import Recording, model_graph, single
from dagc.execute.values import Floats
from dagc.export.engines.launch import export
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import plan_of
from dagc.ir.graph import Graph
from dagc.ir.op import Weight
from dagc.ir.ops.kind import Tokens
from dagc.ir.ops.op_set import OPS, flops
from dagc.ir.segment import Segment
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import VerifyError, verify
from dagc.lang.printer.print_spec import print_spec
from dagc.pipeline.estimates import Estimates
from dagc.spec.exits import Exit, depth, rows_left
from dagc.view.draw.figures import layers

MODEL = (
    "layers = {}, hidden = 64, vocab = 512, dtype = bf16{}\n"
    "attention {{ heads = 8, kv_heads = 4, head_dim = 8 }}\nexperts {{ count = 8, top_k = 2, hidden = 32 }}"
)
SAID = "exit = [at(layers = 2, share = 25%), at(layers = 4, share = 50%)]"


def compiled(phase: str, layers: int = 6, more: str = "") -> Plan:
    return dagc.compile_text(spec_text(phase=f"gpus = 0..7, {phase}", kind="decode", model=MODEL.format(layers, more)))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compiled(f"dp = 2, tp = 4, {SAID}")


def of(graph: Graph, name: str) -> dict[str, float]:
    return dict(graph.segment(name).sizes)


# -- closed forms ------------------------------------------------------------------------------------


def test_a_share_of_nothing_changes_nothing() -> None:
    plain = compiled("dp = 8").to_json()
    none = compiled("dp = 8, exit = [at(layers = 2, share = 0%), at(layers = 3, share = 0%)]").to_json()
    assert json.dumps(none, sort_keys=True) == json.dumps(plain, sort_keys=True)


@pytest.mark.parametrize("layout", ["dp = 8", "dp = 2, tp = 4", "attention { dp = 8 }\nexperts { ep = 8 }"])
@pytest.mark.parametrize("layers", [1, 4])
def test_where_all_leave_the_model_ends(layout: str, layers: int) -> None:
    """The head behind that layer is the only one."""
    all_leave = compiled(f"{layout}\nexit = [at(layers = {layers}, share = 100%)]").phases["decode"]
    short = compiled(layout, layers).phases["decode"]
    assert all_leave.graph == short.graph
    assert all_leave.time_s == short.time_s and all_leave.memory == short.memory
    assert all_leave.flops_per_token == short.flops_per_token


def test_all_leave_in_two_parts() -> None:
    """Half behind the second layer, by a head of its own, the others behind the third by the model's."""
    graph = compiled("dp = 8, exit = [at(layers = 2, share = 50%), at(layers = 3, share = 50%)]").phases["decode"].graph
    assert [(s.name, s.repeat) for s in graph.segments] == [
        ("embed", 1), ("sparse", 1), ("sparse_at2", 1), ("sparse_after2", 1), ("lm_head", 1),
    ]  # fmt: skip
    assert of(graph, "lm_head")["batch"] == of(graph, "sparse")["batch"] / 2


@pytest.mark.parametrize("exits, layers, mean", [(((2, 0.25), (4, 0.5)), 6, 4.0), (((1, 1.0),), 6, 1.0), ((), 6, 6.0)])
def test_expected_depth(exits: tuple[tuple[int, float], ...], layers: int, mean: float) -> None:
    assert depth(tuple(Exit(*one) for one in exits), layers) == mean


@pytest.mark.parametrize("each, gone, left", [(10, 0.1, 9), (10, 0.15, 9), (1, 0.9, 1), (8, 0.75, 2), (3, 1.0, 0)])
def test_rows_are_whole_ones(each: int, gone: float, left: int) -> None:
    assert rows_left(each, gone) == left == ceil(each * (1 - gone) - 1e-9)


# -- what thins out ------------------------------------------------------------------------------------------


def test_rows_thin_out_and_caches_do_not(plan: Plan) -> None:
    graph = plan.phases["decode"].graph
    assert [(s.name, s.repeat) for s in graph.body] == [
        ("sparse", 1), ("sparse_at2", 1), ("sparse_after2", 1), ("sparse_at4", 1), ("sparse_after4", 2),
    ]  # fmt: skip
    rows = [of(graph, s.name)["batch"] for s in graph.segments]
    assert rows == [64, 64, 64, 48, 48, 16, 16]
    assert [of(graph, s.name).get("every") for s in graph.segments] == [None, None, None, 64, 64, 64, 64]
    for segment in graph.body:
        kept = [op for op in segment.ops if OPS[op.kind].tokens is Tokens.CACHE]
        assert kept and all(
            segment.count(op.dims) == graph.body[0].count(graph.body[0].by_name[op.name].dims) for op in kept
        )
    plain = compiled("dp = 2, tp = 4").phases["decode"]
    assert plan.phases["decode"].memory.worst.kv_cache_B == plain.memory.worst.kv_cache_B


def test_a_layer_behind_an_exit_takes_the_work_of_its_rows(plan: Plan) -> None:
    """Keys and values of all, everything else of those that are still there."""
    graph = plan.phases["decode"].graph
    first, last = graph.body[0], graph.body[-1]
    for op in first.ops:
        other = last.by_name.get(op.name)
        if other is None or op.is_collective or not flops(first, op):
            continue
        share = 1.0 if other.dims[0] == "every" else 16 / 64
        assert flops(last, other) == pytest.approx(share * flops(first, op)), op.name
    made = {op.name for op in last.ops if op.dims[0] == "every" and OPS[op.kind].product}
    assert made == {"gqa.k", "gqa.v"}


def test_whoever_leaves_has_its_token_by_a_head_of_that_layer(plan: Plan) -> None:
    graph = plan.phases["decode"].graph
    here = graph.segment("sparse_at4")
    head = graph.head
    own = [op for op in here.ops if op.block == "exit_lm_head" or op.name.startswith("exit_lm_head")]
    assert {op.kind for op in own} >= {"rms_norm", "contract", "argmax"}
    product = next(op for op in own if op.kind == "contract")
    assert flops(here, product) == 48 / 16 * flops(head, next(op for op in head.ops if op.kind == "contract"))
    heads = 2 * (512 * 64 / 4 + 64) * 2  # two heads, the matrix over 4 ranks, 2 bytes
    plain = compiled("dp = 2, tp = 4")
    assert plan.phases["decode"].memory.worst.weights_B - plain.phases["decode"].memory.worst.weights_B == heads
    assert plan.params == plain.params


def test_what_is_of_no_block_has_no_frame(plan: Plan) -> None:
    """A frame round the rows that stay, and those that come back, would lie over those of the blocks between them."""
    for name, _, figure in layers.draw(plan.phases["decode"]):
        segment = plan.phases["decode"].graph.segment(name)
        assert "".join(figure.body).count('"frame"') == len({op.block for op in segment.ops} - {""})


def test_a_tied_head_is_the_table_once_more() -> None:
    tied, plain = (compiled(f"dp = 8{said}", more=", tied = true").phases["decode"] for said in (f", {SAID}", ""))
    assert tied.memory.worst.weights_B - plain.memory.worst.weights_B == 2 * 64 * 2  # the gains of two norms


def test_stages_behind_an_exit_have_less_to_do() -> None:
    thin, plain = (
        compiled(f"pp = 2, tp = 4, microbatches = 2{said}").phases["decode"]
        for said in (", exit = [at(layers = 2, share = 90%)]", "")
    )
    assert thin.schedule.stage_s[1] < plain.schedule.stage_s[1]
    assert thin.schedule.stage_s[0] > plain.schedule.stage_s[0]  # by the head behind its second layer


# -- text, proof, files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", spread([
    "dp = 2, tp = 4", "ep = 8", "pp = 2, dp = 2, tp = 2, microbatches = 2", "attention { dp = 4, tp = 2 }\nexperts { ep = 8 }",
], lambda layout: ("ep" in layout and "dp = 4" in layout) or "pp" in layout))  # fmt: skip
def test_steps_that_thin_out_are_proved(layout: str) -> None:
    proof = compiled(f"{layout}\n{SAID}").prove("decode")
    assert proof.verdict == "equal", proof


def of_any_kind(segment: Segment, layer: int, weight: Weight) -> Floats:
    """Weights of a layer, whatever its kind is called; gains are one."""
    found = random_weight(replace(segment, name="layer"), layer, weight)
    return np.ones_like(found) if len(weight.dims) == 1 else found


def run(said: str, history: dict[tuple[int, str], np.ndarray]) -> Recording:
    """A step of 8 sequences on one rank, behind a cache that is given."""
    text = spec_text(
        phase=f"gpus = 0..0, sequences = 8, context = 20 tok{said}", kind="decode", model=MODEL.format(6, "")
    )
    unit = dagc.compile_text(text).units["decode"]
    graph = model_graph(unit)
    for segment, layer in graph.layers:
        for op in segment.ops:
            if OPS[op.kind].tokens is Tokens.CACHE:
                shape = [19 if d == "context" else int(segment.sizes[d]) for d in op.dims]
                random = np.random.default_rng(layer * 100 + len(op.name))
                history.setdefault((layer, op.name), random.standard_normal(shape))
    ids = np.random.default_rng(4).integers(0, 512, (8, 1))
    seen = Recording(RankMachine(graph, Inputs(ids, unit.routing, of_any_kind, history=history), single()))
    seen.machine.run()
    return seen


def test_whoever_stays_is_not_touched_and_whoever_leaves_keeps_its_state() -> None:
    """Logits of the rows that are left are those of a step without exits; what the others cache behind the exit is made of their last
    state, layer by layer."""
    history: dict[tuple[int, str], np.ndarray] = {}
    plain = run("", history)
    thin = run(", exit = [at(layers = 2, share = 25%), at(layers = 4, share = 50%)]", history)
    assert np.allclose(thin.whole(*thin.logits), plain.whole(*plain.logits)[:2], rtol=1e-12, atol=1e-12)
    for layer, same in (
        (2, True),
        (3, False),
    ):  # six of eight go on; the next layer still finds the state with which two left
        mine, whole = (one.whole(layer, "gqa.k") for one in (thin, plain))
        assert np.allclose(mine[:6], whole[:6]) and np.allclose(mine[6:], whole[6:]) == same
    x = plain.whole(2, "gqa.h").shape
    states = [thin.whole(layer, "gqa.h") for layer in (2, 3, 4, 5)]
    assert all(state.shape == x for state in states)
    assert all(np.allclose(state[6:], states[0][6:]) for state in states)  # normed by gains of one


def test_latent_attention_is_proved() -> None:
    text = (
        'moe 1\nhardware from "h800-sxm" { gpus = 8 }\nmodel from "deepseek-v2-lite" { }\n'
        "workload { sequences = 64, prompt = 64 tok, output = 8 tok }\n"
        "phase decode { gpus = 0..7, dp = 8, exit = [at(layers = 9, share = 50%)] }"
    )
    proof = dagc.compile_text(text).prove("decode")
    assert proof.verdict == "equal", proof


def test_the_graph_as_text(plan: Plan) -> None:
    text = print_graph(plan.phases["decode"].graph)
    assert "= stay(" in text and "= rejoin(" in text
    assert print_graph(parse_graph(text)) == text
    with pytest.raises(VerifyError):
        verify(parse_graph(text.replace("groups=2", "groups=5", 1)))


def test_a_phase_with_exits_is_written_and_read_back(plan: Plan) -> None:
    again = dagc.compile_text(print_spec(plan.spec))
    assert again.phases["decode"].graph == plan.phases["decode"].graph
    back = plan_of(json.loads(dumps(graph_object(plan, "decode"))))
    assert back.spec.phases[0].exits == plan.spec.phases[0].exits
    assert back.phases["decode"].time_s == pytest.approx(plan.phases["decode"].time_s)


# -- what is wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said, code", [
    ("exit = [at(layers = 6, share = 10%)]", "E03"),
    ("exit = [at(layers = 0, share = 10%)]", "E09"),
    ("exit = [at(layers = 2, share = 110%)]", "E09"),
    ("exit = [at(layers = 2, share = 60%), at(layers = 3, share = 60%)]", "E09"),
    ("exit = [at(layers = 3, share = 10%), at(layers = 3, share = 10%)]", "E03"),
    ("exit = [behind(layers = 3, share = 10%)]", "E02"),
    ("exit = [at(layers = 3)]", "E10"),
    ("exit = 12", "E08"),
    ("draft = 2, exit = [at(layers = 2, share = 10%)]", "E12"),
])  # fmt: skip
def test_faults_have_a_place_and_help(said: str, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(f"dp = 8, {said}")
    (found,) = caught.value.diagnostics
    assert (found.code, found.span is not None) == (code, True)


def test_prompts_go_through_all_layers() -> None:
    with pytest.raises(SpecError, match="belongs to a decode phase"):
        dagc.compile_text(spec_text(phase=f"gpus = 0..7, dp = 8, {SAID}", kind="prefill", model=MODEL.format(6, "")))


def test_layers_with_a_state_let_nobody_leave() -> None:
    with pytest.raises(SpecError, match="no sequence leaves before"):
        dagc.compile_text(
            'moe 1\nhardware from "h100-sxm" { gpus = 8 }\nmodel from "qwen3-next-80b-a3b" { }\n'
            "workload { sequences = 64, prompt = 64 tok }\n"
            "phase decode { gpus = 0..7, tp = 8, exit = [at(layers = 8, share = 50%)] }"
        )


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_no_engine_is_told_of_exits(engine: str) -> None:
    with pytest.raises(SpecError) as caught:
        export(compiled(f"tp = 8, engine = {engine}, {SAID}"), engine, "org/model", "p")
    assert "exit behind layer 2, 4" in " ".join(caught.value.diagnostics[0].because)


@pytest.mark.parametrize("kind, said", spread([
    ("decode", f"dp = 2, tp = 4, {SAID}"),
    ("decode", "dp = 2, tp = 4, tree = [3, 2], acceptance = [[50%, 20%, 10%], 60%]"),
    ("prefill", "dp = 2, tp = 4, lengths = lognormal(1)"),
    ("prefill", "dp = 2, tp = 4, lengths = lognormal(1), packing = padded, chunk = 64 tok, chunk_by = work"),
], lambda case: "tree" in case[1] or "padded" in case[1]))  # fmt: skip
def test_estimates_are_what_is_compiled(kind: str, said: str) -> None:
    """Lowered for itself, and from the layout that phases of other sizes share."""
    own = dagc.compile_text(spec_text(phase=f"gpus = 0..7, {said}", kind=kind, model=MODEL.format(6, "")))
    estimates, phase = Estimates(own.spec), own.spec.phases[0]
    for _ in range(4):
        found = estimates(phase)
        assert found.time_s == own.phases[kind].time_s and found.memory == own.phases[kind].memory
        assert found.throughput_tok_s == own.phases[kind].throughput_tok_s


@pytest.mark.parametrize("sequences", [1, 3])
def test_steps_in_which_all_have_left_end_there(sequences: int) -> None:
    """As often as all of them leave, by chance and each alone; such a step takes as long as a model of so many layers."""
    said = f"tp = 8, sequences = {sequences}"
    result = compiled(f"{said}, exit = [at(layers = 2, share = 50%), at(layers = 4, share = 25%)]").phases["decode"]
    after_two, after_four = 0.5**sequences, 0.75**sequences
    assert [c.count for c in result.chunks] == pytest.approx([after_two, after_four - after_two, 1 - after_four])
    short = compiled(said, 2).phases["decode"]
    assert result.chunks[0].schedule.period_s == pytest.approx(short.time_s, rel=1e-9)
    assert result.chunks[2].schedule.period_s == result.schedule.period_s > result.chunks[1].schedule.period_s
    assert result.time_s == pytest.approx(sum(c.count * c.schedule.period_s for c in result.chunks))
    staged = compiled(f"pp = 2, tp = 4, sequences = {sequences}, exit = [at(layers = 2, share = 50%)]").phases["decode"]
    assert len(staged.chunks) == 1
