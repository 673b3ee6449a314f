"""What a model's weights are held in, what a GPU's memory is, and what a report says of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dagc
from dagc.plan import Plan
from dagc.report import report

MIB = 2**20
DRIVER = {
    "a100-80gb-sxm": 81_920 * MIB,
    "h100-sxm": 81_559 * MIB,
    "h200-sxm": 143_771 * MIB,
    "b200-sxm": 183_359 * MIB,
    "gb200-nvl72": 189_471 * MIB,
    "h20": 97_871 * MIB,
    "mi300x": 206_141_652_992,
}
"""Total memory of a card, as nvidia-smi and rocm-smi print it."""


def one_gpu(
    model: str, *, hardware: str = 'hardware from "h200-sxm" { gpus = 1, memory = 8 TB }', phase: str = ""
) -> Plan:
    return dagc.compile_text(
        f"moe 1\n{hardware}\n{model}\nworkload {{ sequences = 1, prompt = 128 tok, output = 16 tok }}\n"
        f"phase decode {{ gpus = [0]\n{phase} }}\n"
    )


@pytest.mark.parametrize("name", DRIVER)
def test_presets_hold_the_bytes_that_drivers_report(name: str) -> None:
    plan = one_gpu('model from "olmoe-1b-7b" { }', hardware=f'hardware from "{name}" {{ gpus = 1 }}')
    assert plan.phases["decode"].memory.capacity_B == DRIVER[name]


def test_a_preset_without_its_calibration() -> None:
    measured = one_gpu('model from "olmoe-1b-7b" { }', hardware='hardware from "h100-sxm" { gpus = 1 }')
    without = one_gpu(
        'model from "olmoe-1b-7b" { }', hardware='hardware from "h100-sxm" { gpus = 1, calibration = none }'
    )
    assert measured.phases["decode"].measured[0] > 0.5
    assert without.phases["decode"].measured == (0.0, 0.0)
    assert without.spec.hardware.calibration is None


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("deepseek-r1", "fp8_block weights (bf16: embed, lm_head), bf16 activations"),
        ("gpt-oss-20b", "bf16 weights (mxfp4: experts), bf16 activations"),
        ("olmoe-1b-7b", "active, stated 6.9e9), bf16\n"),
    ],
)
def test_the_head_of_a_report_names_the_dtypes_of_weights(model: str, words: str) -> None:
    head = report(one_gpu(f'model from "{model}" {{ }}')).split("hardware ")[0]
    assert words.split() == [w for w in head.split() if w in words.split()][-len(words.split()) :]


def test_an_empty_list_of_layers_without_rotation_is_the_default(tmp_path: Path) -> None:
    """Published configs of Llama 4 write `[]` where transformers fills in every fourth layer."""
    published = json.loads((Path(__file__).parent / "data" / "hf_configs" / "llama-4-scout-17b-16e.json").read_text())
    stacks = []
    for layers in ([], None, [1, 1, 1, 0] * 12):
        config = {**published, "text_config": {**published["text_config"], "no_rope_layers": layers}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        plan = one_gpu(f'model from "{tmp_path}/config.json" {{ }}')
        stacks.append([layer.name for layer in plan.spec.model.stack for _ in range(layer.repeat)])
        assert plan.params[0] == pytest.approx(107.8e9, rel=0.01)
    assert stacks[0] == stacks[1] == stacks[2]
