"""What each engine is told of a plan, value by value, and that what is told holds together: data files, ports, replicas, the router."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT, spec_text

import dagc
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.engines.facts import _read, facts, order
from dagc.export.engines import ENGINES
from dagc.export.engines.exportable import CHANGES
from dagc.export.engines.launch import export

SERVING = ("vllm", "sglang", "trtllm")
SIDES = "attention { dp = 8 }\nexperts { ep = 8 }"
Capture = pytest.CaptureFixture[str]


def files(engine: str, phases: str, version: str | None = None, head: str = "", **given: str) -> dict[str, str]:
    """`phases`: bodies of phases by name, `NAME: BODY | NAME: BODY`."""
    bodies = dict(part.strip().split(": ", 1) for part in phases.split("|"))
    first, *rest = bodies.items()
    extra = "\n".join(f"phase {name} {{\n{body}\n}}" for name, body in rest) + head
    text = spec_text(kind=first[0], phase=first[1], extra=extra, dtype="bf16", **given)
    return {k: v.decode() for k, v in export(compiled_text(text), engine, "org/model", "p", version).items()}


compiled_text = cache(dagc.compile_text)


def told(engine: str, phases: str, name: str = "", **given: str) -> dict[str, object]:
    """Options of one server, by name: of its command, its settings, and its environment."""
    made = files(engine, phases, **given)
    (script,) = [v for k, v in made.items() if k.endswith(".sh") and ".router." not in k and name in k]
    found: dict[str, object] = dict(re.findall(r"^export (\w+)=(.*)$", script, re.M))
    found |= {flag: value.strip("'\" \\") for flag, value in re.findall(r"(--[\w-]+)((?: [^-\s][^\n]*)?)", script)}
    for suffix in (k for k in made if k.endswith(".yaml") and name in k and ".router." not in k):
        lines = (line.split(": ", 1) for line in made[suffix].splitlines() if line[0] != "#")
        found |= {key: json.loads(value) for key, value in lines}
    return found


TWO = "prefill: gpus = 0..3, tp = 4, sequences = 8 | decode: gpus = 4..7, tp = 4"
SHARED = f"prefill: gpus = 0..7\n{SIDES} | decode: gpus = 0..7\n{SIDES}"


@pytest.mark.parametrize("engine", ENGINES)
def test_data_and_module_name_the_same_things(engine: str) -> None:
    module = import_module(f"dagc.export.engines.{engine}")
    raw = _read(engine)
    versions = [*raw["versions"]]
    for version in versions:
        known = facts(engine, version)
        assert known.version == version and not known.is_between
    values, checks = getattr(module, "VALUES", {}), getattr(module, "CHECKS", {})
    assert {o["value"] for o in raw["options"] if o.get("value")} <= set(values)
    unchecked = set(raw["rules"]) - set(checks) - {"order"}
    assert not checks or not unchecked
    assert {part for rule in raw["rules"].values() for part in rule.get("change", ())} <= set(CHANGES)
    for entry in raw["options"]:
        ranged = {entry.get("since"), entry.get("before")} - {None}
        assert all(order(min(versions, key=order)) < order(v) <= order(max(versions, key=order)) for v in ranged)
    if engine in SERVING:
        assert all(o["source"] for o in raw["options"])


def test_versions_sort_as_they_came() -> None:
    wanted = ["0.5.9", "0.5.21", "0.5.21.post1", "0.5.22", "1.3.0rc9", "1.3.0rc29", "1.3.0", "1.3.1"]
    assert sorted(reversed(wanted), key=order) == wanted and order("1.0") == order("1.0.0")


def test_a_version_has_its_own_words() -> None:
    old, between, new = (
        files("sglang", SHARED, v)["p.prefill+decode.sglang.sh"] for v in ("0.5.21", "0.5.22", "0.5.23")
    )
    assert "--dp-size 8" in old and "--enable-dp-attention" in old and "--attn-dp-size" not in old
    assert "--attn-dp-size 8" in new and "--enable-dp-attention" not in new and "SGLang 0.5.23" in new
    assert "SGLang 0.5.22 lies between versions" in between and "--attn-dp-size 8" in between


@pytest.mark.parametrize("version", ["0.1.0", "9.9", "new", "0.33.0; x", "\x1b[31m", "1" * 50])
def test_a_version_that_nobody_checked_is_refused(version: str, capsys: Capture) -> None:
    spec = str(ROOT / "examples" / "mixtral_8xh100.moe")
    assert main(["export", spec, "--to", "vllm", "--engine-version", version]) == 2
    said = capsys.readouterr().err
    assert "error[E05]" in said and "0.31.0 (pinned by ai-dynamo" in said and "\x1b" not in said


# -- steps, sequences and memory -------------------------------------------------------------------


def test_a_server_for_prompts_takes_the_plans_pass() -> None:
    """8 prompts of 256 tokens on 4 ranks of one attention."""
    assert told("vllm", TWO, "prefill")["--max-num-batched-tokens"] == "2048"
    assert told("trtllm", TWO, "prefill")["max_num_tokens"] == 2048
    found = told("sglang", TWO, "prefill")
    assert found["--chunked-prefill-size"] == found["--max-prefill-tokens"] == "2048"
    assert found["--max-running-requests"] == "8" and told("vllm", TWO, "prefill")["--max-num-seqs"] == "8"


def test_sglang_is_told_the_tokens_of_all_its_ranks() -> None:
    """It divides them by the data-parallel ranks: 8 of 8 prompts of 256 tokens each."""
    found = told("sglang", f"prefill: gpus = 0..7\n{SIDES} | decode: gpus = 8..15\n{SIDES}", "prefill")
    assert found["--chunked-prefill-size"] == "16384" and found["--max-prefill-tokens"] == "2048"


@pytest.mark.parametrize(("prompt", "chunk", "tokens"), [(256, 0, 4096), (20_000, 0, 20_000), (20_000, 2048, 2048)])
def test_a_server_that_decodes_beside_takes_no_whole_batch(prompt: int, chunk: int, tokens: int) -> None:
    """A chunk, or a prompt, or what the engine does by itself; 64 sequences of 8 ranks' share at most."""
    own = f", chunk = {chunk} tok" if chunk else ""
    phases = f"prefill: gpus = 0..7, tp = 8{own} | decode: gpus = 0..7, tp = 8"
    work = f"sequences = 16, prompt = {prompt} tok, output = 16 tok"
    found = told("vllm", phases, workload=work)
    assert int(str(found["--max-num-batched-tokens"])) == (2048 if prompt == 256 else tokens)
    assert told("trtllm", phases, workload=work).get("enable_chunked_prefill") is (True if chunk else None)


