"""An error inside a block of the library is told where the spec brought it, the line of the library below."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT, spec_text

import dagc
from dagc.base.diagnostics import Collector, Diagnostic
from dagc.base.source import Source
from dagc.importers.huggingface import import_config
from dagc.lang.load import load
from dagc.pipeline.compile import compile_source

V4 = 'model from "deepseek-v4-flash" {{ {} }}'
DELTA = 'model from "qwen3-next-80b-a3b" { }'
MLA = "attention { kind = mla, heads = 8, head_dim = 4 }\nexperts { count = 8, top_k = 2, hidden = 32 }"


def spec_with(model: str, phase: str = "gpus = [0]", kind: str = "prefill") -> str:
    text = spec_text(phase=phase, kind=kind)
    before, behind = text.index("model small"), text.index("workload")
    return f"{text[:before]}{model}\n{text[behind:]}"


def told(model: str, phase: str = "gpus = [0]", kind: str = "prefill") -> Diagnostic:
    """The first error of a spec with this text in place of its model."""
    with pytest.raises(dagc.SpecError) as raised:
        dagc.compile_text(spec_with(model, phase, kind))
    found: Diagnostic = raised.value.diagnostics[0]
    return found


@pytest.mark.parametrize(
    ("said", "at", "block"),
    [
        ("attention { head_dim = 3 }", "3", "v4_window"),
        ("attention { out_groups = 7 }", "7", "v4_window"),  # by way of a size of the block's own
        ("attention { index_top_k = 0 }", "0", "v4_csa"),
        ("attention { kind = none }", "none", "v4_window"),  # which takes the others away
        ("experts { limit = -1 }", "-1", "v4_hashed"),
    ],
)
def test_at_the_value_that_the_spec_gave(said: str, at: str, block: str) -> None:
    found = told(V4.format(said))
    assert found.span is not None and (found.file, found.span.text) == ("<text>", at)
    *others, last = found.also
    assert last.span.source.name.startswith("library/") and last.text == f"in block `{block}` of the library"
    assert others == []


def test_every_value_that_it_was_computed_from() -> None:
    found = told(V4.format("attention { heads = 60, out_groups = 7 }"))
    assert [each.span.text for each in found.also[:-1]] == ["7"] and found.span is not None and found.span.text == "60"


def test_at_what_asked_for_the_block_where_a_value_is_missing() -> None:
    found = told(f"model small {{ layers = 4, hidden = 64, vocab = 512\n{MLA} }}")
    assert found.span is not None and found.span.text == "mla"
    assert found.help == ("give it: `attention { q_latent = ... }`",)
    stack = f"model small {{ hidden = 64, vocab = 512, stack = [embed, 4 * own, lm_head]\n{MLA.replace('kind = mla, ', '')} }}"
    found = told(f"layer own {{ mla, moe }}\n{stack}")
    assert found.span is not None and found.span.text == "mla" and found.line == 8
    assert found.help == ("give it in the model: `q_latent = ...`",)


def test_at_the_attribute_of_the_phase_that_a_block_cannot_have() -> None:
    found = told(DELTA, "gpus = [0], tree = [2, 2]", "decode")
    assert found.span is not None and found.span.text == "[2, 2]" and found.also[0].text == "in block `gated_delta`"


def test_blocks_of_the_spec_are_told_where_they_are() -> None:
    text = "block own(x) {\n  y[batch, seq, hidden] = x * W[nothing, hidden]\n  return x + y\n}\nlayer one { own }\n"
    found = told(f"{text}model small {{ hidden = 64, vocab = 512, stack = [embed, 4 * one, lm_head] }}")
    assert found.also == () and found.span is not None and found.span.text.startswith("W[nothing")
    assert found.help == ("give its size: `let nothing = ...` in the block",)


def config_with(tmp_path: Path, **fields: object) -> Path:
    """DeepSeek V4's, with other fields; None: without."""
    data = json.loads((ROOT / "tests" / "data" / "hf_configs" / "deepseek-v4-flash.json").read_text()) | fields
    path = tmp_path / "config.json"
    path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}, indent=1))
    return path


