"""The accuracy page: its sample is simulated again, and what it is made of is checked on sums by hand."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from comparison import (
    goals,
    host,
    kernel_rows,
    loads,
    noise,
    open_loop,
    open_page,
    ranking,
    servings,
    stated_errors,
    unmeasured,
    unseen,
)
from comparison import summary as report
from comparison.alone import Alone, alone
from comparison.cache import Cache
from comparison.case import Deployment, Estimate, Inexpressible, Layout, Point, half
from comparison.catalog import Catalog
from comparison.classes import ALL, class_seconds, reference_class
from comparison.estimate import Estimates, calibration_of, estimate, text_of
from comparison.published import Serving, read_csv, read_records
from comparison.run_degrees import LOAD, Twins, of_rows, ran
from comparison.runs import Job, Run, Runs
from comparison.site import Constants, Site
from comparison.statistics import Errors
from conftest import compiled
from tiers import exhaustive

import dagc
from dagc.calib.accuracy import ANOTHER_GPU, OWN, ROOFLINE, kernels_of, phase_errors
from dagc.spec import host_constants
from dagc.spec.serve import Arrivals, Lengths
from dagc.view.facts.findings import error_range

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "accuracy.md"
CONFIGS = report.SAMPLE_DATA / "configs"
PLAN = Deployment("mixtral-8x7b", "h100_sxm", "trtllm", Layout(tp=4, ep=1, moe_tp=4), "bf16", "bf16", "bf16")


def medians(text: str) -> dict[str, tuple[int, float]]:
    """Group -> (n, median in percent) of a table of errors."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d.]+)% \|", text, re.MULTILINE)
    return {name: (int(n.replace(",", "")), float(median)) for name, n, median in rows}


SAMPLES = {
    "e2e_static.json": "static",
    "measured_published.json": "measured high",
    "measured_serving.csv": "measured_serving",
}
"""A file of the sample, and how its rows on the page begin."""


@exhaustive
@pytest.mark.parametrize("file", SAMPLES)
def test_the_page_states_the_medians_of_its_sample(file: str, tmp_path: Path) -> None:
    every = medians(PAGE.read_text(encoding="utf-8").split(report.SAMPLE_TITLE)[1])
    stated = {name: row for name, row in every.items() if name.startswith(SAMPLES[file])}
    assert stated and all(name.startswith(tuple(SAMPLES.values())) for name in every)
    assert {path.name for path in report.SAMPLE_DATA.iterdir() if path.suffix in (".json", ".csv")} == SAMPLES.keys()
    (tmp_path / file).write_bytes((report.SAMPLE_DATA / file).read_bytes())
    found = medians(report.in_short(report.gather(report.Options(tmp_path, CONFIGS, workers=1)), ("tune", "check")))
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


def step(time_s: float, kv_B: float = 1e9) -> Estimate:
    return Estimate(time_s, time_s / 2, (("attention", 0.0),), 10e9, kv_B, 0.0, 0.0, 80e9)


def known(points: dict[Point, Estimate]) -> Estimates:
    estimates = Estimates(None)
    estimates.known.update(points)
    return estimates


class Formula(Runs):
    """Runs that nobody simulates: TPOT and TTFT of a job by a formula."""

    def __init__(self, formula: Callable[[Job], tuple[float, float]]) -> None:
        super().__init__(None)
        self.formula = formula

    def settle(self, jobs: Sequence[Job]) -> list[Any]:
        for job in jobs:
            tpot_s, ttft_s = self.formula(job)
            self.known[job] = Run(ttft_s, tpot_s, ttft_s + 99 * tpot_s, 1 / tpot_s, 1.0, ())
        return [self.known[job] for job in jobs]


SHIPPED = host.stored(("trtllm", "vllm", "sglang"))


def settled(rows: list[Serving], points: dict[Point, Estimate]) -> tuple[list[servings.Outcome], list[str]]:
    """Predictions of twice a second a token and three a first one, and reasons of refusals."""
    runs = Formula(lambda job: (2.0, 3.0))
    done, refused = servings.cases(rows, known(points), runs, SHIPPED, Catalog().constants)
    return servings.outcomes(done, SHIPPED, runs), [str(error) for _, error in refused]


