"""`dagc export`: what each engine gets, and which plans each refuses."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT, compiled, spec_text
from tiers import spread

import dagc
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.engines.facts import facts
from dagc.export.engines import ENGINES
from dagc.export.engines.launch import export

pytestmark = pytest.mark.usefixtures("shared_servings")

DENSE = "layers = 4, dense_first = 1, hidden = 64, vocab = 512, dtype = bf16\nattention { heads = 8, kv_heads = 4, head_dim = 8 }\nmlp { hidden = 64 }\nexperts { count = 8, top_k = 2, hidden = 32, shared = 1 }"
Capture = pytest.CaptureFixture[str]


compiled_text = cache(dagc.compile_text)  # every engine is asked for the same plans


def written(engine: str, kind: str = "decode", version: str | None = None, **given: str) -> dict[str, str]:
    files = export(compiled_text(spec_text(kind=kind, dtype="bf16", **given)), engine, "org/model", "p", version)
    return {name.split(".")[-1]: data.decode() for name, data in files.items() if ".router." not in name}


def words(text: str) -> list[str]:
    """The command of a script."""
    return shlex.split(text.replace("\\\n", " ").splitlines()[-1])


def refused(engine: str, kind: str = "decode", **given: str) -> str:
    with pytest.raises(SpecError) as error:
        written(engine, kind, **given)
    assert all(d.code == "E05" for d in error.value.diagnostics)
    return " | ".join(line for d in error.value.diagnostics for line in (d.message, *d.because))


def options(text: str) -> dict[str, str]:
    """Option -> its value, empty for a switch."""
    found: dict[str, str] = {}
    name = ""
    for word in words(text):
        if word.startswith("--"):
            name = word
            found[name] = ""
        elif name:
            found[name] = word
            name = ""
    return found


def test_vllm_takes_dp_attention_with_whole_experts() -> None:
    found = options(written("vllm", phase="gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }")["sh"])
    assert found["--tensor-parallel-size"] == "2" and found["--data-parallel-size"] == "4"
    assert "--enable-expert-parallel" in found and found["--all2all-backend"] == "deepep_low_latency"
    assert found["--max-num-seqs"] == "16" and found["--max-model-len"] == "272" and found["--dtype"] == "bfloat16"


def test_vllm_without_ep_cuts_experts_over_all_ranks() -> None:
    found = options(written("vllm", phase="gpus = 0..7, tp = 8")["sh"])
    assert found["--tensor-parallel-size"] == "8" and "--enable-expert-parallel" not in found


def test_vllm_has_experts_all_or_nothing() -> None:
    text = refused("vllm", phase="gpus = 0..7\nattention { tp = 8 }\nexperts { ep = 4, tp = 2 }")
    assert "experts ep 4 x tp 2 over 8 ranks" in text and "all or nothing" in text and "0.33.0" in text
    assert "edp 2" in refused("vllm", phase="gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 4 }")


def test_vllm_numbers_stages_inside_a_data_parallel_rank() -> None:
    sides = "attention { dp = 2, tp = 2 }\nexperts { ep = 4 }"
    text = refused("vllm", phase=f"gpus = 0..7, pp = 2\n{sides}")
    assert "GPU 2 is dp 1, pp 0, tp 0 in the plan and dp 0, pp 1, tp 0 in the engine" in text
    found = options(written("vllm", phase=f"gpus = 0..7, pp = 2\n{sides}\nplace gpu = dp * 4 + pp * 2 + tp")["sh"])
    assert found["--pipeline-parallel-size"] == "2"


def test_sglang_tp_is_every_rank_of_a_stage() -> None:
    found = options(
        written("sglang", model=DENSE, phase="gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }")["sh"]
    )
    assert found["--tp-size"] == "8" and found["--attn-dp-size"] == "4" and found["--ep-size"] == "8"
    assert found["--moe-a2a-backend"] == "deepep" and found["--deepep-mode"] == "low_latency"
    assert "--enable-dp-lm-head" in found
    found = options(
        written("sglang", phase="gpus = 0..7, dispatch = allgather\nattention { tp = 8 }\nexperts { ep = 4, tp = 2 }")[
            "sh"
        ]
    )
    assert found["--tp-size"] == "8" and found["--ep-size"] == "4" and "--attn-dp-size" not in found
    assert "2 copies of the experts" in refused("sglang", phase="gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 4 }")
    text = refused("sglang", phase="gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 4, tp = 2 }")
    assert "DeepEP spans all 8 ranks" in text


def test_trtllm_attention_is_all_data_or_all_tensor_parallel() -> None:
    found = written("trtllm", phase="gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 8 }")
    config = dict(line.split(": ", 1) for line in found["yaml"].splitlines() if not line.startswith("#"))
    assert config["tensor_parallel_size"] == "8" and config["enable_attention_dp"] == "true"
    assert config["moe_expert_parallel_size"] == "8" and config["moe_tensor_parallel_size"] == "1"
    assert json.loads(config["kv_cache_config"]) == {"dtype": "auto", "free_gpu_memory_fraction": 0.9}
    assert config["max_batch_size"] == "8"
    assert json.loads(config["cuda_graph_config"]) == {"max_batch_size": 8, "enable_padding": True}
    assert 'trtllm-serve org/model --config "${0%.sh}.yaml"' in found["sh"]
    text = refused("trtllm", phase="gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }")
    assert "attention dp 4 x tp 2" in text
    text = refused(
        "trtllm", phase="gpus = 0..7, dispatch = allgather\nattention { tp = 8 }\nexperts { ep = 4, tp = 2 }"
    )
    assert "numbers GPUs by pp, edp, etp, ep" in text  # its experts are inside, the plan's outside


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("balance = 60", {"enable_balance": True, "timeout_iters": 60, "batching_wait_iters": 0}),
        ("balance = 50, gather = 10", {"enable_balance": True, "timeout_iters": 50, "batching_wait_iters": 10}),
        ("balance = 0", None),
        ("", None),
    ],
)
def test_prompts_that_wait_for_other_ranks_are_a_setting_of_trtllm(said: str, expected: object) -> None:
    """All three are written, since the engine's own values are others."""
    serve = f"serve chat {{ arrivals = burst, requests = 2, {said} }}"
    phase = "gpus = 0..7, decode = 64\nattention { dp = 8 }\nexperts { ep = 8 }"
    config = dict(
        line.split(": ", 1)
        for line in written("trtllm", kind="mixed", phase=phase, extra=serve)["yaml"].splitlines()
        if line[0] != "#"
    )
    assert json.loads(config.get("attention_dp_config", "null")) == expected
    whole = written(
        "trtllm", kind="mixed", phase="gpus = 0..7, decode = 64\nattention { tp = 8 }\nexperts { ep = 8 }", extra=serve
    )["yaml"]
    assert "attention_dp_config" not in whole
    other = written("sglang", kind="mixed", phase=phase, extra=serve)["sh"]
    assert ("whether prompts wait for those of other ranks" in other) == (expected is not None)


