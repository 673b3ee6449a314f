"""Static estimates of another tool (e2e_static.json): one step each, total, memory, and sums by class of op."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .case import Deployment, Estimate, Inexpressible, Layout, Point
from .catalog import Catalog
from .classes import reference_class
from .estimate import Estimates, routed_experts
from .skew import routing

GIB = 2**30
Classes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StaticPoint:
    """`ops_s`: the reference's seconds, by the corresponding classes of ours."""

    where: str
    point: Point
    time_s: float
    ops_s: Mapping[Classes, float]
    memory_B: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Compared:
    """A reference point and its estimate."""

    reference: StaticPoint
    ours: Estimate

    @property
    def ratio(self) -> float:
        return self.ours.time_s / self.reference.time_s


def read(file: Path, catalog: Catalog) -> tuple[list[StaticPoint], list[Inexpressible]]:
    """Points of the file, and what its configurations have that no deployment can say (one entry per point)."""
    root = json.loads(file.read_text(encoding="utf-8"))
    points, refused = [], []
    steps = int(root["decode_osl"]) - 1
    for config in root["configs"]:
        count = len(config["prefill"]) + len(config["decode"])
        try:
            deployment = _deployment(config["inputs"], catalog)
            model = catalog.model(deployment.model)
            where = f"{catalog.gpu(deployment.gpu)}, {model}"
            experts = routed_experts(model, catalog.configs)
            laws: Mapping[str, str] = catalog.constants["static_laws"]
            law = next((laws[name] for name in laws if name and model.startswith(name)), laws[""])
        except Inexpressible as error:
            refused += [error] * count
            continue
        for entry in config["prefill"]:
            points.append(
                _point(deployment, where, law, experts, "prefill", entry, int(entry["isl"]), "ttft_ms", "ops_ms")
            )
        for entry in config["decode"]:
            tokens = int(entry["context_tokens"]) + (steps + 1) // 2  # the mean over the steps, the new token included
            points.append(
                _point(deployment, where, law, experts, "decode", entry, tokens, "tpot_ms", "ops_ms_per_step")
            )
    return points, refused


def _deployment(inputs: Mapping[str, Any], catalog: Catalog) -> Deployment:
    layout = Layout(
        inputs["tp_size"],
        inputs["pp_size"],
        inputs["attention_dp_size"] or 1,
        inputs["moe_ep_size"] or 0,
        inputs["moe_tp_size"] or 0,
    )
    return Deployment(
        inputs["model_path"],
        inputs["system"],
        catalog.engine(inputs["backend"]),
        layout,
        catalog.dtype(inputs["gemm_quant_mode"]),
        catalog.dtype(inputs["moe_quant_mode"] or inputs["gemm_quant_mode"]),
        catalog.dtype(inputs["kvcache_quant_mode"]),
        catalog.dtype(inputs["fmha_quant_mode"]),
        quantise="separate",
    )


def _point(
    deployment: Deployment,
    where: str,
    law: str,
    experts: tuple[int, int] | None,
    kind: str,
    entry: Mapping[str, Any],
    tokens: int,
    total: str,
    parts: str,
) -> StaticPoint:
    """`experts`: (count, top_k) of the model, None when it has none."""
    sequences = int(entry["batch_per_dp_rank"]) * deployment.layout.dp
    step_tokens = sequences * (tokens if kind == "prefill" else 1)
    if experts is not None:
        drawn = routing(law, step_tokens, experts[0], experts[1], deployment.layout.ep)
        deployment = replace(deployment, routing=drawn)
    ops_s: dict[Classes, float] = {}
    for name, ms in entry[parts].items():
        classes = reference_class(name)
        ops_s[classes] = ops_s.get(classes, 0.0) + ms * 1e-3
    memory_B = {name: gib * GIB for name, gib in entry["memory_gib_per_gpu"].items()}
    return StaticPoint(where, Point(deployment, kind, sequences, tokens), entry[total] * 1e-3, ops_s, memory_B)


def compare(points: Sequence[StaticPoint], estimates: Estimates) -> tuple[list[Compared], list[Inexpressible]]:
    answers = estimates.settle([lambda p=p: estimates.ask(p.point) for p in points])  # type: ignore[misc]
    done, refused = [], []
    for point, answer in zip(points, answers, strict=True):
        if isinstance(answer, Inexpressible):
            refused.append(answer)
        else:
            done.append(Compared(point, answer))
    return done, refused


@dataclass(frozen=True, slots=True)
class ClassError:
    """One class over many points. `share`: of the reference's time. `adds`: median of (ours - theirs) / their total."""

    name: str
    ratios: tuple[float, ...]
    share: float
    adds: float


LEAST_SHARE = 0.002
"""A class below this share of its point's time is too small for a ratio."""


def class_errors(compared: Sequence[Compared]) -> list[ClassError]:
    """By class of the reference; what only ours has comes last, as `(ours alone)`."""
    ratios: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    adds: dict[str, list[float]] = {}
    for item in compared:
        covered: set[str] = set()
        total_s = item.reference.time_s
        for classes, theirs_s in item.reference.ops_s.items():
            name = " + ".join(classes)
            ours_s = item.ours.of(*classes)
            covered |= set(classes)
            shares.setdefault(name, []).append(theirs_s / total_s)
            adds.setdefault(name, []).append((ours_s - theirs_s) / total_s)
            if theirs_s > LEAST_SHARE * total_s:
                ratios.setdefault(name, []).append(ours_s / theirs_s)
        alone_s = sum(s for n, s in item.ours.classes if n not in covered)
        shares.setdefault("(ours alone)", []).append(0.0)
        adds.setdefault("(ours alone)", []).append(alone_s / total_s)
    return [
        ClassError(
            name, tuple(ratios.get(name, ())), sum(shares[name]) / len(shares[name]), sum(adds[name]) / len(adds[name])
        )
        for name in shares
    ]
