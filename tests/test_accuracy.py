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
from comparison import host, kernel_rows, noise, ranking, servings, stated_errors, unmeasured
from comparison import summary as report
from comparison.cache import Cache
from comparison.case import Deployment, Estimate, Inexpressible, Layout, Point, half
from comparison.catalog import Catalog
from comparison.classes import ALL, class_seconds, reference_class
from comparison.estimate import Estimates, calibration_of, estimate, text_of
from comparison.published import Serving, read_csv, read_records
from comparison.serving import Constants, Engine, Parts, figure, predict
from comparison.statistics import Errors

import dagc
from dagc.calib.accuracy import ANOTHER_GPU, OWN, ROOFLINE, kernels_of, phase_errors
from dagc.view.facts.findings import error_range

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "accuracy.md"
CONFIGS = report.SAMPLE_DATA / "configs"
PLAN = Deployment("mixtral-8x7b", "h100_sxm", "trtllm", Layout(tp=4, ep=1, moe_tp=4), "bf16", "bf16", "bf16")
ENGINE = Engine(True, 8192, 0.9, 4096, 10.0)
NONE = Constants()


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


def value(one: Serving, engine: Engine, points: Estimates, constants: Constants = NONE) -> float:
    return predict(one, engine, constants, points).value


def settled(rows: list[Serving], points: dict[Point, Estimate]) -> tuple[list[servings.Outcome], list[str]]:
    """Predictions with the shipped constants, and reasons of refusals."""
    constants = Catalog().constants
    done, refused = servings.cases(rows, known(points), constants)
    return servings.outcomes(done, host.stored(constants)), [str(error) for _, error in refused]


def serving(metric: str = "tpot", concurrency: int = 9, workers: tuple[int, int] = (0, 0)) -> Serving:
    return Serving("test", "", metric, 1.0, 1000, 100, concurrency, PLAN, PLAN, *workers)


def test_tpot_holds_the_prefills_of_the_others() -> None:
    """Nine in flight: eight others are prefilled once in 100 tokens; a mixed step saves the decode step's rest."""
    prefill, decode = Point(PLAN, "prefill", 1, 1000), Point(PLAN, "decode", 9, 1050)
    estimates = known({prefill: step(0.1), decode: step(0.01, attention_s=0.004)})
    assert value(serving(), ENGINE, estimates) == pytest.approx(0.01 + 8 / 100 * (0.1 - 0.006))
    apart = Engine(False, 8192, 0.9, 4096, 10.0)
    assert value(serving(), apart, estimates, Constants(0.001)) == pytest.approx(0.011 + 8 / 100 * 0.101)
    launches_s = 32 * 1e-4  # mixtral has 32 layers; a step with prompt tokens alone has gaps between them
    for engine, alone_s in ((ENGINE, 0.01 + 8 / 100 * 0.094), (apart, 0.01 + 8 / 100 * 0.1)):
        found_s = value(serving(), engine, estimates, Constants(launch_s=1e-4))
        assert found_s == pytest.approx(alone_s + 8 / 100 * launches_s)


def test_more_prompts_than_steps_leave_every_step_mixed() -> None:
    """With more prompts than steps, requests wait; a step takes no longer for it."""
    many = Parts("tpot", 0.0, step_s=0.01, mixed_s=0.1, mixed_steps=3.0)
    assert figure(many, ENGINE, NONE) == pytest.approx(0.1)


def test_rates_of_one_kind_of_step() -> None:
    """12 sequences on 4 GPUs make 3 tokens each a step; a prefill takes the engine's tokens where none are stated."""
    decode = replace(serving("decode_rate", 12), isl=1050, gpus=4)
    points = known({Point(PLAN, "decode", 12, 1050): step(0.01), Point(PLAN, "prefill", 8, 1000): step(0.5)})
    assert value(decode, ENGINE, points, Constants(0.002)) == pytest.approx(3 / 0.012)
    prefill = replace(serving("input_rate"), gpus=4)
    assert value(prefill, ENGINE, points) == pytest.approx(8 * 1000 / 4 / 0.5)


def test_memory_limits_the_batch() -> None:
    """80 GB x 0.9 - 10 GB leave 62 GB: of nine sequences of 20 GB each, three."""
    points = {
        Point(PLAN, "prefill", 1, 1000): step(0.1),
        Point(PLAN, "decode", 9, 1050): step(0.01, kv_B=180e9),
        Point(PLAN, "decode", 3, 1050): step(0.008, kv_B=60e9),
    }
    found = predict(serving(), ENGINE, NONE, known(points))
    assert found.parts.limited
    assert found.value == pytest.approx(0.008 + 2 / 100 * (0.1 - 0.008))


