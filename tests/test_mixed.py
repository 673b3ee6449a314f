"""A mixed step: its parts, what they share, and that a step of one part is the phase of that part's kind."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import spec_text, whole
from tiers import spread

import dagc
from dagc.base.diagnostics import SpecError
from dagc.base.plain_data import DataError
from dagc.cli import main
from dagc.execute.inputs import History, Inputs
from dagc.execute.machine import RankMachine
from dagc.execute.prove import Recording, model_graph, prove_graph, prove_small, single, twin_inputs, twin_of_phase
from dagc.execute.values import Ints
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import plan_of

HEAD = """moe 1
hardware from "h100-sxm" { gpus = 8, memory = 400 GB }
model from "%s" { }
workload { sequences = 32, prompt = 1024 tok, output = 256 tok }
"""


def compiled(tmp_path: Path, *phases: str, model: str = "mixtral-8x7b") -> dagc.Plan:
    text = HEAD % model + "\n".join(phases) + "\n"
    (tmp_path / "spec.moe").write_text(text, encoding="utf-8")
    return whole(text)


@pytest.mark.parametrize("how", ["tp = 8", "dp = 8, pp = 1", "ep = 8", "pp = 2, tp = 4, microbatches = 2"])
@pytest.mark.parametrize(
    ("mixed", "alone"),
    [("decode = 32", "kind = decode"), ("prompt_tokens = 32768 tok", "kind = prefill")],
)
def test_a_step_of_one_part_is_that_phase(tmp_path: Path, how: str, mixed: str, alone: str) -> None:
    plan = compiled(
        tmp_path,
        f"phase a {{ kind = mixed, gpus = 0..7, {mixed}, {how} }}",
        f"phase b {{ gpus = 0..7, {alone}, {how} }}",
    )
    a, b = plan.phases["a"], plan.phases["b"]
    assert (a.time_s, a.floor_s, a.flops_per_token) == (b.time_s, b.floor_s, b.flops_per_token)
    assert a.memory == b.memory and a.collectives == b.collectives
    assert a.phase_kind.name == "mixed"


@pytest.mark.parametrize("model", ["mixtral-8x7b", "deepseek-v3", "gpt-oss-120b"])
def test_parts_share_products_and_experts(tmp_path: Path, model: str) -> None:
    """Tokens of both parts are one product; FLOPs are those of the two parts apart."""
    plan = compiled(
        tmp_path,
        "phase m { kind = mixed, gpus = 0..7, decode = 32, prompts = [1024 tok, 512 tok], ep = 1, tp = 8 }",
        "phase d { kind = mixed, gpus = 0..7, decode = 32, tp = 8 }",
        "phase p { kind = mixed, gpus = 0..7, prompts = [1024 tok], tp = 8 }",
        "phase q { kind = mixed, gpus = 0..7, prompts = [512 tok], tp = 8 }",
        model=model,
    )
    flops, tokens, time_s = {}, {"m": 32 + 1536, "d": 32, "p": 1024, "q": 512}, {}
    for name, result in plan.phases.items():
        flops[name], time_s[name] = result.flops_per_token * tokens[name], result.time_s
    assert flops["m"] == pytest.approx(flops["d"] + flops["p"] + flops["q"], rel=1e-9)
    assert max(time_s["d"], time_s["p"]) < time_s["m"] < time_s["d"] + time_s["p"] + time_s["q"]
    segment = plan.phases["m"].graph.body[-1]
    products = [op for op in segment.ops if op.kind == "contract" and op.scope == "experts"]
    assert len({op.name for op in products}) == 3 and segment.sizes["seq"] == 32 + 1536
    assert len([op for op in segment.ops if op.kind == "attend"]) == 3
    cache = {name: plan.phases[name].memory.worst.kv_cache_B for name in "mdpq"}
    assert cache["m"] == pytest.approx(cache["d"] + cache["p"] + cache["q"])
    assert plan.phases["m"].memory.worst.weights_B == plan.phases["d"].memory.worst.weights_B


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("decode = 0, prompt_tokens = 0 tok", "E03"),
        ("decode = 4, prompts = [8 tok], prompt_tokens = 9 tok", "E03"),
        ("decode = 4, prompts = [8 tok], prefixes = [1 tok, 2 tok]", "E03"),
        ("decode = 4, prompts = [0 tok]", "E09"),
        ("decode = 4, sequences = 4", "E12"),
        ("decode = 4, chunk = 4 tok", "E12"),
        ("prompts = [8 tok], draft = 1", "E12"),
        ("decode = 4, prompts = [8 tok], sp = 8", "E03"),
    ],
)
def test_bad_steps_are_refused(tmp_path: Path, said: str, code: str) -> None:
    how = "" if "sp = 8" in said else ", tp = 8"
    with pytest.raises(SpecError) as error:
        compiled(tmp_path, f"phase m {{ kind = mixed, gpus = 0..7, {said}{how} }}")
    assert [d.code for d in error.value.diagnostics if d.code.startswith("E")] == [code]


STEP = "decode = 16, draft = 1, prompts = [200 tok, 100 tok], prefixes = [0 tok, 300 tok]"


@pytest.mark.parametrize(
    "how",
    spread(["tp = 8", "dp = 2, ep = 4", "ep = 4, tp = 2", "pp = 2, tp = 2, ep = 2, microbatches = 2", "ep = 8, overlap = two_batch",
            "attention { dp = 4, tp = 2 }, experts { ep = 8 }"], lambda how: how not in ("tp = 8", "dp = 2, ep = 4")),
)  # fmt: skip
def test_the_lowering_of_a_step_is_proved(tmp_path: Path, how: str) -> None:
    plan = compiled(tmp_path, f"phase m {{ kind = mixed, gpus = 0..7, {STEP}, {how} }}")
    proof = prove_small(plan, "m")
    assert proof.verdict == "equal", (proof.why, proof.first)
    assert proof.collectives > 0


@pytest.mark.parametrize(
    "model",
    spread(
        ["deepseek-v3", "deepseek-v3.2", "gpt-oss-120b", "qwen3-next-80b-a3b"], {"deepseek-v3.2", "qwen3-next-80b-a3b"}
    ),
)
def test_steps_of_other_attentions_are_proved(tmp_path: Path, model: str) -> None:
    """Latent attention, which decode absorbs; chosen tokens; windows; states."""
    plan = compiled(tmp_path, f"phase m {{ kind = mixed, gpus = 0..7, {STEP}, ep = 4, tp = 2 }}", model=model)
    proof = prove_small(plan, "m")
    assert proof.verdict == "equal", (proof.why, proof.first)


def machine(text: str, phase: str, tokens: Ints, history: History) -> Recording:
    """A run of the model's own graph of a phase on one rank."""
    unit = dagc.compile_text(text).units[phase]
    recording = Recording(RankMachine(model_graph(unit), Inputs(tokens, unit.routing, history=history), single()))
    recording.machine.run()
    return recording


