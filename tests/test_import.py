"""`dagc import`: every published config becomes a model file or is refused with the reason; presets are made from them."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from tiers import exhaustive

from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.base.syntax.format import format_source
from dagc.cli import main
from dagc.importers.huggingface import HARNESS, Imported, import_config
from dagc.lang.huggingface.precision import precision
from dagc.lang.load import load
from dagc.spec.model import Model

CONFIGS = ROOT / "tests" / "data" / "hf_configs"
NAMES = sorted(p.stem for p in CONFIGS.glob("*.json") if p.stem != "PARAMS")
REFUSED = ("gshard-600b", "switch-base-8", "switch-c-2048")
Capture = pytest.CaptureFixture[str]


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("models_tool", ROOT / "tools" / "models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["models_tool"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


tool = _tool()


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    return {row.name: row for row in tool.rows()}


def imported(rows: dict[str, Any], name: str) -> Imported:
    found = rows[name].imported
    assert isinstance(found, Imported)
    return found


def read_back(text: str) -> Model:
    out = Collector()
    model = load(Source("m", text + HARNESS), out).model
    assert not out.items
    return model


@pytest.mark.parametrize("name", [n for n in NAMES if n not in REFUSED])
def test_a_config_imports(rows: dict[str, Any], name: str) -> None:
    found = imported(rows, name)
    text = found.text()
    assert read_back(text) == found.model
    assert format_source(Source("m", text)) == text
    assert all(note in text for note in found.notes)
    apart = [tool.difference(rows[name], i, f"computed_{what}_b") for i, what in enumerate(("total", "active"))]
    if name in tool.WHY:
        assert 0 < apart[0] < 0.002 and 0 < apart[1] < 0.03
    else:
        assert all(d is None or abs(d) < 0.001 for d in apart)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in REFUSED])
def test_a_preset_is_the_imported_model(rows: dict[str, Any], name: str) -> None:
    out = Collector()
    spec = load(Source("s", f'moe 1\nmodel from "{name}" {{ }}\n{HARNESS}'), out)
    assert not out.items
    model = imported(rows, name).model
    assert replace(spec.model, params_stated=None) == replace(model, checkpoint={})


def test_presets_are_current(rows: dict[str, Any]) -> None:
    made = tool.presets(list(rows.values()))
    assert [str(path.name) for path, text in made.items() if not path.exists() or path.read_text() != text] == []
    assert {p.name for p in tool.PRESETS.glob("*.moe")} == {p.name for p in made}


@exhaustive
def test_the_page_is_current(rows: dict[str, Any]) -> None:
    assert tool.PAGE.read_text() == tool.page(list(rows.values()))


@pytest.mark.parametrize("name", REFUSED)
def test_an_encoder_is_refused_and_nothing_else_is_said(rows: dict[str, Any], name: str) -> None:
    assert rows[name].imported is None
    assert len(rows[name].reasons) == 1 and "an encoder beside the decoder" in rows[name].reasons[0]


def test_the_indexers_weights_are_what_differs(rows: dict[str, Any]) -> None:
    """Queries of the indexer from their latent, one key, the heads' weights, and a norm with gain and bias; every layer."""
    for name, base, layers, hidden, latent, heads in (
        ("deepseek-v3.2", 671_026e6, 61, 7168, 1536, 64),
        ("glm-5", 743_180e6, 78, 6144, 2048, 32),
    ):
        own = layers * (latent * heads * 128 + hidden * 128 + hidden * heads + 2 * 128)
        assert imported(rows, name).params[0] == pytest.approx(base + own, rel=2e-6)


def test_a_multi_modal_config_gives_its_text_part(rows: dict[str, Any]) -> None:
    found = imported(rows, "kimi-k2.5")
    assert found.architecture == "kimi_k2" and "the vision tower is left out (`vision_config`)" in found.notes