def serving(metric: str = "tpot", concurrency: int = 9, workers: tuple[int, int] = (0, 0)) -> Serving:
    return Serving("test", "", metric, 1.0, 1000, 100, concurrency, PLAN, PLAN, *workers, where=("", "", "trtllm"))


LOADS = Catalog().constants["loads"]


def test_a_row_of_a_sweep_is_a_closed_loop_of_spread_lengths() -> None:
    words = loads.words(replace(serving(), isl=1024, osl=8192), LOADS)
    assert (words["arrivals"].kind, words["arrivals"].clients, words["requests"]) == ("closed", 9, 90)
    assert words["lengths"] == Lengths("uniform", 1024, 8192, 0.8, 1.0)
    assert loads.words(serving(), LOADS)["lengths"] == Lengths("uniform", 1000, 100, 0.9, 1.1)


def test_a_row_with_prefill_apart_has_its_workers_of_both_sides() -> None:
    words = loads.words(serving(workers=(2, 3)), LOADS)
    assert (words["prefill_workers"], words["workers"]) == (2, 3)
    assert "workers" not in loads.words(serving(), LOADS)


@pytest.mark.parametrize(
    ("model", "engine", "words"),
    [
        ("deepseek-r1", "trtllm", {"balance": 60, "gather": 0, "route": "least"}),
        ("gpt-oss-120b", "trtllm", {"balance": 50, "gather": 10, "route": "least"}),
        ("qwen3-235b-a22b", "trtllm", {}),
        ("deepseek-r1", "sglang", {}),
    ],
)
def test_prompts_of_sweeps_wait_for_other_ranks_where_their_scripts_say_so(
    model: str, engine: str, words: dict[str, object]
) -> None:
    apart = replace(PLAN, model=model, layout=Layout(tp=1, dp=4, ep=4))
    row = replace(serving(), isl=1024, osl=1024, decode=apart, prefill=apart, where=("", model, engine))

    def said(row: Serving) -> dict[str, object]:
        return {
            name: value for name, value in loads.words(row, LOADS).items() if name in ("balance", "gather", "route")
        }

    assert said(row) == words
    assert said(replace(row, isl=1000)) == {}  # of no sweep
    assert said(replace(row, decode=replace(apart, layout=PLAN.layout))) == {}  # one rank
    assert said(replace(row, prefill_workers=1, decode_workers=1)) == {}  # workers that decode take no prompts


def test_saturated_and_static_runs_are_bursts() -> None:
    finite = replace(serving("output_rate"), isl=2048, osl=2048, concurrency=None, saturated=True)
    words = loads.words(finite, LOADS)
    assert (words["arrivals"].kind, words["requests"], words["lengths"].kind) == ("burst", 1500, "fixed")
    with pytest.raises(Inexpressible, match="finite run"):
        loads.words(replace(finite, isl=7), LOADS)
    static = replace(serving("request"), static_batch=8)
    words = loads.words(static, LOADS)
    assert (words["arrivals"].kind, words["requests"], words["prompts"], words["batch_tokens"]) == (
        "burst",
        8,
        "first",
        8000,
    )
    with pytest.raises(Inexpressible, match="concurrency"):
        loads.words(replace(serving(), concurrency=None), LOADS)


def test_a_run_is_simulated_with_the_steps_of_its_deployment() -> None:
    """One request at a time: TTFT is the host's time and a prefill, TPOT a decode step; more at once wait for one another."""
    runs = Runs(None, workers=1)
    site = Site(PLAN)

    def run(clients: int, constants: Constants) -> Run:
        words = loads.words(replace(serving(), isl=1024, osl=1024, concurrency=clients), LOADS)
        (found,) = runs.settle([Job(site, tuple(sorted(words.items())), constants)])
        assert isinstance(found, Run)
        return found

    one, later = run(1, Constants()), run(1, Constants(1e-3, request_s=0.05))
    points = len(runs.kept[site].figures)
    assert later.tpot_s == pytest.approx(one.tpot_s + 1e-3)
    assert later.ttft_s == pytest.approx(one.ttft_s + 0.051)
    step_s = estimate(Point(PLAN, "decode", 1, 1400), None)
    assert isinstance(step_s, Estimate)
    assert one.tpot_s == pytest.approx(step_s.time_s, rel=0.02)
    assert len(runs.kept[site].figures) == points  # other constants compile nothing
    many = run(16, Constants())
    assert many.tpot_s > one.tpot_s and many.ttft_s > one.ttft_s and many.at(99)[0] > many.ttft_s
    assert run(16, Constants(prompt_factor=1.5)).ttft_s > many.ttft_s
    slow = replace(Job(site, tuple(sorted(loads.words(serving(), LOADS).items())), Constants()), factor=2.0)
    fast = replace(slow, factor=1.0)
    slower, faster = runs.settle([slow, fast])
    assert isinstance(slower, Run) and isinstance(faster, Run)
    assert slower.e2e_s == pytest.approx(2 * faster.e2e_s)