def test_disaggregated_decode_has_its_gpus_to_itself() -> None:
    points = {Point(PLAN, "decode", 5, 1050): step(0.01), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    assert value(serving(workers=(1, 2)), ENGINE, known(points)) == pytest.approx(0.01)


def test_ttft_of_one_request_is_its_prefill() -> None:
    points = {Point(PLAN, "decode", 1, 1050): step(0.01), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    assert value(serving("ttft", 1), ENGINE, known(points)) == pytest.approx(0.1)


def test_halves_are_stable_and_of_one_deployment() -> None:
    assert half("a", 1) == half("a", 1)
    sides = {half("model", i) for i in range(32)}
    assert sides == {"tune", "check"}


def test_faster_than_the_plan_at_peaks_is_no_case() -> None:
    points = {Point(PLAN, "decode", 1, 1050): step(3.0), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    one = Serving("test", "", "tpot", 1.0, 1000, 100, 1, PLAN, PLAN, where=("", "", "trtllm"))
    done, refused = settled([one], points)
    assert not done
    assert refused == [servings.BELOW_FLOOR]


def run_of(tpot: float, ttft: float, concurrency: int = 1) -> list[Serving]:
    """Two figures of one run."""
    one = Serving("test", "", "", 0.0, 1000, 100, concurrency, PLAN, PLAN, where=("", "", "trtllm"), row="run 1")
    return [replace(one, metric="tpot", value=tpot), replace(one, metric="ttft", value=ttft)]


def test_an_impossible_row_goes_whole() -> None:
    """The step takes 1.5 s at peaks: a row with a TPOT of 1 s loses its TTFT too, which alone looks well."""
    points = {Point(PLAN, "decode", 1, 1050): step(3.0), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    done, refused = settled(run_of(1.0, 0.2), points)
    assert not done and refused == [servings.BELOW_FLOOR] * 2
    done, refused = settled(run_of(4.0, 0.2), points)
    assert len(done) == 2 and not refused


def test_requests_cannot_come_faster_than_their_prefills_end() -> None:
    """Nine in flight, each for 0.1 + 99 x 0.001 s: 45 requests a second, of which each prefills for 0.05 s at least."""
    points = {Point(PLAN, "decode", 9, 1050): step(0.001), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    done, refused = settled(run_of(0.001, 0.1, 9), points)
    assert not done and refused == [servings.TOO_MANY] * 2
    done, _ = settled(run_of(0.01, 0.1, 9), points)
    assert len(done) == 2  # nine in 1.09 s


def test_a_phase_alone_is_the_compiled_phase() -> None:
    """No prefills of others, no host, no queue: what `dagc compile` prints, over what was measured."""
    points = {Point(PLAN, "decode", 9, 1050): step(0.01), Point(PLAN, "prefill", 1, 1000): step(0.1)}
    done, _ = settled(run_of(0.02, 0.5, 9), points)
    assert [o.phase_ratio for o in done] == [pytest.approx(0.5), pytest.approx(0.2)]
    assert all(o.ratio > ratio for o, ratio in zip(done, (0.5, 0.2), strict=True))
    found = stated_errors.of(
        [*done, *(replace(o, case=replace(o.case, half="check")) for o in done)],
        [[(1.0, 2.0), (1.1, 2.0)]],
        {"roofline": {"decode": [0.25], "prefill": [0.5]}},
    )
    assert found["roofline"]["decode"] == {"median": 0.75, "p90": 0.75, "bias": -0.75, "cases": 1}
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


def test_phases_of_gpus_that_nobody_measured_state_wider_errors() -> None:
    """The same servings, priced as on such GPUs; reports and JSON take the errors that hold."""
    stated = json.loads(stated_errors.FILE.read_text(encoding="utf-8"))
    page = medians(PAGE.read_text(encoding="utf-8"))
    for kernels, words in unmeasured.SETS.items():
        for kind, row in (("prefill", "prefill, TTFT"), ("decode", "decode step, TPOT")):
            found = phase_errors(kernels)[kind]
            assert (found.cases, found.median) == (stated["phases"][kind]["cases"], stated[kernels][kind]["median"])
            assert page[f"{words}: {row}"] == (found.cases, pytest.approx(found.median * 100, abs=0.06))
    own, another, none = (phase_errors(kernels)["decode"] for kernels in (OWN, ANOTHER_GPU, ROOFLINE))
    assert own.median < another.median < none.median
    for gpu, found, words in (("mi355x", none, "priced by the roofline"), ("h200-sxm", own, "real servings: within")):
        plan = dagc.compile_text(UNMEASURED.format(gpu=gpu, dtype="bf16"))
        text = " ".join(str(plan).split())
        assert words in text and f"within {found.median:.0%} in half of them, within {found.p90:.0%}" in text
        assert f"within {found.median:.0%} of real servings" in error_range(plan.phases["decode"])


UNMEASURED = """moe 1
hardware from "{gpu}" {{ }}
model from "mixtral-8x7b" {{ dtype = {dtype} }}
workload {{ sequences = 8, prompt = 1000 tok, output = 2 tok }}
phase decode {{ gpus = 0..7, tp = 8, engine = vllm }}
"""


def test_substituted_kernels_decide_by_their_share() -> None:
    assert kernels_of(0.0, 0.0) == ROOFLINE
    assert kernels_of(0.9, 0.05) == OWN
    assert kernels_of(0.9, 0.2) == ANOTHER_GPU


def test_a_point_is_priced_with_the_kernels_asked_for() -> None:
    assert calibration_of("h100_sxm", "own") == "h100_sxm"
    assert calibration_of("h100_sxm", "another_gpu") == "h200_sxm"
    assert calibration_of("h100_sxm", "roofline") is None
    assert calibration_of(None, "another_gpu") is None
    times = [estimate(Point(PLAN, "decode", 16, 2048), None, kernels) for kernels in ("own", "another_gpu", "roofline")]
    assert all(isinstance(found, Estimate) for found in times)
    assert len({found.time_s for found in times if isinstance(found, Estimate)}) == 3
    floors = [found.floor_s for found in times if isinstance(found, Estimate)]
    assert max(floors) == pytest.approx(min(floors), rel=0.01)  # at datasheet peaks, whoever measured


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


def csv_of(tmp_path: Path, rows: list[dict[str, str]]) -> Path:
    """A CSV of servings: eight GPUs, one model that cannot speculate, unless a row says otherwise."""
    head = (report.SAMPLE_DATA / "measured_serving.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    same = dict.fromkeys(head, "") | {
        "backend": "vllm", "model_path": "org/mixtral-8x7b", "system": "h100_sxm", "precision": "fp8", "mode": "agg",
        "isl": "1024", "osl": "1024", "pp_size": "1", "attention_dp_size": "1", "concurrency": "8",
    }  # fmt: skip
    file = tmp_path / "measured_serving.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, head)
        writer.writeheader()
        writer.writerows(same | row for row in rows)
    return file


def layout_row(tp: int, moe_tp: int, ep: int, tpot_ms: float, **other: str) -> dict[str, str]:
    degrees = {"tp_size": str(tp), "moe_tp_size": str(moe_tp), "moe_ep_size": str(ep)}
    return degrees | {"measured_tpot_ms": str(tpot_ms)} | other


def test_series_have_equal_gpus_and_two_layouts(tmp_path: Path) -> None:
    rows = [
        layout_row(8, 8, 1, 10.0, backend_version="1"),
        layout_row(8, 8, 1, 12.0, backend_version="2"),
        layout_row(8, 1, 8, 14.0),
        layout_row(4, 4, 1, 9.0),  # half as many GPUs
        layout_row(8, 1, 8, 5.0, concurrency="16"),  # another load, one layout
        layout_row(8, 1, 8, 5.0, mode="disagg"),
    ]
    (one,) = ranking.series(csv_of(tmp_path, rows), Catalog(CONFIGS))
    assert one.gpus == 8 and not one.drafts
    assert one.measured_s == {(8, 1, 1, 8, 1): pytest.approx(0.011), (8, 1, 1, 1, 8): pytest.approx(0.014)}
    right = ranking.Ranked(one, {(8, 1, 1, 8, 1): 1.0, (8, 1, 1, 1, 8): 2.0})
    wrong = ranking.Ranked(one, {(8, 1, 1, 8, 1): 2.0, (8, 1, 1, 1, 8): 1.0})
    assert right.right and right.regret == 0
    assert not wrong.right and wrong.regret == pytest.approx(14 / 11 - 1)
    assert ranking.rank([one], []) == ([], [one])  # no estimate: no choice
    # What has no choice counts as wrong.
    assert ranking.rows("all", [right, wrong], [one])[:4] == ("all", "3", "1", "1 (33%, 6% to 79%)")


def test_intervals() -> None:
    assert ranking.wilson(34, 42) == (pytest.approx(0.667, abs=1e-3), pytest.approx(0.900, abs=1e-3))
    assert ranking.wilson(0, 0) == (0.0, 1.0)
    low, high = ranking.bootstrap([0.0, 0.1] * 20, 2000)
    assert low < 0.05 < high and high - low == pytest.approx(4 * 0.05 / 40**0.5, rel=0.2)


def cases_of(engine: str, model: str, host_ms: float, n: int = 4) -> list[servings.Case]:
    """Runs whose host takes `host_ms` a step, and 50 ms a request."""
    found = []
    for i in range(n):
        for metric, value in (("tpot", 0.01 * (i + 1) + host_ms * 1e-3), ("ttft", 0.15 + host_ms * 1.5e-3)):
            one = replace(serving(metric), value=value, where=("gpu", model, engine), confidence="high")
            part = Parts(metric, 0.0, step_s=0.01 * (i + 1), alone_s=0.1, chunks=1)
            found.append(servings.Case(one, part, ENGINE, "tune"))
    return found


def test_constants_are_fitted_by_engine_and_without_what_is_left_out() -> None:
    found = cases_of("vllm", "a", 1.0) + cases_of("vllm", "b", 3.0) + cases_of("sglang", "a", 2.0)
    fitted = host.fit(cases_of("vllm", "a", 1.0), ["vllm", "sglang"])
    assert fitted["vllm"].host_s == pytest.approx(0.001)
    assert fitted["vllm"].request_s == pytest.approx(0.05, abs=2.6e-3)
    assert fitted["sglang"] == fitted["vllm"]  # nobody measured it
    out = host.left_out(found, ["vllm", "sglang"], lambda c: c.serving.where[1])
    assert len(out) == len(found)
    # vLLM's `a` is predicted with what `b` took, 2 ms too many a step; and `b` with 2 ms too few.
    ratio = {(o.serving.where[1:], o.serving.metric): o.ratio for o in out}
    assert ratio[("a", "vllm"), "tpot"] == pytest.approx(43 / 41)
    assert ratio[("b", "vllm"), "tpot"] == pytest.approx(41 / 43)


def test_a_cache_serves_the_same_compiler_alone(tmp_path: Path) -> None:
    cache = Cache.of(tmp_path)
    assert cache.get("moe 1") is None
    cache.put("moe 1", step(1.0))
    assert Cache.of(tmp_path).get("moe 1") == step(1.0)
    assert Cache.of(tmp_path).get("moe 2") is None
    assert Cache.of(tmp_path, "other").get("moe 1") is None
    with cache.file.open("ab") as out:
        out.write(b"cut sh")  # a run that was stopped
    assert Cache.of(tmp_path).get("moe 1") == step(1.0)


def test_a_bandwidth_is_a_time_where_its_payload_is_stated() -> None:
    """nccl-tests' bus bandwidth; and exchanges of tokens, which count a copy for every rank or node that a token hits."""
    gathered: dict[str, Any] = {
        "metric": "bus_bandwidth", "value": 350.0, "unit": "GB/s", "parallel": {"ranks": 8},
        "workload": {"op": "all_gather", "bytes": 8_000_000_000},
    }  # fmt: skip
    assert kernel_rows.measured_s(gathered) == pytest.approx(7 / 350)
    assert kernel_rows.measured_s(
        gathered | {"workload": gathered["workload"] | {"op": "all_reduce"}}
    ) == pytest.approx(14 / 350)
    tokens = {"op": "dispatch", "tokens_per_rank": 1000, "hidden": 5000, "topk": 8, "experts": 8}
    inside: dict[str, Any] = {
        "metric": "algorithm_bandwidth", "value": 100.0, "unit": "GB/s", "note": "", "workload": tokens,
        "precision": {"payload": "bf16"}, "parallel": {"ep": 8}, "hardware": {"nodes": 1},
    }  # fmt: skip
    assert kernel_rows.measured_s(inside) == pytest.approx(1000 * 5000 * 2 * 8 / 100e9)  # each hits all eight
    over = inside | {"metric": "bottleneck_bandwidth", "note": "bottleneck RDMA", "hardware": {"nodes": 2}}
    assert kernel_rows.measured_s(over) == pytest.approx(1000 * 5000 * 2 * 2 / 100e9)
    limited = over | {"note": "bottleneck RDMA (at most 1 nodes per token)", "precision": {"payload": "fp8"}}
    assert kernel_rows.measured_s(limited) == pytest.approx(1000 * 5000 * (1 + 4 / 128) / 100e9)
    with pytest.raises(Inexpressible, match="instead of a time"):
        kernel_rows.measured_s(gathered | {"metric": "memory_rate"})
