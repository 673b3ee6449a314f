"""Whether an engine runs phases, by the rules of its exporter: for many candidates, of which no plan is compiled."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.frozen import record
from ...pipeline.lower import unverified
from ...plan.searched import ENGINE, NOT_READY
from ...spec.unit import Unit
from .degrees import layout
from .facts import facts
from .servers import refused


@record
class Runs:
    """Of one engine. `rule`: what plans are refused by."""

    engine: str

    @property
    def rule(self) -> str:
        return f"{ENGINE}{self.engine}"

    def __call__(self, units: Sequence[Unit]) -> tuple[str, str] | None:
        """(rule, what it is that the engine does not do) of phases that run beside each other; None: it runs them. Raises SpecError
        where one cannot be lowered."""
        graphs = [unverified(unit) for unit in units]
        layouts = [layout(graph, graph.the_mesh.the_gpus.ids, unit) for graph, unit in zip(graphs, units, strict=True)]
        found = refused(layouts, self.engine)
        if found is None:
            return None
        known = facts(self.engine)
        why = f"{known.label}: {found.rules[0]}"
        return (NOT_READY if found.lacking else self.rule), why
