"""`dagc run`: placed graphs in real processes over torch.distributed. Those tests need torch, its CPU build is enough:

pip install -e '.[test,torch]' && pytest tests/test_run.py
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import forked_ranks
import pytest
from conftest import ROOT, spec_text
from state_specs import GROUPED, LINEAR, SPARSE, state_spec
from test_handed_on import CHOOSES
from tiers import exhaustive, spread

import dagc
from dagc.base.collectives import REQUESTS
from dagc.cli import main
from dagc.execute.torch.processes import LaunchError, launched, spawn
from dagc.ir.requests import request_moves

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install -e '.[torch]'"
)
MLA = (
    "layers = 3, dense_first = 1, hidden = 64, vocab = 512, dtype = fp32\n"
    "attention { kind = mla, heads = 4, q_latent = 12, kv_latent = 8, nope_dim = 8, rope_dim = 4, v_dim = 8 }\n"
    "mlp { hidden = 64 }\n"
    "experts { count = 8, top_k = 2, hidden = 32, score = sigmoid, shared = 1, groups = 2, groups_limit = 1 }"
)
SLOW = {"450 GB/s, latency = 2 us": "450 MB/s, latency = 1 ns", "50 GB/s, latency = 6 us": "50 MB/s, latency = 2 ns"}


def on_slow(text: str, *links: str) -> str:
    """Slow links bring about moves that fast ones never see."""
    for link in links:
        text = text.replace(link, SLOW[link])
    return text


SKEWED = "sequences = 64, prompt = 256 tok, output = 16 tok, routing = zipf(1.0)"
PLANS = {
    "4 prefill, two stages, two lanes": spec_text(
        phase="gpus = 0..3, pp = 2, tp = 2, microbatches = 2, overlap = two_batch"
    ),
    "4 prefill, ring": spec_text(phase="gpus = 0..3, sp = 2, tp = 2, sp_method = ring"),
    "4 prefill, zigzag": spec_text(phase="gpus = 0..3, sp = 2, tp = 2, sp_layout = zigzag, sequence_parallel = true"),
    "4 decode, split context": spec_text(kind="decode", phase="gpus = 0..3, sp = 2, tp = 2"),
    "4 prefill, width of routed rows": spec_text(phase="gpus = 0..3, ep = 2, tp = 2, shard { hidden = tp }"),
    "4 prefill, latent attention": spec_text(phase="gpus = 0..3\nattention { dp = 4 }\nexperts { ep = 4 }", model=MLA),
    "4 decode, redundant": spec_text(kind="decode", phase="gpus = 0..3, ep = 4, redundant = 4", workload=SKEWED),
    "8 prefill, three axes": spec_text(phase="gpus = 8..15, pp = 2, ep = 2, tp = 2, microbatches = 2"),
    "4 prefill, linear attention, two stages": state_spec(LINEAR, "gpus = 0..3, pp = 2, tp = 2, microbatches = 2"),
    "4 decode, linear attention": state_spec(LINEAR, "gpus = 0..3, ep = 2, tp = 2", "decode"),
    "2 prefill, groups of tokens": state_spec(GROUPED, "gpus = 0..1, sp = 2, sp_layout = zigzag"),
    "2 decode, groups of tokens": state_spec(GROUPED, "gpus = 0..1, tp = 2", "decode"),
    "4 prefill, selected tokens": state_spec(SPARSE, "gpus = 0..3, sp = 2, tp = 2"),
    "2 decode, stages that hand a choice on": CHOOSES.format(
        phases="phase decode { gpus = 0..1, pp = 2, layers_per_stage = [2, 4] }"
    ),
    "2 prefill, selected tokens, zigzag": state_spec(SPARSE, "gpus = 0..1, sp = 2, sp_layout = zigzag"),
    "2 prefill, linear attention, zigzag": state_spec(LINEAR, "gpus = 0..1, sp = 2, sp_layout = zigzag"),
    "4 decode, selected tokens": state_spec(SPARSE, "gpus = 0..3, ep = 2, tp = 2", "decode"),
    "8 prefill, rows that ranks hold in common": on_slow(
        spec_text(
            phase="gpus = 0..7, sequence_parallel = true\nattention { dp = 2, tp = 4 }\nexperts { ep = 2, tp = 4 }"
        ).replace("per_node = 8", "per_node = 4"),
        "450 GB/s, latency = 2 us",
    ),
    "8 decode, chosen tokens are cut": on_slow(
        spec_text(
            kind="decode",
            phase="gpus = 0..7, sp = 2, tp = 4, draft = 1, acceptance = 0.7",
            model="hidden = 16, vocab = 32, dtype = bf16, stack = [embed, 2 * plain, lm_head]\n"
            "attention { heads = 8, kv_heads = 4, head_dim = 4 }\nmlp { hidden = 16 }",
            workload="sequences = 4, prompt = 8 tok, output = 4 tok",
            extra="layer plain { gqa, mlp }",
        ),
        *SLOW,
    ),
}
FURTHER = {
    "2 decode, groups of tokens", "2 prefill, linear attention, zigzag", "2 prefill, selected tokens, zigzag", "4 prefill, linear attention, two stages",
    "4 prefill, zigzag", "4 prefill, ring", "4 prefill, selected tokens", "4 prefill, width of routed rows", "8 prefill, three axes",
}  # fmt: skip
"""Each has a collective, an attention and a phase that others have; together they are all pairs."""
MOVES = {
    "8 prefill, rows that ranks hold in common": ("permute", "dispatch"),
    "8 decode, chosen tokens are cut": ("slice", "argmax"),
}
"""What a plan must have for a case to be about it: a move, and the op that what is moved comes from."""


def moves(text: str) -> set[tuple[str, str]]:
    """(kind, kind of the op where its value was made) of every collective and slice."""
    (phase,) = dagc.compile_text(text).phases.values()
    found = set()
    for segment in phase.graph.segments:
        for op in segment.ops:
            origin = op
            while origin.is_collective or origin.kind == "slice":
                if origin.inputs[0] not in segment.by_name:
                    break
                origin = segment.by_name[origin.inputs[0]]
            found.add((op.kind, origin.kind))
    return found


@needs_torch
@pytest.mark.parametrize("name", spread(PLANS, lambda name: name not in FURTHER))
def test_processes_compute_what_the_model_computes(name: str, tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(PLANS[name])
    if name in MOVES:
        assert MOVES[name] in moves(PLANS[name]), "the plan no longer has what this case is about"
    done = forked_ranks.run(spec, int(name.split()[0]), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ranks"] == int(name.split()[0]) and found["phase"] == name.split()[1].strip(",")
    assert found["holds"] is True and 0.0 < found["error"] < 1e-12  # really compared: sums differ in their order
    classes = {c["name"]: c for c in found["classes"]}
    assert {"matmul", "attention"} <= set(classes) and found["same"] is True
    assert ("routing" in classes) == ("experts" in PLANS[name])
    assert all(c["measured_s"] > 0 and c["calls"] > 0 for c in classes.values())
    assert ("send" in classes) == ("stages" in name or "axes" in name)
    (phase,) = dagc.compile_text(PLANS[name]).phases.values()
    assert {move.kind for move in request_moves(phase.graph)} == REQUESTS.keys() & classes.keys()


@needs_torch
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_cpu_is_not_compared_with_the_estimate_of_a_gpu(device: str) -> None:
    from dagc.cli.run import table
    from dagc.execute.torch.outcome import ClassTime, Outcome

    classes = (ClassTime("matmul", 8, 0.004, 0.001),)
    outcome = Outcome("decode", 2, device, "fp64", 0.005, 0.002, None, 1e-9, classes)
    text, found = table(outcome), outcome.to_json()
    header, row = text.splitlines()[1:3]
    if device == "cuda":
        assert header.split() == ["class", "calls", "measured", "ms", "estimated", "ms", "ratio"]
        assert row.split() == ["matmul", "8", "4.000", "1.000", "4.00"] and found["estimated_s"] == 0.002
    else:
        assert header.split() == ["class", "calls", "CPU", "time", "ms"] and row.split() == ["matmul", "8", "4.000"]
        assert "GPU" in text.splitlines()[-1]
        assert found["estimated_s"] is found["classes"][0]["estimated_s"] is None
    assert found["compares"] is (device == "cuda")


@needs_torch
@exhaustive
def test_torchrun_starts_it_too(tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase="gpus = 0..1, tp = 2"))
    command = [forked_ranks.python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dagc"]
    done = subprocess.run(
        [*command, "run", str(spec), "--repeat", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("logits equal") == 1 and "2 processes on cpu" in done.stdout


@needs_torch
def test_what_torchrun_started_ends_with_an_error_where_it_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit code, which torchrun passes on."""
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase="gpus = 0..1, tp = 2"))
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launched() and main(["run", str(spec), "--set", "x=1"]) == 2


