"""Measured servings, read into one record: the CSV of an aiconfigurator package, and records of published figures."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .case import Deployment, Inexpressible, Layout
from .catalog import Catalog
from .run_degrees import ran, stated, whole


@dataclass(frozen=True, slots=True)
class Serving:
    """One measured figure of a serving. `metric`: tpot, ttft, or one of `METRICS`; `value` in seconds or tokens/s.

    `concurrency`: requests in flight in all. `decode` differs from `prefill` when the two are disaggregated, each with
    a number of workers. `row`: figures of one run have the same one.
    """

    source: str
    confidence: str
    metric: str
    value: float
    isl: int
    osl: int
    concurrency: int | None
    prefill: Deployment
    decode: Deployment
    prefill_workers: int = 0
    decode_workers: int = 0
    where: tuple[str, str, str] = ("", "", "")  # GPU, model, engine
    speculative_layers: bool = False
    static_batch: int = 0
    tokens_per_gpu: int = 0
    gpus: int = 0
    saturated: bool = False  # more requests than the engine takes
    peer: float | None = None  # what another tool predicts, in the figure's unit
    row: str = ""
    id: str = ""  # of a record
    calibration: str = ""  # of the GPU; empty: it has none

    @property
    def is_rate(self) -> bool:
        return self.metric.endswith("rate")

    @property
    def disaggregated(self) -> bool:
        return self.decode_workers > 0


Refused = tuple[str, Inexpressible]
NO_WORKERS = "disaggregated, the number of workers not stated"


def read_csv(file: Path, catalog: Catalog) -> tuple[list[Serving], list[Refused]]:
    """Two figures a row: TPOT and TTFT."""
    done: list[Serving] = []
    refused: list[Refused] = []
    with file.open(newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            values = {metric: float(row.get(f"measured_{metric}_ms") or 0) for metric in ("tpot", "ttft")}
            figures = {metric: value * 1e-3 for metric, value in values.items() if value > 0}
            try:
                serving = replace(_csv_serving(row, catalog), row=f"{file.stem} {number}")
            except Inexpressible as error:
                refused += [(file.stem, error)] * len(figures)
                continue
            except (KeyError, TypeError, ValueError):
                refused += [(file.stem, Inexpressible(INCOMPLETE))] * len(figures)
                continue
            done += [replace(serving, metric=metric, value=value) for metric, value in figures.items()]
    return done, refused


def _csv_serving(row: Mapping[str, str], catalog: Catalog) -> Serving:
    split = row["mode"] == "disagg"
    labels = (row["gemm_quant_mode"] or row["precision"], row["moe_quant_mode"] or row["precision"])
    if not labels[0]:
        labels = (_suffix(row["model_path"]),) * 2

    concurrency = whole(row["concurrency"])
    if split and not (whole(row["prefill_num_workers"]) and whole(row["decode_num_workers"])):
        raise Inexpressible(NO_WORKERS)
    sides = (stated(row, "prefill_"), stated(row, "decode_")) if split else (ran(row),) * 2
    serving = _serving(
        catalog, "measured_serving", "", row["model_path"], row["system"], row["backend"], labels, None, sides,
        (whole(row["prefill_num_workers"]), whole(row["decode_num_workers"])) if split else (0, 0),
        int(row["isl"]), int(row["osl"]), concurrency or None,
    )  # fmt: skip
    return serving if split or not whole(row["attention_dp_size"]) else _as_launched(serving, catalog)


def _as_launched(serving: Serving, catalog: Catalog) -> Serving:
    """With what the launch scripts of its sweep set."""
    plan, (preset, model, engine) = serving.decode, serving.where
    recipe = catalog.recipe(engine, model, preset, plan.expert_dtype)
    kv_dtype, activations = recipe.get("kv", plan.kv_dtype), recipe.get("expert_activations")
    plan = replace(plan, kv_dtype=kv_dtype, expert_activations=activations)
    drafts = recipe.get("drafts", serving.speculative_layers)
    return replace(serving, prefill=plan, decode=plan, speculative_layers=drafts)


def _suffix(model: str) -> str:
    """The format that a checkpoint's own name states."""
    last = model.rsplit("-", 1)[-1].lower()
    return last if last in ("fp8", "nvfp4", "bf16") else ""


