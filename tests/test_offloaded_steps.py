"""Activations of training that wait in host memory: what they free, what copies cost, what hosts hold."""

from __future__ import annotations

import json
from functools import cache

import jsonschema
import pytest
from conftest import ROOT
from test_training_language import spec

import dagc
from dagc.base.diagnostics import SpecError
from dagc.export.engines.megatron_training import training_files
from dagc.plan.plan import CompiledPlan
from dagc.plan.trained import TrainingResult

LINK = 50e9
"""Bytes per second of hardware that says nothing."""


@cache
def plan(words: str) -> CompiledPlan:
    return dagc.compile_text(spec(words))


def step(words: str) -> TrainingResult:
    return plan(words).trainings["pretrain"]


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("schedule", ["one_f_one_b", "zb_h1"])
def test_a_cell_takes_at_least_as_long_as_its_copy(schedule: str, share: float) -> None:
    plain, some = step(f"schedule = {schedule}"), step(f"schedule = {schedule}, offload = {share}")
    layers = dict(plain.stages[0].layers)
    body_B = (plain.kept[0].whole_B - some.kept[0].whole_B) / layers["sparse"] / share
    for (layer, cell), cost in plain.cells.items():
        other = some.cells[layer, cell]
        copied = layer == "sparse" and cell in ("forward", "backward", "input")
        assert other.own_s == pytest.approx(max(cost.own_s, share * body_B / LINK) if copied else cost.own_s, rel=1e-6)
        assert other.computed_s == cost.computed_s
        assert other.exposed_s - cost.exposed_s == pytest.approx(other.time_s - cost.time_s)
    assert some.flops == plain.flops and some.executed_flops == plain.executed_flops


def test_what_is_freed_waits_on_the_host() -> None:
    """Of 1F1B all of it; buffers have two layers' copies. A share that is copied while layers compute costs nothing."""
    plain, some = step("zero = 1"), step("zero = 1, offload = 10%")
    assert some.time_s == plain.time_s
    for before, after in zip(plain.memory, some.memory, strict=True):
        assert after.activations_B + after.host_B == pytest.approx(before.activations_B)
        assert 0 < after.host_B < 0.1 * before.activations_B
        layer_B = after.host_B / after.in_flight / 4  # four layers on each GPU
        assert after.buffers_B - before.buffers_B == pytest.approx(2 * layer_B)
        assert (before.weights_B, before.optimizer_B, before.host_B) == (after.weights_B, after.optimizer_B, 0.0)


def test_what_gradients_of_weights_read_comes_back_whole() -> None:
    """ZB-H1 keeps it until those are there."""
    whole = step("schedule = zb_h1, offload = 100%")
    assert whole.memory[-1].activations_B > step("offload = 100%").memory[-1].activations_B
    assert whole.kept[0].late_B == step("schedule = zb_h1").kept[0].late_B


def test_a_faster_link_is_written_in_the_hardware() -> None:
    text = spec("offload = 100%").replace("{ gpus = 16 }", "{ gpus = 16, host_link = 450 GB/s }")
    assert dagc.compile_text(text).trainings["pretrain"].time_s < step("offload = 100%").time_s


def test_it_is_said_and_hosts_without_room_are_a_warning() -> None:
    made = plan("zero = 1, offload = 10%")
    data = json.loads(json.dumps(made.to_json()))  # type: ignore[attr-defined]
    jsonschema.validate(data, json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text()))
    most_B = max(need.host_B for need in step("zero = 1, offload = 10%").memory)
    assert data["training"]["pretrain"]["memory"]["stages"][0]["host_B"] == most_B
    assert "offload: 10% of what layers keep waits in host memory" in " ".join(made.report().split())  # type: ignore[attr-defined]
    small = spec("zero = 1, offload = 10%").replace(
        "{ gpus = 16 }", f"{{ gpus = 16, host_memory = {4 * most_B:.0f} B }}"
    )
    (doubt,) = [d for d in dagc.compile_text(small).diagnostics if "hosts have no room" in d.message]
    assert doubt.code == "W06" and doubt.because[0].startswith("8 GPUs x ")


def test_nothing_that_waits_is_the_same_plan() -> None:
    assert dagc.compile_text(spec("zero = 1, offload = 0")).to_json() == dagc.compile_text(spec("zero = 1")).to_json()


def test_megatron_has_no_argument_for_it() -> None:
    with pytest.raises(SpecError, match="leave `offload` out"):
        training_files(plan("zero = 1, offload = 10%"), "pretrain", "plan")
