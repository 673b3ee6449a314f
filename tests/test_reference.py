"""Models from config.json compute what Hugging Face transformers computes, whole and sharded; wrong files are refused."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pytest
from mutants.expansion import model_text
from tiers import spread

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.cli import main
from dagc.execute.checkpoint import Checkpoint
from dagc.execute.prove import Proof
from dagc.execute.reference import Models, Reference, prove_reference
from dagc.lang.load import load

CASES = sorted((Path(__file__).parent / "data" / "reference").glob("*/config.json"))
STRATEGIES = {
    "whole": ("gpus = [0]", "gpus = [0]"),
    "tp x sp gather x dp": (
        "gpus = 0..7, tp = 2, sp = 2, dp = 2, sequence_parallel = true",
        "gpus = 0..7, tp = 2, sp = 2, dp = 2",
    ),
    "tp beyond KV heads": ("gpus = 0..3, tp = 4", "gpus = 0..3, tp = 4"),
    "ep x tp x sp ring": ("gpus = 0..7, ep = 2, tp = 2, sp = 2, sp_method = ring", "gpus = 0..3, ep = 2, tp = 2"),
    "ulysses": ("gpus = 0..1, sp = 2, sp_method = ulysses", "gpus = 0..1, sp = 2"),
    "folded experts": (
        "gpus = 0..3\nattention { dp = 2, tp = 2 }\nexperts { ep = 4 }",
        "gpus = 0..3\nattention { dp = 2, tp = 2 }\nexperts { ep = 2, tp = 2 }",
    ),
    "pipeline": (
        "gpus = 0..3, pp = 2, tp = 2, microbatches = 2, {stages}",
        "gpus = 0..3, pp = 2, tp = 2, microbatches = 2, {stages}",
    ),
}


def spec_of(case: Path, strategy: str, layers: int = 2) -> str:
    prefill, decode = STRATEGIES[strategy]
    stages = f"layers_per_stage = [{layers - 1}, 1]"
    return f"""moe 1
hardware "h100-sxm" from "h100-sxm" {{ gpus = 8 }}
{model_text(case.parent)}
workload {{ sequences = 2, prompt = 12 tok, output = 1 tok }}
phase prefill {{ {prefill.replace("{stages}", stages)} }}
phase decode {{ context = {12 if "sp =" in decode else 13} tok, {decode.replace("{stages}", stages)} }}
"""


@cache
def files(case: Path) -> tuple[dict[str, np.ndarray], Reference]:
    with np.load(case.parent / "weights.npz") as data:
        return {name: data[name] for name in data.files}, Reference.open(case.parent / "reference.npz")


@lru_cache(maxsize=1)
def model_of(case: Path) -> tuple[Checkpoint, Models]:
    """Its weights, and what it computes by itself: its strategies are compared with that one after the other."""
    model = load(Source("s", spec_of(case, "whole")), Collector(), {}, case.parent).model
    return Checkpoint(model, files(case)[0]), []


def proofs(case: Path, strategy: str) -> list[Proof]:
    checkpoint, models = model_of(case)
    text = spec_of(case, strategy, checkpoint.model.layers)
    spec = load(Source("s", text), Collector(), {}, case.parent)
    assert spec.model == checkpoint.model
    return [prove_reference(spec, phase, checkpoint, files(case)[1], models) for phase in spec.phases]


def has_experts(case: Path) -> bool:
    with np.load(case.parent / "weights.npz") as data:  # the names alone
        return any("expert" in name or "router" in name for name in data.files)


SHOWN = {
    "whole": (
        "apertus", "arcee", "bailing_hybrid", "bamba", "dbrx", "deepseek_v32", "deepseek_v4", "deepseek_v4_attention", "falcon_h1", "gemma2", "gemma4",
        "glm5_next", "gpt_neox", "gpt_oss_yarn", "granitemoehybrid", "hy_v4", "jamba", "laguna", "lfm2", "lfm2_moe", "longcat_flash", "minimax",
        "minimax_m2", "minimax_m3", "ministral3", "mistral4", "mistral_large4", "nemotron_h_latent", "olmo2", "olmo_hybrid_rotated", "olmoe",
        "qwen3_vl_moe",
    ),
    "tp x sp gather x dp": ("axk2", "olmo_hybrid"),
    "tp beyond KV heads": ("deepseek_v4_attention", "glm5_next", "ministral3"),
    "ep x tp x sp ring": ("axk2", "gpt_neox", "olmo_hybrid"),
    "ulysses": ("deepseek_v32", "gemma2", "longcat_flash", "nemotron_h_latent"),
    "folded experts": ("minimax_m3", "nemotron_h_latent"),
    "pipeline": ("axk2", "glm5_next"),
}  # fmt: skip
"""Models that the default run has. Whole: one of each set of kinds of ops, those apart that change each element alone. Under each strategy: attention,
caches, states, convolutions and choices, and each kind of collective in prefill and in decode; any other kind of op under one of them."""


def split_by(case: Path) -> list[str]:
    """Strategies that split a model: those that it has the parts for."""
    return [name for name in STRATEGIES if name != "whole" and ("experts" not in name or has_experts(case))]


PAIRS = [(case, strategy) for case in CASES for strategy in ("whole", *split_by(case))]


def shown(pair: tuple[Path, str]) -> bool:
    case, strategy = pair
    return case.parent.name in SHOWN[strategy]


@pytest.mark.parametrize(
    ("case", "strategy"), spread(PAIRS, shown), ids=lambda v: v.parent.name if isinstance(v, Path) else v
)
def test_logits_and_the_cached_step_are_those_of_transformers(case: Path, strategy: str) -> None:
    for proof in proofs(case, strategy):
        assert proof.reference_error is not None and proof.reference_error <= 1e-9, proof
        assert proof.holds, proof


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A copy of one case, to be damaged."""
    source = next(c.parent for c in CASES if c.parent.name == "mixtral")
    for name in ("config.json", "weights.npz", "reference.npz"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "s.moe").write_text(spec_of(tmp_path / "config.json", "whole"))
    return tmp_path