def test_megatron_folds_freely() -> None:
    found = options(written("megatron", phase="gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 4 }")["sh"])
    assert found["--tensor-model-parallel-size"] == "2" and found["--expert-model-parallel-size"] == "4"
    assert found["--expert-tensor-parallel-size"] == "1" and found["--moe-token-dispatcher-type"] == "alltoall"
    assert "--bf16" in found
    assert "redundant" in refused("megatron", phase="gpus = 0..7, ep = 8, redundant = 8")


def test_megatron_takes_uneven_stages() -> None:
    """A letter a layer: embedding, transformer, loss."""
    phase = "gpus = 0..7, pp = 2, tp = 4{}"
    found = options(written("megatron", phase=phase.format(", layers_per_stage = [3, 1]"))["sh"])
    assert found["--pipeline-model-parallel-layout"] == "Et*3|t*1L"
    assert "layout" not in written("megatron", phase=phase.format(""))["sh"]


@pytest.mark.parametrize("engine", spread(ENGINES, ("vllm", "megatron")))
def test_what_no_engine_expresses(engine: str) -> None:
    for method in ("allgather", "ring", "ulysses"):
        phase = f"gpus = 0..7, sp = 2, tp = 2, ep = 2, sp_method = {method}"
        assert f"sp = 2 ({method}, contiguous)" in refused(engine, "prefill", phase=phase)
    assert "unequal numbers" in refused(
        engine, phase="gpus = 0..11, dp = 12", workload="sequences = 48, prompt = 64 tok"
    )
    assert "numbers GPUs" in refused(engine, phase="gpus = 0..7, tp = 8\nplace gpu = 7 - tp")
    model = "layers = 2, hidden = 64, vocab = 512, dtype = bf16\nattention { heads = 8, head_dim = 8 }\nmlp { hidden = 100 }"
    assert "mlp width 100 does not divide by tp 8" in refused(engine, model=model, phase="gpus = 0..7, tp = 8")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_option_is_one_that_was_checked(engine: str) -> None:
    """Nothing is written that the data file does not name, and it names its version."""
    about = facts(engine)
    names = {option.name for option in about.options.values()}
    known = names | {name.split(".")[0] for name in names} | {"--nproc-per-node"}
    assert about.version in about.versions and about.checked and about.tp
    for phase in ("gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 8 }", "gpus = 4..7, tp = 4"):
        found = written(engine, phase=phase)
        text = found.get("yaml", found["sh"])
        assert about.label in text and "# tp there: " in text
        used = [word.split("=")[0] for word in words(found["sh"]) if word.startswith("--")]
        assert set(used) <= known
        if "yaml" in found:
            assert {line.split(":")[0] for line in text.splitlines() if line[0] != "#"} <= known
        assert ("CUDA_VISIBLE_DEVICES=4,5,6,7" in found["sh"]) == ("4..7" in phase)


