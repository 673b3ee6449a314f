"""The accuracy page: its sample is compiled again, and the model of a serving is checked on sums by hand."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comparison import noise, servings, stated_errors
from comparison import summary as report
from comparison.case import Deployment, Estimate, Inexpressible, Layout, Point, half
from comparison.catalog import Catalog
from comparison.classes import ALL, class_seconds, reference_class
from comparison.estimate import Estimates, text_of
from comparison.published import Serving, read_csv, read_records
from comparison.serving import Engine, predict
from comparison.statistics import Errors

import dagc
from dagc.calib.accuracy import phase_errors

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


def run_of(tpot: float, ttft: float, concurrency: int = 1) -> list[Serving]:
    """Two figures of one run."""
    one = Serving("test", "", "", 0.0, 1000, 100, concurrency, PLAN, PLAN, where=("", "", "trtllm"), row="run 1")
    return [replace(one, metric="tpot", value=tpot), replace(one, metric="ttft", value=ttft)]


def test_an_impossible_row_goes_whole() -> None:
    """The step takes 1.5 s at peaks: a row with a TPOT of 1 s loses its TTFT too, which alone looks well."""
    points = {Point(PLAN, "decode", 1, 1050): step(3.0), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    done, refused = servings.outcomes(run_of(1.0, 0.2), known(points), Catalog().constants)
    assert not done and [str(error) for _, error in refused] == [servings.BELOW_FLOOR] * 2
    done, refused = servings.outcomes(run_of(4.0, 0.2), known(points), Catalog().constants)
    assert len(done) == 2 and not refused


def test_requests_cannot_come_faster_than_their_prefills_end() -> None:
    """Nine in flight, each for 0.1 + 99 x 0.001 s: 45 requests a second, of which each prefills for 0.05 s at least."""
    points = {Point(PLAN, "decode", 9, 1050): step(0.001), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    done, refused = servings.outcomes(run_of(0.001, 0.1, 9), known(points), Catalog().constants)
    assert not done and [str(error) for _, error in refused] == [servings.TOO_MANY] * 2
    done, _ = servings.outcomes(run_of(0.01, 0.1, 9), known(points), Catalog().constants)
    assert len(done) == 2  # nine in 1.09 s


def test_a_phase_alone_is_the_compiled_phase() -> None:
    """No prefills of others, no host, no queue: what `dagc compile` prints, over what was measured."""
    points = {Point(PLAN, "decode", 9, 1050): step(0.01), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    done, _ = servings.outcomes(run_of(0.02, 0.5, 9), known(points), Catalog().constants)
    assert [o.phase_ratio for o in done] == [pytest.approx(0.5), pytest.approx(0.2)]
    assert all(o.ratio > ratio for o, ratio in zip(done, (0.5, 0.2), strict=True))
    found = stated_errors.of([*done, *(replace(o, half="check") for o in done)], [[(1.0, 2.0), (1.1, 2.0)]])
    assert found["phases"]["decode"] == {"median": 0.5, "p90": 0.5, "bias": -0.5, "cases": 2}
    assert found["phases"]["prefill"]["bias"] == -0.8


def test_reports_and_the_readme_state_what_the_tool_wrote() -> None:
    stated = json.loads(stated_errors.FILE.read_text(encoding="utf-8"))
    for kind, found in phase_errors().items():
        assert {"median": found.median, "p90": found.p90, "bias": found.bias, "cases": found.cases} == stated["phases"][
            kind
        ]
    readme = stated_errors.README.read_text(encoding="utf-8")
    assert readme.split(stated_errors.BEGIN)[1].split(stated_errors.END)[0].strip() == stated_errors.sentences(stated)
    page = medians(PAGE.read_text(encoding="utf-8"))
    for kind, row in (("prefill", "prefill, TTFT"), ("decode", "decode step, TPOT")):
        n, median = page[f"all without doubt: {row}"]
        assert (n, median / 100) == (
            stated["phases"][kind]["cases"],
            pytest.approx(stated["phases"][kind]["median"], abs=6e-4),
        )
    plan = dagc.compile(ROOT / "examples" / "mixtral_8xh100.moe")
    text = " ".join(str(plan).split())
    whole = phase_errors()["decode"]
    assert (
        f"within {whole.median:.0%} in half of them, within {whole.p90:.0%} in nine of ten (median {whole.bias:+.0%}"
        in text
    )


def without(record: Any) -> Iterator[Any]:
    """The record without each of its values in turn, at any depth."""
    if isinstance(record, dict):
        for name, value in record.items():
            yield {k: v for k, v in record.items() if k != name}
            yield {**record, name: None}
            yield from ({**record, name: part} for part in without(value))


def test_records_that_lack_something_are_refused_and_counted(tmp_path: Path) -> None:
    catalog = Catalog(CONFIGS)
    whole = json.loads((report.SAMPLE_DATA / "measured_published.json").read_text(encoding="utf-8"))
    side = {"workers": 1, "tp": 4, "pp": 1, "attention_dp": 1, "moe_tp": 4, "ep": 1}
    split = {**whole[0], "parallel": {"prefill": side, "decode": side}}
    records = [part for record in (*whole[:2], split) for part in without(record)]
    file = tmp_path / "measured_x.json"
    file.write_text(json.dumps(records), encoding="utf-8")
    done, refused = read_records(file, catalog)
    assert len(done) + len(refused) == sum(record.get("kind") == "e2e" for record in records)
    assert done and {"disaggregated, the number of workers not stated"} <= {str(error) for _, error in refused}


def test_rows_that_leave_something_blank_are_no_repeats(tmp_path: Path) -> None:
    head = (report.SAMPLE_DATA / "measured_serving.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    full = dict.fromkeys(head, "") | {
        "backend": "vllm", "model_path": "org/some-model", "system": "h100_sxm", "precision": "fp8", "mode": "agg",
        "isl": "1024", "osl": "1024", "tp_size": "4", "pp_size": "1", "attention_dp_size": "1", "moe_tp_size": "1",
        "moe_ep_size": "4", "concurrency": "8", "measured_ttft_ms": "100",
    }  # fmt: skip
    sides = {f"{side}_{name}": "1" for side in ("prefill", "decode") for name in ("num_workers", *noise.DEGREES)}
    apart = full | {"mode": "disagg"} | sides

    def groups(row: dict[str, str], speculates: bool = False) -> int:
        file = tmp_path / "measured_serving.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, head)
            writer.writeheader()
            writer.writerows([row | {"measured_tpot_ms": "10"}, row | {"measured_tpot_ms": "11"}])
        return len(noise.repeats(file, lambda name: speculates))

    assert groups(full) == groups(apart) == 1
    assert groups(full, speculates=True) == 0
    for name in ("concurrency", "precision", "moe_ep_size", "tp_size", "isl"):
        assert groups(full | {name: ""}) == 0, name
    for name in ("decode_num_workers", "prefill_tp_size"):
        assert groups(apart | {name: ""}) == 0, name


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
    found = Errors.of([1.1, 0.8, 1.0])
    assert found is not None
    assert (found.n, found.bias, found.median) == (3, 0.0, pytest.approx(0.1))
    assert Errors.of([]) is None