MODELS = {
    "grouped": "attention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 8 }",
    "latent": "attention { kind = mla, heads = 4, q_latent = 16, kv_latent = 16, nope_dim = 8, rope_dim = 4, v_dim = 8 }",
    "window": "attention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 8, window = 5 }",
}


@pytest.mark.parametrize("attention", MODELS)
def test_a_step_computes_what_its_parts_compute_alone(attention: str) -> None:
    """Logits of the sequences in decode, which find a cache, and of the last token of each prompt, to the rounding."""
    model = f"layers = 2, hidden = 32, vocab = 64, dtype = fp32\n{MODELS[attention]}\nexperts {{ count = 4, top_k = 2, hidden = 16 }}"
    mixed = "gpus = 0..0, decode = 3, context = 12 tok, prompts = [6 tok, 4 tok, 6 tok]"
    texts = {
        "mixed": spec_text(kind="mixed", phase=mixed, model=model),
        "decode": spec_text(kind="decode", phase="gpus = 0..0, sequences = 3, context = 12 tok", model=model),
        "six": spec_text(kind="prefill", phase="gpus = 0..0", workload="sequences = 2, prompt = 6 tok, output = 1 tok", model=model),
        "four": spec_text(kind="prefill", phase="gpus = 0..0", workload="sequences = 1, prompt = 4 tok, output = 1 tok", model=model),
    }  # fmt: skip
    rng = np.random.default_rng(5)
    ids = {name: rng.integers(0, 64, shape) for name, shape in (("decode", (3, 1)), ("six", (2, 6)), ("four", (1, 4)))}
    unit = dagc.compile_text(texts["decode"]).units["decode"]
    caches = {
        (layer, op.name): rng.standard_normal([int(segment.sizes[d]) - (d == "context") for d in op.dims])
        for segment, layer in model_graph(unit).layers
        for op in segment.ops
        if op.kind == "cache"
    }
    apart = [
        machine(texts["decode"], "decode", ids["decode"], caches),
        machine(texts["six"], "prefill", ids["six"], {}),
        machine(texts["four"], "prefill", ids["four"], {}),
    ]
    packed = np.concatenate([ids[name].ravel() for name in ("decode", "six", "four")])[None]
    found = machine(texts["mixed"], "mixed", packed, {(at, f"{name}.decode"): c for (at, name), c in caches.items()})
    wanted = np.concatenate([run.whole(*run.logits).reshape(-1, 64) for run in apart])
    assert found.whole(*found.logits).reshape(-1, 64) == pytest.approx(wanted, abs=1e-12, rel=1e-9)


