"""Damaged input of the language's newest parts is refused with a diagnostic, never accepted and never a crash."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import examples
from tiers import spread

from dagc.api import compile_text
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.spec.tensor_place import PlaceError, TensorPlace

REFERENCE = Path(__file__).parent / "data" / "reference"
SPEC = """moe 1
hardware "h100-sxm" from "h100-sxm" { gpus = 8 }
model tiny from "config.json"
workload { sequences = 2, prompt = 12 tok, output = 1 tok }
phase prefill { gpus = [0] }
phase decode { context = 13 tok, gpus = [0] }
"""
NAN = float("nan")
HUGE = 10**400


def checked(folder: Path, case: str, text: str | None = None, flags: Sequence[str] = (), **fields: object) -> int:
    config = json.loads((REFERENCE / case / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config) if text is None else text)
    (folder / "s.moe").write_text(SPEC)
    return main(["check", str(folder / "s.moe"), *flags])


@pytest.mark.parametrize(
    ("case", "field", "value", "message"),
    [
        ("mixtral", "vocab_size", HUGE, "`vocab_size` of `config.json` is 1000"),
        ("mixtral", "hidden_size", NAN, "`hidden_size` of `config.json` is NaN"),
        ("mixtral", "sliding_window", float("inf"), "`sliding_window` of `config.json` is Infinity"),
        ("mixtral", "head_dim", {}, "`head_dim` of `config.json` is {}"),
        ("mixtral", "head_dim", 1, "`rope` rotates pairs"),
        ("mixtral", "dtype", "auto", "`dtype` cannot be `auto`"),
        ("mixtral", "rope_scaling", {"type": "longrope"}, "a `rope_scaling` and a `rope_parameters` that differ"),
        ("mixtral", "rope_parameters", {"rope_type": "dynamic"}, "`scaling` cannot be `dynamic`"),
        (
            "mixtral",
            "rope_parameters",
            {"a": {"rope_theta": 1e4}, "b": {"rope_theta": 1e5}},
            "not one object of the rotary",
        ),
        ("mixtral", "rope_parameters", "yarn", "not one object of rotary fields, or one for each type"),
        ("dbrx", "attn_config", 2, "`attn_config` of `config.json` is 2, not an object"),
        ("gpt_oss_yarn", "layer_types", ["full_attention"], "layer_types of another length than num_hidden_layers"),
        ("gpt_oss_yarn", "layer_types", ["full_attention", "linear_attention"], "unknown block `linear_attention`"),
        ("gpt_oss_yarn", "layer_types", [None, "full_attention"], "unknown block `null`"),
        ("glm_moe_dsa", "indexer_types", ["full", "half"], "layers of another kind (`indexer_types`)"),
        (
            "glm_moe_dsa",
            "indexer_types",
            ["shared", "full"],
            "takes `chosen_tokens`, which no block before it computes",
        ),
        (
            "glm_moe_dsa_shared",
            "indexer_types",
            ["full"],
            "`indexer_types` of `config.json` has 1 item, and the model 4 layers",
        ),
        ("laguna", "num_attention_heads_per_layer", [4, 6, 8], "whole attention whose heads differ"),
        ("step3p5", "swiglu_limits_shared", [0.3, None, 0.3, None], "limits in layers without experts"),
        (
            "exaone4",
            "layer_types",
            ["sliding_attention", "chunked_attention"],
            "layers of another kind (`layer_types`)",
        ),
        ("kimi_linear", "layer_types", ["full_attention", "mamba", "full_attention"], "layers of another kind"),
        ("mimo_v2_flash", "mlp_layer_types", ["dense", "sparse", "moe"], "layers of another kind (`mlp_layer_types`)"),
        ("nemotron_h", "hybrid_override_pattern", "MEX*", "layers of another kind (`hybrid_override_pattern`)"),
        ("granitemoehybrid", "layer_types", ["mamba", "window", "mamba"], "layers of another kind"),
        ("dots1", "layer_types", ["full_attention", "sliding_attention"], "layers of another kind"),
        ("bamba", "mamba_expand", 4, "heads of Mamba that are not as wide as their layer"),
        ("bamba", "mamba_n_heads", 0, "heads of Mamba that are not as wide as their layer"),
        ("granitemoehybrid", "mamba_d_head", 4, "heads of Mamba that are not as wide as their layer"),
        ("falcon_h1", "mamba_n_heads", 8, "heads of Mamba that are not as wide as their layer"),
        ("deepseek_v4", "index_topk", 0, "`top_k` must be at least 1"),
        ("phimoe", "num_hidden_layers", 1_000_000, "a stack has at most 100000 layers"),
        ("llama4", "attention_chunk_size", "", "`chunk` is a number, not the word ``"),
        ("llama4", "attention_chunk_size", -4, "`chunk` must be at least 0"),
        ("llama4", "attention_chunk_size", 0.5, "`chunk` is a whole number"),
        ("llama4", "floor_scale", "dynamic", "`floor` is a number, not the word `dynamic`"),
        ("gpt_oss_yarn", "swiglu_limit", -1, "`clamp` between 1 and -1"),
        ("hf_deepseek_v3", "n_group", 3, "do not divide into 3 groups"),
    ],
)
def test_a_wrong_field(
    case: str, field: str, value: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(tmp_path, case, **{field: value}) == 2
    assert message in capsys.readouterr().err


def test_what_is_wrong_with_a_field_is_told_where_the_file_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in a file of the library; of a text part, its own field."""
    given = json.loads((REFERENCE / "glm_moe_dsa_shared" / "config.json").read_text()) | {
        "indexer_types": ["full", "shared"]
    }
    outer = {
        "vision_config": {"indexer_types": 3, "a": ["}", {"indexer_types": 4}]},
        "indexer_types": 5,
        "model_type": "many",
    }
    for config, indent in ((given, 1), ({**outer, "text_config": given}, 2)):
        text = json.dumps(config, indent=1)
        lines = [
            n for n, one in enumerate(text.splitlines(), start=1) if one.startswith(" " * indent + '"indexer_types"')
        ]
        line = lines[-1]
        assert checked(tmp_path, "glm_moe_dsa_shared", text) == 2
        found = capsys.readouterr().err
        assert f"config.json:{line}:{indent + 1}\n" in found and "library/" not in found


