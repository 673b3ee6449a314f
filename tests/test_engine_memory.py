"""What engines fill of a GPU and keep in addition to weights and cache: counted by hand from each engine's own rule."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from conftest import spec_text, whole

import dagc
from dagc.api import Plan
from dagc.cost.footprint import Memory, StageMemory
from dagc.cost.memory import capacity
from dagc.export.engines.launch import export
from dagc.lang.printer.print_spec import print_spec
from dagc.spec.phase import EngineMemory

MIB, GIB = 2**20, 2**30
MODEL = """layers = 4, hidden = 512, vocab = 32000, dtype = bf16
attention { heads = 8, kv_heads = 4, head_dim = 64 }
experts { count = 8, top_k = 2, hidden = 1024 }"""


def plan(
    phase: str, *, kind: str = "decode", gpus: str = "gpus = [0]", hardware: str = "h100-sxm", card: str = ""
) -> Plan:
    text = spec_text(kind=kind, model=MODEL, phase=f"{gpus}\n{phase}")
    rest = text[text.index("model small") :]
    return dagc.compile_text(f'moe 1\nhardware from "{hardware}" {{ gpus = 8{card} }}\n{rest}')


def memory(phase: str, **options: str) -> Memory:
    found = plan(phase, **options)
    return next(iter(found.phases.values())).memory


H100 = 81_559 * MIB


def test_without_an_engine_nothing_is_set_aside() -> None:
    found = memory("")
    assert found.capacity_B == found.total_B == H100
    assert found.worst.engine_B == 0


def test_vllm_fills_a_share_of_the_card_with_all_it_holds() -> None:
    found, plain = memory("engine = vllm"), memory("")
    assert found.capacity_B == pytest.approx(0.92 * H100)
    assert found.worst.engine_B == 1.3 * GIB
    assert found.worst.weights_B == plain.worst.weights_B
    assert found.worst.activations_B == 1024 * 32000 * 10, "scores of 1,024 sequences are more than 8,192 tokens here"


def test_sglang_leaves_what_it_reserves_to_everything_but_weights_and_cache() -> None:
    """Of 80 GB: 512 MiB, 1.5 MiB a token of a chunk, 2 MiB a sequence of the largest graph, 128 MiB a rank."""
    found = memory("engine = sglang")
    reserved_B = (512 + 1.5 * 8192 + 2 * 256 + 128) * MIB
    outside_B = found.worst.peak_B - found.worst.weights_B - found.worst.kv_cache_B
    assert found.capacity_B - outside_B == pytest.approx(H100 - reserved_B, rel=1e-3)


def test_trtllm_gives_the_cache_a_share_of_what_is_left() -> None:
    found = memory("engine = trtllm")
    rest_B = found.worst.peak_B - found.worst.kv_cache_B
    assert found.capacity_B - rest_B == pytest.approx(0.9 * (H100 - rest_B))


@pytest.mark.parametrize("of", ["all", "static", "free"])
@pytest.mark.parametrize("cache", [10.0, 300.0, 600.0])
def test_a_plan_fits_by_the_rule_of_its_engine(of: str, cache: float) -> None:
    """The one bound on the sum says the same as each engine's rule about its parts."""
    need = StageMemory(0, 200.0, cache, 50.0, 10.0, 20.0, 0.0, 40.0)
    engine = EngineMemory(fraction=0.7, of=of)
    rest = need.peak_B - cache
    rule = {
        "all": need.peak_B <= 0.7 * 1000,
        "static": 200 + cache <= 0.7 * 1000 and need.peak_B <= 1000,
        "free": cache <= 0.7 * (1000 - rest),
    }[of]
    assert Memory((replace(need, capacity_B=capacity(need, 1000.0, engine)),), 1000.0).fits == rule


