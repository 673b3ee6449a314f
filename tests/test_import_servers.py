"""`dagc import --from`: commands of servers become specs, and what dagc exports comes back as the plan that it was."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.engines.facts import facts
from dagc.engines.others import others
from dagc.importers.engines import ENGINES
from dagc.importers.engines.checkpoints import preset_of
from dagc.importers.engines.command import ServerCommand
from dagc.importers.engines.imported import imported as read
from dagc.importers.engines.options import names, split
from dagc.importers.engines.unsaid import Given

Capture = pytest.CaptureFixture[str]
VLLM = ["vllm", "serve", "deepseek-ai/DeepSeek-R1-0528", "-tp", "8", "--enable-expert-parallel"]


def imported(capsys: Capture, *words: str, engine: str = "vllm", gpu: str = "h200") -> tuple[str, str]:
    given = ["--gpu", gpu, "--prompt-tokens", "2048", "--output-tokens", "512"]
    assert main(["import", "--from", engine, *given, "--", *words]) == 0
    found = capsys.readouterr()
    return found.out, found.err


def refused(capsys: Capture, *words: str, engine: str = "vllm") -> str:
    assert main(["import", "--from", engine, "--gpu", "h200", "--", *words]) == 2
    found = capsys.readouterr()
    assert not found.out
    return found.err


def test_a_command_becomes_a_spec(capsys: Capture) -> None:
    text, said = imported(capsys, *VLLM, "--max-num-seqs", "128", "--max-num-batched-tokens", "8192")
    assert 'hardware from "h200-sxm" { gpus = 8 }' in text and 'model from "deepseek-r1" { }' in text
    assert "attention { tp = 8 }" in text and "experts { ep = 8 }" in text and "dispatch = allgather" in text
    assert "sequences = 128" in text and "batch_tokens = 8192 tok" in text
    assert "-tp 8: read, attention tp = 8" in said and "# Assumed: " in text


def test_every_option_is_accounted_for(capsys: Capture) -> None:
    _, said = imported(capsys, *VLLM, "--foo", "bar", "--api-server-count", "4", "--enable-lora", "--trust-remote-code")
    assert "--foo bar: unknown" in said and "--api-server-count 4: ignored" in said
    assert "--enable-lora: not in the plan" in said and "--trust-remote-code: ignored" in said


def test_words_behind_two_dashes_are_taken_as_they_are(capsys: Capture) -> None:
    """`-m` and `--tp` of another program are no options of ours."""
    words = [
        "python3",
        "-m",
        "sglang.launch_server",
        "--model",
        "deepseek-ai/DeepSeek-V3",
        "--tp",
        "16",
        "--dp-size",
        "16",
    ]
    words += [
        "--enable-dp-attention",
        "--moe-a2a-backend",
        "deepep",
        "--chunked-prefill-size",
        "32768",
        "--max-running-requests",
        "2048",
    ]
    words += ["--nnodes", "2", "--node-rank", "0", "--speculative-algorithm", "NEXTN", "--speculative-num-steps", "1"]
    text, _ = imported(capsys, *words, engine="sglang")
    assert "attention { dp = 16 }" in text and "experts { ep = 16 }" in text and "dispatch = all_to_all" in text
    assert "sequences = 2048" in text and "batch_tokens = 2048 tok" in text  # of a rank: 32768 of 16
    assert "draft = 1" in text and "drafter = mtp" in text


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "--from vllm takes the words of its command"),
        (["ls", "-l"], "does not start a server of vLLM"),
        (["vllm", "serve"], "names no model"),
        ([*VLLM, "other"], "names 2 models"),
        ([*VLLM, "--max-num-seqs"], "`--max-num-seqs` has no value"),
        ([*VLLM, "--enable-eplb=3"], "takes no value"),
        ([*VLLM, "--max-num-seqs", "many"], "takes a whole number"),
        ([*VLLM, "--max-num-seqs", "$SEQS"], "a variable that nobody set"),
        ([*VLLM, "&&", "ls"], "several commands"),
        (["vllm", "serve", "no/such-model"], "which model `no/such-model` is"),
        (["vllm", "serve", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"], "which model"),
    ],
)
def test_bad_commands_are_refused(capsys: Capture, words: list[str], message: str) -> None:
    assert message in refused(capsys, *words)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_written_is_read(engine: str) -> None:
    """Every option of the tables has a reader, of every version; and every reader has an option."""
    readers = import_module(f"dagc.importers.engines.{engine}").READERS
    read = set()
    for version in facts(engine).versions:
        known = facts(engine, version)
        for option in (*known.options.values(), *known.read):
            word = option.reads or option.value
            assert word in readers, f"{known.label}: {option.name} is not read"
            read.add(word)
    shared = set(import_module("dagc.importers.engines.shared_readers").SHARED)
    assert set(readers) - shared <= read


@pytest.mark.parametrize("engine", ENGINES)
def test_options_have_one_meaning(engine: str) -> None:
    known = facts(engine)
    own = [name for option in (*known.options.values(), *known.read) for name in (option.name, *option.also)]
    rest = [name for other in others(engine, known.version) for name in other.names]
    assert len(set(own)) == len(own) and len(set(rest)) == len(rest) and not set(own) & set(rest)
    assert all(other.why for other in others(engine, known.version))


def test_parsers_are_followed() -> None:
    """Short names, `=`, `_`, beginnings, contraries, lists, parts of settings, and values that look like options."""
    known = facts("vllm")
    words = "-tp=4 --max_num_seqs 8 --gpu-mem 0.9 --no-enable-eplb --cudagraph-capture-sizes 1 2 4 --eplb-config.num_redundant_experts 8 --seed -1"
    found = split(words.split(), known)
    assert not found.faults and not found.plain
    told = {t.option.key: (t.value, t.off, t.path) for t in found.told if t.option is not None}
    assert (
        told["tp"] == ("4", False, ())
        and told["sequences"] == ("8", False, ())
        and told["memory"] == ("0.9", False, ())
    )
    assert told["eplb"] == (None, True, ()) and told["capture_sizes"] == ("1 2 4", False, ())
    assert told["eplb_config"] == ("8", False, ("num_redundant_experts",)) and told["seed"] == ("-1", False, ())
    assert names(known).find("--max") is None  # of many


@pytest.mark.parametrize(
    "name, preset, weights",
    [
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-r1", ""),
        ("nvidia/DeepSeek-R1-FP4", "deepseek-r1", "nvfp4"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "qwen3-235b-a22b", "fp8_block"),
        ("RedHatAI/Mixtral-8x7B-Instruct-v0.1-FP8", "mixtral-8x7b", "fp8"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.1-70b", ""),
        ("/cache/models--openai--gpt-oss-120b/snapshots/abc", "gpt-oss-120b", ""),
        ("mixtral-8x7b", "mixtral-8x7b", ""),
        ("nvidia/DeepSeek-R1-0528-NVFP4-v2", "deepseek-r1", "nvfp4"),
        ("moonshotai/Kimi-K2-Thinking", "kimi-k2.5", ""),  # experts in int4, as this one's
        ("zai-org/GLM-4.5-Air-FP8", "glm-4.5-air", "fp8"),  # a scale for each row: tp 8 cuts no blocks
        ("zai-org/GLM-5.1-FP8", "glm-5", "fp8_block"),
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-quantized.w4a16", "llama-3.1-70b", "int4_g128"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", None, ""),
        ("mistralai/Mixtral-8x7B-Abliterated", None, ""),
        ("", None, ""),
        ("/", None, ""),
    ],
)
def test_checkpoints_are_known_by_their_names(name: str, preset: str | None, weights: str) -> None:
    found = preset_of(name)
    assert (found.preset if found else None, found.weights if found else "") == (preset, weights)


def test_options_of_settings_in_short(capsys: Capture) -> None:
    words = ["-O3", "-cc.cudagraph_mode=NONE", "-cc.pass_config.fuse_attn_quant", "True", "--hf-overrides", "{}"]
    text, said = imported(capsys, *VLLM, *words)
    assert "unknown" not in said and "-O 3: ignored" in said and "cuda_graph = false" in text
    assert "--hf-overrides {}: not in the plan" in said


def test_a_folder_is_the_model_that_it_is_served_as(capsys: Capture) -> None:
    text, said = imported(
        capsys, "vllm", "serve", "/model/", "-tp", "8", "--served-model-name", "deepseek-ai/DeepSeek-R1"
    )
    assert 'model from "deepseek-r1"' in text and "by the name that it is served as, `deepseek-ai/DeepSeek-R1`" in said
    assert "is not known" in refused(capsys, "vllm", "serve", "/model/", "--served-model-name", "mine")
    text, _ = imported(capsys, "vllm", "serve", "Qwen/Qwen3-8B", "--served-model-name", "deepseek-ai/DeepSeek-R1")
    assert 'model from "qwen3-8b"' in text


def test_a_layout_that_fails_names_what_nobody_knows(capsys: Capture) -> None:
    words = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 72 --dp 72 --enable-dp-attention --enable-deepep-moe"
    said = refused(capsys, *words.split(), engine="sglang")
    assert "does not divide by tp 72" in said and "the engine has no option `--enable-deepep-moe`" in said


def test_a_spec_that_does_not_compile_is_written_and_says_so(capsys: Capture) -> None:
    text, said = imported(capsys, "vllm", "serve", "MiniMaxAI/MiniMax-M2.5", "-tp", "8")
    assert "tp = 8" in text and "not a valid plan: E03: tp 8 of `prefill` cuts blocks of 128" in said
    assert "not a valid plan" not in imported(capsys, "vllm", "serve", "MiniMaxAI/MiniMax-M2.5", "-tp", "4")[1]


def test_a_plan_that_does_not_fit_says_so(capsys: Capture) -> None:
    said = imported(capsys, "vllm", "serve", "deepseek-ai/DeepSeek-V3", "-tp", "2")[1]
    assert "the plan does not fit" in said


def test_contexts_are_cut_evenly(capsys: Capture) -> None:
    """1000 + 500 tokens over dcp 8."""
    words = [
        "--from",
        "vllm",
        "--gpu",
        "h200",
        "--prompt-tokens",
        "1000",
        "--output-tokens",
        "500",
        "--",
        *VLLM,
        "-dcp",
        "8",
    ]
    assert main(["import", *words]) == 0
    found = capsys.readouterr()
    assert "context = 1504 tok" in found.out and "1,504 tokens of each sequence" in found.err


def test_weights_of_parts_are_replaced_too(capsys: Capture) -> None:
    """The preset's experts are in mxfp4, all else is in bf16 already."""
    text, _ = imported(capsys, "vllm", "serve", "unsloth/gpt-oss-120b-BF16", "-tp", "8")
    assert 'model from "gpt-oss-120b" { weight_dtype = bf16 }' in text


