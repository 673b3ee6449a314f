"""Servings with arrivals of their own: what was offered, and what was measured of it. None of them is fitted on."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dagc.serving.records import Request
from dagc.spec.serve import Arrivals, Lengths

from .case import Deployment, Inexpressible, Layout
from .catalog import Catalog
from .published import Refused
from .runs import Job, Run
from .site import Constants, Site

SEED = 1
FIGURES = ("ttft", "tpot", "e2e")


@dataclass(frozen=True, slots=True)
class Offered:
    """One run. `measured`: seconds by figure and statistic (mean, p50, p90, p99). `limits_s`: of TTFT and TPOT at p99, which the run had to
    keep. `overloaded`: whether it fell behind; None: the source does not say."""

    source: str
    name: str
    where: tuple[str, str, str]  # GPU, model, engine
    job: Job
    measured: Mapping[tuple[str, str], float] = field(default_factory=dict, hash=False)
    limits_s: tuple[float, float] | None = None
    overloaded: bool | None = None
    calibration: str = ""  # of the GPU

    def with_constants(self, constants: Constants) -> Job:
        return replace(self.job, constants=constants)


def faster(offered: Offered, factor: float) -> Offered:
    """The same at another rate."""
    words = dict(offered.job.words)
    arrivals: Arrivals = words["arrivals"]
    words["arrivals"] = replace(arrivals, rate_per_s=arrivals.rate_per_s * factor)
    return replace(offered, job=replace(offered.job, words=tuple(sorted(words.items()))))


def read(data: Path, catalog: Catalog) -> tuple[list[Offered], list[Refused]]:
    """All files of the folder (or of one below it) that are known."""
    done: list[Offered] = []
    refused: list[Refused] = []
    for pattern, one in READERS.items():
        for file in sorted([*data.glob(pattern), *data.glob(f"*/{pattern}")]):
            with file.open(newline="", encoding="utf-8") as lines:
                rows = list(csv.DictReader(lines))
            done_here, refused_here = one(file, rows, catalog)
            done += [replace(o, calibration=catalog.calibration(o.where[0])) for o in done_here]
            refused += [(file.stem, error) for error in refused_here]
    return done, refused


Rows = Sequence[Mapping[str, str]]
Found = tuple[list[Offered], list[Inexpressible]]


def _each(rows: Rows, read_one: Any) -> Found:
    done: list[Offered] = []
    refused: list[Inexpressible] = []
    for row in rows:
        try:
            done.append(read_one(row))
        except Inexpressible as error:
            refused.append(error)
    return done, refused


def _rates(file: Path, rows: Rows, catalog: Catalog) -> Found:
    """vLLM at constant rates: chats whose prompts begin with one of a few system prompts, which the prefix cache has."""

    def one(row: Mapping[str, str]) -> Offered:
        deployment = _deployment(catalog, row["model"], row["gpu"], row["engine"], int(row["tp"]), "fp16", "fp16")
        prompt, output = round(float(row["prompt_len_mean"])), round(float(row["output_len_mean"]))
        words = {
            "arrivals": Arrivals("constant", rate_per_s=float(row["rate_rps"])),
            "lengths": Lengths("fixed", prompt, output),
            "requests": round(float(row["rate_rps"]) * float(row["duration_s"])),
            "slots": int(row["max_num_seqs"]),
            "batch_tokens": int(row["max_num_batched_tokens"]),
            "prefix": int(row["system_prompt_len"]),
            "prefix_cache": True,
        }
        return Offered(
            "vLLM at constant rates", f"{row['rate_rps']} req/s, {prompt}/{output}", _where(deployment), _job(deployment, words),
            _measured(row), overloaded=row["overloaded"] == "1",
        )  # fmt: skip

    return _each(rows, one)


def _mlperf(file: Path, rows: Rows, catalog: Catalog) -> Found:
    """Server runs of mixture-of-experts models on NVIDIA GPUs: Poisson arrivals, limits at p99."""
    known: Mapping[str, Any] = catalog.constants["mlperf"]

    def one(row: Mapping[str, str]) -> Offered:
        assumed = known["models"][row["model"]]
        gpu = next((preset for words, preset in known["gpus"].items() if words in row["accelerator"]), None)
        if gpu is None:
            raise Inexpressible("no hardware preset for the GPU")
        gpus = int(row["nodes"]) * int(row["acc_per_node"])
        tp = int(row.get("tp") or assumed["tp"])
        dp = tp if row.get("attention_dp") == "True" else 1
        label = row.get("precision") or assumed["precision"]
        dense, experts = catalog.weight_dtypes(assumed["config"], catalog.dtype(label), catalog.dtype(label))
        layout = Layout(tp // dp, 1, dp, tp if dp > 1 else 1, 1 if dp > 1 else tp)
        deployment = Deployment(assumed["config"], gpu, "trtllm", layout, dense, experts, "fp8")
        workers = gpus // tp
        rate = float(row["target_qps"]) / workers
        requests = max(int(float(row["min_query_count"])) // workers, round(known["least_s"] * rate))
        words: dict[str, Any] = {
            "arrivals": Arrivals("poisson", rate_per_s=rate),
            "lengths": Lengths(
                "lognormal", assumed["prompt"], round(float(row["mean_output_tokens"])), cv=assumed["cv"]
            ),
            "requests": min(requests, known["most_requests"]),
            "seed": SEED,
        }
        if row.get("gpu_batch_size"):
            words["slots"] = int(row["gpu_batch_size"])
        if row.get("max_num_tokens"):
            words["batch_tokens"] = int(row["max_num_tokens"])
        if row.get("sched_policy") == "max_util":
            words["admit"] = "prompt"
        return Offered(
            f"MLPerf {'v5.1' if 'v5_1' in file.stem else 'v4.1'}", f"{row['submitter']}, {row['scenario']}", _where(deployment),
            _job(deployment, words), _measured(row),
            (float(row["ttft_limit_ms"]) * 1e-3, float(row["tpot_limit_ms"]) * 1e-3), overloaded=False,
        )  # fmt: skip

    chosen = [
        row for row in rows
        if row["scenario"] != "Offline" and row["model"] in known["models"] and "NVIDIA" in row["accelerator"] and row["result"] == "VALID"
    ]  # fmt: skip
    return _each(chosen, one)


def _apex(file: Path, rows: Rows, catalog: Catalog) -> Found:
    """Runs of traces at Poisson rates; only means are stated."""

    def one(row: Mapping[str, str]) -> Offered:
        if "CUDA graphs" in row["note"]:
            raise Inexpressible("a server without CUDA graphs")
        trace = next(iter(sorted(file.parent.glob(f"arrivals_apex_*_{row['trace']}_05.csv"))), None)
        if trace is None:
            raise Inexpressible("the trace of the run is not there")
        replicas, tp = _replicas(row["layout"])
        dtype = "fp8" if "fp8" in row["layout"] else "fp16"
        deployment = _deployment(catalog, row["model"], row["gpu"], row["engine"], tp, dtype, "fp16")
        speed = float(row["poisson_rps"]) / 0.5
        requests = tuple(
            Request(float(r["arrival_s"]) / speed, int(r["input_tokens"]), max(1, int(r["output_tokens"])))
            for i, r in enumerate(csv.DictReader(trace.open(newline="", encoding="utf-8")))
            if i % replicas == 0
        )
        return Offered(
            "traces at Poisson rates", f"{row['trace']}, {row['poisson_rps']} req/s, {row['layout']}", _where(deployment),
            replace(_job(deployment, {}), requests=requests),
            {("ttft", "mean"): float(row["ttft_mean_ms"]) * 1e-3, ("tpot", "mean"): float(row["tpot_mean_ms"]) * 1e-3},
        )  # fmt: skip

    return _each(rows, one)


def _replicas(layout: str) -> tuple[int, int]:
    """(copies, tensor-parallel degree) of `2DP4TP_fp8`, `8TP`."""
    words = layout.split("_")[0]
    copies, _, rest = words.rpartition("DP")
    return int(copies or 1), int(rest.removesuffix("TP").removeprefix("TP"))


def _per_request(file: Path, rows: Rows, catalog: Catalog) -> Found:
    """Every request of an overloaded server: a test of queueing. Its steps are scaled so that TPOT is as measured."""
    done: list[Offered] = []
    refused: list[Inexpressible] = []
    for model in sorted({row["model"] for row in rows}):
        own = [row for row in rows if row["model"] == model]
        first = own[0]
        try:
            deployment = _deployment(catalog, model, first["gpu"], "vllm", int(first["tp"]), "bf16", "bf16")
        except Inexpressible as error:
            refused.append(error)
            continue
        requests = tuple(
            sorted(Request(float(r["arrival_s"]), int(r["input_tokens"]), max(1, int(r["output_tokens"]))) for r in own)
        )
        words = {"slots": int(first["max_num_seqs"]), "batch_tokens": int(first["max_num_batched_tokens"])}
        measured = {
            (figure, what): value
            for figure, column in (("ttft", "ttft_ms"), ("tpot", "tpot_ms"), ("e2e", "latency_ms"))
            for what, value in _spread([float(r[column]) * 1e-3 for r in own]).items()
        }
        done.append(
            Offered(
                "vLLM, request by request", f"{len(own)} requests", _where(deployment),
                replace(_job(deployment, words), requests=requests), measured, overloaded=True,
            )
        )  # fmt: skip
    return done, refused


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), **{f"p{p}": float(np.percentile(values, p)) for p in (50, 90, 99)}}


READERS: Mapping[str, Any] = {
    "serving_rates_vllm*.csv": _rates,
    "serving_mlperf*.csv": _mlperf,
    "serving_rates_apex*.csv": _apex,
    "serving_vllm_per_request*.csv": _per_request,
}


def _deployment(catalog: Catalog, model: str, gpu: str, runtime: str, tp: int, weights: str, kv: str) -> Deployment:
    name = catalog.model(model.removesuffix("-hf"))
    engine = catalog.engine(runtime)
    return Deployment(name, catalog.gpu(gpu), engine, Layout(tp, ep=1, moe_tp=tp), weights, weights, kv)


def _where(deployment: Deployment) -> tuple[str, str, str]:
    return deployment.gpu, deployment.model, deployment.engine


def _job(deployment: Deployment, words: Mapping[str, Any]) -> Job:
    return Job(Site(deployment), tuple(sorted(words.items())), Constants())


def _measured(row: Mapping[str, str]) -> dict[tuple[str, str], float]:
    found = {}
    for figure in FIGURES:
        for what, column in (("mean", "mean"), ("p50", "p50"), ("p50", "median"), ("p90", "p90"), ("p99", "p99")):
            text = row.get(f"{figure}_{column}_ms")
            if text:
                found[figure, what] = float(text) * 1e-3
    return found


def estimated(run: Run, figure: str, what: str) -> float:
    """Of a simulated run, the figure that was measured."""
    at = FIGURES.index(figure)
    if what == "mean":
        return (run.ttft_s, run.tpot_s, run.e2e_s)[at]
    return run.at(int(what[1:]))[at]
