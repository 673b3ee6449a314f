"""The passes, one file each: graph passes rewrite a graph, analyses only look at one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dagc.ir.graph import Graph
from dagc.lang.expand import expand
from dagc.spec.unit import Unit

from . import dp, ep, mesh, place, pp, reshard, sp, tp


class GraphPass(NamedTuple):
    """`run(graph, unit) -> graph`; the verifier runs after each."""

    name: str
    about: str
    run: Callable[[Graph, Unit], Graph]


GRAPH_PASSES: tuple[GraphPass, ...] = (
    GraphPass("expand", expand.ABOUT, expand.run),
    GraphPass("mesh", mesh.ABOUT, mesh.run),
    GraphPass("tp", tp.ABOUT, tp.run),
    GraphPass("sp", sp.ABOUT, sp.run),
    GraphPass("ep", ep.ABOUT, ep.run),
    GraphPass("dp", dp.ABOUT, dp.run),
    GraphPass("pp", pp.ABOUT, pp.run),
    GraphPass("reshard", reshard.ABOUT, reshard.run),
    GraphPass("place", place.ABOUT, place.run),
)
