"""Rotary frequencies that are divided by a list of numbers, or learned: which list a config means, what a spec may write, and what is proved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dagc
from dagc.base.diagnostics import SpecError
from dagc.base.number_texts import numbers_of, text_of
from dagc.base.units import Quantity
from dagc.execute.numpy.rotary import Rotary
from dagc.execute.prove import prove
from dagc.importers.huggingface import import_config
from dagc.ir.text.read import parse_graph
from dagc.ir.text.scan import TextError
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import VerifyError, verify
from dagc.lang.printer.print_spec import print_spec

CONFIG = Path(__file__).parent / "data" / "reference" / "phi3_longrope" / "config.json"
SPEC = """moe 1
hardware pool {
  gpus = 8, per_node = 8, compute = 400 TFLOP/s, memory = 64 GB, hbm = 2 TB/s
  link node { bandwidth = 450 GB/s, latency = 2 us }, link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
model small { hidden = 64, vocab = 64, layers = 2
  attention { heads = 4, kv_heads = 2, head_dim = 16 }
  rope { fraction = 0.5, MORE }
  mlp { hidden = 32 } }
workload { sequences = 16, prompt = 8 tok, output = 4 tok }
phase decode { gpus = 0..7, dp = 4, tp = 2 }
"""


@pytest.mark.parametrize(
    ("changes", "stretch", "magnitude"),
    [
        ({}, "1.25 3.5", 2.0**0.5),  # the square root of 1 + log(64 / 8) / log(8)
        ({"max_position_embeddings": 8}, "1 1.5", 1.0),
        ({"attention_factor": 1.3}, "1.25 3.5", 1.3),
        ({"factor": 4.0}, "1.25 3.5", (1 + 2 / 3) ** 0.5),
    ],
)
def test_the_list_is_that_of_the_models_context(
    tmp_path: Path, changes: dict[str, float], stretch: str, magnitude: float
) -> None:
    fields = json.loads(CONFIG.read_text())
    for name, value in changes.items():
        at = fields if name in fields else fields["rope_parameters"]
        at[name] = value
    (tmp_path / "config.json").write_text(json.dumps(fields))
    found = import_config(str(tmp_path / "config.json")).model.attributes
    assert found["rope.stretch"] == stretch
    given = found["rope.magnitude"]
    assert isinstance(given, Quantity) and given.value == pytest.approx(magnitude)


def test_a_list_may_be_as_long_as_a_wide_head_makes_it(tmp_path: Path) -> None:
    """64 pairs of a head of 128, each with the digits of a number in single precision."""
    fields = json.loads(CONFIG.read_text())
    factors = [float(np.float32(1.07 + k / 7)) for k in range(64)]
    fields |= {"hidden_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 128}
    fields["rope_parameters"] |= {"short_factor": factors, "long_factor": factors, "partial_rotary_factor": 1.0}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    given = str(import_config(str(tmp_path / "config.json")).model.attributes["rope.stretch"])
    assert [float(one) for one in given.split()] == factors and len(given) > 1000


def test_it_is_run_and_printed_and_read_back() -> None:
    plan = dagc.compile_text(SPEC.replace("MORE", 'stretch = "1 1.25 2 4"'))
    assert prove(plan, "decode").verdict == "equal"
    assert 'stretch = "1 1.25 2 4"' in print_spec(plan.spec)
    text = print_graph(plan.phases["decode"].graph)
    assert 'stretch="1 1.25 2 4"' in text and print_graph(parse_graph(text)) == text
    with pytest.raises(TextError, match="is not a text of positive numbers"):
        parse_graph(text.replace('stretch="1 1.25 2 4"', 'stretch="1 -1 2 4"', 1))
    plain = dagc.compile_text(SPEC.replace("MORE", 'stretch = ""'))
    assert plain.to_json() == dagc.compile_text(SPEC.replace("MORE", "theta = 10_000")).to_json()


def test_texts_that_are_no_words_are_printed_in_quotes() -> None:
    more = 'fraction = 0.125, stretch = "1.5" }\n  notes { a = "2048", b = "x.y", c = "true", d = word'
    text = print_spec(dagc.compile_text(SPEC.replace("fraction = 0.5, MORE", more)).spec)
    assert 'stretch = "1.5" }' in text and 'notes { a = "2048", b = "x.y", c = "true", d = word }' in text
    assert print_spec(dagc.compile_text(text).spec) == text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('stretch = "1 2"', "`stretch` has 2 numbers, and `head_dim` has 4 pairs that turn"),
        ('stretch = "1 2 0 4"', "`stretch` is a text of at most 4096 positive numbers"),
        ('scaling = linear, stretch = "1 2 3 4"', "are two ways to lay frequencies out"),
        ('stretch = "1 two"', "`stretch` is a text of"),
        ("stretch = 4", "`stretch` is a text in quotes"),
        ("stretch = joined(4)", "`joined` needs a list here"),
    ],
)
def test_what_does_not_go_is_said(more: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        dagc.compile_text(SPEC.replace("MORE", more))
    assert any(message in d.message for d in error.value.diagnostics), error.value


BLOCK = """block learned(x) {
  let pairs = 4
  h = rms_norm(x)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  k[batch, seq, kv_heads, head_dim] = h * Wk[hidden, kv_heads, head_dim]
  v[batch, seq, kv_heads, head_dim] = h * Wv[hidden, kv_heads, head_dim]
  f = exp(F[pairs])
  o[batch, seq, kv_heads, group, head_dim] = attend(rope(q, factors = f), rope(k, factors = f), v)
  y[batch, seq, hidden] = o * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}
"""
LEARNED = SPEC.replace("model small", BLOCK + "model small").replace(
    "head_dim = 16 }", "head_dim = 16, kind = learned }"
)


def test_learned_frequencies_are_run_and_are_no_others() -> None:
    plan = dagc.compile_text(LEARNED.replace("MORE", "theta = 100"))
    assert prove(plan, "decode").verdict == "equal"
    graph = plan.phases["decode"].graph
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text and "rope(%learned.q, %learned.f" in text
    with pytest.raises(VerifyError, match=r"operand 2 \(factors\)"):
        verify(parse_graph(text.replace("%learned.f, fraction", "%learned.f, interleaved=true, fraction").replace("fraction=0.5", "fraction=0.25")))  # fmt: skip
    x, positions = np.random.default_rng(0).standard_normal((1, 3, 8)), np.arange(3)
    slower, rotary = Rotary(theta=100.0, stretch="1 2 4 5"), Rotary(theta=100.0)
    factors = 1 / np.array([1, 2, 4, 5])
    np.testing.assert_allclose(rotary.rotate(x, positions, 1, factors), slower.rotate(x, positions, 1), atol=1e-14)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("let pairs = 4", "let pairs = 3", "`factors` [pairs] are one number for each of the 4 pairs"),
        ("factors = f", "factors = h", "`factors` [batch, seq, hidden] are one number"),
        (
            "phase decode { gpus = 0..7,",
            "phase t { kind = train, gpus = 0..7,",
            "training is not there yet where rotary",
        ),
    ],
)
def test_where_learned_frequencies_do_not_go_is_said(old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        dagc.compile_text(LEARNED.replace("MORE", "theta = 100").replace(old, new))
    assert any(message in d.message for d in error.value.diagnostics), error.value


def test_texts_of_numbers_are_exact_and_bounded() -> None:
    assert numbers_of(text_of((0.1, 1e-300, 3))) == (0.1, 1e-300, 3.0) and text_of((1.07, 3)) == "1.07 3"
    for wrong in ("nan", "inf", "-1", "1,2", "x", "1 " * 5000):
        with pytest.raises(ValueError):
            numbers_of(wrong)
