"""Graph passes of other packages (entry points `dagc.passes`).

A pass is a module with `run(graph, unit) -> graph`, `ABOUT` and `AFTER`, the pass of dagc that it follows; a phase asks for it
with `passes = [NAME]`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from ..base.entry_points import PASSES, installed, told

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..passes import GraphPass
    from ..spec.unit import Unit


def graph_passes(unit: Unit) -> dict[str, list[GraphPass]]:
    """The passes that a phase asks for, by the pass of dagc that they follow. Raises SpecError with E17."""
    from ..base.diagnostics import did_you_mean
    from ..passes import GRAPH_PASSES, GraphPass

    known = installed(PASSES)
    found: dict[str, list[GraphPass]] = {}
    for name in unit.phase.strategy.passes:
        if name not in known:
            near = did_you_mean(name, known)
            available = f"installed: {', '.join(sorted(known))}" if known else "no installed package has any"
            hint = f"did you mean `{near}`?" if near else available
            unit.stop("E17", f"no plugin has a pass `{name}`", at="passes", help=(hint,))
        try:
            module = known[name].load()
        except (Exception, SystemExit) as error:
            unit.stop("E17", told(known[name], f"cannot be loaded: {type(error).__name__}: {error}"), at="passes")
        after, about = getattr(module, "AFTER", None), getattr(module, "ABOUT", None)
        own = [p.name for p in GRAPH_PASSES if p.name not in ("mesh", "place")]
        if after not in own or not isinstance(about, str) or not callable(getattr(module, "run", None)):
            message = told(known[name], f"needs `run`, `ABOUT`, and `AFTER`, one of {', '.join(own)}")
            unit.stop("E17", message, at="passes")
        found.setdefault(after, []).append(GraphPass(name, about, _guarded(known[name], module.run)))
    return found


def _guarded(point: EntryPoint, run: Callable[[Graph, Unit], Graph]) -> Callable[[Graph, Unit], Graph]:
    """A pass whose faults are told as the plugin's, what the verifier finds in its graph too."""

    def guarded(graph: Graph, unit: Unit) -> Graph:
        from ..base.diagnostics import SpecError
        from ..ir.graph import Graph
        from ..ir.verify.verify import verify
        from ..ir.verify.violation import VerifyError

        try:
            made = run(graph, unit)
            if not isinstance(made, Graph):
                raise TypeError(f"gives {type(made).__name__}, not a graph")
            _keeps(graph, made)
            verify(made)
        except SpecError:
            raise
        except VerifyError as error:
            unit.stop("E17", told(point, f"breaks the graph of `{unit.phase.name}`: {error}"), at="passes")
        except (Exception, SystemExit) as error:
            reason = f"failed on `{unit.phase.name}`: {type(error).__name__}: {error}"
            unit.stop("E17", told(point, reason), at="passes")
        return made

    return guarded


KEPT = ("phase", "kind", "level", "microbatches", "lanes", "mesh", "stages")


def _keeps(before: Graph, after: Graph) -> None:
    """A pass changes ops and weights, and nothing that costs and placement take from elsewhere. Raises ValueError."""
    for name in KEPT:
        if getattr(before, name) != getattr(after, name):
            raise ValueError(f"changes `{name}` of the graph")
    frames = [
        [(s.name, s.repeat, s.input, s.input_dims, s.input_dtype, dict(s.sizes)) for s in graph.segments]
        for graph in (before, after)
    ]
    if frames[0] != frames[1]:
        raise ValueError("changes the layers of the graph, or sizes of their dimensions")
