"""Prices of linear attention: which kernels its ops run as, by engine, and what their tables timed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import ROOT
from tiers import in_turn

import dagc
from dagc.calib import delta_decode, delta_prefill, load, short_conv
from dagc.calib.family import ENGINES
from dagc.cost.price import price
from dagc.cost.records import OpCost

SPEC = """moe 1
hardware from "{gpu}" {{ gpus = {gpus}, memory = 400 GB }}
model from "qwen3-next-80b-a3b" {{ }}
workload {{ sequences = 64, prompt = 1024 tok, output = 256 tok }}
phase prefill {{ gpus = [{ids}], tp = {gpus}, engine = {engine} }}
phase decode {{ gpus = [{ids}], tp = {gpus}, engine = {engine} }}
"""
PARTS = {
    (gpu, engine) for gpu in ("h100_sxm", "h200_sxm", "b200_sxm", "gb200", "b300_sxm", "gb300") for engine in ENGINES
}


def ops(phase: str, engine: str = "vllm", gpu: str = "h200-sxm", gpus: int = 4) -> dict[str, OpCost]:
    """Costs of the ops of a layer of linear attention."""
    text = SPEC.format(gpu=gpu, gpus=gpus, ids=", ".join(map(str, range(gpus))), engine=engine)
    plan = dagc.compile_text(text)
    found = price(plan.phases[phase].graph, plan.units[phase])
    return {op: cost for (segment, op), cost in found.ops.items() if op.startswith("gated_delta.")}


def seconds(costs: dict[str, OpCost], family: str) -> float:
    return sum(float(cost.time_s.max()) for cost in costs.values() if cost.family == family)


# -- the library ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("gpu", "engine"), sorted(PARTS))
def test_every_engine_has_all_kernels_where_they_were_timed(gpu: str, engine: str) -> None:
    """Of each phase; the state is one of two widths."""
    library = load(gpu)
    assert set(library.of(short_conv.FAMILY, engine)) == {short_conv.DECODE, short_conv.PREFILL}
    assert set(library.of(delta_prefill.FAMILY, engine)) == {delta_prefill.CHUNKED}
    state = delta_decode.BF16 if engine == "trtllm" else delta_decode.FP32
    assert set(library.of(delta_decode.FAMILY, engine)) == {state}


@pytest.mark.parametrize("engine", ENGINES)
def test_where_a_cache_held_the_states_another_gpu_is_taken(engine: str) -> None:
    """Scaled by the rates of the memory, and said."""
    wanted = delta_decode.FP32, delta_decode.BF16
    for gpu in delta_decode.CACHED:
        assert not load(gpu).of(delta_decode.FAMILY, engine)
        entry = load(gpu).find(delta_decode.FAMILY, wanted, engine)
        assert entry is not None and entry.gpu != gpu and entry.instead_of
        moved_B = 2 * delta_decode.STATE_B[entry.variant] * 256 * 64 * delta_decode.STATE
        assert delta_decode.FAMILY.estimate_s(entry, 256, 64) > moved_B / load(gpu).device.hbm_Bps


def test_errors_of_the_gpus_with_most_rows() -> None:
    """Medians over the three families, by engine: what docs/calibration.md states. SGLang on H200 was disturbed."""
    errors = json.loads((ROOT / "tools" / "kernel_errors.json").read_text())
    for family in ("short_conv", "delta_prefill", "delta_decode"):
        for gpu in ("h100_sxm", "h200_sxm", "b200_sxm"):
            for engine in ENGINES:
                most = 0.09 if (gpu, engine) == ("h200_sxm", "sglang") else 0.06
                assert errors[family][gpu][engine]["median"] <= most, (family, gpu, engine)


def test_channels_of_tables_that_timed_the_key_heads_alone() -> None:
    row = {"backend": "trtllm", "version": "1.3.0rc20", "num_k_heads": "16", "num_v_heads": "64"}
    assert short_conv.channels(row) == 16 * 128
    assert short_conv.channels(row | {"backend": "vllm"}) == (2 * 16 + 64) * 128


def test_bytes_by_hand() -> None:
    """At the memory's rate alone: inputs and outputs of two bytes and three kept ones; states of four bytes both ways."""
    conv = short_conv.ShortConvConstants(12.0, 0.0, 1e12, 1.0, 0.0, 1.0, 0.0)
    assert short_conv.time_s(conv, 8, 100, 256) == pytest.approx(8 * 256 * (4 * 100 + 12) / 1e12)
    step = delta_decode.DeltaDecodeConstants(4.0, 0.0, 1e12, 1.0, 0.0)
    assert delta_decode.time_s(step, 8, 16) == pytest.approx(2 * 4 * 8 * 16 * 128 * 128 / 1e12)
    chunked = delta_prefill.DeltaPrefillConstants(100.0, 0.0, 1e15, 1e30, 1.0, 0.0, 1.0)
    assert delta_prefill.time_s(chunked, 2, 65, 4, 16) == pytest.approx(2 * 128 * 16 * 180224 / 1e15)