def test_of_a_config_the_fields_that_the_values_are_made_of_are_named(tmp_path: Path) -> None:
    named = config_with(tmp_path, head_dim=129, qk_rope_head_dim=43).name
    (tmp_path / "plan.moe").write_text(spec_with(f'model from "{named}" {{ }}'))
    with pytest.raises(dagc.SpecError) as raised:
        dagc.compile(tmp_path / "plan.moe")
    found = raised.value.diagnostics[0]
    assert found.span is not None and found.span.text == "model" and found.file.endswith("plan.moe")
    assert "`attention.head_dim` is `config.head_dim` of the config" in found.because


def test_a_value_that_an_architecture_makes_of_a_config_is_told_at_the_field(tmp_path: Path) -> None:
    (tmp_path / "plan.moe").write_text(spec_with(f'model from "{config_with(tmp_path, head_dim=3).name}" {{ }}'))
    with pytest.raises(dagc.SpecError) as raised:
        dagc.compile(tmp_path / "plan.moe")
    found = raised.value.diagnostics[0]
    assert found.message.startswith("`fraction` must be") and found.span is not None
    assert found.span.text == '"qk_rope_head_dim"' and found.file.endswith("config.json")
    assert found.also[0].text.startswith("this is 21.3") and found.also[0].span.source.name.startswith("library/")


@pytest.mark.parametrize(
    ("fields", "message", "at"),
    [
        ({"num_hidden_layers": True}, "is a number", '"num_hidden_layers"'),
        ({"vocab_size": -1}, "`vocab` must be at least 1", '"vocab_size"'),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4}}, "`scaling` cannot be `dynamic`", '"rope_type"'),
    ],
)
def test_imports_name_the_field_too(tmp_path: Path, fields: dict[str, object], message: str, at: str) -> None:
    with pytest.raises(dagc.SpecError) as raised:
        import_config(str(config_with(tmp_path, **fields)))
    found = raised.value.diagnostics[0]
    assert found.span is not None and found.span.text == at and found.also[-1].span.source.name.startswith("library/")


def test_a_field_that_a_config_lacks_is_told_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "plan.moe").write_text(
        spec_with(f'model from "{config_with(tmp_path, num_attention_heads=None).name}" {{ }}')
    )
    with pytest.raises(dagc.SpecError) as raised:
        dagc.compile(tmp_path / "plan.moe")
    found = raised.value.diagnostics[0]
    assert (
        "has no field `num_attention_heads`" in found.message and found.file.endswith("config.json") and found.line == 1
    )
    assert [(each.span.source.name.split("/")[0], each.text) for each in found.also] == [
        ("library", "what it is read for")
    ]


def warned(model: str) -> list[str]:
    out = Collector()
    load(Source("plan.moe", spec_with(model)), out)
    return [d.message for d in out.items if d.code == "W06" and d.span is not None and d.file == "plan.moe"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("attention { kind = gqa }", "no layer of this model has `gqa`"),
        ("experts { kind = moe }", "no layer of this model has `moe`"),
        ("experts { shared = 2 }", "no block of this model uses `experts.shared`"),
        ("experts { groups = 8, groups_limit = 4 }", "no block of this model uses `experts.groups`"),
        ("attention { qk_norm = true }", "no block of this model uses `attention.qk_norm`"),
        ("attention { kind = v4_csa, window = 64 }", ""),
        ("experts { capacity = 1.25, top_k = 4, score = sigmoid, scale = 2 }", ""),
    ],
)
def test_what_is_written_over_a_preset_and_changes_nothing_is_told(said: str, message: str) -> None:
    found = warned(V4.format(said))
    assert found[:1] == ([message] if message else [])


def test_what_a_preset_reads_is_not_told() -> None:
    assert (
        warned(
            'model from "mixtral-8x7b" { experts { groups = 2, shared = 1 }, attention { kind = gqa, window = 64, bias = true } }'
        )
        == []
    )


def test_files_of_a_spec_in_a_folder_called_library_are_its_own() -> None:
    """They were taken for dagc's by that name: errors were told at the line of the model, and warnings not at all."""
    text = spec_with('model from "mixtral-8x7b" { attention { kind = mla, window = 99 } }', kind="decode")
    found = []
    for name in ("library/plan.moe", "plan.moe"):
        with pytest.raises(dagc.SpecError) as raised:
            compile_source(Source(name, text))
        found.append([(d.code, d.message, d.span and (d.file == name, d.span.start)) for d in raised.value.diagnostics])
    assert found[0] == found[1] and len(found[0]) > 1