def test_quantised_parts_have_their_dtype(rows: dict[str, Any]) -> None:
    def dtypes(name: str) -> tuple[str, dict[str, str]]:
        model = imported(rows, name).model
        return model.weight_dtype, dict(model.weight_dtypes)

    assert dtypes("deepseek-v3") == ("fp8_block", {"embed": "bf16", "lm_head": "bf16", "experts": "fp8_block"})
    assert dtypes("minimax-m2.5") == ("fp8_block", {"embed": "bf16", "lm_head": "bf16", "experts": "fp8_block"})
    assert dtypes("gpt-oss-120b") == ("bf16", {"experts": "mxfp4"})
    assert dtypes("kimi-k2.5") == ("bf16", {"experts": "int4_g32"})
    assert dtypes("qwen3-235b-a22b") == ("bf16", {})


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"quant_method": "fp8", "modules_to_not_convert": ["model.layers.*.self_attn"]}, ("bf16", "fp8", "bf16")),
        ({"quant_method": "fp8", "modules_to_not_convert": ["experts", "lm_head"]}, ("fp8", "bf16", "bf16")),
        ({"quant_method": "fp8", "modules_to_not_convert": ["re:.*(", "gate"]}, ("fp8", "fp8", "bf16")),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ("fp8_block", "fp8_block", "bf16")),
        ({"quant_method": "fp8", "weight_block_size": [64, 32]}, ("fp8_b32x64", "fp8_b32x64", "bf16")),
        ({"quant_method": "mxfp4"}, ("bf16", "mxfp4", "bf16")),
        ({"quant_method": "fp8", "expert_dtype": "fp4"}, ("fp8", "mxfp4", "bf16")),
        ({"quant_method": "fp8", "expert_dtype": "fp8"}, ("fp8", "fp8", "bf16")),
    ],
)
def test_modules_that_are_not_converted(section: dict[str, object], expected: tuple[str, ...]) -> None:
    found = precision({"dtype": "bfloat16", "quantization_config": section}, [])
    assert (found["attention"], found["experts"], found["head"]) == expected


def test_experts_without_a_dtype_are_named() -> None:
    data = {"dtype": "bfloat16", "expert_dtype": "fp3", "quantization_config": {"quant_method": "fp8"}}
    assert precision(data, [])["unknown"] == "experts of fp3"