def test_rates_of_one_kind_of_step() -> None:
    """12 sequences on 4 GPUs make 3 tokens each a step; a prefill takes 8,192 tokens where none are stated."""
    points = {Point(PLAN, "decode", 12, 1050): step(0.01), Point(PLAN, "prefill", 8, 1000): step(0.5)}
    rows = [replace(serving("decode_rate", 12), isl=1050, gpus=4), replace(serving("input_rate"), gpus=4)]
    decode, prefill = settled(rows, points)[0]
    host_s = SHIPPED["trtllm"].host_s
    assert decode.value == pytest.approx(3 / (0.01 + host_s))
    assert prefill.value == pytest.approx(8 * 1000 / 4 / (0.5 + host_s))


def test_memory_limits_the_batch_of_a_phase_alone() -> None:
    """80 GB x 0.9 - 10 GB leave 62 GB: of nine sequences of 20 GB each, three."""
    points = {
        Point(PLAN, "prefill", 1, 1000): step(0.1),
        Point(PLAN, "decode", 9, 1050): step(0.01, kv_B=180e9),
        Point(PLAN, "decode", 3, 1050): step(0.008, kv_B=60e9),
    }
    found = alone(serving(), Catalog().constants["engines"], known(points))
    assert (found.phase_s, found.bound) == (0.008, 0.004)


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
    assert [o.ratio for o in done] == [pytest.approx(2.0 / 0.02), pytest.approx(3.0 / 0.5)]
    found = stated_errors.of(
        [*done, *(replace(o, case=replace(o.case, half="check")) for o in done)],
        [[(1.0, 2.0), (1.1, 2.0)]],
        {"roofline": {"decode": [0.25], "prefill": [0.5]}},
        {"TPOT, without the model, all": [1.5], "TTFT, without the model, vllm": [0.5, 0.5]},
    )
    assert found["servings"] == {
        "": {"tpot": {"median": 0.5, "p90": 0.5, "bias": 0.5, "cases": 1}},
        "vllm": {"ttft": {"median": 0.5, "p90": 0.5, "bias": -0.5, "cases": 2}},
    }
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
    plan = compiled("mixtral_8xh100")
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


def test_series_say_what_else_their_runs_differ_in(tmp_path: Path) -> None:
    new = {"backend_version": "1", "backend": "sglang"}
    rows = [
        layout_row(4, 4, 1, 10.0, **new),
        layout_row(4, 2, 2, 14.0, **new),  # tp2 with experts on two ranks, multiplied
        layout_row(2, 2, 1, 15.0, **new),
        layout_row(4, 4, 1, 9.0, **new, concurrency="16"),
        layout_row(4, 1, 4, 8.0, **new | {"backend_version": "2"}, concurrency="16"),
        layout_row(4, 4, 1, 9.0, **new | {"backend_version": ""}, concurrency="32"),
        layout_row(4, 1, 4, 8.0, **new, concurrency="32"),
        layout_row(4, 4, 1, 9.0, **new, concurrency="64"),
        layout_row(4, 1, 4, 8.0, **new, concurrency="64"),
    ]
    file = csv_of(tmp_path, rows)
    labelled = {one.what[-1]: one.doubts for one in ranking.series(file, Catalog(CONFIGS))}
    assert labelled == {
        "8": (ranking.OTHER_GPUS,), "16": (ranking.VERSIONS,), "32": (ranking.NO_VERSION,), "64": ()
    }  # fmt: skip
    ran = {(one.what[-1], one.gpus, one.version): set(one.measured_s) for one in ranking.as_run(file, Catalog(CONFIGS))}
    assert ran == {
        ("8", 2, "1"): {(2, 1, 1, 1, 2), (2, 1, 1, 2, 1)},
        ("64", 4, "1"): {(4, 1, 1, 4, 1), (4, 1, 1, 1, 4)},
    }