def test_what_a_serving_says_is_told() -> None:
    said = (
        "\nserve s { prefill = prefill, decode = decode, arrivals = poisson(1 req/s), requests = 10, batch_tokens = 3000 tok, "
        "chunk = 1000 tok, slots = 48, prefix_cache = false }"
    )
    phases = "prefill: gpus = 0..7, tp = 8 | decode: gpus = 0..7, tp = 8"
    found = told("vllm", phases, head=said)
    assert (found["--max-num-batched-tokens"], found["--max-num-seqs"]) == ("3000", "48")
    assert found["--long-prefill-token-threshold"] == "1000" and "--no-enable-prefix-caching" in found
    assert "--disable-radix-cache" in told("sglang", phases, head=said)
    assert told("trtllm", phases, head=said)["kv_cache_config"]["enable_block_reuse"] is False  # type: ignore[index]


def test_graphs_reach_the_largest_step_of_decode() -> None:
    phases = f"prefill: gpus = 0..7\n{SIDES} | decode: gpus = 8..15\n{SIDES}"
    assert told("vllm", phases, "decode")["--max-cudagraph-capture-size"] == "8"
    assert told("sglang", phases, "decode")["--cuda-graph-max-bs-decode"] == "8"
    assert told("trtllm", phases, "decode")["cuda_graph_config"] == {"max_batch_size": 8, "enable_padding": True}
    assert not {"--max-cudagraph-capture-size", "cuda_graph_config"} & set(told("vllm", phases, "prefill"))