def test_uneven_stages_are_those_of_the_engine(capsys: Capture) -> None:
    """61 layers: vLLM gives the last stage fewer, SGLang more, TensorRT-LLM the first."""
    model = "deepseek-ai/DeepSeek-V3"
    text, _ = imported(capsys, "vllm", "serve", model, "-tp", "8", "-pp", "2")
    assert "layers_per_stage = [31, 30]" in text
    text, _ = imported(
        capsys, "python", "-m", "sglang.launch_server", "--model", model, "--tp", "8", "--pp-size", "2", engine="sglang"
    )
    assert "layers_per_stage = [30, 31]" in text
    text, _ = imported(capsys, "trtllm-serve", model, "--tp_size", "8", "--pp_size", "2", engine="trtllm")
    assert "layers_per_stage = [31, 30]" in text


def test_settings_of_a_file_hold_before_options(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(
        "tensor_parallel_size: 4\nenable_attention_dp: true\nmoe_expert_parallel_size: 4\ncuda_graph_config: null\nfrobnicate: {a: 1}\n"
        "kv_cache_config: {dtype: fp8, enable_block_reuse: false}\nspeculative_config: {decoding_type: MTP, num_nextn_predict_layers: 3}\n"
    )
    command = ["trtllm-serve", "deepseek-ai/DeepSeek-V3", "--tp_size", "8", "--extra_llm_api_options", str(file)]
    text, said = imported(capsys, *command, engine="trtllm", gpu="b300")
    assert (
        "attention { dp = 4 }" in text
        and "kv_dtype = fp8" in text
        and "cuda_graph = false" in text
        and "draft = 3" in text
    )
    assert "prefix_cache = false" in text and "frobnicate.a: 1: unknown" in said
    file.write_text(
        "tensor-parallel-size: 8\nmax-num-seqs: 64\nenable-expert-parallel: true\nmodel: deepseek-ai/DeepSeek-V3\n"
    )
    text, _ = imported(capsys, "vllm", "serve", "--config", str(file), "--max-num-seqs", "32")
    assert "experts { ep = 8 }" in text and "sequences = 32" in text
    assert "cannot read the settings" in refused(capsys, "vllm", "serve", "--config", str(tmp_path / "none.yaml"))
    file.write_text("a: &a [1]\nb: [*a, *a\n")
    assert "no YAML" in refused(capsys, "vllm", "serve", "--config", str(file))


def test_hostile_commands(capsys: Capture) -> None:
    """Nothing reaches a terminal or a file as it is, and nothing is unbounded."""
    evil = "\x1b[31mred\n\u202e"
    text, said = imported(capsys, *VLLM, "--served-model-name", evil, f"--{evil}", "--seed", "9" * 400)
    assert not [c for c in text + said if c != "\n" and not c.isprintable()]
    assert all(line.startswith("#") or "red" not in line for line in text.splitlines())
    refused(capsys, "vllm", "serve", evil)
    refused(capsys, *VLLM, "-dp", "999999999")
    refused(capsys, *VLLM, "--speculative-config", "[" * 100_000)
    refused(capsys, *VLLM, "--speculative-config", '{"num_speculative_tokens": 1e999}')
    refused(capsys, *VLLM, *["--seed", "1"] * 10_000)
    assert main(["import", "--from", "vllm", "--prompt-tokens", "2048", "--", *VLLM, "--max-model-len", "100"]) == 2


def test_options_of_servers_need_from(capsys: Capture) -> None:
    assert main(["import", "--gpu", "h100"]) == 2 and "--gpu goes with --from" in capsys.readouterr().err
    assert main(["import"]) == 2 and "config.json" in capsys.readouterr().err
    assert main(["import", "--from", "vllm", "vllm", "serve", "x", "--tensor-parallel-size", "8"]) == 2
    assert "come behind `--`" in capsys.readouterr().err
    assert main(["import", "--from", "vllm", "--output", "512", "--", *VLLM]) == 2
    assert "--output-tokens gives generated tokens" in capsys.readouterr().err


def test_servers_on_two_kinds_of_gpus(tmp_path: Path, capsys: Capture) -> None:
    """Each kind is a pool, and what joins them is assumed."""
    for role, flags in (("prefill", "-tp 4"), ("decode", "-tp 8")):
        transfer = """--kv-transfer-config '{"kv_connector": "NixlConnector", "kv_role": "kv_both"}'"""
        (tmp_path / f"x.{role}.sh").write_text(f"vllm serve mixtral-8x7b {flags} {transfer}\n")
    files = sorted(map(str, tmp_path.glob("*.sh")))
    assert main(["import", "--from", "script", "--gpu", "prefill=h100", "--gpu", "decode=h200", *files]) == 0
    text = capsys.readouterr().out
    assert 'hardware prefill_gpus from "h100-sxm"' in text and 'hardware decode_gpus from "h200-sxm"' in text
    assert "link prefill_gpus to decode_gpus {" in text and "hardware = decode_gpus" in text
    assert main(["import", "--from", "script", "--gpu", "prefill=h100", *files]) == 2
    assert main(["import", "--from", "vllm", "--gpu", "prefill=h100", "--gpu", "decode=h200", "--", *VLLM]) == 2
    assert "and --gpu says other GPUs for each" in capsys.readouterr().err


def test_another_engine_is_named(capsys: Capture) -> None:
    assert "`--from vllm`: it starts one of vLLM" in refused(capsys, *VLLM, engine="sglang")


def test_megatron_says_no_model(capsys: Capture) -> None:
    words = [
        "torchrun",
        "--nproc-per-node=8",
        "run.py",
        "--tensor-model-parallel-size",
        "2",
        "--expert-model-parallel-size",
        "4",
    ]
    words += ["--expert-tensor-parallel-size", "1", "--moe-token-dispatcher-type", "alltoall", "--bf16"]
    assert "--preset NAME or --config" in refused(capsys, *words, engine="megatron")
    assert main(["import", "--from", "megatron", "--preset", "mixtral-8x7b", "--", *words]) == 0
    text = capsys.readouterr().out
    assert "attention { dp = 4, tp = 2 }" in text and "experts { ep = 4 }" in text
    words[1] = "--nproc-per-node=3"
    assert main(["import", "--from", "megatron", "--preset", "mixtral-8x7b", "--", *words]) == 2
    assert "do not divide its 3 ranks" in capsys.readouterr().err


def test_a_server_of_prefill_takes_what_its_engine_does() -> None:
    """Its limit of sequences does not say how many tokens a step has; and hosts have to have a GPU for each rank."""
    words = ("vllm", "serve", "mixtral-8x7b", "-tp", "8", "--max-num-seqs", "512")
    found = read([("vllm", ServerCommand(words, role="prefill"))], Given("h200", prompt=2048, output=512))
    assert "sequences = 4\n" in found.text and any("a step takes 8,192 tokens" in note for note in found.notes)
    with pytest.raises(SpecError, match="1 x 1 GPUs are fewer than its 8 ranks"):
        read([("vllm", ServerCommand(words, nodes=1, gpus_per_node=1))], Given("h200"))
