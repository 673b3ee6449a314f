"""Published times of single kernels and collectives, against the calibrated families."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.calib import all_to_all as exchange
from dagc.calib import (
    cluster_exchange,
    collective,
    custom_allreduce,
    decode_attention,
    decode_mla,
    domain_a2a,
    gemm,
    load,
    moe,
    moe_a2a,
    prefill_attention,
    prefill_mla,
)
from dagc.calib.calibration import Calibration
from dagc.calib.family import Family
from dagc.calib.head_widths import width_class
from dagc.cost.measured import estimate_s, faster, scaled
from dagc.lang.load import load as load_spec
from dagc.spec.hardware import Hardware

from .case import Inexpressible
from .catalog import Catalog

ENGINE = "trtllm"
SECONDS = {"us": 1e-6, "ms": 1e-3}


@dataclass(frozen=True, slots=True)
class KernelCase:
    """`ratio`: estimate over measurement. `own`: constants of this very GPU, else scaled ones."""

    family: str
    gpu: str
    own: bool
    ratio: float
    what: str


def read(file: Path, catalog: Catalog) -> tuple[list[KernelCase], list[tuple[str, Inexpressible]]]:
    """Every record of a kernel or collective that states a latency, or a bandwidth and its payload."""
    done: list[KernelCase] = []
    refused: list[tuple[str, Inexpressible]] = []
    for record in json.loads(file.read_text(encoding="utf-8")):
        if record["kind"] == "e2e":
            continue
        try:
            done.append(_case(record, catalog))
        except Inexpressible as error:
            refused.append((f"kernels, {record['confidence']}", error))
    return done, refused


def _case(record: Mapping[str, Any], catalog: Catalog) -> KernelCase:
    op = record["workload"].get("op", "")
    family = FAMILIES.get(op)
    if family is None:
        raise Inexpressible(f"no measured family for {op}")
    seconds = measured_s(record)
    preset = catalog.gpu(record["hardware"]["gpu"])
    machine = _machine(preset)
    if machine.calibration is None:
        raise Inexpressible("no calibration of the GPU")
    calibration = load(machine.calibration)
    time_s = family(record, calibration, machine)
    own = machine.calibration.split("_")[0] == preset.split("-")[0]
    text = ", ".join(
        f"{k} {v}" for k, v in record["workload"].items() if isinstance(v, (int, str)) and k != "bytes_meaning"
    )
    return KernelCase(op, preset, own, time_s / seconds, text)


def _machine(preset: str) -> Hardware:
    text = f'moe 1\nhardware from "{preset}" {{ }}\nmodel from "mixtral-8x7b" {{ }}\nworkload {{ sequences = 1, prompt = 1 tok }}\nphase decode {{ gpus = 0 }}\n'
    return load_spec(Source("<preset>", text), Collector()).hardware


def _dtype(label: object) -> str:
    text = str(label).lower()
    if "mxfp4" in text:
        return "w4a8_mxfp4_mxfp8" if "a8" in text or "mxfp8" in text else "w4a16_mxfp4"
    if "block" in text:
        return "fp8_block"
    return next(
        (d for d in ("nvfp4", "fp8", "bf16") if d in text), "bf16" if "bfloat16" in text or "16" in text else text
    )


def _price(cal: Calibration, hw: Hardware, family: Family[Any], variants: str | tuple[str, ...], *sizes: Any) -> float:
    """By the first of the variants that was measured of the default engine on this very GPU."""
    wanted = (variants,) if isinstance(variants, str) else variants
    known = cal.of(family, ENGINE)
    entry = next((known[variant] for variant in wanted if variant in known), None)
    if entry is None:
        raise Inexpressible("no measured variant of this dtype or width")
    return float(estimate_s(family, scaled(entry, faster(cal, hw)), *sizes))


def _gemm(r: Mapping[str, Any], cal: Calibration, hw: Hardware) -> float:
    w = r["workload"]
    return _price(cal, hw, gemm.FAMILY, _dtype(r["precision"]["gemm"]), w["m"], w["n"], w["k"])


def _moe(r: Mapping[str, Any], cal: Calibration, hw: Hardware) -> float:
    w = r["workload"]
    if w.get("distribution") != "balanced":
        raise Inexpressible("fused_moe: the draw of the expert loads is not stated")
    ranks, tokens = int(w.get("moe_ep", 1)), float(w["num_tokens"])
    local = w["experts"] // ranks
    rows = moe.expected_rows([tokens * w["topk"] / w["experts"]] * local)
    inter = w["intermediate"] / int(w.get("moe_tp", 1))
    return _price(cal, hw, moe.FAMILY, _dtype(r["precision"]["moe"]), rows, tokens, w["topk"], w["hidden"], inter)


def _prefill(r: Mapping[str, Any], cal: Calibration, hw: Hardware) -> float:
    w, dtype = r["workload"], _dtype(r["precision"]["attention"])
    key = prefill_attention.key(dtype, _dtype(r["precision"].get("kv", dtype)), width_class(w["head_dim"], False))
    sizes = w["batch"], w["seq"], w["q_heads"], w["kv_heads"], w["head_dim"]
    return _price(cal, hw, prefill_attention.FAMILY, key, *sizes)


def _decode(r: Mapping[str, Any], cal: Calibration, hw: Hardware) -> float:
    w, kv = r["workload"], _dtype(r["precision"].get("kv", "bf16"))
    key = decode_attention.key(kv, width_class(w["head_dim"], False), w["q_heads"], w["kv_heads"])
    sizes = w["batch"], w["kv_len"], w["q_heads"], w["kv_heads"], w["head_dim"]
    return _price(cal, hw, decode_attention.FAMILY, key, *sizes)


def _mla_decode(r: Mapping[str, Any], cal: Calibration, hw: Hardware) -> float:
    w = r["workload"]
    key = decode_mla.key(_dtype(r["precision"].get("kv", "bf16")))
    return _price(cal, hw, decode_mla.FAMILY, key, w["batch"], w["kv_len"], w["q_heads"])


def _mla_prefill(r: Mapping[str, Any], cal: Calibration, hw: Hardware) -> float:
    w = r["workload"]
    if w.get("head_dim_k") != 192:
        raise Inexpressible("no measured variant of this dtype or width")
    return _price(cal, hw, prefill_mla.FAMILY, prefill_mla.key("bf16", "bf16"), w["batch"], w["seq"], w["q_heads"])


def _collective(r: Mapping[str, Any], cal: Calibration, hw: Hardware) -> float:
    w, ranks = r["workload"], r["parallel"]["ranks"]
    if w["op"] == "alltoall":
        return _price(cal, hw, exchange.FAMILY, "all_to_all", ranks, w["bytes"])
    if r["runtime"] == "TensorRT-LLM custom all-reduce":
        return _price(cal, hw, custom_allreduce.FAMILY, "graph", ranks, w["bytes"])
    return _price(cal, hw, collective.FAMILY, w["op"], ranks, w["bytes"])


FOR_LATENCY = ("DeepEP low-latency", "DeepEP-CX7", "pplx-CX7", "UCCL-EP")
FOR_THROUGHPUT = ("DeepEP normal", "DeepEP V2", "Hybrid-EP")
FITTED = ("DeepEP V1", "DeepEP normal", "DeepEP-CX7")
"""Runtimes whose published times across nodes the constants are read off."""


def _speed(r: Mapping[str, Any]) -> str:
    runtime = r["runtime"]
    if runtime in FOR_LATENCY or "-ll-" in r["id"]:
        return "ll"
    if runtime in FOR_THROUGHPUT or "-normal-" in r["id"]:
        return "ht"
    raise Inexpressible("exchange of tokens: the kernel is not stated")


def _tokens(r: Mapping[str, Any], cal: Calibration, hw: Hardware) -> float:
    """By the tables of SGLang, which time DeepEP alone, else of another engine; by the kernels of a whole domain there."""
    w, ranks, speed = r["workload"], r["parallel"]["ep"], _speed(r)
    sent = w["tokens_per_rank"], w["hidden"], w["topk"], ranks, _element_B(r)
    if ranks > hw.per_node:
        return _over_nodes(r, hw, speed)
    sms = re.search(r"-sm(\d+)$", r["id"])
    domain = cal.of(domain_a2a.FAMILY, ENGINE).get(domain_a2a.key("nvlink_one_sided", w["op"]))
    if domain is not None:
        return float(estimate_s(domain_a2a.FAMILY, scaled(domain, faster(cal, hw)), *sent))
    for engine in ("sglang", "vllm", "trtllm"):
        entry = cal.of(moe_a2a.FAMILY, engine).get(moe_a2a.key(f"deepep_{speed}", w["op"]))
        if entry is not None:
            given = (float(sms[1]),) if sms and speed == "ht" else ()
            return float(estimate_s(moe_a2a.FAMILY, scaled(entry, faster(cal, hw)), *sent, *given))
    raise Inexpressible("no measured variant of this dtype or width")


def _over_nodes(r: Mapping[str, Any], hw: Hardware, speed: str) -> float:
    if r["runtime"] in FITTED:
        raise Inexpressible("exchange of tokens across nodes: its constants are read off these")
    w, nodes = r["workload"], int(r["hardware"]["nodes"])
    sms = re.search(r"-sm(\d+)$", r["id"])
    constants = cluster_exchange.constants()[f"{speed}_{w['op']}"].constants
    row_B = w["hidden"] * _element_B(r)
    return float(
        cluster_exchange.time_s(
            constants, w["tokens_per_rank"], row_B, w["topk"], nodes, hw.links[-1].bandwidth_Bps,
            sms=float(sms[1]) if sms else cluster_exchange.SMS,
        )
    )  # fmt: skip


def _element_B(r: Mapping[str, Any]) -> float:
    """fp8 has a scale of 4 bytes for 128 elements."""
    return 1 + 4 / 128 if r["precision"]["payload"] == "fp8" else 2.0


def measured_s(r: Mapping[str, Any]) -> float:
    """Seconds of the record: stated, or what its bandwidth says of its payload.

    Bus bandwidth: nccl-tests, doc/PERFORMANCE.md. Bandwidths of exchanges of tokens count a copy of each token for every rank
    that it hits, the own included, or every node where the network is the bottleneck (deepseek-ai/DeepEP, tests/).
    """
    metric, value, w = r["metric"], float(r["value"]), r["workload"]
    if metric == "latency":
        return value * SECONDS[r["unit"]]
    if metric == "bus_bandwidth" and "bytes" in w:
        ranks = r["parallel"]["ranks"]
        return float(w["bytes"] * (2 if w["op"] == "all_reduce" else 1) * (ranks - 1) / ranks / (value * 1e9))
    if metric in ("bottleneck_bandwidth", "algorithm_bandwidth") and w["op"] in ("dispatch", "combine"):
        network = "RDMA" in r["note"]
        places = int(r["hardware"]["nodes"]) if network else int(r["parallel"]["ep"])
        experts, k = int(w["experts"]), int(w["topk"])
        missed = comb(experts - experts // places, k) / comb(experts, k)
        limit = re.search(r"at most (\d+) nodes", r["note"])
        copies = min(places * (1 - missed), float(limit[1])) if limit else places * (1 - missed)
        return float(w["tokens_per_rank"] * w["hidden"] * _element_B(r) * copies / (value * 1e9))
    raise Inexpressible(f"{w['op']}: {metric} instead of a time")


Pricer = Callable[[Mapping[str, Any], Calibration, Hardware], float]
FAMILIES: dict[str, Pricer] = {
    "gemm": _gemm,
    "fused_moe": _moe,
    "gqa_prefill": _prefill,
    "gqa_decode": _decode,
    "mla_decode": _mla_decode,
    "mha_prefill": _mla_prefill,
    **dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter", "alltoall"), _collective),
    **dict.fromkeys(("dispatch", "combine"), _tokens),
}
