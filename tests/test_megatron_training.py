"""Training phases as launch scripts of Megatron-LM. `tools/check_megatron_training.py` lets its own parser and checks read them."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from conftest import compiled, whole
from tiers import all_tests

import dagc
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.engines.facts import facts
from dagc.export.engines.megatron_training import CHECKS, NAME, training_files
from tools.engine_parsers.training_plans import REFUSED, spec, training_plans

BASE = "pp = 4, microbatches = 8\nattention { dp = 16 }\nexperts { ep = 8 }\n"


def script(text: str) -> str:
    (data,) = training_files(whole(text), "step", "plan").values()
    return data.decode()


def arguments(text: str) -> dict[str, list[str]]:
    """Of the script that torchrun starts: argument -> its values."""
    words = shlex.split(text.replace("\\\n", " ").splitlines()[-1])
    found: dict[str, list[str]] = {}
    last: list[str] = []
    for word in words[words.index("${SCRIPT:-pretrain_gpt.py}") + 1 :]:
        if word.startswith("--"):
            last = found.setdefault(word, [])
        else:
            last.append(word)
    return found


@cache
def of(phase: str, model: str = "mixtral-8x7b", gpus: int = 64) -> dict[str, list[str]]:
    return arguments(script(spec(model, gpus, phase)))


def test_the_example() -> None:
    plan = compiled("mixtral_pretrain")
    ((name, data),) = training_files(plan, "pretrain", "mixtral_pretrain").items()
    assert name == "mixtral_pretrain.pretrain.megatron.sh"
    text = data.decode()
    found = arguments(text)
    want = {
        "tensor-model-parallel-size": "2", "pipeline-model-parallel-size": "4", "context-parallel-size": "1",
        "expert-model-parallel-size": "8", "expert-tensor-parallel-size": "1", "micro-batch-size": "1", "global-batch-size": "256",
        "seq-length": "4096", "num-layers": "32", "hidden-size": "4096", "num-attention-heads": "32", "num-query-groups": "8",
        "kv-channels": "128", "num-experts": "8", "moe-router-topk": "2", "moe-ffn-hidden-size": "14336", "rotary-base": "1000000",
        "norm-epsilon": "1e-05", "optimizer": "adam", "moe-router-load-balancing-type": "none",
    }  # fmt: skip
    assert {key: found[f"--{key}"] for key in want} == {key: [value] for key, value in want.items()}
    switches = (
        "sequence-parallel", "use-distributed-optimizer", "overlap-grad-reduce", "overlap-param-gather", "bf16", "swiglu",
        "accumulate-allreduce-grads-in-fp32", "group-query-attention", "untie-embeddings-and-output-weights", "disable-bias-linear",
    )  # fmt: skip
    assert all(found[f"--{switch}"] == [] for switch in switches)
    assert "--num-virtual-stages-per-pipeline-rank" not in found and "--pipeline-model-parallel-layout" not in found
    assert "torchrun" in text and "--nnodes=8" in text and 'NODE="' not in text


WITH_EVERY_OPTION = (
    "blocks",
    "ZeRO 3",
    "nvfp4",
    "interleaved",
    "balanced",
    "8b mxfp8",
    "ring",
    "overlapped",
    "a3b 1F1B",
    "refused",
)


def test_every_option_is_written_by_some_plan_and_every_rule_is_known() -> None:
    known = facts(NAME)
    seen: set[str] = set()
    for name, text in training_plans():
        if name.startswith(("deepseek", "glm")) or not (
            all_tests() or name.endswith(WITH_EVERY_OPTION)
        ):  # hundreds of GPUs
            continue
        try:
            seen |= arguments(script(text)).keys()
        except SpecError as error:
            assert error.diagnostics[0].code == "E05" and error.diagnostics[0].help
    seen |= deepseek().keys()
    never = {option.name for option in known.options.values()} - seen
    assert never <= {"--fp16", "--rotary-interleaved", "--rotary-percent", "--add-qkv-bias", "--moe-router-pre-softmax"}
    asked = Path(dagc.__file__).parent / "export" / "engines"
    written = "".join((asked / f"{name}.py").read_text() for name in ("megatron_training", "megatron_shape"))
    assert all(f'"{rule}"' in written or rule in CHECKS or rule == "order" for rule in known.rules)


@pytest.mark.parametrize(
    ("phase", "want"),
    [
        (BASE, {"--use-distributed-optimizer": None, "--overlap-grad-reduce": None, "--recompute-granularity": None}),
        (BASE + "zero = 1", {"--use-distributed-optimizer": []}),
        (BASE + "grad_overlap = full", {"--overlap-grad-reduce": [], "--overlap-param-gather": None}),
        (BASE + "recompute = full", {"--recompute-granularity": ["full"], "--recompute-method": ["uniform"], "--recompute-num-layers": ["1"]}),
        (BASE + "recompute = [attend, moe]", {"--recompute-granularity": ["selective"], "--recompute-modules": ["core_attn", "moe"]}),
        (BASE + "schedule = interleaved, virtual = 2", {"--num-virtual-stages-per-pipeline-rank": ["2"]}),
        (BASE + "layers_per_stage = [7, 8, 8, 9]", {"--pipeline-model-parallel-layout": ["Et*7|t*8|t*8|t*9L"]}),
        (BASE + "optimizer = sgd", {"--optimizer": ["sgd"]}),
        (BASE + "gradient_dtype = bf16", {"--grad-reduce-in-bf16": [], "--accumulate-allreduce-grads-in-fp32": None}),
        (BASE + "zero = 1, moment_dtype = bf16", {"--use-precision-aware-optimizer": [], "--exp-avg-dtype": ["bf16"], "--exp-avg-sq-dtype": ["bf16"]}),
        (BASE + "aux_loss = 0.01, z_loss = 0.001", {"--moe-router-load-balancing-type": ["aux_loss"], "--moe-aux-loss-coeff": ["0.01"], "--moe-z-loss-coeff": ["0.001"]}),
        ("microbatches = 4, zero = 3\nattention { dp = 64 }\nexperts { ep = 8 }", {"--use-megatron-fsdp": [], "--data-parallel-sharding-strategy": ["optim_grads_params"]}),
        ("microbatches = 4, sp_method = ulysses\nattention { dp = 32, sp = 2 }\nexperts { ep = 8 }", {"--context-parallel-size": ["2"], "--cp-comm-type": ["a2a"]}),
    ],
)  # fmt: skip
def test_what_a_phase_says_is_told(phase: str, want: dict[str, list[str] | None]) -> None:
    found = of(phase)
    assert {key: found.get(key) for key in want} == want


def deepseek() -> dict[str, list[str]]:
    layers = "mtp_loss = 0.1, layers_per_stage = [16, 15, 15, 15]"
    return of(
        f"pp = 4, microbatches = 8, zero = 1, {layers}\nattention {{ dp = 32 }}\nexperts {{ ep = 32 }}",
        "deepseek-v3",
        128,
    )


def test_models_keep_their_shape() -> None:
    found = deepseek()
    assert found["--multi-latent-attention"] == [] and found["--kv-lora-rank"] == ["512"]
    assert found["--moe-layer-freq"] == ["([0]*3+[1]*58)"] and found["--moe-router-score-function"] == ["sigmoid"]
    assert found["--moe-router-num-groups"] == ["8"] and found["--moe-router-group-topk"] == ["4"]
    assert found["--moe-router-topk-scaling-factor"] == ["2.5"] and found["--moe-router-enable-expert-bias"] == []
    assert found["--moe-shared-expert-intermediate-size"] == ["2048"] and found["--ffn-hidden-size"] == ["18432"]
    assert found["--mscale"] == found["--mscale-all-dim"] == ["1"] and found["--rotary-scaling-factor"] == ["40"]
    assert found["--mtp-num-layers"] == ["1"] and found["--mtp-loss-scaling-factor"] == ["0.1"]
    assert found["--pipeline-model-parallel-layout"] == ["Et*16|t*15|t*15|t*15mL"]
    llama = of("pp = 4, dp = 4, tp = 4, microbatches = 16, sequence_parallel = true", "llama-3.1-70b")
    assert (
        llama["--use-rope-scaling"] == [] and llama["--rope-scaling-factor"] == ["8"] and "--num-experts" not in llama
    )
    qwen = of("pp = 4, microbatches = 8\nattention { dp = 8 }\nexperts { ep = 8 }", "qwen3-30b-a3b", 32)
    assert (
        qwen["--qk-layernorm"] == []
        and qwen["--kv-channels"] == ["128"]
        and qwen["--max-position-embeddings"] == ["40960"]
    )


@pytest.mark.parametrize(
    ("phase", "why", "help"),
    [
        *((f"{phase}\nattention {{ dp = 16 }}\nexperts {{ ep = 8 }}", "1F1B and interleaved 1F1B", "one_f_one_b") for phase in REFUSED.values()),
        (BASE + "zero = 2", "zero = 2 with a pipeline", "`zero = 1`"),
        ("pp = 4, microbatches = 8\nattention { dp = 8, tp = 2 }\nexperts { ep = 8 }", "sequence parallelism alone", "`sequence_parallel = true`"),
        (BASE + "recompute = [gqa]", "recomputes no gqa", "`recompute = full`"),
        (BASE + "master_dtype = none", "master weights in none", "`master_dtype = fp32`"),
        (BASE + "moment_dtype = bf16", "distributed optimizer", "`zero = 1`"),
        (BASE + "order = [dp, pp, sp, tp, ep]", "numbers GPUs by", "leave `order`"),
        (BASE + "zero = 1, exchange_overlap = full", "has no pairs", "`schedule = interleaved`"),
        (BASE + "aux_loss = 0.01, aux_loss_over = micro_batch", "of ranks or of sequences", "aux_loss_over = rank"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused(phase: str, why: str, help: str) -> None:
    with pytest.raises(SpecError) as refused:
        script(spec("mixtral-8x7b", 64, phase))
    (found,) = refused.value.diagnostics
    assert found.code == "E05" and "cannot express `step`" in found.message
    assert any(why in line for line in found.because) and any(help in line for line in found.help)
    assert any(re.search(r"\(megatron/\S+\.py", line) for line in found.because)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes a script for each phase that trains, and says of other engines that they do not."""
    path = tmp_path / "plan.moe"
    path.write_text(spec("mixtral-8x7b", 64, BASE + "zero = 1, recompute = full"))
    assert main(["export", str(path), "--to", "megatron", "-o", str(tmp_path / "out")]) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["plan.step.megatron.sh"]
    assert main(["export", str(path), "--to", "megatron", "--engine-version", "0.20.0"]) == 0
    capsys.readouterr()
    assert main(["export", str(path), "--to", "vllm"]) == 2
    assert "trains" in capsys.readouterr().err
    assert main(["export", str(path), "--to", "megatron", "--engine-version", "0.3.0"]) == 2
    path.write_text(spec("mixtral-8x7b", 64, BASE + "zero = 2"))
    assert main(["export", str(path), "--to", "megatron"]) == 2
    assert "E05" in capsys.readouterr().err
