"""`dagc init`: what it writes compiles, fits and is formatted; what it cannot write it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from tiers import spread

import dagc
from dagc.cli import main

pytestmark = pytest.mark.usefixtures("shared_servings")
Capture = pytest.CaptureFixture[str]


def kept(path: Path) -> dagc.Plan:
    """The plan of a file that was written: formatted, fitting, every requirement holds."""
    assert main(["fmt", "--check", str(path)]) == 0
    plan = dagc.compile(path)
    assert plan.fits and plan.passed and set(plan.phases) == {"prefill", "decode"} and set(plan.servings) == {"chat"}
    assert len(plan.requirements) == 4
    return plan


@pytest.mark.parametrize(
    ("model", "gpu", "gpus"),
    spread(
        [
            ("qwen3-8b", "l40s", 2),
            ("olmoe-1b-7b", "mi300x", 1),
            ("qwen3-30b-a3b", "gb200-nvl72", 3),
            ("qwen3-30b-a3b", "h100-sxm", None),
        ],
        lambda case: case[1] == "l40s",
    ),
)
def test_what_is_written_compiles_and_fits(
    model: str, gpu: str, gpus: int | None, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "plan.moe"
    count = ["--gpus", str(gpus)] if gpus else []
    assert main(["init", "--model", model, "--gpu", gpu, *count, "-o", str(out)]) == 0, capsys.readouterr().err
    plan = kept(out)
    assert plan.spec.hardware.gpus == (gpus or plan.spec.hardware.gpus)
    assert {phase.gpu_count for phase in plan.spec.phases} == {plan.spec.hardware.gpus}
    if gpus is None:  # half as many do not hold it, or there is one
        assert plan.spec.hardware.gpus == 1 or main(
            ["init", "--model", model, "--gpu", gpu, "--gpus", str(plan.spec.hardware.gpus // 2), "--batch", "32"]
        )


def test_what_is_said_is_written(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "data" / "hf_configs" / "qwen3-8b.json", tmp_path / "config.json")
    out = tmp_path / "plan.moe"
    words = [
        "--gpu",
        "h200-sxm",
        "--gpus",
        "2",
        "--prompt",
        "500",
        "--output",
        "20",
        "--batch",
        "6",
        "--rate",
        "2",
        "--ttft",
        "3",
        "--tpot",
        "80ms",
    ]
    assert main(["init", "--model", str(tmp_path / "config.json"), *words, "-o", str(out)]) == 0
    plan = kept(out)
    workload = plan.spec.workload
    assert (workload.sequences, workload.prompt, workload.output) == (6, 500, 20)
    assert 'model from "config.json"' in out.read_text() and "poisson(2 req/s)" in out.read_text()
    assert "chat.ttft.p90 <= 3 s" in out.read_text() and "chat.tpot.p90 <= 80 ms" in out.read_text()


def test_where_nothing_fits_it_says_what_would(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "plan.moe"
    words = ["init", "--model", "qwen3-32b", "--gpu", "l40s", "--prompt", "64", "--output", "8", "-o", str(out)]
    assert main([*words, "--gpus", "1"]) == 1 and not out.exists()
    (count,) = re.findall(r"it takes (\d+) GPUs at least: --gpus", capsys.readouterr().err)
    assert main([*words, "--gpus", count]) == 0
    kept(out)


def test_where_a_batch_takes_longer_than_a_first_token_may_prompts_come_one_by_one(
    tmp_path: Path, capsys: Capture
) -> None:
    """A layout for batches would put a long prompt on one GPU."""
    words = [
        "init",
        "--model",
        "qwen3-8b",
        "--gpu",
        "h100-sxm",
        "--gpus",
        "4",
        "--prompt",
        "60_000 tok",
        "--output",
        "16",
        "--batch",
        "4",
    ]
    times = {}
    for name, more in (("batch", []), ("alone", ["--ttft", "10 ms", "--tpot", "1 s"])):
        assert main([*words, *more, "-o", str(tmp_path / f"{name}.moe")]) == 0
        plan = dagc.compile(tmp_path / f"{name}.moe")
        times[name] = plan.serve("chat").ttft.p90_s
        assert plan.spec.phase("prefill").sequences == (4 if name == "batch" else 1)
    assert times["alone"] < times["batch"] / 2
    told = capsys.readouterr().err  # what fails is said at once, with by how much
    assert (
        "FAILED: 1 of 4 requirements fail" in told
        and "the first token of 90% of requests" in told
        and "<= 10 ms" in told
    )


def test_an_engine_is_that_of_both_phases(tmp_path: Path) -> None:
    out = tmp_path / "plan.moe"
    words = [
        "--model",
        "qwen3-8b",
        "--gpu",
        "h100-sxm",
        "--gpus",
        "1",
        "--ttft",
        "9",
        "--tpot",
        "9",
        "--engine",
        "sglang",
    ]
    assert main(["init", *words, "-o", str(out)]) == 0
    assert {phase.memory.engine for phase in kept(out).spec.phases} == {"sglang"}


def test_nothing_is_overwritten(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "plan.moe"
    out.write_text("mine")
    words = [
        "init",
        "--model",
        "qwen3-8b",
        "--gpu",
        "h100-sxm",
        "--gpus",
        "1",
        "--ttft",
        "9",
        "--tpot",
        "9",
        "-o",
        str(out),
    ]
    assert main(words) == 2 and out.read_text() == "mine"
    assert "--force replaces it" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path), "--force"]) == 2
    assert "is a folder" in capsys.readouterr().err and out.read_text() == "mine"
    assert main([*words, "--force"]) == 0
    kept(out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs --model and --gpu"),
        (["--model", "mixtral-8x7b"], "needs --gpu"),
        (["--model", "mixtrl-8x7b", "--gpu", "h100-sxm"], 'did you mean "mixtral-8x7b"'),
        (["--model", "mixtral-8x7b", "--gpu", "h100"], 'did you mean "h100-sxm"'),
        (["--model", "mixtral-8x7b", "--gpu", "h100-sxm", "--gpus", "0"], "is not from 1"),
        (["--model", "mixtral-8x7b", "--gpu", "h100-sxm", "--prompt", "many"], "is not a whole number"),
        (["--model", "mixtral-8x7b", "--gpu", "h100-sxm", "--prompt", "128k"], "128000, or 131072 if 1024 is meant"),
        (["--model", "mixtral-8x7b", "--gpu", "h100-sxm", "--gpus", "4x8"], "write it out, 32"),
        (["--model", "mixtral-8x7b", "--gpu", "h100-sxm", "--ttft", "soon"], "is not a time such as"),
        (["--model", "mixtral-8x7b", "--gpu", "h100-sxm", "--rate", "-1"], "-1 is not a rate such as"),
        (["--model", "mixtral-8x7b", "--gpu", "h100-sxm", "--rate", "often"], "often is not a rate such as"),
        (["--model", "mixtral-8x7b", "--gpu", "h100-sxm", "--tpot", "0 ms"], "not a limit that anything keeps"),
        (["--model", "mixtral-8x7b", "--gpu", "h100-sxm", "--engine", "vlm"], "did you mean `vllm`"),
        (["--model", "nowhere.json", "--gpu", "h100-sxm"], "cannot read"),
        (["--model", 'a"}\nlet b = 1 #.json', "--gpu", "h100-sxm"], "not a path that a spec can have in quotes"),
        (["--model", "../../../etc/passwd", "--gpu", "h100-sxm"], "there is no model preset"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", *words, "-o", "plan.moe"]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_it_asks_on_a_terminal(tmp_path: Path) -> None:
    """A wrong answer is explained and asked for again; an empty one means what is in brackets."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dagc", "init"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=environment,
    )
    os.close(theirs)
    os.write(ours, b"qwen3-8\nqwen3-8b\nl40s\nsome\n1\n100\n8\n4\n1 req/s\n2 s\n\nasked.moe\n")
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:
        pass  # its end closed
    os.close(ours)
    assert process.wait() == 0, said.decode()
    assert (
        b'did you mean "qwen3-8b"' in said
        and said.count(b"how many GPUs") == 2
        and b"tokens of a prompt [2048]" in said
    )
    plan = kept(tmp_path / "asked.moe")
    assert (plan.spec.hardware.gpus, plan.spec.workload.prompt, plan.spec.workload.sequences) == (1, 100, 4)
