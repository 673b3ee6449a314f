"""Drafts by the model's own layers for further tokens: their weights, cache and time, each counted once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from conftest import spec_text
from tiers import in_turn

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.dtypes import dtype
from dagc.base.plain_data import DataError
from dagc.export.engines.launch import export
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import plan_of
from dagc.lang.printer.print_spec import print_spec
from dagc.pipeline.compile import compile_phase
from dagc.pipeline.sensitivities import sensitivities
from dagc.plan.result import PhaseResult, passes_s
from dagc.spec.unit import Unit

MODEL = (
    "layers = 4, hidden = 64, vocab = 512, dtype = bf16, mtp_layers = {}{}\n"
    "attention {{ heads = 8, kv_heads = 4, head_dim = 8 }}\nexperts {{ count = 8, top_k = 2, hidden = 32 }}"
)
LAYER = 2 * 64 * 64 + 2 * 64 * 32 + 64 + 64 * 8 + 3 * 8 * 64 * 32 + 64
"""Parameters of a layer: queries and output, keys and values, a gain; router, experts, a gain."""
ADDED = 2 * 64 * 64 + 2 * 64 + 64
"""The projection from twice the width, the gains of its two inputs, and that before the head."""


def compiled(phase: str, *, layers: int = 1, model: str = "", name: str = "decode") -> Plan:
    return dagc.compile_text(spec_text(phase=f"gpus = 0..7, {phase}", kind=name, model=MODEL.format(layers, model)))


def both(phase: str, **options: object) -> tuple[PhaseResult, PhaseResult]:
    """The phase with what drafts its tokens, and without."""
    name = str(options.get("name", "decode"))
    with_, without = (compiled(phase + more, **options) for more in (", drafter = mtp", ""))  # type: ignore[arg-type]
    return with_.phases[name], without.phases[name]


LAYOUTS = ("dp = 8", "tp = 4, dp = 2", "ep = 8", "attention { dp = 2, tp = 4 }\nexperts { ep = 8 }")


@pytest.mark.parametrize(("draft", "layout"), in_turn([1, 3], LAYOUTS))
def test_a_step_takes_its_drafts_and_its_check(layout: str, draft: int) -> None:
    """N passes of one token each, priced as the step of a model of that one layer, then the step as it is without drafter."""
    drafts, plain = both(f"draft = {draft}, acceptance = 0.5, {layout}")
    assert drafts.drafter is not None and drafts.drafter.count == draft
    (one,) = drafts.drafter.passes
    assert one.graph.body[0].size("seq") == 1 and plain.graph.body[0].size("seq") == 1 + draft
    step_s = one.chunk.schedule.period_s
    assert step_s > 0 and drafts.drafter.time_s == pytest.approx(draft * step_s)
    tokens = sum(0.5**i for i in range(draft + 1))
    assert drafts.time_s == pytest.approx((plain.schedule.period_s + draft * step_s) / tokens)
    assert passes_s(plain.chunks) == passes_s(drafts.chunks) and plain.graph == drafts.graph
    assert drafts.throughput_tok_s * drafts.time_s == pytest.approx(plain.throughput_tok_s * plain.time_s)
    assert sum(step.time_s for step in drafts.path) == pytest.approx(passes_s(drafts.all_passes))
    assert sum(drafts.bound_by.values()) == pytest.approx(1)
    assert {s.segment for s in drafts.path} > {"mtp_embed", "mtp_layer", "mtp_head"}


@pytest.mark.parametrize("acceptance, tokens", [(0, 1), (1, 4)])
def test_drafts_cost_the_same_however_many_are_accepted(acceptance: float, tokens: int) -> None:
    drafts, plain = both(f"draft = 3, acceptance = {acceptance}, dp = 8")
    assert drafts.drafter is not None
    assert drafts.time_s == pytest.approx((plain.schedule.period_s + drafts.drafter.time_s) / tokens)
    assert drafts.time_s > plain.time_s


@pytest.mark.parametrize("layers", [1, 2])
def test_weights_are_counted_once(layers: int) -> None:
    """Of everything on one GPU: the layer, its projection and its gains; the table and the head are the model's."""
    one = dagc.compile_text(
        spec_text(phase="gpus = 0..0, draft = 2", kind="decode", gpus=1, model=MODEL.format(layers, ""))
    )
    two = dagc.compile_text(
        spec_text(phase="gpus = 0..0, draft = 2, drafter = mtp", kind="decode", gpus=1, model=MODEL.format(layers, ""))
    )
    plain, drafts = one.phases["decode"], two.phases["decode"]
    own = layers * (LAYER + ADDED)
    assert drafts.drafter is not None and drafts.drafter.params == own
    more = drafts.memory.worst.weights_B - plain.memory.worst.weights_B
    assert more == own * dtype("bf16").bytes == drafts.drafter.weights_B
    cache = drafts.memory.worst.kv_cache_B - plain.memory.worst.kv_cache_B
    assert cache == pytest.approx(plain.memory.worst.kv_cache_B * layers / 4) == drafts.drafter.kv_cache_B
    assert two.params == one.params