@pytest.mark.parametrize(("sequences", "tokens"), [(64, "128"), (4096, "512")])
def test_buffers_of_the_exchange_hold_the_step(sequences: int, tokens: str) -> None:
    work = f"sequences = {sequences}, prompt = 64 tok, output = 16 tok"
    phases = f"prefill: gpus = 0..7, sequences = 8\n{SIDES} | decode: gpus = 8..15\n{SIDES}"
    found = told("sglang", phases, "decode", workload=work)
    assert found["SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK"] == tokens
    assert told("vllm", phases, "decode", workload=work)["--max-num-batched-tokens"] == str(sequences // 8)


@pytest.mark.parametrize("engine", ("vllm", "sglang"))
def test_an_exchange_has_room_for_1024_tokens(engine: str) -> None:
    text = f"prefill: gpus = 0..7, sequences = 8\n{SIDES} | decode: gpus = 8..15\n{SIDES}"
    with pytest.raises(SpecError) as error:
        files(engine, text, workload="sequences = 16384, prompt = 64 tok, output = 16 tok")
    assert "2,048 tokens of a rank in a step of decode" in error.value.diagnostics[0].because[0]


@pytest.mark.parametrize("engine", SERVING)
@pytest.mark.parametrize(("tokens", "moved"), [(64, False), (200_000, False), (450_000, True)])
def test_the_share_of_memory_holds_the_plan(engine: str, tokens: int, moved: bool) -> None:
    """Weights and cache have room in it, and what the plan counts besides has room next to it; where the engine's own does, it is that."""
    model = "layers = 32, hidden = 1024, vocab = 512, dtype = bf16\nattention { heads = 8, kv_heads = 1, head_dim = 128 }\nexperts { count = 8, top_k = 2, hidden = 1024 }"
    work = f"sequences = 64, prompt = {tokens} tok, output = 16 tok"
    plan = compiled_text(spec_text(kind="decode", phase=f"gpus = 0..7\n{SIDES}", model=model, workload=work))
    made = "".join(v.decode() for v in export(plan, engine, "m", "p").values())
    (share,) = (float(x) for x in re.findall(r"(?:utilization |fraction-static |memory_fraction\": )([\d.]+)", made))
    held, total = plan.phases["decode"].memory.worst, plan.phases["decode"].memory.total_B
    inside, beside = held.weights_B + held.kv_cache_B, held.activations_B + held.buffers_B + held.engine_B
    assert 0 < share <= 0.99 and held.peak_B < 0.99 * total
    if engine == "vllm":
        assert share * total >= inside + beside
    elif engine == "sglang":
        assert share * total >= inside and (1 - share) * total >= beside
    else:
        assert share * (total - held.weights_B - beside) >= held.kv_cache_B
    usual = {"vllm": 0.92, "sglang": share if not moved else 0, "trtllm": 0.9}[engine]
    assert (share != usual) == moved


# -- servers that find each other ------------------------------------------------------------------


@pytest.mark.parametrize("engine", SERVING)
def test_two_servers_on_a_host_have_ports_of_their_own(engine: str) -> None:
    ports = [told(engine, TWO, name)["--port"] for name in ("prefill", "decode")]
    assert len(set(ports)) == 2
    if engine == "vllm":
        sides = [told(engine, TWO, name) for name in ("prefill", "decode")]
        assert len({side["VLLM_NIXL_SIDE_CHANNEL_PORT"] for side in sides}) == 2
        assert all("hostname -I" in str(side["VLLM_NIXL_SIDE_CHANNEL_HOST"]) for side in sides)
    if engine == "trtllm":
        assert told(engine, TWO, "prefill")["disable_overlap_scheduler"] is True
        assert "disable_overlap_scheduler" not in told(engine, TWO, "decode")
        assert told(engine, TWO, "decode")["cache_transceiver_config"] == {
            "backend": "DEFAULT",
            "max_tokens_in_buffer": 256,
        }


def test_two_servers_that_share_hosts_meet_on_no_port() -> None:
    """Data parallel ranks of several nodes find each other at a port of the first one, which has a default."""
    sides = "attention { dp = 8 }\nexperts { ep = 8 }"
    both = f"prefill: gpus = [0..3, 8..11], sequences = 8\n{sides} | decode: gpus = [4..7, 12..15]\n{sides}"
    first, second = (told("vllm", both, name) for name in ("prefill", "decode"))
    assert "--data-parallel-rpc-port" not in first and str(second["--data-parallel-rpc-port"]).startswith("29950 ")
    assert first["--master-port"] != second["--master-port"]


def run(text: str, program: str, where: Path, **env: str) -> list[str]:
    """What the program of a script is given, and the variables it sees."""
    where.mkdir(exist_ok=True)
    fake = where / program
    fake.write_text('#!/bin/sh\necho "gpus $CUDA_VISIBLE_DEVICES side $VLLM_NIXL_SIDE_CHANNEL_PORT $@"\n')
    fake.chmod(0o755)
    (where / "run.sh").write_text(text)
    seen = {"PATH": f"{where}:/usr/bin:/bin", "ADDRESS": "10.0.0.9", **env}
    done = subprocess.run(["bash", "run.sh"], cwd=where, env=seen, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_replicas_are_launches_of_one_script(tmp_path: Path) -> None:
    """Two prefill servers of four GPUs each on one host, and a decode server."""
    made = files("vllm", "prefill: gpus = 0..7, replicas = 2, tp = 4, sequences = 8 | decode: gpus = 8..15, tp = 8")
    script = made["p.prefill.vllm.sh"]
    assert "--max-num-seqs 4" in script and "2 replicas, each" in script
    seen = [run(script, "vllm", tmp_path, REPLICA=str(k)) for k in (0, 1)]
    assert [s[1] for s in seen] == ["0,1,2,3", "4,5,6,7"] and [s[3] for s in seen] == ["5600", "5604"]
    assert [s[s.index("--port") + 1] for s in seen] == ["8000", "8004"]
    with pytest.raises(subprocess.CalledProcessError):
        run(script, "vllm", tmp_path, REPLICA="2")
    router = run(made["p.router.vllm.sh"], "vllm-router", tmp_path, PREFILL_0="a", PREFILL_1="b", DECODE="c")
    assert [router[k + 1] for k, w in enumerate(router) if w == "--prefill"] == ["http://a:8000", "http://b:8004"]
    assert router[router.index("--decode") + 1] == "http://c:8000"


def test_routers_of_the_others(tmp_path: Path) -> None:
    made = files("sglang", TWO)["p.router.sglang.sh"]
    seen = run(made, "python3", tmp_path / "s", PREFILL="a", DECODE="b")
    at = seen.index("--prefill")
    assert "--pd-disaggregation" in seen and seen[at + 1 : at + 3] == ["http://a:30000", "8998"]
    assert seen[seen.index("--decode") + 1] == "http://b:30040"
    made = files("trtllm", TWO)["p.router.trtllm.sh"]
    seen = run(made, "trtllm-serve", tmp_path / "t", PREFILL="a", DECODE="b")
    assert seen[seen.index("-c") + 1] == "run.yaml"
    text = (tmp_path / "t" / "run.yaml").read_text()
    assert 'context_servers:\n  num_instances: 1\n  urls: ["a:8000"]' in text and '["b:8004"]' in text


def test_replicas_of_one_server_are_balanced(tmp_path: Path) -> None:
    made = files("sglang", "decode: gpus = 0..7, replicas = 2, tp = 4")
    seen = run(made["p.router.sglang.sh"], "python3", tmp_path, DECODE_0="a", DECODE_1="b")
    at = seen.index("--worker-urls")
    assert seen[at + 1 : at + 3] == ["http://a:30000", "http://b:30040"] and "--pd-disaggregation" not in seen


def test_hosts_are_not_domains_of_links() -> None:
    """A tray of GB200 has four GPUs."""
    text = (
        'moe 1\nhardware from "gb200-nvl72" { gpus = 72 }\nmodel from "mixtral-8x7b" {}\n'
        "workload { sequences = 64, prompt = 64 tok, output = 8 tok }\nphase decode { gpus = 0..7, tp = 8 }\n"
    )
    made = export(dagc.compile_text(text), "vllm", "m", "p")["p.decode.vllm.sh"].decode()
    assert "--nnodes 2" in made and "NODE=1: GPU 4..7" in made and "CUDA_VISIBLE_DEVICES" not in made


# -- engines' own ways -----------------------------------------------------------------------------

DENSE = "layers = 4, hidden = 64, vocab = 512, dtype = bf16\nattention { heads = 8, kv_heads = 4, head_dim = 8 }\nmlp { hidden = 64 }"
UNEVEN = "decode: gpus = 0..7, pp = 2, tp = 4, layers_per_stage = [3, 1]"


def test_copies_of_a_dense_model_are_dp_in_sglang() -> None:
    found = told("sglang", "decode: gpus = 0..7, dp = 2, tp = 4", model=DENSE)
    assert (found["--tp-size"], found["--dp-size"]) == ("4", "2") and "--attn-dp-size" not in found
    assert found["--max-running-requests"] == "32", "each copy has its own"
    with pytest.raises(SpecError) as error:
        files("sglang", "decode: gpus = 0..15, dp = 2, tp = 8", model=DENSE)
    (fault,) = error.value.diagnostics
    assert "over 2 nodes" in fault.because[0] and "replicas = 2" in fault.help[-1]


def test_stages_of_unequal_layers() -> None:
    assert told("sglang", UNEVEN)["SGLANG_PP_LAYER_PARTITION"] == "3,1"
    assert told("vllm", UNEVEN)["VLLM_PP_LAYER_PARTITION"] == "3,1"
    assert told("trtllm", UNEVEN)["pp_partition"] == [3, 1]


def test_spare_experts_are_slots_in_trtllm() -> None:
    found = told("trtllm", f"decode: gpus = 0..7, redundant = 8\n{SIDES}")
    assert found["moe_config"] == {"backend": "WIDEEP", "load_balancer": {"num_slots": 16, "layer_updates_per_iter": 1}}


def test_dense_layers_that_sglang_cuts_otherwise_are_said() -> None:
    model = (
        DENSE.replace("layers = 4", "layers = 4, dense_first = 1")
        + "\nexperts { count = 8, top_k = 2, hidden = 32, shared = 1 }"
    )
    made = files("sglang", "decode: gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }", model=model)
    text = made["p.decode.sglang.sh"]
    assert "dense layers are cut over all 8 ranks there, and over tp 2 in the plan" in text
    assert "shared experts are whole on every rank with DeepEP" in text and "attn-tp" not in text


def test_models_whose_checkpoint_has_code_are_those_of_the_configs() -> None:
    folder = ROOT / "tests" / "data" / "hf_configs"
    configs = {p.stem for p in folder.glob("*.json") if '"auto_map"' in p.read_text()}
    for engine in SERVING:
        named = set(facts(engine).words["remote_code"])
        assert named == configs - {"deepseek-v3", "deepseek-r1"}, "engines and libraries know these two themselves"


@pytest.mark.parametrize("engine", SERVING)
def test_which_weights_a_plan_counts_is_said(engine: str) -> None:
    text = (
        'moe 1\nhardware from "b200-sxm" { gpus = 8 }\nmodel from "kimi-k2" { weight_dtype = nvfp4, kv_dtype = fp8 }\n'
        "workload { sequences = 8, prompt = 64 tok, output = 8 tok }\nphase decode { gpus = 0..7, tp = 8 }\n"
    )
    made = "".join(v.decode() for v in export(dagc.compile_text(text), engine, None, "p").values())
    assert "the plan counts nvfp4 weights" in made and re.search("trust[-_]remote[-_]code", made)


def test_trtllm_runs_on_no_gpu_of_amd() -> None:
    plan = dagc.compile_text(
        spec_text(kind="decode", phase="gpus = 0..7, tp = 8").replace("gpus = 64,", "gpus = 64, vendor = amd,")
    )
    with pytest.raises(SpecError) as error:
        export(plan, "trtllm", "m", "p")
    assert "GPUs of AMD" in error.value.diagnostics[0].because[0] and export(plan, "vllm", "m", "p")


@pytest.mark.parametrize("engine", SERVING)
def test_a_cache_in_nvfp4_is_of_whole_heads_on_gpus_that_compute_in_it(engine: str) -> None:
    def made(gpu: str, model: str) -> str:
        text = (
            f'moe 1\nhardware from "{gpu}" {{ gpus = 8 }}\nmodel from "{model}" {{ kv_dtype = nvfp4 }}\n'
            "workload { sequences = 8, prompt = 64 tok, output = 8 tok }\nphase decode { gpus = 0..7, tp = 8 }\n"
        )
        return "".join(v.decode() for v in export(compiled_text(text), engine, None, "p").values())

    assert re.search(r'(kv-cache-dtype |"dtype": ")nvfp4', made("b200-sxm", "mixtral-8x7b"))
    for gpu, model, why in (
        ("h200-sxm", "mixtral-8x7b", "on `h200_sxm`"),
        ("b200-sxm", "kimi-k2", "of latent attention"),
    ):
        with pytest.raises(SpecError) as error:
            made(gpu, model)
        assert f"a KV cache in nvfp4 {why}" in error.value.diagnostics[0].because[0]


def test_exchanges_use_links_between_hosts() -> None:
    """Of a rack whose hosts share one domain of NVLink; across racks they do not."""

    def made(gpus: str) -> str:
        text = (
            'moe 1\nhardware from "gb200-nvl72" { gpus = 144 }\nmodel from "qwen3-30b-a3b" {}\n'
            "workload { sequences = 64, prompt = 64 tok, output = 8 tok }\n"
            f"phase decode {{ gpus = {gpus}, attention {{ dp = 8 }}, experts {{ ep = 8 }} }}\n"
        )
        return "".join(v.decode() for v in export(compiled_text(text), "vllm", None, "p").values())

    assert "export VLLM_DEEPEP_LOW_LATENCY_USE_MNNVL=1" in made("0..7")
    assert "MNNVL" not in made("68..75")


def test_exchanges_on_gpus_of_amd() -> None:
    text = spec_text(kind="decode", phase=f"gpus = 0..7\n{SIDES}", dtype="bf16").replace(
        "gpus = 64,", "gpus = 64, vendor = amd,"
    )
    made = {
        e: "".join(v.decode() for v in export(compiled_text(text), e, None, "p").values()) for e in ("vllm", "sglang")
    }
    assert "--all2all-backend mori_low_latency" in made["vllm"] and "--moe-a2a-backend mori" in made["sglang"]
    assert "deepep" not in made["vllm"].lower() + made["sglang"].lower()


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "phase", "near"),
    [
        ("vllm", "gpus = 0..7\nattention { tp = 8 }\nexperts { ep = 8 }", "dispatch = allgather"),
        ("vllm", "gpus = 0..7\nattention { dp = 2, tp = 4 }\nexperts { ep = 4, tp = 2 }", "experts { ep = 8 }"),
        (
            "vllm",
            "gpus = 0..7, pp = 2\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }",
            "order = [dp, pp, ep, sp, tp]",
        ),
        ("trtllm", "gpus = 0..7\nattention { dp = 2, tp = 4 }\nexperts { ep = 8 }", "attention { dp = 8 }"),
        ("sglang", "gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 4, tp = 2 }", "experts { ep = 8 }"),
        ("trtllm", f"gpus = 0..7, overlap = two_batch\n{SIDES}", "overlap = none"),
    ],
)
def test_the_nearest_plan_exports(engine: str, phase: str, near: str) -> None:
    model = "layers = 4, hidden = 4096, vocab = 512, dtype = bf16\nattention { heads = 8, kv_heads = 8, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
    with pytest.raises(SpecError) as error:
        files(engine, f"prefill: {phase}", model=model)
    assert error.value.diagnostics[0].help[-1] == f"the nearest plan that exports: {near}"
    name = near.split()[0]
    changed = (
        re.sub(rf"{name} (=\s*\w+|{{.*?}})", near, phase)
        if re.search(rf"\b{name} [={{]", phase)
        else f"{phase}\n{near}"
    )
    assert changed != phase and files(engine, f"prefill: {changed}", model=model)