def test_room_is_kept_for_the_batch_that_an_engine_profiles() -> None:
    """Eight times the tokens of a prompt's pass take eight times its activations; fewer take no less."""
    parts = "memory { tokens = %d tok, sequences = 0, graphs = 0 B, communication = 0 B, padding = 0 B }"
    own = 64 * 256
    once = memory(parts % own, kind="prefill").worst
    assert once.activations_B == memory("", kind="prefill").worst.activations_B
    assert memory(parts % 1, kind="prefill").worst.activations_B == once.activations_B
    assert memory(parts % (8 * own), kind="prefill").worst.activations_B == pytest.approx(
        8 * once.activations_B, rel=0.01
    )
    split = memory(parts % own, kind="prefill", gpus="gpus = 0..3, dp = 4").worst
    assert split.activations_B == pytest.approx(once.activations_B, rel=0.05), "each rank takes such a batch"


@pytest.mark.parametrize(("ranks", "communication"), [(1, 0), (2, 342 * MIB), (4, 392 * MIB), (8, 392 * MIB)])
def test_buffers_of_communication_follow_the_group(ranks: int, communication: int) -> None:
    found = memory(
        "engine = vllm", gpus=f"gpus = 0..{ranks - 1}, tp = {ranks}" if ranks < 8 else "gpus = 0..7, pp = 2, tp = 4"
    )
    assert found.worst.engine_B == 1.3 * GIB + communication


def test_each_part_can_be_replaced() -> None:
    said = "engine = vllm, memory_fraction = 80%, memory { graphs = 1 GB, communication = 2 GB, padding = 3 GB, tokens = 1 tok, sequences = 0 }"
    found = memory(said)
    assert found.capacity_B == pytest.approx(0.8 * H100)
    assert found.worst.engine_B == 6e9
    assert found.worst.activations_B == memory("").worst.activations_B
    assert memory("engine = vllm, cuda_graph = false").worst.engine_B == 0
    assert memory("memory_fraction = 50%").capacity_B == pytest.approx(0.5 * H100)
    assert memory("memory { graphs = 4 GB }").worst.engine_B == 4e9


def test_kernels_fill_the_widths_of_mxfp4_experts() -> None:
    """gpt-oss-120b on one card: vLLM's log says 66 GiB after loading (Marlin), of 61 GiB in the checkpoint."""
    text = 'moe 1\nhardware from "h200-sxm" { gpus = 1 }\nmodel from "gpt-oss-120b" { }\nworkload { sequences = 8, prompt = 64 tok }\n'
    found = dagc.compile_text(text + "phase decode { gpus = [0], engine = vllm }").phases["decode"].memory.worst
    padded = 36 * 128 * 3 * (ceil(2880 / 256) * 256) * (ceil(2880 / 128) * 128) * 0.53125
    exact = 36 * 128 * 3 * 2880 * 2880 * 0.53125
    assert found.engine_B == pytest.approx(1.3 * GIB + padded - exact)
    assert (found.weights_B + padded - exact) / GIB == pytest.approx(66, abs=0.5)


def test_a_plan_that_may_not_start_is_said_to_be_nearly_full() -> None:
    text = (
        'moe 1\nhardware from "h100-sxm" { gpus = 1, memory = 79.1 GiB }\nmodel from "gpt-oss-120b" { }\n'
        "workload { sequences = 8, prompt = 1024 tok, output = 64 tok }\nphase decode { gpus = [0], engine = vllm%s }"
    )
    (found,) = [d for d in dagc.compile_text(text % "").diagnostics if d.code == "W06"]
    assert found.message.startswith("memory of phase `decode` is nearly full")
    assert "memory_fraction = 92.0% of 84.93 GB for everything it stores" in found.because
    (worse,) = [d for d in dagc.compile_text(text % ", memory_fraction = 88%").diagnostics if d.code == "E04"]
    assert "memory_fraction = 88.0%" in worse.because[1]