@pytest.mark.parametrize("swapped", ["prompt", "prompt2"])
def test_a_wrong_order_of_parts_is_found(tmp_path: Path, swapped: str) -> None:
    """A proof that could not fail would prove nothing: one part's rows are cut where another's begin."""
    plan = compiled(tmp_path, "phase m { kind = mixed, gpus = 0..7, decode = 8, prompts = [96 tok, 64 tok], tp = 8 }")
    twin = twin_of_phase(plan, "m")
    segment = twin.placed.body[0]
    wrong = next(op for op in segment.ops if op.kind == "unpack" and op.scope == swapped)
    other = next(op for op in segment.ops if op.kind == "unpack" and op.inputs != wrong.inputs and op.scope == swapped)
    ops = tuple(replace(op, inputs=other.inputs) if op is wrong else op for op in segment.ops)
    broken = replace(segment, ops=ops)
    graph = replace(twin.placed, segments=tuple(broken if s is segment else s for s in twin.placed.segments))
    unit = plan.units["m"]
    assert prove_graph(graph, unit, inputs=twin_inputs(twin), model=twin.model).verdict == "differs"
    assert prove_graph(twin.placed, unit, inputs=twin_inputs(twin), model=twin.model).verdict == "equal"


def test_a_host_that_launches_slowly_is_waited_for() -> None:
    """A step takes the longer of both times, not their sum; a CUDA graph covers decode, and with vLLM few tokens of prompts."""

    def step_s(kind: str, *said: str) -> float:
        plan = dagc.compile_text(spec_text(kind=kind, phase=", ".join(("gpus = 0..7, tp = 8", *said))))
        return plan.phases[kind].time_s

    mixed = ("decode = 64", "prompts = [256 tok]")
    gpu_s = step_s("mixed", *mixed)
    assert step_s("mixed", *mixed, "launch = 10 ms") == pytest.approx(4 * 10e-3)
    assert step_s("mixed", *mixed, "launch = 10 ms", "host = 1 ms") == pytest.approx(4 * 10e-3 + 1e-3)
    assert step_s("mixed", *mixed, "launch = 1 ns") == gpu_s
    assert step_s("prefill", "launch = 10 ms") == pytest.approx(4 * 10e-3)
    assert step_s("decode", "launch = 10 ms") == step_s("decode") < 40e-3
    assert step_s("decode", "launch = 10 ms", "cuda_graph = false") == pytest.approx(4 * 10e-3)
    assert step_s("mixed", *mixed, "engine = trtllm", "launch = 10 ms") == pytest.approx(4 * 10e-3)
    covered = step_s("mixed", *mixed, "engine = vllm", "launch = 10 ms")
    assert covered == step_s("mixed", *mixed, "engine = vllm", "launch = 0 s") < 40e-3
    assert step_s("mixed", "decode = 300", "prompts = [256 tok]", "engine = vllm", "launch = 10 ms") == pytest.approx(
        40e-3
    )
    assert step_s("mixed", *mixed, "engine = trtllm") == pytest.approx(max(4 * 0.175e-3, gpu_s))


