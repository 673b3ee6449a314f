"""What somebody types in the first ten minutes: one finding, that says what is wrong and what to write instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dagc
from dagc.base.diagnostics import Diagnostic, SpecError
from dagc.cli import main

PLAN = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model from "mixtral-8x7b" { }
workload { sequences = 64, prompt = 2048 tok, output = 256 tok }
phase prefill { gpus = 0..7, tp = 8, microbatches = 8 }
require "first token" prefill.ttft <= 10 s
"""


def errors_of(text: str) -> list[Diagnostic]:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text, name="plan.moe")
    return [d for d in caught.value.diagnostics if d.severity == "error"]


@pytest.mark.parametrize(
    ("old", "new", "message", "help"),
    [
        ("microbatches", "micro_batches", "no `micro_batches`", "did you mean `microbatches`?"),
        ("workload {", "worklaod {", "unknown section `worklaod`", "did you mean `workload`?"),
        ("<= 10 s", "<= 10", "a time (s) with a plain number", "write the unit: `10 ms`"),
        ("<= 10 s", "<= 10 sec", "unknown unit `sec`", "did you mean `s`?"),
        ("<= 10 s", "= 10 s", "unexpected `=`", "comparisons are <= >= < > == ~"),
        ("2048 tok", '"2048"', "`prompt` is a number", "without quotes: `2048`"),
        ("2048 tok", "2k tok", "`2k tok` has two", "`2_000 tok`"),
        ("tp = 8", "tp = 6", "multiply to 6, but it has 8 GPUs", "tp = 8 makes it fit"),
        ("tp = 8", "tp = 4", "multiply to 4, but it has 8 GPUs", "dp = 2 uses them all"),
        ("0..7", "0..15", "GPUs 8, 9, 10, 11, 12 and 3 more are not in the pool of 8", "ids run from 0 to 7"),
        ("0..7", "8", "GPU 8 is not in the pool of 8", "8 GPUs are `0..7`"),
        ("0..7", "0-7", "`gpus` is a list of whole numbers", "a range is written `0..7`"),
        ("0..7", "[0-7]", "`gpus` is a list of whole numbers", "a range is written `0..7`"),
        ("0..7", '"0..7"', "`gpus` is a list of whole numbers", "a range is written `0..7`"),
        ("0..7", "0...7", "unexpected `.`", "a range is written `0..7`"),
        ("2048 tok", "1024..2048 tok", "a range consists of whole numbers", "`[1024 tok, 2048 tok]`"),
        ("tp = 8", "pp = 2, tp = 4, layers_per_stage = 16", "must be 2 numbers that add up to 32", "`layers_per_stage = [16, 16]`"),
        ("tp = 8", "tp = 8, order = tp", "must name each of", "`order = [tp, pp, dp, ep, sp]`"),
        ("moe 1\n", "moe 1\nparam b = 1..4\n", "`b` is one value", "`param b = 1 in 1..4` has a domain"),
        ("moe 1\n", "moe 1\nparam b = 1 in 1, 2, 4\n", "unexpected `2`", "`in [1, 2, 4]`"),
        ("<= 10 s", "in [1 s, 10 s]", "unexpected `in`", "write a line for each"),
        ("prefill.ttft <= 10 s", "1 s < prefill.ttft < 10 s", "unexpected `<`", "write a line for each"),
        ("<= 10 s", "<= 10 s and prefill.ttft >= 1 s", "is missing before `and`", "write a line for each"),
        ("<= 10 s", "<= 10 s, prefill.throughput >= 1 tok/s", "unexpected `.`", "write a line for each"),
        ("require", "assert", "unexpected", "did you mean `require`?"),
        ("<= 10 s", "<= 10 milliseconds", "unknown unit `milliseconds`", "did you mean `ms`?"),
        ("gpus = 0..7", "gpu = 0..7", "`phase prefill` has no `gpu`", "did you mean `gpus`?"),
        ("sequences =", "max_batch =", "has no `max_batch`", "did you mean `sequences`?"),
        ("prompt =", "seq_len =", "has no `seq_len`", "did you mean `prompt`?"),
        ("microbatches = 8", "quantization = fp8", "has no `quantization`", "did you mean `weight_dtype`?"),
        ("microbatches = 8", "chunked_prefill = 512 tok", "has no `chunked_prefill`", "did you mean `chunk`?"),
        ("mixtral-8x7b", "glm-9", "unknown model preset", "of that family there is"),
        ('"mixtral-8x7b" { }', '"mixtral-8x7b" { stack = [embed, sparse * 32, lm_head] }', "how many of them first", "`32 * sparse`"),
        ("mixtral-8x7b", "mixtral-8x7", "unknown model preset", 'did you mean "mixtral-8x7b"?'),
        ("h100-sxm", "H100", "unknown hardware preset", 'did you mean "h100-sxm"?'),
        ('"h100-sxm"', "'h100-sxm'", "`'` is not allowed here", "double quotes"),
        ("sequences =", "sequences:", "`:` is not allowed here", "write `name = value`"),
        ("64,", "64;", "`;` is not allowed here", "a newline or a comma"),
        ("moe 1\n", "", "the first statement must be `moe 1`", "add the line `moe 1` at the top"),
        ("moe 1\n", "moe 1\n// a plan\n", "unexpected `/`", "comments begin with `#`"),
        ("tp = 8", "tp = 8, sequence_parallel = yes", "unknown name `yes`", "did you mean `true`?"),
        ("tp = 8", "tp = 8, engine = vllmm", "`engine` cannot be `vllmm`", "did you mean `vllm`?"),
        (PLAN[PLAN.index("phase") :], "", "the spec has no `phase` section", "phase decode { gpus = 0..7, tp = 8 }"),
        (PLAN, '{"hardware": {"gpus": 8}}', "unexpected `{`", "a spec begins with `moe 1`"),
        (PLAN, "", "the file is empty", "a spec begins with `moe 1`"),
    ],
)  # fmt: skip
def test_a_mistake_says_what_to_write(old: str, new: str, message: str, help: str) -> None:
    assert old in PLAN
    (found,) = errors_of(PLAN.replace(old, new, 1))
    assert message in found.message and any(help in line for line in found.help)