def test_a_refusal_names_the_engines_own_check() -> None:
    with pytest.raises(SpecError) as error:
        files("vllm", "decode: gpus = 0..7\nattention { tp = 8 }\nexperts { ep = 4, tp = 2 }")
    assert "(vllm/config/parallel.py: enable_expert_parallel)" in error.value.diagnostics[0].because[0]
    with pytest.raises(SpecError, match="is not written for vLLM"):
        files("vllm", "prefill: gpus = 0..7, sp = 2, tp = 4")


def test_one_refused_server_keeps_no_other_from_being_written(tmp_path: Path, capsys: Capture) -> None:
    extra = "phase decode {\ngpus = 8..15\nattention { tp = 8 }\nexperts { ep = 4, tp = 2 }\n}"
    spec = tmp_path / "two.moe"
    spec.write_text(spec_text(phase="gpus = 0..7, tp = 8", extra=extra, dtype="bf16"))
    where = tmp_path / "out"
    assert main(["export", str(spec), "--to", "vllm", "-o", str(where)]) == 2
    assert [p.name for p in where.iterdir()] == ["two.prefill.vllm.sh"]
    said = capsys.readouterr()
    assert "cannot express `decode`" in said.err and "two.prefill.vllm.sh" in said.out


@pytest.mark.parametrize("engine", SERVING)
def test_how_experts_are_placed_is_left_to_the_engine_and_said(engine: str) -> None:
    made = "".join(files(engine, f"decode: gpus = 0..7, expert_placement = linear\n{SIDES}").values())
    assert "not fixed by flags: expert_placement = linear: the engine places experts by its own rule" in made