def test_a_step_is_read_back(tmp_path: Path) -> None:
    """What was written is compiled again: the same file, and the same proof."""
    plan = compiled(tmp_path, f"phase m {{ kind = mixed, gpus = 0..7, {STEP}, ep = 4, tp = 2, engine = vllm }}")
    emit = ["--emit", "json", "--out"]
    assert main(["compile", str(tmp_path / "spec.moe"), *emit, str(tmp_path / "first")]) == 0
    (file,) = (tmp_path / "first").glob("*.m.graph.json")
    assert main(["compile", str(file), *emit, str(tmp_path / "second")]) == 0
    (again,) = (tmp_path / "second").glob("*.m.graph.json")
    assert again.read_bytes() == file.read_bytes()
    assert (
        json.loads((tmp_path / "first" / "spec.json").read_text())["phases"]["m"]["step_s"] == plan.phases["m"].time_s
    )
    text = json.loads(file.read_text())
    text["plan"]["phase"]["parts"][1]["tokens"] += 1
    file.write_text(json.dumps(text))
    assert main(["compile", str(file)]) == 2


@pytest.mark.parametrize(
    "step",
    [
        "decode = 32",
        "decode = 1000000000, prompts = [5 tok]",
        "prompts = [512 tok]",
        "decode = 3, prompt_tokens = 0 tok",
    ],
)
def test_a_step_of_one_part_or_of_the_most_sequences_is_read_back(tmp_path: Path, step: str) -> None:
    plan = compiled(tmp_path, f"phase m {{ kind = mixed, gpus = 0..7, {step}, tp = 8 }}")
    again = plan_of(json.loads(dumps(graph_object(plan, "m"))))
    assert again.phases["m"].time_s == plan.phases["m"].time_s
    assert again.phases["m"].phase_kind == plan.phases["m"].phase_kind


@pytest.mark.parametrize("engine", ["trtllm", "vllm", "sglang"])
def test_experts_of_a_mixed_step_are_those_of_prompts(engine: str) -> None:
    """As their exchange is tuned for throughput; and sequences in decode never make a step cheaper."""
    head = 'hardware from "b200-sxm" { gpus = 8 }\nmodel from "deepseek-v3" { weight_dtype = fp8_block }'
    work = "workload { sequences = 16, prompt = 2048 tok, output = 1 tok }"
    how = f"engine = {engine}, cuda_graph = false, launch = 0 s, attention {{ dp = 2, tp = 4 }}\nexperts {{ ep = 8 }}"

    def phase(step: str) -> tuple[set[object], float]:
        plan = dagc.compile_text(f"moe 1\n{head}\n{work}\nphase p {{ gpus = 0..7, {step}, {how} }}")
        made = {row["measured"] for row in plan.rows("ops") if row["op"] == "moe_shared.g"}
        costs = plan.phases["p"].op_costs
        return {cost.table for (_, op), cost in costs.items() if op == "moe_shared.g"} | made, plan.phases["p"].time_s

    prompts, alone_s = phase("kind = mixed, prompts = [2048 tok]")
    both, mixed_s = phase("kind = mixed, decode = 16, prompts = [2048 tok]")
    assert both == prompts
    assert mixed_s >= alone_s


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The placed graph of a step."""
    plan = compiled(tmp_path_factory.mktemp("step"), f"phase m {{ kind = mixed, gpus = 0..7, {STEP}, ep = 4, tp = 2 }}")
    return dumps(graph_object(plan, "m"))


WITH_WORDS = (
    "engine", "exchange", "quantise", "expert_activations", "drafter", "window_cache", "dispatch_dtype",
    *(f"strategy/{name}" for name in ("dispatch", "overlap", "sp_method", "sp_layout")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "word"),
    spread(
        list(product(WITH_WORDS, ["zzz", "../h200_sxm/vllm", "x" * 5000])),
        lambda case: case[1] == "zzz" or case[0] == "engine",
    ),
)
def test_a_file_has_the_words_of_the_language(written: bytes, path: str, word: str) -> None:
    """The name of an engine leads to files of the library."""
    data = json.loads(written)
    *parents, name = ["plan", "phase", *path.split("/")]
    place = data
    for each in parents:
        place = place[each]
    assert name in place
    place[name] = word
    with pytest.raises(DataError, match=f"{name}.* is not one of"):
        plan_of(data)
