"""What a placed graph's file contains besides nodes and edges: all that is needed to compile it again.

Written by `dagc.export.json`, read by `dagc.importers.placed`.
"""

from __future__ import annotations

from typing import Any

from ..base.plain_data import to_data
from ..ir.graph import Graph
from ..ir.text.write import print_graph
from ..spec.model import Model
from ..spec.phase import Phase
from ..spec.strategy import Strategy
from .plan import CompiledPlan

GRAPH_SCHEMA = 2
"""Version of the file; its JSON schema is `dagc/export/graph.schema.json`."""
FIELDS = ("schema", "phase", "ranks", "plan", "ir", "nodes", "edges")

SKIP = frozenset(
    {
        (Strategy, "place"),
        (Model, "blocks"),
        (Model, "checkpoint"),
        (Phase, "constants"),
        (Phase, "gpus"),
    }
)
"""Fields whose result is in the placed graph."""


def plan_section(plan: CompiledPlan, phase: str) -> dict[str, Any]:
    """What costs depend on, besides the graph."""
    spec = plan.spec
    own = spec.phase(phase)
    parts = {"hardware": spec.hardware, "model": spec.model, "workload": spec.workload, "phase": own}
    return {name: to_data(part, SKIP) for name, part in parts.items()}


def ir_section(graph: Graph) -> list[str]:
    return print_graph(graph).splitlines()
