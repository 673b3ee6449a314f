"""Whether an engine runs phases, by the rules of its exporter: for many candidates, of which no plan is compiled."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.frozen import record, replace
from ...engines.facts import facts
from ...ir.graph import Graph
from ...pipeline.lower import unverified
from ...plan.refusal_rules import NOT_READY, of_engine
from ...spec.unit import Unit
from .degrees import layout
from .rules import OF_SIZES
from .servers import refused


@record
class Runs:
    """Of one engine. `rule`: what plans are refused by."""

    engine: str

    @property
    def rule(self) -> str:
        return of_engine(self.engine)

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

    def at_sight(self, units: Sequence[Unit], graphs: Sequence[Graph]) -> tuple[str, str, bool] | None:
        """The same of graphs that have meshes and stages alone, where it does not matter which there will be; and whether the layout alone is why, whatever
        the sizes. None: that is not known yet."""
        seen = [layout(graph, graph.the_mesh.the_gpus.ids, unit) for graph, unit in zip(graphs, units, strict=True)]
        without = refused([replace(one, exchanges=False) for one in seen], self.engine)
        with_exchange = without and refused([replace(one, exchanges=True) for one in seen], self.engine)
        if without is None or with_exchange is None or without.lacking != with_exchange.lacking:
            return None
        names = without.names or ("",) * len(without.rules)
        for text, name in zip(without.rules, names, strict=True):
            if text in with_exchange.rules:
                why = f"{facts(self.engine).label}: {text}"
                return NOT_READY if without.lacking else self.rule, why, name not in OF_SIZES
        return None
