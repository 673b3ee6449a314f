"""One mistake is one error, at what is wrong, with help where there is some."""

from __future__ import annotations

import pytest
from tiers import all_tests

import dagc
from dagc.base.diagnostics import Diagnostic, SpecError
from dagc.base.schema.phase import PHASE

SPEC = """moe 1
param conc = 64 in [8, 64, 256]
let per = 8
hardware pool from "h100-sxm" { gpus = 16, per_node = per }
model m {
  layers = 4, hidden = 1024, vocab = 32_000, dtype = bf16
  attention { kind = gqa, heads = 16, kv_heads = 8, head_dim = 64 }
  experts { count = 16, top_k = 2, hidden = 2048 }
}
workload { sequences = conc, prompt = 1024 tok, output = 128 tok, routing = uniform }
phase prefill { gpus = 0..7, pp = 2, tp = 4, microbatches = 4 }
phase decode { gpus = 8..15, attention { dp = 2, tp = 4 }, experts { ep = 8 } }
require "first" prefill.ttft <= 10 s
require "mem" decode.memory.fraction <= 90%
"""


def errors(old: str, new: str) -> list[Diagnostic]:
    assert old in SPEC
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(SPEC.replace(old, new, 1), name="plan.moe")
    return [d for d in caught.value.diagnostics if d.code.startswith("E")]


def test_the_plan_without_a_mistake() -> None:
    assert dagc.compile_text(SPEC, name="plan.moe").passed


