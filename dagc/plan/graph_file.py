"""What a placed graph's file contains besides nodes and edges: all that is needed to compile it again.

Written by `dagc.export.json`, read by `dagc.importers.placed`.
"""

from __future__ import annotations

from typing import Any

from ..base.plain_data import to_data
from ..ir.graph import Graph
from ..ir.text.write import print_graph
from ..spec.expert_use import ALL
from ..spec.hardware import SHORT, Hardware, Level
from ..spec.kv_cache import KvCache
from ..spec.model import Model
from ..spec.phase import Phase
from ..spec.strategy import Strategy
from .plan import CompiledPlan

GRAPH_SCHEMA = 3
"""Version of the file; its JSON schema is `dagc/export/graph.schema.json`. Version 2 counted layers within their stage."""
READ_SCHEMAS = (2, 3)
USUAL = (("vendor", "nvidia"), ("kind", "gpu"))
MAY_LACK = ("price_per_s", "power_W", "host_memory_B", "host_link_Bps", "disk_Bps")
"""Of a hardware section: what is left out."""
FIELDS = ("schema", "phase", "ranks", "plan", "ir", "nodes", "edges")

SKIP = frozenset(
    {
        (Strategy, "place"),
        (Strategy, "best"),
        (Strategy, "ids"),
        (Model, "blocks"),
        (Model, "checkpoint"),
        (Phase, "constants"),
        (Phase, "gpus"),
        (Phase, "hardware"),
        (Phase, "precision"),
        (Phase, "training"),
    }
)
"""Fields whose result is in the placed graph, or in the hardware and the model beside it."""
SAID = ("tree", "chances", "draft_name", "exits", "by_work", "cuts", "chunks_overlap", "lengths")
"""Fields of a phase that are there where the phase says something."""


def plan_section(plan: CompiledPlan, phase: str) -> dict[str, Any]:
    """What costs depend on, besides the graph."""
    own = plan.spec.phase(phase)
    spec = plan.spec.of(own)
    parts = {"hardware": spec.hardware, "model": spec.model, "workload": spec.workload, "phase": own}
    data = {name: to_data(part, SKIP) for name, part in parts.items()} | {"hardware": hardware_data(spec.hardware)}
    for name in SAID:
        if not data["phase"][name]:
            del data["phase"][name]
    if own.strategy.apart is None:
        data["phase"]["strategy"].pop("apart", None)
    if own.strategy.rebalance is None:
        data["phase"]["strategy"].pop("rebalance", None)
    if own.experts == ALL:
        data["phase"].pop("experts", None)
    if own.cache == KvCache():
        data["phase"].pop("cache", None)
    if own.fuse is None:
        data["phase"].pop("fuse", None)
    if own.attention_kernel == "flash":
        data["phase"].pop("attention_kernel", None)
    link = spec.expert_link(own)
    if link is not None:
        joined = {"bandwidth_Bps": link.bandwidth_Bps, "latency_s": link.latency_s}
        data["experts"] = {"hardware": hardware_data(spec.experts_on(own)), "link": joined}
    return data


def step_section(plan: CompiledPlan, phase: str) -> dict[str, Any]:
    """The same of a training step, with its words; no dtype of a cache is among them."""
    found = plan_section(plan, phase)
    training = plan.spec.phase(phase).training
    return found | {"phase": found["phase"] | {"training": to_data(training)}}


def hardware_data(hardware: Hardware) -> dict[str, Any]:
    """A hardware section; levels that `link node` and `link cluster` say are written as those two, as a spec may."""
    data: dict[str, Any] = {}
    for key, value in to_data(hardware, SKIP).items():
        if key == "levels" and hardware.short:
            data |= {name: _link(level) for name, level in zip(SHORT, hardware.levels, strict=True)}
        elif (key in MAY_LACK and value is None) or (key, value) in USUAL:
            continue
        elif key != "per_host" or hardware.per_host != hardware.per_node:
            data[key] = value
        if key == "gpus" and hardware.short:
            data["per_node"] = hardware.per_node
    return data


def _link(level: Level) -> dict[str, float]:
    return {"bandwidth_Bps": level.bandwidth_Bps, "latency_s": level.latency_s}


def ir_section(graph: Graph) -> list[str]:
    return print_graph(graph).splitlines()