def damaged(case: Path, change) -> int:  # type: ignore[no-untyped-def]
    with np.load(case / "weights.npz") as data:
        tensors = {name: data[name] for name in data.files}
    change(tensors)
    np.savez(case / "weights.npz", **tensors)
    return main(
        [
            "verify",
            str(case / "s.moe"),
            "--weights",
            str(case / "weights.npz"),
            "--reference",
            str(case / "reference.npz"),
        ]
    )


NAME = "model.layers.1.self_attn.k_proj.weight"


def test_a_missing_tensor_is_named(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert damaged(case, lambda t: t.pop(NAME)) == 2
    assert f"no tensor `{NAME}`" in capsys.readouterr().err


def test_an_extra_tensor_is_named(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert damaged(case, lambda t: t.update(stray=np.zeros(3))) == 2
    assert "`stray`" in capsys.readouterr().err


def test_a_misshaped_tensor_is_named_with_both_shapes(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert damaged(case, lambda t: t.update({NAME: t[NAME].T})) == 2
    err = capsys.readouterr().err
    assert NAME in err and "[16, 8]" in err and "[8, 16]" in err


def test_infinity_fails_the_proof_and_names_the_op(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def poison(tensors: dict[str, np.ndarray]) -> None:
        tensors[NAME][0, 0] = np.inf

    assert damaged(case, poison) == 1
    assert "gqa.k: the result is not finite" in capsys.readouterr().out


def test_other_weights_are_not_the_reference(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[NAME] = tensors[NAME] * 1.001

    assert damaged(case, change) == 1
    assert "differs on" in capsys.readouterr().out


def test_a_reference_of_fewer_tokens_is_refused(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (case / "s.moe").write_text((case / "s.moe").read_text().replace("13 tok", "14 tok"))
    assert damaged(case, lambda t: None) == 2
    assert "2 x 14 tokens, the reference 2 x 13" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[1]", "is not a JSON object"),
        ("{", "is not JSON"),
        ('{"hidden_size": 4}', "has no field `model_type`"),
        ('{"model_type": "mixtrall"}', "architecture `mixtrall` is not in the library"),
        ('{"model_type": "../models/x"}', "is not in the library"),
        ('{"model_type": "mixtral"}', "has no field `hidden_size`"),
        ('{"model_type": "mixtral", "hidden_act": "gelu", "hidden_size": 8, "vocab_size": 8, "num_hidden_layers": 1, '
         '"num_attention_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size": 4}',
         "cannot be expressed: an activation other than silu"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_refused(case: Path, config: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (case / "config.json").write_text(config)
    assert main(["check", str(case / "s.moe")]) == 2
    assert message in capsys.readouterr().err