def test_a_number_of_gpus_is_not_their_ids() -> None:
    (found,) = errors_of(PLAN.replace("gpus = 8 }", "gpus = 16 }").replace("0..7", "8"))
    assert found.help[0] == "`gpus = 8` is GPU 8 alone: 8 GPUs are `gpus = 0..7`"
    folded = PLAN.replace("gpus = 8 }", "gpus = 16 }").replace(
        "0..7, tp = 8", "8, attention { tp = 8 }, experts { ep = 8 }"
    )
    (found,) = errors_of(folded)
    assert found.help[0] == "`gpus = 8` is GPU 8 alone: 8 GPUs are `gpus = 0..7`"


def test_a_missing_workload_is_shown() -> None:
    (found,) = errors_of("\n".join(line for line in PLAN.splitlines() if not line.startswith("workload")))
    assert found.help == ("workload { sequences = 64, prompt = 2048 tok, output = 256 tok }",)


@pytest.mark.parametrize(
    ("given", "help"),
    [
        ("plna.moe", "did you mean `{}/plan.moe`?"),
        ("plans/plan.moe", "there is no folder `{}/plans`"),
        ("", "files in it: {}/*.moe"),
    ],
)
def test_a_path_that_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, help: str) -> None:
    (tmp_path / "plan.moe").write_text(PLAN)
    assert main(["check", f"{tmp_path}/{given}".rstrip("/")]) == 2
    assert help.format(tmp_path) in capsys.readouterr().err


def test_a_config_whose_numbers_are_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each field once, however many attributes are made of it, and beside it the fields that the file has."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "mixtral", "hidden_size": "4096"}))
    assert main(["import", str(config)]) == 2
    err = capsys.readouterr().err
    assert err.count('is the text "4096", not a number') == 1 and "a number is written without quotes: 4096" in err
    assert err.count("has no field `num_attention_heads`") == 1
    assert "config.json has model_type, hidden_size\n" in err
