"""The command that measures a deployment: the traffic of the simulation, in each tool's own words."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from itertools import islice
from math import ceil, floor
from pathlib import Path

import pytest
from conftest import ROOT, spec_text, whole
from hypothesis import given
from hypothesis import strategies as st

import dagc
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.export.deploy.bench import TOOLS, bench, window
from dagc.export.deploy.made import deployment
from dagc.serving import trace_files
from dagc.serving.offered import load_of

compiled_text = cache(whole)


FAKE = "#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\n"
EACH = {"vllm": "vllm", "sglang": "python3", "trtllm": "aiperf"}


def made(engine: str, serve: str = "", **given: str) -> dict[str, str]:
    phase = "gpus = 0..3, tp = 4"
    extra = f"phase decode {{ {phase} }}\n" + (f"serve chat {{ {serve} }}" if serve else "")
    text = spec_text(kind="prefill", phase=phase, extra=extra, dtype="bf16", **given)
    return bench(deployment(compiled_text(text), engine, "org/model", "p"))


def asked(engine: str, serve: str, folder: Path, *further: str) -> list[str]:
    """What the tool is given."""
    files = made(engine, serve)
    folder.mkdir(exist_ok=True)
    for program in EACH.values():
        (folder / program).write_text(FAKE)
        (folder / program).chmod(0o755)
    for suffix, text in files.items():
        (folder / f"p.{engine}.{suffix}").write_text(text)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "URL": "http://front:9000", "RESULTS": "found"}
    command = ["bash", str(folder / f"p.{engine}.bench.sh"), *further]
    done = subprocess.run(command, cwd=folder.parent, env=env, capture_output=True, text=True, check=True)
    assert (folder.parent / "found").is_dir()
    return done.stdout.splitlines()


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_window_is_that_between_two_lengths(low: int, wider: int) -> None:
    high = low + wider
    middle, ratio = window(low, high)
    assert 0 <= ratio < 1
    assert floor(middle * (1 - ratio)) == low + wider % 2 and ceil(middle * (1 + ratio)) == high


OPEN = "arrivals = poisson(12 req/s), requests = 100, seed = 3"


@pytest.mark.parametrize("engine", TOOLS)
def test_the_workload_is_a_closed_loop(engine: str, tmp_path: Path) -> None:
    """As published sweeps run: 10 requests for each of the clients, lengths between 80 and 100 %."""
    words = asked(engine, "", tmp_path / "bin", "--more", "x y")
    clients, count = (
        ("--concurrency", "--request-count") if engine == "trtllm" else ("--max-concurrency", "--num-prompts")
    )
    assert (after(words, clients), after(words, count)) == ("64", "640") and words[-2:] == ["--more", "x y"]
    assert after(words, "--url" if engine == "trtllm" else "--base-url") == "http://front:9000"
    ratio = after(words, "--random-range-ratio")
    if engine == "sglang":
        assert ratio == "0.8" and after(words, "--random-input-len") == "256"
    else:
        middle = int(after(words, "--isl" if engine == "trtllm" else "--random-input-len"))
        r = json.loads(ratio)["input"]
        assert (floor(middle * (1 - r)), ceil(middle * (1 + r))) == (206, 256)


@pytest.mark.parametrize(
    "arrivals, vllm, aiperf",
    [
        ("poisson(12 req/s)", ["--request-rate 12"], ["--request-rate 12", "--arrival-pattern poisson"]),
        ("constant(5 req/s)", ["--request-rate 5", "--burstiness inf"], ["--arrival-pattern constant"]),
        ("gamma(5 req/s, cv = 2)", ["--burstiness 0.25"], ["--arrival-pattern gamma", "--arrival-smoothness 0.25"]),
        ("closed(48)", ["--request-rate inf", "--max-concurrency 48"], ["--concurrency 48"]),
        ("burst", ["--request-rate inf", "--max-concurrency 100"], ["--concurrency 100"]),
    ],
)
def test_each_kind_of_arrivals(arrivals: str, vllm: list[str], aiperf: list[str], tmp_path: Path) -> None:
    serve = f"arrivals = {arrivals}, requests = 100, seed = 3"
    for engine, wanted in (("vllm", vllm), ("trtllm", aiperf)):
        line = " ".join(asked(engine, serve, tmp_path / engine))
        assert all(f"{words} " in line for words in wanted) and "seed 3" in line
    line = " ".join(asked("sglang", serve, tmp_path / "s"))
    assert ("sglang.bench_serving" in line) == (arrivals.split("(")[0] in ("poisson", "closed", "burst"))


@pytest.mark.parametrize("engine", TOOLS)
def test_other_lengths_are_a_file_of_the_requests_of_the_simulation(engine: str, tmp_path: Path) -> None:
    serve = f"{OPEN}, lengths = lognormal(cv = 0.5), prefix_cache = true, prefix = 1024 tok, prompt = 2000 tok"
    words = asked(engine, serve, tmp_path / "bin")
    path = Path(after(words, "--dataset-path" if engine == "vllm" else "--input-file"))
    assert path.is_absolute() and path.parent == tmp_path / "bin"
    text = spec_text(
        kind="prefill",
        phase="gpus = 0..3, tp = 4",
        extra="phase decode { gpus = 0..3, tp = 4 }\nserve chat {" + serve + "}",
        dtype="bf16",
    )
    (said,) = compiled_text(text).spec.serves
    wanted = list(islice(load_of(said, 512).requests, 100))
    found = list(trace_files.requests(trace_files.look(path), 512))
    assert [(one.prompt, one.output) for one in found] == [(one.prompt, one.output) for one in wanted]
    assert all(abs(a.arrival_s - b.arrival_s) < 1e-6 for a, b in zip(found, wanted, strict=True))
    ids = [json.loads(line)["hash_ids"] for line in path.read_text().splitlines()]
    assert all(len(own) == ceil(one.prompt / 512) for own, one in zip(ids, found, strict=True))
    long = [own for own in ids if len(own) > 2]
    assert len({tuple(own[:2]) for own in long}) == 1, "what all share"
    behind = [i for own in long for i in own[2:]]
    assert len(set(behind)) == len(behind)


def test_a_closed_loop_of_such_lengths_keeps_its_clients(tmp_path: Path) -> None:
    serve = "arrivals = closed(8, think = 2 s), requests = 20, lengths = lognormal(cv = 1)"
    line = " ".join(asked("vllm", serve, tmp_path / "v"))
    assert "--no-self-timed --request-rate inf --max-concurrency 8" in line
    line = " ".join(asked("sglang", serve, tmp_path / "s"))
    assert line.startswith("profile ") and "--no-fixed-schedule --concurrency 8" in line
    assert "and not 2 s after an answer" in made("vllm", serve)["bench.sh"]


def test_a_trace_is_replayed(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,100,5\n1.5,200,6\n")
    path = tmp_path / "s.moe"
    phase = "gpus = 0..3, tp = 4"
    path.write_text(
        spec_text(
            kind="prefill",
            phase=phase,
            extra=f'phase decode {{ {phase} }}\nserve chat {{ arrivals = trace("t.csv"), lengths = trace }}',
            dtype="bf16",
        )
    )
    plan = dagc.compile(path)
    rows = [json.loads(line) for line in bench(deployment(plan, "vllm", "m", "p"))["requests.jsonl"].splitlines()]
    assert [(r["timestamp"], r["input_length"], r["output_length"]) for r in rows] == [(0.0, 100, 5), (1500.0, 200, 6)]
    trace.write_text("nothing")
    with pytest.raises(SpecError):
        bench(deployment(plan, "vllm", "m", "p"))


@pytest.mark.parametrize("engine", TOOLS)
def test_a_model_is_a_word(engine: str, tmp_path: Path) -> None:
    model = "$URL$(touch ran) `touch ran` it's \\"
    plan = compiled_text(spec_text(kind="decode", phase="gpus = 0..3, tp = 4", dtype="bf16"))
    (tmp_path / "b.sh").write_text(bench(deployment(plan, engine, model, "p"))["bench.sh"])
    (tmp_path / EACH[engine]).write_text(FAKE)
    (tmp_path / EACH[engine]).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "b.sh"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert after(done.stdout.splitlines(), "--model") == model and not (tmp_path / "ran").exists()


def test_each_serving_has_its_own(tmp_path: Path) -> None:
    files = made("vllm", f"{OPEN} }}\nserve night {{ arrivals = burst, requests = 7")
    assert sorted(files) == ["chat.bench.sh", "night.bench.sh"] and "--num-prompts 7" in files["night.bench.sh"]


def test_code_of_a_checkpoint_is_trusted_here_too() -> None:
    extra = "phase decode { gpus = 0..7, tp = 8 }"
    text = spec_text(kind="prefill", phase="gpus = 0..7, tp = 8", extra=extra).replace(
        "model small {", 'model from "kimi-k2" {', 1
    )
    text = text[: text.index("layers = 4")] + text[text.index("}\nworkload") :]
    for engine, option in (("vllm", "--trust-remote-code"), ("trtllm", "--tokenizer-trust-remote-code")):
        assert option in bench(deployment(compiled_text(text), engine, "m", "p"))["bench.sh"]


def test_it_is_written_beside_every_launcher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(ROOT / "examples/qwen3_235b_vllm.moe")
    for name in ("shell", "kubernetes"):
        assert main(["export", spec, "--to", "vllm", "--launcher", name, "-o", str(tmp_path / name)]) < 2
        assert (tmp_path / name / "qwen3_235b_vllm.vllm.bench.sh").read_text().startswith("#!")
    capsys.readouterr()
    assert main(["export", spec, "--to", "vllm", "--launcher", "kubernetes"]) < 2
    assert "bench" not in capsys.readouterr().out, "what is piped to kubectl is manifests alone"