@pytest.mark.parametrize("tied", ["", ", tied = true"])
def test_only_the_last_stage_drafts(tied: str) -> None:
    """It has a copy of the table, but for a tied head, which is the table."""
    drafts, plain = both("draft = 2, pp = 2, dp = 4", model=tied)
    assert drafts.drafter is not None
    assert drafts.memory.stages[0] == plain.memory.stages[0]
    table = 0 if tied else 512 * 64
    more = drafts.memory.stages[1].weights_B - plain.memory.stages[1].weights_B
    assert more == (LAYER + ADDED + table) * dtype("bf16").bytes
    ids = drafts.graph.the_mesh.the_gpus.ids
    assert drafts.drafter.passes[0].graph.the_mesh.the_gpus.ids == ids[len(ids) // 2 :]


@pytest.mark.parametrize("order", ["order = [tp, pp, dp, ep, sp]", "place gpu = tp * 4 + dp * 2 + pp"])
def test_the_drafter_lies_on_the_ranks_of_the_last_stage(order: str) -> None:
    drafts = compiled(f"draft = 1, drafter = mtp, pp = 2, dp = 2, tp = 2\n{order}").phases["decode"]
    assert drafts.drafter is not None
    ids = drafts.graph.the_mesh.the_gpus.ids
    assert drafts.drafter.passes[0].graph.the_mesh.the_gpus.ids == ids[4:] != tuple(range(4, 8))


def test_deepseek_v3_has_the_parameters_that_its_makers_state() -> None:
    """671B, and a module of 11.5B beside the shared embedding and head (README_WEIGHTS of the checkpoint)."""
    text = (
        'moe 1\nhardware from "h200-sxm" { gpus = 16 }\nmodel from "deepseek-v3" { }\n'
        "workload { sequences = 64, prompt = 512 tok, output = 512 tok }\n"
        "phase decode { gpus = 0..15, draft = 1, drafter = mtp\nattention { dp = 16 }\nexperts { ep = 16 } }"
    )
    plan = dagc.compile_text(text)
    drafter = plan.phases["decode"].drafter
    assert drafter is not None
    mla = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168 + 1536 + 512 + 7168
    experts = 257 * 3 * 7168 * 2048 + 7168 * 256 + 256 + 7168
    assert drafter.params == mla + experts + 2 * 7168 * 7168 + 3 * 7168
    assert drafter.params == pytest.approx(11.5e9, rel=0.01)
    assert plan.params[0] == pytest.approx(671e9, rel=0.001)
    data = plan.to_json()["phases"]["decode"]["drafter"]
    assert data["params"] == drafter.params and data["passes"] == 1 and data["time_s"] == drafter.time_s


def test_a_mixed_step_drafts_for_its_sequences_and_takes_its_prompts() -> None:
    more = "kind = mixed, decode = 64, draft = 3, prompt_tokens = 512 tok, dp = 8"
    drafts, plain = both(more, name="step")
    assert drafts.drafter is not None and [one.chunk.count for one in drafts.drafter.passes] == [1, 2]
    first, other = drafts.drafter.passes
    assert first.graph.body[0].parts == ("decode", "prompt") and not other.graph.body[0].parts
    assert first.graph.body[0].size("seq", "decode") == other.graph.body[0].size("seq") == 1
    assert first.chunk.schedule.period_s > other.chunk.schedule.period_s
    added = first.chunk.schedule.period_s + 2 * other.chunk.schedule.period_s
    assert drafts.time_s == pytest.approx(plain.time_s + added)
    alone, without = both("kind = mixed, decode = 64, draft = 3, dp = 8", name="step")
    assert alone.drafter is not None and [one.chunk.count for one in alone.drafter.passes] == [3]
    assert alone.time_s == pytest.approx(without.time_s + alone.drafter.time_s)


def test_the_host_launches_drafts_where_no_graph_covers_them() -> None:
    options = "draft = 2, acceptance = 0, dp = 8, launch = 10 ms"
    drafts, plain = both(f"{options}, cuda_graph = false")
    assert plain.time_s == pytest.approx(4 * 10e-3, rel=1e-3)
    assert drafts.time_s == pytest.approx((4 + 2) * 10e-3, rel=1e-3)
    covered, _ = both(options)
    assert covered.time_s < 10e-3
    mixed, _ = both("kind = mixed, decode = 8, prompt_tokens = 64 tok, draft = 2, dp = 8, launch = 10 ms", name="step")
    assert mixed.drafter is not None
    packed, decode = (one.chunk.schedule.period_s for one in mixed.drafter.passes)
    assert packed == pytest.approx(10e-3, rel=1e-3) and decode < 1e-3


def test_faster_hardware_speeds_up_drafts_too() -> None:
    plan = compiled("draft = 8, acceptance = 0, drafter = mtp, tp = 8")
    unit, result = Unit(plan.spec, plan.spec.phase("decode"), Collector()), plan.phases["decode"]
    slower = replace(plan.spec.hardware, hbm_Bps=plan.spec.hardware.hbm_Bps / 1.1)
    again = compile_phase(Unit(replace(plan.spec, hardware=slower), unit.phase, Collector()))
    fast = {
        one.name: one.change for one in sensitivities(replace(unit, spec=replace(plan.spec, hardware=slower)), again)
    }
    assert result.time_s / again.time_s - 1 == pytest.approx(fast["+10% HBM bandwidth"], rel=1e-6)


def test_phases_that_share_gpus_count_the_drafter_once() -> None:
    """In one layout or in two: the drafter is one more weight of the decode phase."""

    def shared(layout: str, drafter: str) -> float:
        prefill = "phase prefill { gpus = 0..7, dp = 8 }"
        text = spec_text(phase=f"gpus = 0..7, draft = 1, {layout}{drafter}", kind="decode", model=MODEL.format(1, ""))
        (pool,) = dagc.compile_text(f"{text}\n{prefill}").pools
        return pool.weights_B

    for layout in ("dp = 8", "tp = 8"):
        more = shared(layout, ", drafter = mtp") - shared(layout, "")
        drafts, _ = both(f"draft = 1, {layout}")
        assert drafts.drafter is not None and more == pytest.approx(drafts.drafter.weights_B)


@pytest.mark.parametrize(("name", "layout"), in_turn(["decode", "mixed"], [*LAYOUTS, "pp = 2, tp = 4"]))
def test_the_step_that_checks_is_proved_beside_its_drafter(name: str, layout: str) -> None:
    """Weights and cache of what drafts are in the phase's memory, and no rank of the proof stores them."""
    step = "decode = 16, prompts = [64 tok], " if name == "mixed" else ""
    plan = compiled(f"{step}draft = 1, drafter = mtp, {layout}", name=name)
    assert plan.phases[name].drafter is not None
    proof = plan.prove(name)
    assert proof.verdict == "equal", proof


def test_loads_by_layer_stop_no_drafter() -> None:
    """Nothing was recorded of the layer that drafts: it takes the loads of the last."""
    rows = ["[8, 1, 1, 1, 1, 1, 1, 1]"] * 3 + ["[1, 1, 1, 1, 1, 1, 1, 1]"]
    drafts, _ = both(f"draft = 1, ep = 8, routing = loads([{', '.join(rows)}])")
    even, _ = both("draft = 1, ep = 8")
    assert drafts.drafter is not None and even.drafter is not None
    assert drafts.drafter.time_s == pytest.approx(even.drafter.time_s)
    assert drafts.costs.imbalance > even.costs.imbalance


@pytest.mark.parametrize(
    "phase, layers, said",
    [
        ("drafter = mtp, dp = 8", 1, "E12"),
        ("draft = 1, drafter = mtp, dp = 8", 0, "E03"),
        ("draft = 1, drafter = eagle, dp = 8", 1, "E"),
    ],
)
def test_what_cannot_draft_is_refused(phase: str, layers: int, said: str) -> None:
    with pytest.raises(SpecError) as error:
        compiled(phase, layers=layers)
    assert any(d.code.startswith(said) for d in error.value.diagnostics)


def test_a_drafter_that_is_printed_is_read_back() -> None:
    plan = compiled("draft = 2, acceptance = 0.5, drafter = mtp, dp = 8")
    again = dagc.compile_text(print_spec(plan.spec))
    assert again.spec.phases == plan.spec.phases and again.phases["decode"].time_s == plan.phases["decode"].time_s


@pytest.mark.parametrize(
    "engine, flags",
    [
        ("vllm", '--speculative-config \'{"method": "mtp", "num_speculative_tokens": 3}\''),
        ("sglang", "--speculative-num-draft-tokens 4"),
        ("trtllm", 'speculative_config: {"decoding_type": "MTP", "num_nextn_predict_layers": 3}'),
    ],
)
def test_engines_are_told_to_draft(engine: str, flags: str) -> None:
    for drafter in ("", ", drafter = mtp"):
        plan = compiled(f"draft = 3, tp = 8{drafter}")
        text = b"".join(export(plan, engine, "org/model", "p").values()).decode()
        assert flags in text
        assert ("without its drafter" in text) == (not drafter)
    with pytest.raises(SpecError, match="cannot express"):
        export(compiled("draft = 3, tp = 8", layers=0), engine, "org/model", "p")


def test_a_placed_graph_that_is_read_back_says_that_it_has_no_drafter() -> None:
    plan = compiled("draft = 2, drafter = mtp, dp = 8")
    data = graph_object(plan, "decode")
    again = plan_of(json.loads(dumps(data)))
    assert [d.code for d in again.diagnostics if "what drafts the tokens" in d.message] == ["W06"]
    (step,) = again.phases.values()
    assert step.drafter is None and step.schedule.period_s == plan.phases["decode"].schedule.period_s
    data["plan"]["phase"]["drafter"] = "eagle"
    with pytest.raises(DataError, match="drafter"):
        plan_of(json.loads(dumps(data)))


def test_two_layouts_on_the_same_gpus_have_a_drafter_each() -> None:
    def weights_B(drafter: str) -> float:
        other = f"phase other {{ kind = decode, gpus = 0..7, draft = 1, tp = 8{drafter} }}"
        phase = f"gpus = 0..7, draft = 1, dp = 8{drafter}"
        text = spec_text(phase=phase, kind="decode", model=MODEL.format(1, ""))
        (pool,) = dagc.compile_text(f"{text}\n{other}").pools
        return pool.weights_B

    drafters = [both(f"draft = 1, {layout}")[0].drafter for layout in ("dp = 8", "tp = 8")]
    assert weights_B(", drafter = mtp") - weights_B("") == pytest.approx(sum(one.weights_B for one in drafters if one))
