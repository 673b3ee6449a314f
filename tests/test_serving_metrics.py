"""Servings that are judged: by requirements, in sweeps, and what is said where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import spec_text

import dagc
from dagc.base.diagnostics import SpecError
from dagc.cli import main
from dagc.plan.require import judged
from dagc.plan.subject import all_metrics, serving_metrics
from dagc.spec.metrics.known_metrics import of_phase, of_serving
from dagc.view.facts.served_sureness import sureness

Capture = pytest.CaptureFixture[str]
SERVING = """phase decode { gpus = 0..7, tp = 2, ep = 4 }
param rate = 20 in [20, 40]
serve chat { arrivals = poisson(rate * 1 req/s), requests = 40 }
serve other { arrivals = burst, requests = 3 }
"""


def text(*requirements: str) -> str:
    return spec_text(extra=SERVING + "\n".join(f"require {r}" for r in requirements))


def test_a_requirement_on_a_serving_is_judged_and_only_that_serving_is_simulated() -> None:
    plan = dagc.compile_text(text('"fast" chat.ttft.p99 <= 2 s', '"busy" chat.utilization >= 99.99%'))
    assert list(plan.servings) == ["chat"]
    fast, busy = plan.requirements
    assert fast.passed and fast.value == plan.servings["chat"].ttft.p99_s
    assert not busy.passed and busy.shown(busy.value).endswith("%") and not plan.passed
    assert plan.servings["chat"].limits.ttft_s == 2.0


def test_without_a_requirement_nothing_is_simulated() -> None:
    plan = dagc.compile_text(text())
    assert plan.servings == {} and not any(name.startswith("chat.") for name in all_metrics(plan.subject()))


def test_every_figure_of_a_serving_is_a_metric() -> None:
    plan = dagc.compile_text(text("chat.requests == 40 req"))
    found = serving_metrics(plan.subject("chat"))
    result = plan.servings["chat"]
    assert list(found) == [
        m.name for m in of_serving() if not m.needs and not m.absent
    ]  # a spec gives price and power only where it says so
    for time in ("ttft", "tpot", "itl", "e2e"):
        values = [found[f"{time}.{of}"].value for of in ("p50", "p90", "p99")]
        assert values == sorted(values) and values[0] > 0
    assert found["goodput"].value == result.goodput_per_s and found["finished"].value == 40
    assert found["throughput"].value == pytest.approx(found["throughput_per_gpu"].value * found["gpus"].value)


def test_what_phases_and_servings_both_have_is_of_one_kind() -> None:
    phases = {m.name: m for m in of_phase()}
    both = [(m, phases[m.name]) for m in of_serving() if m.name in phases]
    assert {m.name for m, _ in both} >= {"throughput", "utilization"}
    assert all((one.dim, one.share) == (other.dim, other.share) for one, other in both)


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("chat.ttft <= 2 s", ("unknown metric `chat.ttft`", "`chat.ttft.mean`, `chat.ttft.p50`, `chat.ttft.p90`, `chat.ttft.p99`")),
        ("chat.ttft.p95 <= 2 s", ("unknown metric `chat.ttft.p95`", "did you mean `chat.ttft.p9")),
        ("chat.memory.peak <= 2 GB", ("unknown metric `chat.memory.peak`",)),
        ("goodput >= 2 req/s", ("a metric follows its serving: `chat.goodput`",)),
    ],
)  # fmt: skip
def test_a_name_that_is_no_metric_is_told_before_anything_is_simulated(
    requirement: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("simulated")

    monkeypatch.setattr("dagc.pipeline.serve.Servings.run", never)
    with pytest.raises(SpecError) as error:
        dagc.compile_text(text(requirement))
    said = "\n".join(line for d in error.value.diagnostics for line in (d.message, *d.help))
    assert all(word in said for word in words), said


def test_a_serving_without_one_of_its_phases_is_not_taken_for_good(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "p.moe"
    path.write_text(text("chat.ttft.p99 <= 0 s"))
    assert main(["check", str(path)]) == 1
    capsys.readouterr()
    assert main(["check", str(path), "--phase", "decode"]) == 0
    shown = capsys.readouterr()
    assert "serving `chat` is not simulated without `prefill`" in shown.err and "no requirements" in shown.out


def test_a_serving_that_cannot_run_is_an_error_at_its_words() -> None:
    with pytest.raises(SpecError) as error:
        dagc.compile_text(
            text("chat.ttft.p99 <= 2 s").replace("requests = 40", "requests = 40, prompt = 900000000 tok")
        )
    (found,) = error.value.diagnostics
    assert found.code == "E03" and "`chat`: a request of 900,000,000 + 16 tokens cannot be held" in found.message
    assert found.span is not None


def test_a_sweep_simulates_what_its_columns_name(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "p.moe"
    path.write_text(text())
    asked = [
        "sweep",
        str(path),
        "--workers",
        "1",
        "--format",
        "json",
        "--metric",
        "chat.ttft.p99",
        "--metric",
        "decode.tpot",
    ]
    assert main(asked) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["settings"]["rate"] for row in rows] == ["20", "40"]
    assert all(row["metrics"]["chat.ttft.p99"] > 0 and "other.ttft.p99" not in row["metrics"] for row in rows)


def test_requirements_are_judged_on_any_result() -> None:
    plan = dagc.compile_text(text("chat.requests == 40 req"))
    subject = plan.subject()
    (holds,) = judged(subject, plan.spec.requirements)
    assert holds.passed
    other = dagc.compile_text(text("chat.requests == 40 req").replace("requests = 40", "requests = 30")).subject()
    (fails,) = judged(other, plan.spec.requirements)
    assert not fails.passed and fails.value == 30


@pytest.mark.parametrize(
    ("gpu", "engine", "words"),
    [
        ("h200-sxm", "", ("no phase names an `engine`",)),
        ("h200-sxm", "engine = vllm", ("measured servings of vllm", "times what their kernels do")),
        ("mi355x", "engine = vllm", ("no serving priced by the roofline was compared",)),
    ],
)
def test_a_report_prints_the_error_of_servings_like_this_one_only(
    gpu: str, engine: str, words: tuple[str, ...]
) -> None:
    plan = dagc.compile_text(f"""moe 1
hardware from "{gpu}" {{ gpus = 8 }}
model from "qwen3-30b-a3b" {{ }}
workload {{ sequences = 8, prompt = 512 tok, output = 16 tok }}
phase prefill {{ gpus = 0..7, tp = 8, {engine} }}
phase decode {{ gpus = 0..7, tp = 8, {engine} }}
serve chat {{ arrivals = closed(1), requests = 1 }}
require chat.ttft.p99 <= 1 s
""")
    told = sureness(plan, plan.spec.serve("chat"), plan.servings["chat"])
    assert all(any(word in line for line in told) for word in words)
    assert any("measured servings of" in line for line in told) == ("vllm" in words[0])