def test_degrees_as_they_ran() -> None:
    def row(engine: str, tp: int, dp: int | str, moe_tp: int, ep: int, tpot: float = 1.0) -> dict[str, str]:
        degrees = {"tp_size": tp, "pp_size": 1, "attention_dp_size": dp, "moe_tp_size": moe_tp, "moe_ep_size": ep}
        load = dict.fromkeys(LOAD, "") | {"backend": engine}
        return (
            load | {k: str(v) for k, v in degrees.items()} | {"measured_ttft_ms": "90", "measured_tpot_ms": str(tpot)}
        )

    for given, wanted in (
        (("sglang", 16, 1, 4, 4), Layout(4, 1, 1, 4, 1)),
        (("trtllm", 1, 64, 8, 8), Layout(1, 1, 8, 8, 1)),
        (("vllm", 4, 4, 1, 16), Layout(4, 1, 1, 4, 1)),
        (("trtllm", 4, 4, 1, 16), Layout(4, 1, 4, 16, 1)),  # of vLLM alone
        (("trtllm", 4, "", 2, 2), Layout(4, 1, 1, 2, 2)),  # another source
        (("trtllm", 8, 1, 2, 4), Layout(8, 1, 1, 4, 2)),
        (("sglang", 1, 1, 1, 1), Layout(1, 1, 1, 1, 1)),
    ):
        assert ran(row(*given)) == wanted
    listed = [row("sglang", 16, 1, 4, 4, 2.0), row("sglang", 4, 1, 1, 4, 2.001), row("sglang", 16, 1, 4, 4, 3.0)]
    assert of_rows(listed) == Twins(2, 1)


def test_intervals() -> None:
    assert ranking.wilson(34, 42) == (pytest.approx(0.667, abs=1e-3), pytest.approx(0.900, abs=1e-3))
    assert ranking.wilson(0, 0) == (0.0, 1.0)
    low, high = ranking.bootstrap([0.0, 0.1] * 20, 2000)
    assert low < 0.05 < high and high - low == pytest.approx(4 * 0.05 / 40**0.5, rel=0.2)


def rows_of(engine: str, model: str, host_ms: float, n: int = 4) -> list[servings.Case]:
    """Runs whose host takes `host_ms` a step, and 50 ms a request."""
    found = []
    for i in range(n):
        plan = replace(PLAN, model=model, engine=engine)
        job = Job(Site(plan), (("step", i),), Constants())
        for metric, value in (("tpot", 0.01 * (i + 1) + host_ms * 1e-3), ("ttft", 0.15)):
            one = replace(
                serving(metric), value=value, where=("gpu", model, engine), confidence="high", row=f"{model}{i}"
            )
            found.append(servings.Case(one, Alone(0.0), job, "tune"))
    return found


def slow_host(job: Job) -> tuple[float, float]:
    return 0.01 * (dict(job.words)["step"] + 1) + job.constants.host_s, 0.1 + job.constants.request_s


def test_constants_are_fitted_by_engine_and_without_what_is_left_out() -> None:
    found = rows_of("vllm", "a", 1.0) + rows_of("vllm", "b", 3.0) + rows_of("sglang", "a", 2.0)
    runs, base = Formula(slow_host), dict.fromkeys(("vllm", "sglang"), Constants(5e-4))
    engines = ("vllm", "sglang")
    fitted = host.fit(host.linear(rows_of("vllm", "a", 1.0), base, runs), engines)
    assert fitted["vllm"].host_s == pytest.approx(0.001, abs=2e-5)
    assert fitted["vllm"].request_s == pytest.approx(0.05, abs=1e-3)
    assert fitted["vllm"].prompt_factor == 1.0  # nothing says that it is more
    assert fitted["sglang"] == fitted["vllm"]  # nobody measured it
    out = host.left_out(host.linear(found, base, runs), engines, lambda c: c.serving.where[1])
    assert len(out) == len(found)
    # vLLM's `a` is predicted with what `b` took, 2 ms too many a step; and `b` with 2 ms too few.
    ratio = {(o.serving.where[1:], o.serving.metric, o.serving.row): o.ratio for o in out}
    assert ratio[("a", "vllm"), "tpot", "a3"] == pytest.approx(43 / 41, abs=1e-3)
    assert ratio[("b", "vllm"), "tpot", "b3"] == pytest.approx(41 / 43, abs=1e-3)
    assert [r for o, r in servings.requests(out)] and all(0.8 < r < 1.2 for _, r in servings.requests(out))