def test_rotary_fields_by_type_of_layer_are_those_of_all_where_they_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Newer configs group them; only the types that the model has count."""
    given = json.loads((REFERENCE / "gpt_oss_yarn" / "config.json").read_text())
    whole, used = given["rope_parameters"], sorted(set(given["layer_types"]))
    assert len(used) == 2
    same = dict.fromkeys(used, whole) | {"none_of_it": {"rope_theta": 1.0}}
    assert checked(tmp_path, "gpt_oss_yarn", rope_parameters=same) == 0
    assert checked(tmp_path, "gpt_oss_yarn", rope_parameters=same | {used[0]: {"rope_theta": 1.0}}) == 2
    assert "not one object of the rotary fields" in capsys.readouterr().err


def test_a_layer_of_very_many_digits_is_none(tmp_path: Path) -> None:
    given = json.loads((REFERENCE / "gemma4_dense" / "config.json").read_text())["per_layer_config"]
    assert checked(tmp_path, "gemma4_dense", per_layer_config=given | {"9" * 5000: {"head_dim": 3}}) == 0


def test_what_several_fields_say_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    differ = {"swiglu_limits": [0, 0.2, 0.4, 0], "swiglu_limits_shared": [0, 0.1, 0.3, 0]}
    assert checked(tmp_path, "step3p5", **differ) == 2
    text = capsys.readouterr().err
    assert text.count("limits that differ from layer to layer") == 1 and text.count("= because:") == 2


def test_layers_with_experts_may_be_a_text_with_commas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As Step 3.5 has them; layers that predict further tokens may be listed behind the others."""
    types = ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "full_attention"]
    text = {"mlp_layer_types": None, "moe_layers_enum": "1, 2,3", "num_nextn_predict_layers": 1, "layer_types": types}
    assert checked(tmp_path, "step3p5", **text) == 0
    assert checked(tmp_path, "step3p5", **(text | {"layer_types": [*types, types[0]]})) == 2
    assert "layer_types of another length" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"model_type": "llama", "model_type": "mixtral"}', "`model_type` occurs there twice"),
        ('{"a": 1' + "0" * 5000 + "}", "is not JSON"),
        (" " * 5_000_000, "longer than"),
    ],
)
def test_a_wrong_file(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path, "mixtral", text) == 2
    assert message in capsys.readouterr().err