# -- the match -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("engine", "phase"), in_turn(ENGINES, ["prefill", "decode"]))
def test_a_layer_runs_as_one_convolution_and_one_rule(phase: str, engine: str) -> None:
    found = ops(phase, engine)
    rule = "delta_decode" if phase == "decode" else "delta_prefill"
    assert {op for op, cost in found.items() if cost.family == "short_conv"} == {
        f"gated_delta.c{part}_in" for part in "qkv"
    }
    assert [op for op, cost in found.items() if cost.family == rule] == ["gated_delta.o"]
    names = {op.removeprefix("gated_delta.") for op, cost in found.items() if cost.family == "fused"}
    assert names == {
        "a", "cq", "ck", "cv", "qs", "ks", "nq", "nk", "nq_in", "nk_in", "nq_in_in_part", "nk_in_in_part", "decay",
        "decay_in", "decay_in_2", "o_in",
    }  # fmt: skip


def test_the_gate_behind_the_rule_is_no_part_of_it() -> None:
    found = ops("decode")
    for op in ("no_in", "no_in_2", "no"):
        assert not found[f"gated_delta.{op}"].family and found[f"gated_delta.{op}"].time_s.max() > 0


def test_a_rank_convolves_its_own_channels_at_once() -> None:
    """One launch for queries, keys and values together, in shares of their channels."""
    found = ops("decode", gpus=4)
    entry = load("h200_sxm").of(short_conv.FAMILY, "vllm")[short_conv.DECODE]
    alone = float(short_conv.FAMILY.estimate_s(entry, 64, 1, (16 + 16 + 32) * 128 / 4))
    assert seconds(found, "short_conv") == pytest.approx(alone)
    assert found["gated_delta.cv_in"].time_s.max() == pytest.approx(2 * found["gated_delta.cq_in"].time_s.max())


def test_engines_differ_and_a_narrower_state_is_faster() -> None:
    found = {engine: seconds(ops("decode", engine, gpus=1), "delta_decode") for engine in ENGINES}
    assert found["trtllm"] < 0.85 * min(found["vllm"], found["sglang"])


def test_parts_of_a_mixed_step_convolve_one_by_one() -> None:
    """Each part as so many sequences of its own phase: queries, keys and values together, activations with them."""
    head = SPEC.split("phase prefill")[0].format(gpu="h200-sxm", gpus=1, ids="0", engine="vllm")
    phase = "phase step { kind = mixed, gpus = [0], decode = 32, prompts = [1024 tok, 512 tok], engine = vllm }\n"
    plan = dagc.compile_text(head + phase)
    found = price(plan.phases["step"].graph, plan.units["step"]).ops
    costs = {op: cost for (_, op), cost in found.items() if op.startswith("gated_delta.")}
    of, channels = load("h200_sxm").of(short_conv.FAMILY, "vllm"), (16 + 16 + 32) * 128
    parts = ((short_conv.DECODE, 32, 1), (short_conv.PREFILL, 1, 1024), (short_conv.PREFILL, 1, 512))
    want = sum(float(short_conv.FAMILY.estimate_s(of[name], *sizes, channels)) for name, *sizes in parts)
    assert seconds(costs, "short_conv") == pytest.approx(want)
    rules = [cost.family for cost in costs.values() if cost.family.startswith("delta")]
    assert sorted(rules) == ["delta_decode", "delta_prefill", "delta_prefill"]
    assert costs["gated_delta.cq"].family == "fused"


def test_what_other_ops_read_too_costs_its_own_time() -> None:
    """An op rides only if nothing but the rule reads it."""
    model = (ROOT / "grammar" / "library" / "models" / "qwen3-next-80b-a3b.moe").read_text()
    changed = model.replace("no = rms_norm(o) * silu(z)", "no = rms_norm(o) * silu(z) * decay")
    assert changed != model
    header = SPEC.format(gpu="h200-sxm", gpus=1, ids="0", engine="vllm").replace("moe 1\n", "")
    body = header.replace('model from "qwen3-next-80b-a3b" { }\n', "")
    plan = dagc.compile_text(changed + body)
    found = price(plan.phases["decode"].graph, plan.units["decode"]).ops
    (decay,) = [cost for (_, op), cost in found.items() if op == "gated_delta.decay"]
    assert not decay.family and decay.time_s.max() > 0


def test_without_entries_the_roofline() -> None:
    text = SPEC.format(gpu="mi300x", gpus=1, ids="0", engine="vllm")
    plan = dagc.compile_text(text)
    found = price(plan.phases["decode"].graph, plan.units["decode"]).ops
    assert all(not cost.family for (_, op), cost in found.items() if op.startswith("gated_delta."))


def test_estimates_never_beat_the_memory() -> None:
    """Residual and all, of every entry, over batch sizes on both sides of what was measured."""
    batch = np.geomspace(1, 1 << 14, 40)
    for gpu, engine in sorted(PARTS):
        for variant, entry in load(gpu).of(delta_decode.FAMILY, engine).items():
            moved_B = 2 * delta_decode.STATE_B[variant] * batch * 16 * delta_decode.STATE
            assert (delta_decode.FAMILY.estimate_s(entry, batch, 16) > moved_B / entry.device.hbm_Bps).all()