def read_records(file: Path, catalog: Catalog) -> tuple[list[Serving], list[Refused]]:
    """The `e2e` records of a file of published measurements, one figure each."""
    done: list[Serving] = []
    refused: list[Refused] = []
    for record in json.loads(file.read_text(encoding="utf-8")):
        if record.get("kind") != "e2e":
            continue
        try:
            done.append(replace(_record_serving(record, catalog), row=_run_of(record)))
        except Inexpressible as error:
            refused.append((f"{file.stem.rsplit('_', 1)[0]}, {record.get('confidence', 'unrated')}", error))
        except (AttributeError, KeyError, TypeError, ValueError):
            refused.append(
                (f"{file.stem.rsplit('_', 1)[0]}, {record.get('confidence', 'unrated')}", Inexpressible(INCOMPLETE))
            )
    return done, refused


INCOMPLETE = "a record without what every one has"
RUN = ("source", "hardware", "model", "precision", "workload", "parallel", "runtime")


def _run_of(record: Mapping[str, Any]) -> str:
    """Records of one run differ in their figures alone."""
    return json.dumps([record.get(name) for name in RUN], sort_keys=True)


SCALE = {"ms": 1e-3, "s": 1.0}
METRICS = {
    "tpot_mean": "tpot",
    "ttft_mean": "ttft",
    "request_latency": "request",
    "first_token_latency": "ttft_static",
    "output_tokens_per_s_per_gpu": "output_rate",
    "output_tokens_per_s": "output_rate",
    "input_tokens_per_s_per_gpu": "input_rate",
    "input_tokens_per_s_per_node": "input_rate",
    "output_tokens_per_s_per_node": "decode_rate",
}


def _record_serving(record: Mapping[str, Any], catalog: Catalog) -> Serving:
    metric = METRICS.get(record["metric"])
    work, parallel, precision = dict(record["workload"]), record["parallel"], record["precision"]
    work.setdefault("isl", catalog.constants["lengths"].get(record.get("id")) or work.get("mean_kv_len"))
    for name, reason in (
        ("request_rate_qps", "open-loop arrivals are not modelled"),
        ("mtp", "speculative decoding"),
        ("dataset", "lengths of a data set"),
    ):
        if work.get(name):
            raise Inexpressible(reason)
    if metric is None:
        raise Inexpressible(f"metric {record['metric']} is not modelled")
    if not isinstance(work.get("isl"), int):
        raise Inexpressible("lengths not stated")
    if not record["model"].get("config"):
        raise Inexpressible("no preset or config of the model")
    gemm, experts = precision.get("gemm"), precision.get("moe")
    if not gemm and not experts:
        gemm = _suffix(record["model"]["name"]) or (precision.get("label") or "")
    labels = (gemm or experts or "", experts or gemm or "")
    split = isinstance(parallel.get("decode"), dict)
    sides = (
        (_record_layout(parallel["prefill"]), _record_layout(parallel["decode"]))
        if split
        else (_record_layout(parallel),) * 2
    )
    gpu, gpus = record["hardware"]["gpu"], int(record["hardware"]["count"])
    if not split and sides[0].gpus != gpus:
        raise Inexpressible("degrees do not multiply to the number of GPUs")
    workers = tuple(int(parallel[side].get("workers") or 0) for side in ("prefill", "decode")) if split else (0, 0)
    if split and not all(workers):
        raise Inexpressible(NO_WORKERS)
    static = int(work.get("batch") or 0) if work.get("static_batch") or metric == "ttft_static" else 0
    concurrency = work.get("concurrency") or (work["batch_per_gpu"] * gpus if work.get("batch_per_gpu") else None)
    tokens = int(work.get("tokens_per_gpu") or work.get("max_prefill_tokens") or 0)
    if metric == "decode_rate" and not (work.get("mean_kv_len") and work.get("batch_per_gpu")):
        raise Inexpressible(f"metric {record['metric']}: the batch in flight or its context is not stated")
    unit = record["unit"]
    per = {"tokens/s/node": 1.0 / record["hardware"]["gpus_per_node"], "tokens/s": 1.0 / gpus}.get(unit, 1.0)
    serving = _serving(
        catalog, "measured", record["confidence"], record["model"]["config"], gpu, record["runtime"], labels,
        precision.get("kv"), sides, workers, int(work["isl"]), int(work.get("osl") or 1), concurrency,
    )  # fmt: skip
    scale = SCALE.get(unit, per)
    shape = {
        "two_batch": str(parallel.get("overlap", "")).startswith("two"),
        "expert_slots": _expert_slots(work, parallel, sides[0]),
        "dispatch_dtype": "fp8" if precision.get("dispatch") == "fp8" or "DeepEP" in record["runtime"] else None,
    }
    return replace(
        serving,
        prefill=replace(serving.prefill, **shape),  # type: ignore[arg-type]
        decode=replace(serving.decode, **shape),  # type: ignore[arg-type]
        metric=metric,
        value=float(record["value"]) * scale,
        static_batch=static,
        tokens_per_gpu=tokens,
        gpus=gpus,
        saturated=str(work.get("load", "")).startswith("infinite"),
        id=str(record.get("id", "")),
        peer=next((float(p) * scale for p in record.get("tool_predictions", {}).values()), None),
    )


