"""How a model's weights are stored, what a GPU's memory is, and what a report says of both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Diagnostic
from dagc.base.dtypes import dtype, find
from dagc.importers.huggingface import import_config
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.lang.huggingface.module_lists import Patterns
from dagc.lang.huggingface.precision import precision

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
    text = (
        f"moe 1\n{hardware}\n{model}\nworkload {{ sequences = 1, prompt = 128 tok, output = 16 tok }}\n"
        f"phase decode {{ gpus = [0]\n{phase} }}\n"
    )
    found = re.search('from "([^"]*)/config.json"', model)
    if found is None:
        return dagc.compile_text(text)
    spec = Path(found[1]) / "plan.moe"  # a spec reads what is in its own folder
    spec.write_text(text)
    return dagc.compile(spec)


def errors(raised: dagc.SpecError) -> list[Diagnostic]:
    """What was wrong; a GPU of 8 TB is doubtful besides."""
    return [d for d in raised.diagnostics if d.code.startswith("E")]


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
        ("olmoe-1b-7b", "active, stated 6.9B), bf16\n"),
    ],
)
def test_the_head_of_a_report_names_the_dtypes_of_weights(model: str, words: str) -> None:
    head = one_gpu(f'model from "{model}" {{ }}').report().split("hardware ")[0]
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


# -- dtypes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "packed_bits"),
    [
        ("bf16", 16 * 2**14),
        ("fp8_block", 8 * 2**14 + 32),
        ("fp8_b64x32", 8 * 2**14 + 32 * 8),
        ("nvfp4", 4 * 2**14 + 8 * 2**10),
        ("mxfp4", 4 * 2**14 + 8 * 2**9),
        ("mxfp8", 8 * 2**14 + 8 * 2**9),
        ("int4", 4 * 2**14),
        ("int4_g32", 4 * 2**14 + 16 * 2**9),
        ("int4_g128_zp", 4 * 2**14 + (16 + 4) * 2**7),
        ("int8_g128", 8 * 2**14 + 16 * 2**7),
    ],
)
def test_bytes_of_a_dtype_are_those_of_a_packed_matrix(name: str, packed_bits: int) -> None:
    """Of a matrix of 128 x 128: its numbers, and one scale (and zero point) for each block."""
    assert dtype(name).bytes * 2**14 == packed_bits / 8


@pytest.mark.parametrize(
    "name", ["int4_g", "int4_g0", "int4_g1234567", "fp8_b128", "fp16_g32", "nvfp4_zp", "int4 g32", ""]
)
def test_what_no_dtype_is_called(name: str) -> None:
    assert find(name) is None


def test_a_dtype_that_is_none_is_an_error_that_shows_the_forms() -> None:
    with pytest.raises(dagc.SpecError) as caught:
        one_gpu('model from "olmoe-1b-7b" { weight_dtype = int3_g9 }')
    (found,) = errors(caught.value)
    assert found.code == "E02" and "int3_g9" in found.message
    with pytest.raises(dagc.SpecError) as caught:
        one_gpu('model from "olmoe-1b-7b" { weight_dtype = ternary }')
    assert "`int4_g32` (groups of 32" in errors(caught.value)[0].help[0]


def weights_B(model: str) -> float:
    return one_gpu(model).phases["decode"].memory.worst.weights_B


@pytest.mark.parametrize("asked", ["nvfp4", "int4_g128", "fp8", "bf16"])
@pytest.mark.parametrize("preset", ["deepseek-v2-lite", "gpt-oss-20b", "minimax-m2.5", "kimi-k2.5"])
def test_a_weight_dtype_that_is_asked_for_is_over_a_presets_parts(preset: str, asked: str) -> None:
    """All matrices are in it; what is left over are tables that the preset keeps whole, norms and routers."""
    plan = one_gpu(f'model from "{preset}" {{ weight_dtype = {asked} }}', hardware=BIG)
    held: dict[str, float] = {}
    for segment in plan.phases["decode"].graph.segments:
        for weight in segment.weights:
            held[weight.dtype] = held.get(weight.dtype, 0.0) + segment.repeat * segment.count(weight.dims)
    assert set(held) <= {asked, "bf16"}
    assert held[asked] > 0.98 * sum(held.values())


BIG = """hardware big { gpus = 1, per_node = 1, compute = 1000 TFLOP/s, memory = 8 TB, hbm = 4 TB/s
  link node { bandwidth = 450 GB/s, latency = 2 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us } }"""


def test_parts_that_are_asked_for_are_over_all() -> None:
    whole = 'model from "deepseek-v2-lite" { weight_dtype = nvfp4, weights { experts = fp8, embed = fp8 } }'
    model = one_gpu(whole, hardware=BIG).spec.model
    assert model.weight_dtype == "nvfp4" and model.weight_dtypes == {"experts": "fp8", "embed": "fp8"}


def test_a_preset_that_is_left_as_it_is_keeps_its_parts() -> None:
    assert one_gpu('model from "deepseek-v3" { kv_dtype = fp8 }', hardware=BIG).spec.model.weight_dtypes == {
        "embed": "bf16",
        "lm_head": "bf16",
        "experts": "fp8_block",
    }


def test_norms_biases_and_routers_are_in_the_dtype_of_activations() -> None:
    plan = one_gpu('model from "gpt-oss-20b" { weight_dtype = fp8 }', hardware=BIG)
    dtypes = {w.name: w.dtype for s in plan.phases["decode"].graph.segments for w in s.weights}
    assert {n.split(".")[1] for n, d in dtypes.items() if d == "bf16"} == {
        "h_gain", "bq", "bk", "bv", "bo", "S", "Wr", "br", "bg", "bu", "bd",
    }  # fmt: skip
    assert {n.split(".")[1] for n, d in dtypes.items() if d == "fp8"} == {
        "We",
        "Wq",
        "Wk",
        "Wv",
        "Wo",
        "Wg",
        "Wu",
        "Wd",
    }


@pytest.mark.parametrize(
    ("model", "block", "kept"),
    [
        ("qwen3-next-80b-a3b", "gated_delta", "A Ck Cq Cv Wa Wb ba h_gain no_in_gain"),
        ("qwen3-next-80b-a3b", "moe_shared_gate", "Wr Wsgate h_gain"),
        ("deepseek-v3.2", "mla_indexed", "Wiw bik h_gain nc_gain nk_in_gain nq_gain"),
    ],
)
def test_what_gives_a_number_a_head_is_in_the_dtype_of_activations(model: str, block: str, kept: str) -> None:
    """As checkpoints leave them: in_proj_ba of Qwen3-Next, indexer.weights_proj of DeepSeek-V3.2."""
    plan = one_gpu(f'model from "{model}" {{ weight_dtype = fp8 }}', hardware=BIG)
    weights = [w for s in plan.phases["decode"].graph.segments for w in s.weights if w.name.startswith(f"@{block}.")]
    assert {w.name.split(".")[1] for w in weights if w.dtype == "bf16"} == set(kept.split())
    assert {w.dtype for w in weights} == {"bf16", "fp8"}


def test_a_grouped_dtype_reads_back_from_text_and_from_a_placed_graph() -> None:
    plan = one_gpu('model from "olmoe-1b-7b" { weight_dtype = int4_g64_zp }', hardware=BIG)
    graph = plan.phases["decode"].graph
    assert parse_graph(print_graph(graph)) == graph
    assert "int4_g64_zp" in print_graph(graph)


# -- configs ---------------------------------------------------------------------------------------

CONFIGS = Path(__file__).parent / "data" / "hf_configs"


def config_file(folder: Path, base: str, beside: object = None, **changes: object) -> str:
    """A published config with other fields, and a second file next to it."""
    data = json.loads((CONFIGS / f"{base}.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(data))
    if beside is not None:
        (folder / "hf_quant_config.json").write_text(json.dumps(beside))
    return str(folder / "config.json")


NVFP4_GROUP = {"type": "float", "num_bits": 4, "group_size": 16}
QWEN = "qwen3-235b-a22b"
TABLES_B = 2 * 2 * 151936 * 4096
"""Embedding and head of Qwen3-235B in bf16."""
REST = 235.09e9 - TABLES_B / 2


@pytest.mark.parametrize(
    ("section", "each_B"),
    spread([
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, 0.5 + (16 + 4) / 8 / 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, 0.5 + 16 / 8 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 1.0),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64, "dynamic": {"-:.*mlp.gate.*": {}}}, 0.5 + 2 / 64),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}, 0.5 + 2 / 128),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}, 0.5625),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 1.0),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 128}, 0.5 + 2 / 128),
        ({"quant_method": "modelopt", "config_groups": {"group_0": {"weights": NVFP4_GROUP, "targets": ["Linear"]}}}, 0.5625),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}}}, 0.53125),
        ({"quant_method": "fbgemm_fp8"}, 1.0),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1 + 4 / 128**2),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"type": "int", "num_bits": 4, "group_size": 32, "symmetric": False}}}}, 0.5 + 2.5 / 32),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"type": "float", "num_bits": 8, "block_structure": [128, 128]}}}}, 1 + 4 / 128**2),
    ], of=lambda case: case[0]["quant_method"]),
)  # fmt: skip
def test_published_quantisations_hold_their_bytes(section: dict[str, object], each_B: float, tmp_path: Path) -> None:
    path = config_file(tmp_path, QWEN, quantization_config=section)
    plan = one_gpu(f'model from "{path}" {{ }}', hardware=BIG)
    assert plan.phases["decode"].memory.worst.weights_B == pytest.approx(REST * each_B + TABLES_B, rel=2e-3)


def test_the_precision_beside_a_config_is_read(tmp_path: Path) -> None:
    beside = {
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
    }
    path = config_file(tmp_path, QWEN, beside)
    plan = one_gpu(f'model from "{path}" {{ }}', hardware=BIG)
    assert plan.phases["decode"].memory.worst.weights_B == pytest.approx(REST * 0.5625 + TABLES_B, rel=2e-3)
    assert plan.spec.model.kv_dtype == "fp8"
    assert "the precision of weights is from hf_quant_config.json" in import_config(path).notes
    own = config_file(tmp_path, QWEN, beside, quantization_config={"quant_method": "fp8"})
    assert one_gpu(f'model from "{own}" {{ }}', hardware=BIG).spec.model.weight_dtype == "fp8"


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_empty_section_says_nothing(nothing: object, tmp_path: Path) -> None:
    path = config_file(tmp_path, QWEN, {"quantization": {"quant_algo": "NVFP4"}}, quantization_config=nothing)
    assert one_gpu(f'model from "{path}" {{ }}', hardware=BIG).spec.model.weight_dtype == "nvfp4"
    (tmp_path / "hf_quant_config.json").unlink()
    assert one_gpu(f'model from "{path}" {{ }}', hardware=BIG).spec.model.weight_dtype == "bf16"


@pytest.mark.parametrize("text", ["{", "[]", '{"quantization": {"quant_algo": "W2"}}'])
def test_a_precision_beside_a_config_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    path = config_file(tmp_path, QWEN)
    (tmp_path / "hf_quant_config.json").write_text(text)
    with pytest.raises(dagc.SpecError) as caught:
        one_gpu(f'model from "{path}" {{ }}', hardware=BIG)
    assert [d.code for d in errors(caught.value)] == ["E05"]


def test_each_group_of_modules_has_its_dtype() -> None:
    groups = {
        "a": {"targets": ["re:.*self_attn.*"], "weights": {"type": "float", "num_bits": 8}},
        "b": {"targets": ["Linear"], "weights": NVFP4_GROUP},
    }
    section = {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["re:.*shared_expert.*"]}
    found = precision({"dtype": "bfloat16", "num_hidden_layers": 8, "quantization_config": section}, [])
    assert [found[part] for part in ("embed", "attention", "mlp", "experts", "shared", "head")] == [
        "bf16", "fp8", "nvfp4", "nvfp4", "bf16", "bf16",
    ]  # fmt: skip


def test_layers_of_states_have_a_dtype_of_their_own() -> None:
    section = {"quant_method": "fp8", "modules_to_not_convert": ["linear_attn", "lm_head"]}
    given = {"dtype": "bfloat16", "num_hidden_layers": 8, "quantization_config": section}
    found = precision(given | {"linear_num_key_heads": 4}, [])
    assert [found[part] for part in ("attention", "state", "mlp")] == ["fp8", "bf16", "fp8"]
    some = section | {"modules_to_not_convert": ["model.layers.0.mamba"]}
    notes: list[str] = []
    assert precision(given | {"quantization_config": some, "mamba_d_state": 4}, notes)["state"] == "fp8"
    assert notes == ["state: fp8 in 7 of 8 layers, taken for all"]
    notes.clear()
    assert precision(given | {"quantization_config": some}, notes)["state"] == "fp8" and not notes


def test_mixed_precision_by_module() -> None:
    layers = {f"model.layers.{i}.mlp.experts": {"quant_algo": "NVFP4"} for i in range(8)}
    layers |= {f"model.layers.{i}.self_attn.o_proj": {"quant_algo": "FP8"} for i in range(6)}
    section = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    notes: list[str] = []
    found = precision({"dtype": "bfloat16", "num_hidden_layers": 8, "quantization_config": section}, notes)
    assert [found[part] for part in ("attention", "mlp", "experts")] == ["fp8", "bf16", "nvfp4"]
    assert notes == ["attention: fp8 in 6 of 8 layers, taken for all"]


def test_lists_of_leading_layers_and_towers_are_understood() -> None:
    """As NVIDIA writes them: a prefix of the language model, whole layers, and dense layers that come first."""
    section = {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "ignore": [
            "language_model.lm_head",
            "language_model.model.layers.0*",
            "language_model.model.layers.*.self_attn*",
        ],
    }
    config = {"dtype": "bfloat16", "num_hidden_layers": 61, "first_k_dense_replace": 1, "quantization_config": section}
    found = precision(config, [])
    assert [found[part] for part in ("attention", "mlp", "experts", "shared")] == ["bf16", "bf16", "nvfp4", "nvfp4"]


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "int of 3 bits"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"+:.*": {"bits": 8}}}, "gptq of several widths"),
        ({"quant_method": "modelopt", "quant_algo": "W1"}, "modelopt of W1"),
        ({"quant_method": ["awq"]}, "['awq']"),
        ({"quant_method": "awq", "bits": [4]}, "int of [4] bits"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"type": "float", "num_bits": 6}}}}, "float of 6 bits"),
        ("fp8", "is not an object"),
    ],
)  # fmt: skip
def test_a_precision_that_cannot_be_read_names_the_way_out(section: object, what: str, tmp_path: Path) -> None:
    path = config_file(tmp_path, QWEN, quantization_config=section)
    with pytest.raises(dagc.SpecError) as caught:
        one_gpu(f'model from "{path}" {{ }}', hardware=BIG)
    (found,) = errors(caught.value)
    assert found.code == "E05" and what in found.message and "weight_dtype = ..." in found.help[0]
    taken = one_gpu(f'model from "{path}" {{ weight_dtype = int4_g128 }}', hardware=BIG)
    assert taken.phases["decode"].memory.worst.weights_B == pytest.approx(REST * 0.515625 + TABLES_B, rel=2e-3)


@pytest.mark.parametrize(
    "expression", ["re:(.|.)*x", "re:(a+)+$", "re:" + ".*" * 50 + "x", "re:" + "x" * 10_000, "re:("]
)
def test_expressions_that_take_for_ever_mean_nothing(expression: str) -> None:
    patterns = Patterns.of([expression, "re:.*self_attn.*", "gate"])
    assert not patterns.match("model.layers.0.mlp.experts.0.down_proj")
    assert patterns.match("model.layers.0.self_attn.o_proj") and patterns.match("model.layers.0.mlp.gate")


@pytest.mark.parametrize(
    ("file", "data", "dtype"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128, "desc_act": False, "sym": True}, "int4_g128"),
        ("quant_config.json", {"zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "GEMM"}, "int4_g64_zp"),
        ("hf_quant_config.json", {"quantization": {"quant_algo": "FP8_PB_WO"}}, "fp8_block"),
    ],
)
def test_every_second_file_that_tools_write_is_read(
    file: str, data: dict[str, object], dtype: str, tmp_path: Path
) -> None:
    path = config_file(tmp_path, QWEN)
    (tmp_path / file).write_text(json.dumps(data))
    model = one_gpu(f'model from "{path}" {{ }}', hardware=BIG).spec.model
    assert model.weight_dtype == model.weight_dtypes["experts"] == dtype
    assert f"the precision of weights is from {file}" in import_config(path).notes


def test_a_second_file_that_is_a_link_out_of_the_project_is_not_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "secret.json"
    inside.mkdir()
    outside.write_text("{}")
    path = config_file(inside, QWEN)
    (inside / "hf_quant_config.json").symlink_to(outside)
    with pytest.raises(dagc.SpecError) as caught:
        one_gpu(f'model from "{path}" {{ }}', hardware=BIG)
    assert [d.code for d in errors(caught.value)] == ["E05"]


def test_an_older_name_of_the_section_and_a_cache_without_a_dtype() -> None:
    notes: list[str] = []
    section = {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP2"}
    found = precision({"dtype": "bfloat16", "quantization_config": section}, notes)
    assert found["cache"] == "bf16" and notes == ["the KV cache in FP2 has no dtype here: bf16 is assumed"]


def test_compression_config_is_the_older_name(tmp_path: Path) -> None:
    groups = {"g": {"targets": ["Linear"], "weights": {"type": "int", "num_bits": 8, "symmetric": True}}}
    section = {"quant_method": "compressed-tensors", "config_groups": groups}
    path = config_file(tmp_path, QWEN, compression_config=section)
    assert one_gpu(f'model from "{path}" {{ }}', hardware=BIG).spec.model.weight_dtype == "int8"


def test_a_checkpoint_that_is_all_of_eight_bits() -> None:
    notes: list[str] = []
    found = precision({"torch_dtype": "float8_e4m3fn"}, notes)
    assert (found["activations"], found["cache"], found["embed"], found["experts"]) == ("bf16", "bf16", "bf16", "fp8")
    assert notes == ["`dtype` is float8_e4m3fn: fp8 weights, and bf16 for everything else, are assumed"]


@pytest.mark.parametrize(
    ("module", "part"),
    [
        ("model.layers.*.self_attn.out_proj", "attention"),
        ("model.layers.*.feed_forward.w2", "mlp"),
        ("model.layers.*.feed_forward.experts.*.w2", "experts"),
        ("model.layers.*.moe.down_proj", "experts"),
        ("model.layers.*.share_expert.down_proj", "shared"),
        ("model.layers.*.block_sparse_moe.shared_experts.down_proj", "shared"),
    ],
)
def test_modules_that_are_left_are_known_by_the_names_of_any_checkpoint(module: str, part: str) -> None:
    """LFM2, Step 3.5 and MiniMax M3 have names of their own."""
    kept = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": [module]}
    found = precision({"dtype": "bfloat16", "num_hidden_layers": 2, "quantization_config": kept}, [])
    rest = {"attention", "mlp", "experts", "shared"} - {part}
    assert found[part] == "bf16" and {found[name] for name in rest} == {"fp8"}
