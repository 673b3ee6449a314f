"""The accuracy page: its sample is compiled again, and the model of a serving is checked on sums by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from comparison import report, servings
from comparison.case import Deployment, Estimate, Inexpressible, Layout, Point, half
from comparison.classes import ALL, class_seconds, reference_class
from comparison.estimate import Estimates, text_of
from comparison.names import Catalog
from comparison.rows import Serving, read_csv, read_records
from comparison.serving import Engine, predict
from comparison.statistics import Errors

import dagc

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "accuracy.md"
CONFIGS = report.SAMPLE_DATA / "configs"
PLAN = Deployment("mixtral-8x7b", "h100_sxm", "trtllm", Layout(tp=4, ep=1, moe_tp=4), "bf16", "bf16", "bf16")
ENGINE = Engine(True, 8192, 0.9, 4096, 0.0, 0.0, 10.0)


def medians(text: str) -> dict[str, tuple[int, float]]:
    """Group -> (n, median in percent) of a table of errors."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d.]+)% \|", text, re.MULTILINE)
    return {name: (int(n.replace(",", "")), float(median)) for name, n, median in rows}


def test_the_page_states_the_medians_of_its_sample() -> None:
    stated = medians(PAGE.read_text(encoding="utf-8").split(report.SAMPLE_TITLE)[1])
    found = medians(report.sample_table())
    assert found.keys() == stated.keys()
    for name, (n, median) in found.items():
        assert (n, median) == (stated[name][0], pytest.approx(stated[name][1], abs=0.5)), name


def test_classes_add_up_to_the_step() -> None:
    text = text_of(Point(PLAN, "decode", 16, 2048), None)
    result = dagc.compile_text(text).phases["decode"]
    seconds = class_seconds(result)
    assert set(seconds) <= set(ALL)
    assert sum(seconds.values()) == pytest.approx(result.time_s, rel=0.02)  # one stream waits for the other at times
    assert all(seconds[name] > 0 for name in ("qkv_gemm", "attention", "proj_gemm", "moe", "router", "logits"))


def test_reference_ops_have_classes_of_ours() -> None:
    assert reference_class("context_moe_pre_dispatch") == ("comm_before_experts",)
    assert reference_class("generation_mla_block") == ("qkv_gemm", "attention", "proj_gemm")
    assert reference_class("generation_add_norm_2") == ("add_norm",)


def step(time_s: float, work_B: float = 0.0, kv_B: float = 1e9, attention_s: float = 0.0) -> Estimate:
    return Estimate(time_s, time_s / 2, (("attention", attention_s),), 10e9, kv_B, work_B, 0.0, 80e9)


def known(points: dict[Point, Estimate]) -> Estimates:
    estimates = Estimates(None)
    estimates.known.update(points)
    return estimates


def serving(metric: str = "tpot", concurrency: int = 9, workers: tuple[int, int] = (0, 0)) -> Serving:
    return Serving("test", "", metric, 1.0, 1000, 100, concurrency, PLAN, PLAN, *workers)


def test_tpot_holds_the_prefills_of_the_others() -> None:
    """Nine in flight: eight others are prefilled once in 100 tokens; a mixed step saves the decode step's rest."""
    prefill, decode = Point(PLAN, "prefill", 1, 1000), Point(PLAN, "decode", 9, 1050)
    estimates = known({prefill: step(0.1), decode: step(0.01, attention_s=0.004)})
    assert predict(serving(), ENGINE, estimates).value == pytest.approx(0.01 + 8 / 100 * (0.1 - 0.006))
    apart = Engine(False, 8192, 0.9, 4096, 0.001, 0.0, 10.0)
    assert predict(serving(), apart, estimates).value == pytest.approx(0.011 + 8 / 100 * 0.101)


def test_memory_limits_the_batch() -> None:
    """80 GB x 0.9 - 10 GB leave 62 GB: of nine sequences of 20 GB each, three."""
    points = {
        Point(PLAN, "prefill", 1, 1000): step(0.1),
        Point(PLAN, "decode", 9, 1050): step(0.01, kv_B=180e9),
        Point(PLAN, "decode", 3, 1050): step(0.008, kv_B=60e9),
    }
    found = predict(serving(), ENGINE, known(points))
    assert found.limited
    assert found.value == pytest.approx(0.008 + 2 / 100 * (0.1 - 0.008))


def test_disaggregated_decode_has_its_gpus_to_itself() -> None:
    points = {Point(PLAN, "decode", 5, 1050): step(0.01), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    assert predict(serving(workers=(1, 2)), ENGINE, known(points)).value == pytest.approx(0.01)


def test_ttft_of_one_request_is_its_prefill() -> None:
    points = {Point(PLAN, "decode", 1, 1050): step(0.01), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    assert predict(serving("ttft", 1), ENGINE, known(points)).value == pytest.approx(0.1)


def test_halves_are_stable_and_of_one_deployment() -> None:
    assert half("a", 1) == half("a", 1)
    sides = {half("model", i) for i in range(32)}
    assert sides == {"tune", "check"}


def test_faster_than_the_plan_at_peaks_is_no_case() -> None:
    points = {Point(PLAN, "decode", 1, 1050): step(3.0), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    one = Serving("test", "", "tpot", 1.0, 1000, 100, 1, PLAN, PLAN, where=("", "", "trtllm"))
    done, refused = servings.outcomes([one], known(points), Catalog().constants)
    assert not done
    assert [str(error) for _, error in refused] == [servings.BELOW_FLOOR]


def test_names_are_found_by_their_beginning() -> None:
    catalog = Catalog(CONFIGS)
    assert catalog.gpu("h200_sxm") == "h200-sxm"
    assert catalog.gpu("A100-80GB-SXM") == "a100-80gb-sxm"
    assert catalog.model("Qwen/Qwen3-32B-NVFP4") == "qwen3-32b"
    assert catalog.weight_dtypes("gpt-oss-120b", "nvfp4", "nvfp4") == ("bf16", "mxfp4")
    assert catalog.weight_dtypes("deepseek-v3", "fp8", "fp8") == ("fp8_block", "fp8_block")
    with pytest.raises(Inexpressible, match="no hardware preset"):
        catalog.gpu("tpu_v4")


def test_rows_are_read_or_refused() -> None:
    catalog = Catalog(CONFIGS)
    rows, refused = read_csv(report.SAMPLE_DATA / "measured_serving.csv", catalog)
    records, unread = read_records(report.SAMPLE_DATA / "measured_published.json", catalog)
    assert {s.metric for s in rows} == {"tpot", "ttft"}
    assert {s.confidence for s in records} == {"high"}
    assert not unread
    assert all(str(error) for _, error in refused)


def test_errors() -> None:
    errors = Errors.of([1.1, 0.8, 1.0])
    assert errors is not None
    assert (errors.n, errors.bias, errors.median) == (3, 0.0, pytest.approx(0.1))
    assert Errors.of([]) is None