@pytest.mark.parametrize(
    "phase", ["engine = vllm", "engine = sglang, memory_fraction = 70%", "memory { tokens = 9 tok }", ""]
)
def test_a_printed_plan_keeps_what_engines_take(phase: str) -> None:
    found = plan(phase)
    again = dagc.compile_text(print_spec(found.spec))
    assert again.spec.phases[0].memory == found.spec.phases[0].memory
    assert again.phases["decode"].memory == found.phases["decode"].memory


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("memory_fraction = 0", "E09"),
        ("memory_fraction = 120%", "E09"),
        ("memory_fraction = 90", "E09"),
        ("memory { graphs = 3 }", "E08"),
        ("memory { grafs = 3 GB }", "E02"),
        ("memory { padding = -1 GB }", "E09"),
    ],
)
def test_what_is_wrong_with_an_engines_part(text: str, code: str) -> None:
    with pytest.raises(dagc.SpecError) as caught:
        plan(text)
    assert [d.code for d in caught.value.diagnostics] == [code]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("vllm", "--gpu-memory-utilization 0.8"),
        ("sglang", "--mem-fraction-static 0.8"),
        ("trtllm", '"free_gpu_memory_fraction": 0.8'),
    ],
)
def test_a_stated_share_is_a_flag_of_its_engine(engine: str, words: str) -> None:
    def files(phase: str) -> str:
        return "\n".join(f.decode() for f in export(plan(phase), engine, "m", "p").values()).replace(" \\\n ", "")

    assert words in files(f"engine = {engine}, memory_fraction = 80%")
    own = {
        "vllm": "--gpu-memory-utilization 0.92",
        "sglang": "--mem-fraction-static 0.835",
        "trtllm": '"free_gpu_memory_fraction": 0.9',
    }
    assert own[engine] in files(f"engine = {engine}"), "its own share holds the plan"
    other = "sglang" if engine != "sglang" else "vllm"
    text = files(f"engine = {other}, memory_fraction = 80%")
    assert f"{words} " not in text and "memory_fraction = 0.8 counts differently" in text


@pytest.mark.parametrize(("card_GiB", "tokens"), [(24, 2048), (48, 4096), (80, 8192), (141, 8192), (180, 16384)])
def test_sglangs_share_follows_the_card(card_GiB: int, tokens: int) -> None:
    """Small cards leave less than a tenth to everything but weights and cache, large ones at least 10 GiB."""
    found = plan("engine = sglang", hardware="h100-sxm", card=f", memory = {card_GiB} GiB").spec.phases[0].memory
    assert found.tokens == tokens
    reserved_GiB = (1 - found.fraction) * card_GiB
    assert (
        reserved_GiB == pytest.approx(max(10, 1.5 * tokens / 1024 + 1.2), rel=0.1)
        if card_GiB >= 60
        else reserved_GiB < 8
    )


@pytest.mark.parametrize(("dtype", "copies"), [("fp8_block", 1), ("bf16", 0)])
@pytest.mark.parametrize(("engine", "holds"), [("vllm", 1), ("sglang", 1), ("trtllm", 0)])
def test_absorbed_projections_are_held_in_16_bits_besides(dtype: str, copies: int, engine: str, holds: int) -> None:
    """Keys and values of 128 heads of 128 from a latent of 512, in each of 61 layers, on every data-parallel rank."""
    text = (
        'moe 1\nhardware from "b200-sxm" { gpus = 8 }\n'
        f'model from "deepseek-v3" {{ weight_dtype = {dtype} }}\nworkload {{ sequences = 8, prompt = 64 tok, output = 8 tok }}\n'
        f"phase decode {{ gpus = 0..7, attention {{ dp = 8 }}, experts {{ ep = 8 }}, engine = {engine} }}\n"
    )
    found = whole(text).phases["decode"].memory.worst
    beside = 1.3 * GIB + 392 * MIB
    assert found.engine_B == pytest.approx(beside + copies * holds * 61 * 512 * 128 * (128 + 128) * 2)
