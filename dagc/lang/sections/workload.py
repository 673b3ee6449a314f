"""Elaboration of the workload: its sequences, and the distribution of its routing."""

from __future__ import annotations

from pathlib import Path

from ...base.schema.workload import WORKLOAD
from ...base.source import Span
from ...base.units import Quantity
from ...spec.workload import Routing, Workload
from ..body import Body
from ..reader import Reader
from ..values.names import Names
from .token_choice import read_routing


def read_workload(body: Body, names: Names, base: Path | None, span: Span) -> Workload | None:
    """The batch and how its tokens choose experts, or None when something is wrong or missing."""
    values = Reader("workload", body, WORKLOAD, names).read()
    routing = read_routing(body, names, base) if "routing" in body.assigns else Routing()
    counts = [values[k] for k in ("sequences", "prompt", "output")]
    if routing is None or not all(isinstance(v, Quantity) for v in counts):
        return None
    sequences, prompt, output = (int(v.value) for v in counts if isinstance(v, Quantity))
    return Workload(sequences, prompt, output, routing, span)