def test_nodes_are_told_apart(tmp_path: Path) -> None:
    """The scripts are the shell's: run with a stand-in for the engine."""
    phase = "gpus = 8..23\nattention { dp = 16 }\nexperts { ep = 16 }"
    for engine, program in (("vllm", "vllm"), ("sglang", "python3"), ("megatron", "torchrun")):
        text = written(engine, phase=phase, model=DENSE.replace("count = 8", "count = 16"))["sh"]
        script = tmp_path / f"{engine}.sh"
        script.write_text(text)
        fake = tmp_path / program
        fake.write_text('#!/bin/sh\necho "$@"\n')
        fake.chmod(0o755)
        said = []
        for node in ("0", "1"):
            env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "NODE": node, "HEAD": "10.0.0.1", "SCRIPT": "serve.py"}
            done = subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True, check=True)
            said.append(done.stdout)
        assert all("10.0.0.1" in s for s in said) and said[0] != said[1]
        if engine == "vllm":
            # A start rank on a node with a front end would ask for one on every node.
            assert all(f"--nnodes 2 --node-rank {k}" in s and "start-rank" not in s for k, s in enumerate(said))
            assert "--headless" in said[1] and "--headless" not in said[0]


def test_examples() -> None:
    deepseek = export(compiled("deepseek_v3_h800"), "vllm", None, "d")
    assert set(deepseek) == {"d.prefill.vllm.sh", "d.decode.vllm.sh", "d.router.vllm.sh"}
    found = options(deepseek["d.decode.vllm.sh"].decode())
    assert found["--data-parallel-size"] == "144" and json.loads(found["--eplb-config"]) == {
        "num_redundant_experts": 32
    }
    assert "--kv-transfer-config" in found
    with pytest.raises(SpecError, match="share GPUs, and one server has one strategy"):
        export(compiled("mixtral_8xh100"), "vllm", None, "m")
    both = export(compiled("plan_b"), "megatron", None, "b")
    assert list(both) == ["b.prefill+decode.megatron.sh"]


