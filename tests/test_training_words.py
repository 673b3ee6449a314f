"""What others call the words of training, words that change nothing, and what a schedule costs against 1F1B."""

from __future__ import annotations

import pytest
from test_training_language import errors_of, spec

import dagc
from dagc.base.diagnostics import Diagnostic
from dagc.export.json import plan_object


def doubts(text: str) -> list[Diagnostic]:
    return [d for d in dagc.compile_text(text).diagnostics if d.code == "W06" and "`params`" not in d.message]


@pytest.mark.parametrize(
    ("words", "code", "at", "help"),
    [
        ("schedule = 1f1b", "E01", "1f1b", "did you mean `one_f_one_b`?"),
        ('schedule = "1F1B"', "E02", '"1F1B"', "did you mean `one_f_one_b`?"),
        ("schedule = zb-h1", "E02", "zb-h1", "did you mean `zb_h1`?"),
        ("schedule = vpp", "E02", "vpp", "did you mean `interleaved`?"),
        ("schedule = zero_bubble", "E02", "zero_bubble", "did you mean `zb_h1`?"),
        ("virtual = 3", "E03", "3", "leave it out, or schedule = interleaved"),
        ("recompute = selective", "E03", "selective", "leave it out: attention's scores are done anew always"),
        ("recompute = all", "E03", "all", "did you mean `full`?"),
        ("recompute = attention", "E03", "attention", "did you mean `gqa`?"),
        ("recompute = mlp", "E03", "mlp", "did you mean `moe`?"),
        ("optimizer = adam", "E02", "adam", "did you mean `adamw`?"),
        ("optimiser = sgd", "E02", "optimiser", "did you mean `optimizer`?"),
        ('zero = "fsdp"', "E08", '"fsdp"', "did you mean `3`?"),
        ("zero = stage2", "E08", "stage2", "did you mean `2`?"),
        ("zero = true", "E08", "true", "did you mean `1`?"),
        ("grad_overlap = true", "E08", "true", "did you mean `full`?"),
        ("exchange_overlap = false", "E08", "false", "did you mean `none`?"),
        ("fp8_recipe = blockwise", "E02", "fp8_recipe", "did you mean `matmul_dtype`?"),
        ("matmul_dtype = blockwise", "E02", "blockwise", "did you mean `fp8_block`?"),
        ("matmul_dtype = tensorwise", "E02", "tensorwise", "did you mean `fp8`?"),
        ("matmul_dtype = fp8, fp8_param_gather = true", "E02", "fp8_param_gather", "did you mean `quantised_weights`?"),
        ("gradient_accumulation_steps = 8", "E02", "gradient_accumulation_steps", "did you mean `microbatches`?"),
    ],
)
def test_what_others_call_it_is_known(words: str, code: str, at: str, help: str) -> None:
    (found,) = errors_of(spec(words))
    assert found.code == code and found.help[0].startswith(help)
    assert found.span is not None and found.span.text == at


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("recompute = [moe, full]", "`full` has all: other names of `recompute` say nothing"),
        ("recompute = [none, moe]", "`none` beside other names of `recompute` says nothing"),
        ("recompute = [moe, gqa, moe]", "`recompute` has `moe` twice"),
        (
            "exchange_overlap = full, microbatches = 1",
            "`exchange_overlap = full` does nothing: no forward cell runs beside a backward cell",
        ),
        ("schedule = gpipe", "GPipe needs 2.93 times the memory of 1F1B and is no faster"),
        ("schedule = v_min", "V-Min takes 1.05 times as long as 1F1B, which fits, too"),
    ],
)
def test_what_changes_nothing_is_told(words: str, said: str) -> None:
    text = spec(words)
    text = text.replace("pp = 2, microbatches = 8", "pp = 2") if "microbatches = 1" in words else text
    if "schedule" in words:
        for old, new in {
            "microbatches = 8": "microbatches = 32",
            "pp = 2": "pp = 4",
            "dp = 4": "dp = 2",
            "ep = 8": "ep = 4",
        }.items():
            text = text.replace(old, new)
        text = text.replace("sequences = 64, prompt = 1024 tok", "sequences = 64, prompt = 4096 tok")
    assert said in [d.message for d in doubts(text)]


def test_a_schedule_is_beside_1f1b() -> None:
    """Its time and memory are those of a plan that is compiled with it, also of chunks that are given, and of a table that 1F1B copies."""
    given = "schedule = interleaved, virtual = 2, layers_per_stage = [3, 2, 2, 1]"
    for words, usual in (
        ("schedule = zb_h2", ""), (given, "layers_per_stage = [5, 3]"), ("schedule = zb_v, layers_per_stage = [1, 2, 2, 3]", ""),
    ):  # fmt: skip
        text, tied = spec(words), "tied = true, layers = 8" if "zb_v" in words else "layers = 8"
        own, other = (dagc.compile_text(t.replace("layers = 8", tied)) for t in (text, spec(usual)))
        result, plain = own.trainings["pretrain"], other.trainings["pretrain"]
        assert result.usual is not None and plain.usual is None
        assert result.usual.time_s == pytest.approx(plain.time_s, rel=1e-12)
        assert result.usual.peak_B == plain.worst.peak_B and result.usual.fits
        said = plan_object(own)["training"]["pretrain"]["schedule"]["one_f_one_b"]
        assert said == {"step_s": result.usual.time_s, "peak_B": result.usual.peak_B, "fits": True}