def test_constants_are_those_of_the_product() -> None:
    for engine in ("trtllm", "vllm", "sglang"):
        own, found = SHIPPED[engine], host_constants.constants(engine)
        assert (found.host_s, found.launch_s or 0.0, found.request_s, found.prompt_factor) == tuple(
            pytest.approx(value) for value in astuple(own)
        )
        assert found.source


OPEN = {
    "serving_mlperf_v5_1.csv": {
        "submitter": "S", "model": "mixtral-8x7b", "scenario": "Server", "accelerator": "NVIDIA H200-SXM-141GB", "nodes": "1",
        "acc_per_node": "8", "result": "VALID", "target_qps": "400", "ttft_p99_ms": "500", "tpot_p99_ms": "180",
        "ttft_limit_ms": "2000", "tpot_limit_ms": "200", "min_query_count": "100", "mean_output_tokens": "146.7", "tp": "1",
        "precision": "fp8", "gpu_batch_size": "3072", "max_num_tokens": "8192", "attention_dp": "", "sched_policy": "max_util",
    },
    "serving_rates_vllm.csv": {
        "model": "mistralai/Mixtral-8x7B-v0.1", "gpu": "H100-SXM", "engine": "vLLM 0.15.1", "tp": "2", "max_num_seqs": "128",
        "max_num_batched_tokens": "2048", "rate_rps": "4", "duration_s": "600", "system_prompt_len": "100",
        "prompt_len_mean": "589.4", "output_len_mean": "242.7", "ttft_mean_ms": "63", "ttft_median_ms": "53", "overloaded": "0",
    },
}  # fmt: skip


def test_servings_with_arrivals_of_their_own_are_read(tmp_path: Path) -> None:
    for name, row in OPEN.items():
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(row))
            writer.writeheader()
            writer.writerows(
                [row, row | {"accelerator": "AMD"}] if "accelerator" in row else [row, row | {"model": "nobody/x"}]
            )
    found, refused = open_loop.read(tmp_path, Catalog(CONFIGS))
    assert [str(error) for _, error in refused] == ["no preset or config of the model"]
    chats, limited = sorted(found, key=lambda one: one.limits_s is not None)
    words = dict(limited.job.words)
    assert words["arrivals"] == Arrivals("poisson", rate_per_s=50.0)  # of one of eight replicas
    assert (words["requests"], words["slots"], words["admit"]) == (20_000, 3072, "prompt")
    assert dict(open_loop.faster(limited, 1.2).job.words)["arrivals"].rate_per_s == 60.0
    words = dict(chats.job.words)
    assert (words["arrivals"].rate_per_s, words["requests"], words["prefix"], words["prefix_cache"]) == (
        4.0,
        2400,
        100,
        True,
    )
    assert chats.measured == {("ttft", "mean"): 0.063, ("ttft", "p50"): 0.053}
    assert open_loop._replicas("2DP4TP_fp8") == (2, 4) and open_loop._replicas("8TP") == (1, 8)


def test_a_run_is_inside_its_limits_at_p99() -> None:
    job = Job(Site(PLAN), (), Constants())
    offered = open_loop.Offered("s", "n", ("", "", "vllm"), job, {}, (2.0, 0.2), False)
    inside = Run(0.1, 0.1, 1.0, 1.0, 1.0, ((99, (1.9, 0.19, 3.0)),), "stable")
    beyond = replace(inside, percentiles=((99, (1.9, 0.21, 3.0)),))
    one = open_page.Simulated(offered, inside, beyond)
    assert one.inside and one.breaks
    row = [line for line in goals.section(unseen.Unseen({}), [], [one], []).splitlines() if "MLPerf" in line]
    assert "1 of 1 (100%)" in row[0] and row[0].endswith("| yes |") and "1 of 1" in row[1]


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