def _expert_slots(work: Mapping[str, Any], parallel: Mapping[str, Any], layout: Layout) -> int:
    """Experts and their replicas on all ranks, as `EPLB 288 slots` or a number on each GPU."""
    stated = re.search(r"EPLB (\d+) slots", str(work.get("routing", "")))
    return int(stated[1]) if stated else int(parallel.get("routed_experts_per_gpu") or 0) * layout.ep


def _record_layout(parallel: Mapping[str, Any]) -> Layout:
    def degree(*names: str) -> int:
        found = next((parallel[n] for n in names if isinstance(parallel.get(n), int)), 0)
        return int(found)

    if any(isinstance(parallel.get(n), str) for n in ("tp", "dp", "ep", "layout", "attention_dp")):
        raise Inexpressible("parallel degrees not stated")
    tp, pp, dp, ep = (degree("tp") or 1, degree("pp") or 1, degree("attention_dp", "dp") or 1, degree("ep"))
    moe_tp = degree("moe_tp")
    if not moe_tp and "moe_tp" not in parallel:
        moe_tp = tp * dp // (ep or 1)  # a source that names no expert-TP runs the rest of the group as such
    return Layout(tp, pp, dp, ep or (1 if "ep" not in parallel else 0), moe_tp)


def _serving(
    catalog: Catalog,
    source: str,
    confidence: str,
    model: str,
    gpu: str,
    runtime: str,
    labels: tuple[str, str],
    kv: str | None,
    sides: tuple[Layout, Layout],
    workers: tuple[int, int],
    isl: int,
    osl: int,
    concurrency: int | None,
) -> Serving:
    name, preset = catalog.model(model), catalog.gpu(gpu)
    engine = catalog.engine(runtime)
    dense, experts = catalog.weight_dtypes(name, *labels)
    per_node = catalog.per_node(preset)
    if not workers[1] and source != "measured" and sides[0].tp * sides[0].dp > per_node:
        raise Inexpressible("aggregated, with more ranks than a node has GPUs: the degrees are doubtful")
    one = kv in catalog.constants["dtypes"]  # else free text that names several, or none
    kv_dtype = catalog.dtype(str(kv)) if one else catalog.kv_dtype(engine, experts)
    prefill, decode = (Deployment(name, gpu, engine, side, dense, experts, kv_dtype) for side in sides)
    guesses = catalog.drafts(name)
    return Serving(
        source,
        confidence,
        "",
        0.0,
        isl,
        osl,
        concurrency,
        prefill,
        decode,
        *workers,
        (preset, name, engine),
        guesses,
        calibration=catalog.calibration(preset),
    )