@pytest.mark.parametrize(
    ("old", "new", "code", "at", "help"),
    [
        # An attribute that may be anything, but probably means one that is missing.
        ("top_k = 2", "topk = 2", "E02", "topk", "did you mean `top_k`?"),
        ("count = 16", "num_experts = 16", "E02", "num_experts", "did you mean `count`?"),
        ("heads = 16, ", "num_heads = 16, ", "E02", "num_heads", "did you mean `heads`?"),
        ("experts { count", "expert { count", "E02", "expert", "did you mean `experts`?"),
        ("experts { count", "moe { count", "E02", "moe", "did you mean `experts`?"),
        ("attention { kind", "attn { kind", "E02", "attn", "did you mean `attention`?"),
        # What is not known has no consequences.
        ("gpus = 16", "gpu = 16", "E02", "gpu", "did you mean `gpus`?"),
        ("gpus = 16", "gpus = 1e400", "E01", "1e400", None),
        ("hardware pool", "gpu pool", "E02", "gpu", "did you mean `hardware`?"),
        ("let per = 8", "per = 8", "E12", "per = 8", "a constant is written `let per = 8`"),
        ("let per = 8", "const per = 8", "E12", "const per = 8", "a constant is written `let per = 8`"),
        ("let per = 8", "let per = 1e400", "E01", "1e400", None),
        ("let per = 8", "let per = per2", "E02", "per2", None),
        ("let per = 8", "let per = 8\nlet per = 9", "E11", "let per = 9", None),
        ("phase prefill {", "phase prefil {", "E10", "phase", "did you mean `phase prefill`?"),
        ("phase prefill {", "phase {", "E10", "phase", "phase prefill { ... }"),
        ("phase decode {", "phase prefill {", "E11", "phase", None),
        # Words of other tools, and slips.
        ("pp = 2", "pipeline = 2", "E02", "pipeline", "did you mean `pp`?"),
        ("routing = uniform", "routing = unifrom", "E08", "unifrom", "did you mean `uniform`?"),
        ("routing = uniform", "routing = zipf", "E08", "zipf", "did you mean `zipf(1.0)`?"),
        ("gpus = 16", "gpus == 16", "E01", "==", "write `name = value`"),
        ('from "h100-sxm"', '"h100-sxm"', "E01", '"h100-sxm"', 'a preset follows `from`: `from "h100-sxm"`'),
        ("moe 1\n", "moe 1\nimport nofile\n", "E01", "nofile", 'a file is written in quotes: import "FILE.moe"'),
        ("moe 1\n", "moe 1\n// about\n", "E01", "/", "comments begin with `#`"),
        ("moe 1\n", "moe 1\n-- about\n", "E01", "-", "comments begin with `#`"),
        ("prefill.ttft <= 10 s", "prefill.throughput >= 10 tok/sec", "E02", "sec", "if this is a unit, did you mean `s`?"),
        ("prefill.ttft <= 10 s", "pool.memory <= 90 GB", "E02", "pool.memory", "did you mean `hardware.memory`?"),
        # What is not there.
        ("prefill.ttft <= 10 s", "prefill.ttft.p99 <= 10 s", "E02", "prefill.ttft.p99", None),
        ("prefill.ttft <= 10 s", "decode.goodput >= 1", "E02", "decode.goodput", None),
        ("prefill.ttft <= 10 s", "hardware.power <= 700 W", "E10", "hardware.power", None),
        # Brackets that are missing, or another kind.
        ("model m {", "model m", "E01", "\n", "a section has braces: `model m { ... }`"),
        ("model m {", "model m [", "E01", "[", "a section has braces: `model m { ... }`"),
        ("model m {", "model m (", "E01", "(", "a section has braces: `model m { ... }`"),
        ('"h100-sxm" {', '"h100-sxm"', "E01", "gpus", 'a section has braces: `hardware pool from "h100-sxm" { ... }`'),
        ("phase prefill {", "phase prefill", "E01", "gpus", "a section has braces: `phase prefill { ... }`"),
        ("workload {", "workload", "E01", "}", None),
        ("  attention { kind", "  attention kind", "E01", "}", None),
        ("  attention { kind", "  attention\n  kind", "E01", "}", None),
        ("microbatches = 4 }", "microbatches = 4 )", "E01", ")", None),
        ("microbatches = 4 }", "microbatches = 4 ) }", "E01", ")", None),
        ("\n}\nworkload", "\n)\nworkload", "E01", ")", None),
    ],
)  # fmt: skip
def test_one_mistake(old: str, new: str, code: str, at: str, help: str | None) -> None:
    (only,) = errors(old, new)
    assert only.code == code and only.span is not None
    assert only.span.source.text[only.span.start : only.span.end] == at
    assert help is None or help in only.help


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ("workload {", "workload", "workload"),
        ("  attention { kind", "  attention kind", "attention"),
        ("microbatches = 4 }", "microbatches = 4 )", "{"),
    ],
)
def test_the_other_half_of_a_pair_is_shown(old: str, new: str, at: str) -> None:
    (only,) = errors(old, new)
    (label,) = only.also
    assert label.span.source.text[label.span.start : label.span.end] == at


def test_two_mistakes_are_two_errors() -> None:
    text = SPEC.replace("model m {", "model m", 1).replace("prefill.ttft", "prefill.ttft <=", 1)
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text, name="plan.moe")
    assert [d.code for d in caught.value.diagnostics] == ["E01", "E01"]


def test_a_model_without_feed_forward_layers_says_which_there_are() -> None:
    (only,) = errors("  experts { count = 16, top_k = 2, hidden = 2048 }\n", "")
    assert only.message == "`model` needs an `experts { ... }` or an `mlp { hidden = ... }` section"


VALUES = ["2", "foo", '"text"', "[1, 2]", "true", "2 s", "3 GB", "50%"]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_of_another_kind_is_an_error_or_taken(value: str) -> None:
    """Every attribute of a phase: what was refused is not used any more."""
    for place, name in enumerate(PHASE):
        if not all_tests() and (place + VALUES.index(value)) % 4:  # two values an attribute
            continue
        text = SPEC.replace("microbatches = 4 }", f"microbatches = 4\n  {name} = {value} }}", 1)
        assert text != SPEC
        try:
            dagc.compile_text(text, name="plan.moe")
        except SpecError as error:
            assert all(d.span is not None for d in error.diagnostics), name