@needs_torch
def test_full_dims_and_other_dtypes(tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase="gpus = 0..1, ep = 2", workload="sequences = 4, prompt = 16 tok"))
    done = forked_ranks.run(spec, 2, "--full-dims")
    assert done.returncode == 0 and "fp32; logits not compared" in done.stdout
    assert "CPU time ms" in done.stdout and "ratio" not in done.stdout
    done = forked_ranks.run(spec, 2, "--dtype", "fp32")
    assert done.returncode == 0 and "fp32; logits equal" in done.stdout, done.stdout + done.stderr


@needs_torch
def test_a_job_of_another_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase="gpus = 0..1, ep = 2"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert launched() and main(["run", str(spec)]) == 2


@needs_torch
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "x"}, "WORLD_SIZE is 'x', not a number of processes"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "do not find each other"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}, "do not find each other"),
    ],
)
def test_a_job_that_does_not_come_together(environment: dict[str, str], said: str, tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase="gpus = 0..1, ep = 2"))
    done = forked_ranks.run(spec, 1, "--timeout", "2", environment=environment)
    assert done.returncode == 2 and "error[E16]" in done.stderr and said in done.stderr, done.stderr


@needs_torch
def test_more_processes_than_gpus_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    spec = tmp_path / "p.moe"
    count = torch.cuda.device_count() + 1
    spec.write_text(spec_text(phase=f"gpus = 0..{2 * count - 1}, dp = {2 * count}"))
    assert main(["run", str(spec), "--device", "cuda"]) == 2
    assert capsys.readouterr().err.count("`--device cuda`: ") == 1


def test_a_missing_engine_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["run", str(spec)]) == 2
    assert "pip install -e '.[torch]'" in capsys.readouterr().err
    assert main(["run", "-"]) == 2


def test_processes_find_each_other_by_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not launched()
    assert spawn(["--version"], 3) == 0
    assert spawn(["explain", "E99"], 1) == 2
    with pytest.raises(LaunchError, match="process 1 of 2 failed"):
        spawn_where_the_second_fails(monkeypatch)


def spawn_where_the_second_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the interpreter that ends as its rank says, the first one long after."""
    script = "import os, sys, time\nif os.environ['RANK'] == '0': time.sleep(60)\nsys.exit('no memory')"
    real = subprocess.Popen

    def popen(command: list[str], **given: object) -> object:
        return real([sys.executable, "-c", script], **given)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)
    spawn(["run"], 2)