def test_command(tmp_path: Path, capsys: Capture) -> None:
    spec = str(ROOT / "examples" / "mixtral_8xh100.moe")
    assert main(["export", spec, "--to", "vllm", "--phase", "prefill", "--model", "mistralai/Mixtral-8x7B-v0.1"]) == 0
    out = capsys.readouterr().out
    assert "vllm serve mistralai/Mixtral-8x7B-v0.1" in out and "--tensor-parallel-size 8" in out
    assert main(["export", spec, "--to", "vllm"]) == 2
    assert "error[E05]" in capsys.readouterr().err
    assert main(["export", spec, "--to", "triton"]) == 2
    where = str(tmp_path / "out")
    arguments = ["export", spec, "--to", "trtllm", "--phase", "prefill", "-o", where]
    assert main(arguments) == 0 and main(arguments) == 2 and main([*arguments, "--force"]) == 0
    assert {p.name for p in Path(where).iterdir()} == {
        "mixtral_8xh100.prefill.trtllm.yaml", "mixtral_8xh100.prefill.trtllm.sh"
    }  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["$(touch PWNED)", "`touch PWNED`", 'a"b; touch PWNED', "a b", "$HOME"])
def test_a_model_name_stays_a_word(engine: str, name: str, tmp_path: Path) -> None:
    """The script is run with a server that writes its arguments down: the name arrives as it is, nothing else runs."""
    plan = compiled_text(spec_text(kind="decode", dtype="bf16", phase="gpus = 0..7, tp = 8"))
    files = export(plan, engine, name, "p")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for server in ("vllm", "python3", "trtllm-serve", "torchrun"):
        (bin_ / server).write_text('#!/bin/sh\nfor a; do printf "%s\\n" "$a"; done > said\n')
        (bin_ / server).chmod(0o755)
    script = next(data for key, data in files.items() if key.endswith(".sh"))
    (tmp_path / "run.sh").write_bytes(script)
    env = {"PATH": f"{bin_}:/usr/bin:/bin", "SCRIPT": "serve.py"}
    done = subprocess.run(["bash", "run.sh"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "PWNED").exists()
    if engine != "megatron":
        assert name in (tmp_path / "said").read_text().splitlines()


STRATEGY = {
    "degrees and numbering": (
        "pp",
        "dp",
        "ep",
        "sp",
        "tp",
        "attention",
        "experts",
        "order",
        "place",
        "best",
        "ids",
        "layers_per_stage",
        "balanced",
        "apart",
    ),
    "flags and rules of an engine": (
        "sequence_parallel",
        "sp_method",
        "sp_layout",
        "dcp",
        "redundant",
        "dispatch",
        "overlap",
    ),
    "common_rules": ("replicas", "microbatches", "shard", "passes"),
    "left_open": ("expert_placement", "rebalance"),
}
PHASE = {
    "identity": ("name", "kind", "hardware", "precision", "gpus", "strategy", "constants", "span", "spans"),
    "flags of an engine": ("context", "tokens", "chunk", "sequences"),
    "what the engine sees in its traffic": ("routing",),
    "common_rules": ("experts", "cache", "attention_kernel"),
    "left_open": (
        "acceptance",
        "drafter",
        "tree",
        "chances",
        "draft_model",
        "draft_name",
        "lengths",
        "exits",
        "by_work",
        "cuts",
        "chunks_overlap",
        "training",
        "parts",
        "passes",
        "last",
        "dispatch_dtype",
        "exchange",
        "quantise",
        "fuse",
        "expert_activations",
        "engine",
        "host_s",
        "launches",
        "cuda_graph",
        "window_cache",
        "kv_block",
        "memory",
    ),
}
"""Who answers for each field of a strategy and a phase in an export."""


def test_nothing_of_a_plan_is_dropped_unsaid() -> None:
    """A new field of a plan has to be answered for by somebody; what they do is tested above and below."""
    from dataclasses import fields

    from dagc.spec.phase import Phase
    from dagc.spec.strategy import Strategy

    for record, answered in ((Strategy, STRATEGY), (Phase, PHASE)):
        names = [name for group in answered.values() for name in group]
        assert sorted(names) == sorted(f.name for f in fields(record))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_no_flag_is_refused_or_said(engine: str) -> None:
    assert "draft = 3: speculative decoding" in refused(engine, phase="gpus = 0..7, tp = 8, draft = 3")
    model = "layers = 4, hidden = 64, vocab = 512, dtype = bf16\nattention { heads = 8, kv_heads = 4, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32, capacity = 1.25 }"
    assert "capacity = 1.25 drops tokens" in refused(engine, phase="gpus = 0..7, tp = 8", model=model)
    asked = "cuda_graph = false, host = 3 ms, dispatch_dtype = fp8, quantise = separate, expert_activations = mxfp8, window_cache = whole, kv_block = 64 tok"
    made = "".join(written(engine, phase=f"gpus = 0..7, tp = 8, {asked}").values())
    graphs = {"vllm": "--enforce-eager", "sglang": "--disable-cuda-graph", "trtllm": "cuda_graph_config: null"}
    assert graphs.get(engine, "# not fixed by flags: cuda_graph = false") in made
    for words in (
        "host = 3 ms",
        "dispatch_dtype = fp8",
        "quantise = separate",
        "expert_activations = mxfp8",
        "window_cache = whole",
        "kv_block = 64 tok",
    ):
        assert f"# not fixed by flags: {words}" in made
    prompts = written(engine, "prefill", phase="gpus = 0..7, tp = 8, prefix = 64 tok, chunk = 64 tok")
    chunked = {"vllm": "--long-prefill-token-threshold 64", "sglang": "--chunked-prefill-size 4096"}
    assert "prefix = 64 tok" in "".join(prompts.values())
    assert chunked.get(engine, "chunk = 64 tok") in "".join(prompts.values())


def test_one_phase_of_two_servers_still_talks_to_the_other() -> None:
    spec = ROOT / "examples" / "deepseek_v3_h800.moe"
    both = export(compiled("deepseek_v3_h800"), "sglang", "org/model", "p")
    (one,) = export(dagc.compile(spec, phases=["prefill"]), "sglang", "org/model", "p").values()
    assert one == next(data for name, data in both.items() if "prefill" in name)
    assert b"--disaggregation-mode prefill" in one.replace(b" \\\n", b"")


def test_a_model_that_looks_like_a_flag_is_refused(capsys: Capture) -> None:
    """Before the spec is read, and for whoever exports from Python."""
    for none in ("--trust-remote-code", "", " "):
        assert main(["export", "no_such.moe", "--to", "vllm", f"--model={none}"]) == 2
        assert "is not a name or path of a checkpoint" in capsys.readouterr().err
        with pytest.raises(SpecError, match="is not a name or path of a checkpoint"):
            export(compiled("deepseek_v3_h800"), "vllm", none, "p")


def test_a_name_that_reads_otherwise_than_it_is_is_refused() -> None:
    """No script contains characters that change the writing direction or move the cursor."""
    text = spec_text(kind="decode", dtype="bf16", phase="gpus = 0..7, tp = 8")
    with pytest.raises(SpecError, match="control character"):
        dagc.compile_text(text.replace("model small", 'model "a\u202eb"'))
    with pytest.raises(SpecError, match="is not a name or path of a checkpoint"):
        export(compiled_text(text), "vllm", "a\u202eb", "p")
    assert export(compiled_text(text), "vllm", "org/model", "p")


def test_the_table_of_the_docs() -> None:
    """Each cell is `yes` where the engine takes the example, and words of its refusal elsewhere."""
    text = (ROOT / "docs" / "runtimes.md").read_text()
    rows = re.findall(r"^\| `(\w+)\.moe(?: --phase (\w+))?` \|(.*)\|$", text, re.MULTILINE)
    assert len(rows) == 6
    for name, phase, cells in rows:
        plan = dagc.compile(ROOT / "examples" / f"{name}.moe", phases=[phase]) if phase else compiled(name)
        for engine, cell in zip(ENGINES, cells.split("|"), strict=True):
            try:
                export(plan, engine, "M", "p")
                assert cell.strip() == "yes", (name, phase, engine)
            except SpecError as error:
                said = " ".join(line for d in error.diagnostics for line in d.because)
                assert all(words.strip() in said for words in cell.split(";")), (name, engine, said)


def test_what_differs_between_phases_of_one_server_is_said() -> None:
    both = (
        "gpus = 0..7, overlap = two_batch\nattention { dp = 8 }\nexperts { ep = 8 }\n}\n"
        "phase decode { gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 8 }"
    )
    assert "overlap two_batch" in refused("vllm", "prefill", phase=both)


@pytest.mark.parametrize("engine", ("vllm", "sglang", "trtllm"))
def test_experts_on_the_ranks_of_one_attention_ask_for_allgather(engine: str) -> None:
    """The commonest plan exchanges tokens that every rank already has: the help names the way out, which is then taken."""
    phase = "gpus = 0..7\nattention { tp = 8 }\nexperts { ep = 8 }"
    model = "layers = 4, hidden = 4096, vocab = 512, dtype = bf16\nattention { heads = 8, kv_heads = 8, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
    with pytest.raises(SpecError) as error:
        written(engine, "prefill", phase=phase, model=model)
    assert any("dispatch = allgather" in line for d in error.value.diagnostics for line in d.help)
    assert written(engine, "prefill", phase=f"{phase}\ndispatch = allgather", model=model)


def test_two_batches_need_a_token_each() -> None:
    text = written("vllm", phase="gpus = 0..7, overlap = two_batch\nattention { dp = 8 }\nexperts { ep = 8 }")["sh"]
    assert re.findall(r"--dbo-\w+-token-threshold (\d+)", text) == ["2", "2"]


def test_megatron_with_tp_has_one_connection() -> None:
    assert "export CUDA_DEVICE_MAX_CONNECTIONS=1" in written("megatron", phase="gpus = 0..7, tp = 8")["sh"]
    assert "CUDA_DEVICE" not in written("megatron", phase="gpus = 0..7, pp = 4, ep = 2")["sh"]


def test_a_decode_that_shares_its_server_has_kernels_for_both() -> None:
    """One phase is exported, but the server runs the other too."""
    both = (
        "gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 8 }\n}\n"
        "phase decode { gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 8 }"
    )
    plan = dagc.compile_text(spec_text(kind="prefill", phase=both, dtype="bf16"), phases=["decode"])
    made = {
        engine: "".join(v.decode() for v in export(plan, engine, "org/m", "p").values())
        for engine in ("vllm", "sglang")
    }
    assert "--deepep-mode auto" in made["sglang"] and "low_latency" not in made["vllm"]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_a_mixed_step_is_one_server(engine: str) -> None:
    """With as many sequences as are in decode, and the tokens of a step as its budget."""
    phase = "gpus = 0..7, tp = 8, decode = 24, prompts = [100 tok, 56 tok]"
    made = "".join(written(engine, "mixed", phase=phase).values())
    budget = {"vllm": "--max-num-batched-tokens 180", "trtllm": "max_num_tokens: 180"}
    assert budget.get(engine, "--max-running-requests 24") in made and "disaggregation" not in made
    assert "# not fixed by flags: which prompts and sequences in decode share a step" in made


@pytest.mark.parametrize(
    ("engine", "name", "flag"),
    [
        ("vllm", "deepep_ht", "--all2all-backend deepep_high_throughput"),
        ("vllm", "deepep_ll", "--all2all-backend deepep_low_latency"),
        ("sglang", "deepep_ht", "--deepep-mode normal"),
        ("sglang", "deepep_ll", "--deepep-mode low_latency"),
        ("vllm", "nvlink_two_sided", "# not fixed by flags: exchange = nvlink_two_sided"),
        ("trtllm", "deepep_ll", "# not fixed by flags: exchange = deepep_ll"),
    ],
)
def test_a_named_exchange_is_a_flag_or_said(engine: str, name: str, flag: str) -> None:
    for kind in ("prefill", "decode"):
        made = "".join(
            written(
                engine, kind, phase=f"gpus = 0..7, attention {{ dp = 8 }}, experts {{ ep = 8 }}, exchange = {name}"
            ).values()
        )
        assert flag in " ".join(made.replace("\\", " ").split())
