"""Graph passes of other packages (entry points `dagc.passes`).

An entry point names a frozen dataclass of GraphPass, whose `name` is the entry point's and whose constant `after` is the pass of
dagc that it follows; a phase asks for it with `passes = [NAME]`, `dagc opt` by name.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint

from ..base.diagnostics import did_you_mean
from ..base.entry_points import ANY_FAULT, PASSES, installed, told
from ..ir.graph import Graph
from ..ir.graph_pass import GraphPass, PassError
from ..ir.verify.verify import verify
from ..ir.verify.violation import VerifyError
from ..passes import GRAPH_PASSES


class PluginFault(PassError):
    """A plugin is missing, cannot be loaded, or breaks the graph."""


FOLLOWED = ("expand", *(own.name for own in GRAPH_PASSES if own.name not in ("mesh", "place")))
"""What a pass of a plugin may follow."""


def asked(names: tuple[str, ...]) -> dict[str, list[GraphPass]]:
    """Passes by the one that they follow, with their options at their defaults. Raises PluginFault."""
    passes: dict[str, list[GraphPass]] = {}
    for name in names:
        made = plugin_pass(name)
        try:
            passes.setdefault(made.after, []).append(made())  # type: ignore[attr-defined]
        except ANY_FAULT as error:
            reason = f"cannot be made: {type(error).__name__}: {error}"
            raise PluginFault(told(installed(PASSES)[name], reason), at="passes") from error
    return passes


def plugin_pass(name: str) -> type[GraphPass]:
    """The pass of an entry point. Raises PluginFault."""
    known = installed(PASSES)
    if name not in known:
        near = did_you_mean(name, known)
        available = f"installed: {', '.join(sorted(known))}" if known else "no installed package has any"
        hint = f"did you mean `{near}`?" if near else available
        raise PluginFault(f"no plugin has a pass `{name}`", at="passes", help=(hint,))
    point = known[name]
    try:
        made = point.load()
    except ANY_FAULT as error:
        raise PluginFault(told(point, f"cannot be loaded: {type(error).__name__}: {error}"), at="passes") from error
    frozen = getattr(getattr(made, "__dataclass_params__", None), "frozen", False)
    if not (isinstance(made, type) and issubclass(made, GraphPass) and frozen):
        raise PluginFault(told(point, "is not a frozen dataclass of `dagc.ir.graph_pass.GraphPass`"), at="passes")
    if getattr(made, "name", None) != name or getattr(made, "after", None) not in FOLLOWED:
        wanted = f'needs the constants `name`, "{name}", and `after`, one of {", ".join(FOLLOWED)}'
        raise PluginFault(told(point, wanted), at="passes")
    return made


def guarded(one: GraphPass, graph: Graph) -> Graph:
    """Run a plugin's pass: its faults are reported as the plugin's, what the verifier finds in its graph too."""
    point = _point(one)
    try:
        made: object = one.run(graph)
        if not isinstance(made, Graph):
            raise TypeError(f"gives {type(made).__name__}, not a graph")
        _keeps(graph, made)
        verify(made)
    except PassError:
        raise
    except VerifyError as error:
        raise PluginFault(told(point, f"breaks the graph of `{graph.phase}`: {error.line}"), at="passes") from error
    except ANY_FAULT as error:
        reason = f"failed on `{graph.phase}`: {type(error).__name__}: {error}"
        raise PluginFault(told(point, reason), at="passes") from error
    return made


def _point(one: GraphPass) -> EntryPoint:
    return installed(PASSES).get(one.name) or EntryPoint(one.name, type(one).__module__, PASSES)


KEPT = ("phase", "kind", "level", "microbatches", "lanes", "mesh", "stages")


def _keeps(before: Graph, after: Graph) -> None:
    """A pass changes ops and weights, and nothing that costs and placement take from elsewhere. Raises ValueError."""
    for name in KEPT:
        if getattr(before, name) != getattr(after, name):
            raise ValueError(f"changes `{name}` of the graph")
    frames = [
        [(s.name, s.repeat, s.input, s.input_dims, s.input_dtype, s.taken, dict(s.sizes)) for s in graph.segments]
        for graph in (before, after)
    ]
    if frames[0] != frames[1]:
        raise ValueError("changes the layers of the graph, or sizes of their dimensions")