@pytest.mark.parametrize(
    ("weights", "unknown"),
    [
        ({"type": "int", "num_bits": 3}, "compressed-tensors (int of 3 bits)"),
        (None, "compressed-tensors (no weights)"),
    ],
)
def test_a_quantisation_without_a_dtype_is_named(weights: object, unknown: str) -> None:
    section = {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": weights}}}
    assert precision({"dtype": "bfloat16", "quantization_config": section}, [])["unknown"] == unknown


def changed(folder: Path, base: str, **changes: object) -> str:
    """A copy of a config with other fields; None takes a field away."""
    data = json.loads((CONFIGS / f"{base}.json").read_text()) | changes
    path = folder / "changed.json"
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
    return str(path)


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("gpt-oss-20b", {"layer_types": ["full_attention"] * 5}, "layer_types of another length than num_hidden_layers"),
        ("mixtral-8x7b", {"num_key_value_heads": 7}, "32 heads do not divide into 7 kv_heads groups"),
        ("mixtral-8x7b", {"hidden_size": 4100}, "a hidden_size that does not divide into the heads, without a head_dim"),
        ("mixtral-8x7b", {"hidden_size": None}, "has no field `hidden_size`"),
        ("mixtral-8x7b", {"num_experts_per_tok": 9}, "top_k 9 exceeds the 8 experts"),
        ("mixtral-8x7b", {"num_hidden_layers": 3.5}, "`layers` is a whole number"),
        ("mixtral-8x7b", {"num_hidden_layers": "32"}, 'is the text "32", not a number'),
        ("mixtral-8x7b", {"quantization_config": {"quant_method": "gptq"}}, "a precision that no dtype describes"),
        ("mixtral-8x7b", {"torch_dtype": "int7"}, "`dtype` cannot be `int7`"),
        ("mixtral-8x7b", {"model_type": "mixtrall"}, "the architecture `mixtrall` is not in the library"),
        ("llama-3.1-8b", {"rope_scaling": {"rope_type": "longrope"}}, "`scaling` cannot be `longrope`"),
        ("deepseek-v3", {"n_group": 7}, "do not divide into 7 groups"),
        ("deepseek-v3", {"topk_group": 9}, "more groups for a token than there are"),
        ("deepseek-v3", {"first_k_dense_replace": 99}, "dense_first = 99 of 61 layers"),
        ("deepseek-v3", {"hidden_act": "gelu"}, "an activation other than silu"),
        ("deepseek-v3.2", {"q_lora_rank": None}, "an indexer without a latent of the queries"),
        ("qwen3-next-80b-a3b", {"linear_num_value_heads": 33}, "value heads that do not divide into the key heads"),
        ("qwen3-next-80b-a3b", {"linear_num_key_heads": None}, "has no field `linear_num_key_heads`"),
        ("qwen3-next-80b-a3b", {"layer_types": ["full_attention"] * 47 + ["conv"]}, "unknown block `conv`"),
    ],
)  # fmt: skip
def test_contradictions_and_gaps_are_named(
    tmp_path: Path, base: str, changes: dict[str, object], message: str, capsys: Capture
) -> None:
    target = tmp_path / "out.moe"
    assert main(["import", changed(tmp_path, base, **changes), "-o", str(target)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and not printed.out and not target.exists()


def test_layers_without_rotation_of_another_length(tmp_path: Path, capsys: Capture) -> None:
    text = json.loads((CONFIGS / "llama-4-scout-17b-16e.json").read_text())["text_config"]
    path = changed(tmp_path, "llama-4-scout-17b-16e", text_config=text | {"no_rope_layers": [1, 0]})
    assert main(["import", path]) == 2
    assert "no_rope_layers of another length than num_hidden_layers" in capsys.readouterr().err


def test_what_was_assumed_is_said_beside_what_is_missing(tmp_path: Path, capsys: Capture) -> None:
    assert main(["import", changed(tmp_path, "mixtral-8x7b", torch_dtype=None, vocab_size=None)]) == 2
    err = capsys.readouterr().err
    assert "has no field `vocab_size`" in err and "`dtype` is absent: bf16 is assumed" in err


def test_import_prints_the_file_and_its_notes(tmp_path: Path, capsys: Capture) -> None:
    path = changed(tmp_path, "llama-3.1-8b", rms_norm_eps=None)
    assert main(["import", path]) == 0
    printed = capsys.readouterr()
    note = "`rms_norm_eps` is absent: 1e-06 is assumed"
    assert printed.err == f"note: {note}\n"
    head = printed.out.splitlines()[:4]
    assert head[0] == "# changed, imported from changed.json (architecture llama)."
    assert head[1:] == ["# 8.03 billion parameters, 8.03 billion active per token.", f"# Note: {note}.", "moe 1"]
    target = tmp_path / "new" / "out.moe"
    assert main(["import", path, "-o", str(target)]) == 0
    assert target.read_text() == printed.out


def test_import_leaves_no_half_written_file(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "taken").mkdir()
    assert main(["import", str(CONFIGS / "qwen3-8b.json"), "-o", str(tmp_path / "taken")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["taken"] and not any((tmp_path / "taken").iterdir())


def test_a_file_called_config_takes_its_folders_name(tmp_path: Path) -> None:
    folder = tmp_path / 'my "model"'
    folder.mkdir()
    path = folder / "config.json"
    path.write_text((CONFIGS / "qwen3-8b.json").read_text())
    with pytest.raises(SpecError):
        import_config(str(tmp_path / "config.json"))
    assert import_config(str(path)).model.name == "my--model-"


def test_layers_that_take_turns_are_written_short(rows: dict[str, Any]) -> None:
    text = imported(rows, "qwen3-next-80b-a3b").text()
    assert "stack = [embed, each(48, if(equal(mod(index, 4), 3), full_sparse, linear_sparse)), lm_head]" in text
    assert "layers = 61" in imported(rows, "deepseek-v3").text(whole=False)


def test_a_preset_can_be_overridden() -> None:
    text = 'moe 1\nmodel from "mixtral-8x7b" { layers = 4, attention { heads = 64 } }\n' + HARNESS
    model = load(Source("s", text), Collector()).model
    assert model.layers == 4 and model.count("attention.group") == 8 and model.count("attention.head_dim") == 64


def test_the_text_part_of_a_vision_model_is_its_language_model(tmp_path: Path) -> None:
    """Qwen3-VL names its text part otherwise; rotary positions in three parts are one where there is text alone."""
    text = json.loads((CONFIGS / "qwen3-30b-a3b.json").read_text())
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20]}
    inner = {**text, "model_type": "qwen3_vl_moe_text", "rope_scaling": rope}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl_moe", "text_config": inner}))
    found, plain = import_config(str(tmp_path / "config.json")), import_config(str(CONFIGS / "qwen3-30b-a3b.json"))
    assert found.params == plain.params
    assert (found.model.stack, found.model.blocks) == (plain.model.stack, plain.model.blocks)