def fits_not(said: str, errors: str, value: object, before: object) -> bool:
    """Whether exit code 1 is right of a field that was altered: the model then has more than a GPU's memory, in parts that add up to what it is said
    to need, because the field is a larger number than it was."""
    needs = re.search(r"DOES NOT FIT: \w+ needs ([\d.]+ [kMGTPE]?B) of 85\.52 GB", said)
    parts = re.search(r"because: (weights .*?) = ([\d.]+ [kMGTPE]?B)\n", errors)
    if not needs or not parts or isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    scale = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15, "EB": 1e18}
    sizes = [
        float(n) * scale[unit]
        for n, unit in re.findall(r"([\d.]+) ([kMGTPE]?B)\b", f"{needs[1]} {parts[2]} {parts[1]}")
    ]
    whole, again, *each = sizes
    added = whole == again and abs(sum(each) - whole) <= 0.005 * whole
    return added and whole > 85.52e9 and value > (before if isinstance(before, (int, float)) else 0)


@pytest.mark.parametrize(
    ("case", "name", "value"),
    spread(
        [("lfm2_moe", "hidden_size", 99_999), ("gemma4_dense", "hidden_size_per_layer_input", 99_999)],
        lambda case: case[0] != "lfm2_moe",
    ),
)
def test_what_fits_on_no_gpu_is_said(
    case: str, name: str, value: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(tmp_path, case, flags=("--phase", "prefill"), **{name: value}) == 1
    said = capsys.readouterr()
    assert fits_not(said.out, said.err, value, 8)
    assert not fits_not(said.out, said.err, value, 10 * value) and not fits_not(said.out, said.err, True, 8)
    assert not fits_not("FAILED", said.err, value, 8) and not fits_not(
        said.out, said.err.replace("weights 1", "weights 7"), value, 8
    )


def test_no_field_of_any_kind_crashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every code is 0 or 2 with one field of a config altered, or 1 where the model then fits on no GPU."""
    values = [None, "2", "", -1, 0, 0.5, 1e30, HUGE, True, [], [1], ["a"], {}, {"a": 1}, NAN, float("inf"), 3, 99_999]
    choose = random.Random(1)
    cases = sorted(path.parent.name for path in REFERENCE.glob("*/config.json"))
    for k in range(examples(75, 15)):
        phase = ("--phase", ("prefill", "decode")[k % 2])  # one of them: both read the whole config
        case = choose.choice(cases)
        config = json.loads((REFERENCE / case / "config.json").read_text())
        name = choose.choice(sorted(config))
        value = choose.choice(values)
        code = checked(tmp_path, case, flags=phase, **{name: value})
        said = capsys.readouterr()
        assert code in (0, 2) or (code == 1 and fits_not(said.out, said.err, value, config[name])), (case, name, value)


MODEL = """moe 1
hardware "h100-sxm" from "h100-sxm" {{ gpus = 8 }}
model m {{
  layers = 2, hidden = 16, vocab = 32
  attention {{ kind = mine, heads = 4, kv_heads = 2, window = {window} }}
  experts {{ kind = own, count = 4, top_k = 2, hidden = 8 }}
  {more}
}}
block mine(x) {{
  h = rms_norm(x)
  q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]
  k[batch, seq, kv_heads, head_dim] = h * Wk[hidden, kv_heads, head_dim]
  v[batch, seq, kv_heads, head_dim] = h * Wv[hidden, kv_heads, head_dim]
  o[batch, seq, kv_heads, group, head_dim] = {attend}
  y[batch, seq, hidden] = o * Wo[kv_heads, group, head_dim, hidden]
  return x + y
}}
block own(x) {{
  let expert = experts.count
  let ffn = experts.hidden
  h = rms_norm(x)
  s[batch, seq, expert] = h * Wr[hidden, expert]
  r = {route}
  t[expert, slot, hidden] = {dispatch}
  g[expert, slot, ffn] = t * Wg[expert, hidden, ffn]
  d[expert, slot, hidden] = g * Wd[expert, ffn, hidden]
  y[batch, seq, hidden] = {combine}
  return x + y
}}
workload {{ sequences = 4, prompt = 8 tok, output = 4 tok }}
phase prefill {{ gpus = 0..1, tp = 2 }}
"""
PLAIN = {
    "window": "0",
    "more": "",
    "attend": "attend(rope(q), rope(k), v)",
    "route": "route(s, top_k = 2)",
    "dispatch": "dispatch(h, r)",
    "combine": "combine(d, r)",
}


@pytest.mark.parametrize(
    ("where", "text", "message"),
    [
        ("window", "max(1 GB, 2 s)", "`max` of a size (B) and a time (s)"),
        ("window", "log(2 GB)", "`log` needs a plain number here"),
        ("window", "at([1, 2], 0.5)", "there is no item 0.5"),
        ("window", "has(3, 1)", "`has` needs a list here"),
        ("window", "either(config.x, 3)", "unknown name `config.x`"),
        ("more", "stack = [embed, each(9, each(9, sparse)), lm_head]", "one `each` is inside another"),
        ("more", "stack = [embed, each(1e9, sparse), lm_head]", "whole number of at most"),
        ("more", "rope { theta = 1 }", "`theta` must be more than 1"),
        ("attend", "attend([], [], v)", "0 queries and 0 keys"),
        ("attend", "attend(1, 2, 3)", "takes queries, keys and values"),
        ("attend", "attend(q, last(k), v)", "needs tensors [seq, ..., width]"),
        ("attend", "attend(q, k, v, window = foo)", "`window` is a number"),
        ("attend", "attend(q, k, v, window = 5 GB)", "a plain number was expected"),
        ("attend", "attend(q, k, v, causal = 3)", "`causal` is true or false"),
        ("attend", "attend(q, k, v, sinks = 3)", "`sinks` is a tensor"),
        ("attend", "attend(q, k, v, sinks = S[batch])", "whose size is the phase's"),
        ("attend", "attend(rope(q, fraction = 0.3), k, v)", "`rope` rotates pairs"),
        ("attend", "attend(clamp(q, low = 1, high = 0), k, v)", "`clamp` between 1 and 0"),
        ("attend", "attend(q, k, v) / 1e-320", "division by zero"),
        ("attend", "attend(q * 1e308 * 1e308, k, v)", "not a finite number"),
        (
            "route",
            "route(h, top_k = 2)",
            "`dispatch` needs a route over [batch, seq, expert]; this one goes over `hidden`",
        ),
        ("route", "route(q, top_k = 2)", "unknown tensor `q`"),
        ("route", "route(last(s), top_k = 2)", "needs scores [batch, seq, expert]"),
        ("route", "route(s, top_k = 1.5)", "`top_k` is a whole number"),
        ("route", "route(s, top_k = 2, score = foo)", "`score` cannot be `foo`"),
        ("route", "route(s, top_k = 2, groups = 3)", "4 experts do not divide into 3 groups"),
        ("route", "route(s, top_k = 2, groups = 4)", "top_k 2 exceeds the 1 experts in 1 of 4 groups"),
        ("route", "route(s, top_k = 2, bias = B[hidden])", "one number for each of [expert]"),
        ("dispatch", "dispatch(h, s)", "`dispatch` needs the result of `route`"),
        ("dispatch", "dispatch(h, r) + b[slot]", "whose size is the phase's"),
        ("combine", "combine(h, r)", "`combine` needs a tensor [expert, slot, width], not [batch, seq, hidden]"),
        ("combine", "combine(d, s)", "`combine` needs the result of `route`"),
    ],
)
def test_a_wrong_expression(where: str, text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        compile_text(MODEL.format(**PLAIN | {where: text}))
    found = [d for d in error.value.diagnostics if message in d.message]
    assert found and found[0].span is not None, error.value


@pytest.mark.parametrize("dispatch", ["rms_norm(dispatch(h, r))", "dispatch(h, r) * b[hidden]", "dispatch(h, r) + 1"])
def test_what_routed_rows_go_through_is_proved(dispatch: str, tmp_path: Path) -> None:
    (tmp_path / "s.moe").write_text(MODEL.format(**PLAIN | {"dispatch": dispatch}))
    assert main(["verify", str(tmp_path / "s.moe")]) == 0


def test_free_attributes_of_rope_are_not_its_options() -> None:
    plan = compile_text(MODEL.format(**PLAIN | {"more": "rope { foo = 3 }"}))
    assert any("no block of this model uses `rope.foo`" in d.message for d in plan.diagnostics)


@pytest.mark.parametrize(
    "text",
    ["", "w", "w (a b", "w a) b", "w ()", "w [0/2]", "w (a (b))", "w a a", "w a-b", "w 0", "w{x} a", "w{ a", "w{} a",
     "w{layer!r} a", "w ffn[0/0]", "w ffn[5/2]", "w ffn[2%2]", "w ffn[1]x", "w ffn[n+v]", "w (a b)[a*b+c@2]", "w ffn[-1/2]",
     "w ffn[a", "w ffn[a@]", "w ffn[]"],
)  # fmt: skip
def test_a_wrong_place(text: str) -> None:
    with pytest.raises(PlaceError):
        TensorPlace.parse(text)
    with pytest.raises(SpecError, match="is not a place in a checkpoint file"):
        compile_text(MODEL.format(**PLAIN) + f'checkpoint mine {{ Wq = "{text}" }}\n')


ARRAYS = {
    "another array": ("weights.npz", {"stray": np.zeros(2)}, "`stray`"),
    "texts": ("weights.npz", {"lm_head.weight": np.array(["a"])}, "`lm_head.weight` is not an array of real numbers"),
    "complex numbers": (
        "weights.npz",
        {"lm_head.weight": np.zeros(2, complex)},
        "`lm_head.weight` is not an array of real numbers",
    ),
    "objects": (
        "weights.npz",
        {"lm_head.weight": np.array([{}, []], dtype=object)},
        "not an .npz file of plain arrays",
    ),
    "ids that are no whole numbers": ("reference.npz", {"input_ids": np.zeros((2, 13))}, "are whole numbers"),
    "ids below the vocabulary": ("reference.npz", {"input_ids": np.full((2, 13), -1)}, "go from -1 to -1"),
    "ids beyond the vocabulary": ("reference.npz", {"input_ids": np.full((2, 13), 48)}, "go from 48 to 48"),
    "ids of one sequence": ("reference.npz", {"input_ids": np.zeros(13, int)}, "are whole numbers [seq"),
    "logits of another vocabulary": (
        "reference.npz",
        {"logits": np.zeros((2, 13, 3))},
        "`logits` of the reference has",
    ),
    "steps of another shape": ("reference.npz", {"decode_logits": np.zeros((2, 48))}, "`decode_logits` of the ref"),
}


def verified(folder: Path) -> int:
    files = ["--weights", str(folder / "weights.npz"), "--reference", str(folder / "reference.npz")]
    return main(["verify", str(folder / "s.moe"), *files])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in (REFERENCE / "mixtral").iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "s.moe").write_text(SPEC)
    return tmp_path


@pytest.mark.parametrize("case", ARRAYS)
def test_wrong_arrays(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, changed, message = ARRAYS[case]
    with np.load(folder / name) as data:
        arrays = {key: data[key] for key in data.files} | changed
    np.savez(folder / name, **arrays)
    assert verified(folder) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["weights.npz", "reference.npz"])
@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text", "npy", "cut", "flipped"])
def test_wrong_array_files(name: str, damage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage != "missing":
        middle = len(data) // 2
        flipped = data[:middle] + bytes(255 - b for b in data[middle : middle + 200]) + data[middle + 200 :]
        path.write_bytes({"empty": b"", "text": b"no arrays", "cut": data[:-40], "flipped": flipped}[damage])
    assert verified(folder) == 2
    assert f"cannot read `{path}`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("model.layers.{layer}.self_attn.q_proj.weight (kv_heads group foo) hidden", "is described with dimensions"),
        ("model.layers.{layer}.self_attn.q_proj.weight (kv_heads group head_dim)[foo+kv_heads*group*head_dim] hidden",
         "with `foo`, which is not a dimension"),
        ("model.layers.{layer}.{expert}.weight (kv_heads group head_dim) hidden", "counts experts"),
    ],
)  # fmt: skip
def test_a_place_that_does_not_fit(place: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "s.moe").write_text(SPEC + f'checkpoint gqa {{ Wq = "{place}" }}\n')
    assert verified(folder) == 2
    assert message in capsys.readouterr().err
