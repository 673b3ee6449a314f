"""mesh: factor the GPUs of a stage into axes, and give every rank its GPU id."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from dagc.base.axes import AXES, REPLICA, STAGES, TENSOR
from dagc.base.frozen import record, replace
from dagc.ir.axes import is_tensor_dim, priority
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.ir.mesh import (
    Apart,
    Factors,
    GpuMap,
    Mesh,
    MeshError,
    Side,
    axis_coordinates,
    head_cuts,
    nested,
    nics_of,
    refine,
)

MOST_RANKS = 10**6


@record
class MakeMesh(GraphPass):
    """The mesh of a phase. `sides`, `rules`: how it factors the ranks of each of `stages` (see Factors). `gpus`: ids that are
    dealt out in the `order` of axes, none: 0, 1, ..; or `place`: the id of every rank, stage by stage, in mesh order.
    `per_node`, `further`, `nics`: GPUs in a domain of each level of links, and (NICs, GPUs that have so many); see GpuMap.
    `experts`: degrees of experts on GPUs of their own, `expert_gpus`; then `sides` are of all other ranks. `expert_domains`,
    `expert_nics`: of another pool, where these GPUs are of one: GPUs in a domain of each level, and as `nics`.
    `dcp`: ranks of `tp`, its innermost, that a further pass takes apart. `zigzag`: the tokens of a sequence are dealt out in
    zigzag. `beside`: how the other phases on these GPUs factor them."""

    name: ClassVar[str] = "mesh"
    levels: ClassVar[tuple[str, ...]] = ("model",)
    sides: tuple[Side, ...] = ((),)
    rules: tuple[str, ...] = ()
    stages: int = 1
    order: tuple[str, ...] = tuple(AXES)
    gpus: tuple[int, ...] = ()
    place: tuple[int, ...] = ()
    per_node: int = 8
    further: tuple[int, ...] = ()
    nics: tuple[int, ...] = ()
    zigzag: bool = False
    beside: tuple[Factors, ...] = ()
    dcp: int = 1
    experts: Side = ()
    expert_gpus: tuple[int, ...] = ()
    expert_domains: tuple[int, ...] = ()
    expert_nics: tuple[int, ...] = ()

    def run(self, graph: Graph) -> Graph:
        for name, number in (("stages", self.stages), ("per_node", self.per_node)):
            if number < 1:
                raise PassError(f"{name} is {number}: it must be at least 1", at="gpus")
        if not nested(self.per_node, self.further) or not nics_of(self.nics):
            raise PassError("the levels of links do not nest, or the NICs are not (NICs, GPUs)", at="gpus")
        try:
            refine(self.sides, {})
        except MeshError as error:
            raise PassError(
                "the attention and expert factorisations of a stage do not nest",
                at="experts",
                because=(" | ".join(_product(s) for s in self.sides), f"group boundaries: {error}"),
                help=("choose degrees whose inner products divide each other, e.g. an ep that is a multiple of tp",),
            ) from None
        mesh = with_cuts(self.sides, [*self.apart(), *wanted_cuts(graph, Factors(self.sides, self.rules))])
        mesh = self.cut_alike(mesh, graph)
        dealt = mesh.of("sp") if self.zigzag and graph.takes_prompts else ()
        mesh = replace(mesh, stages=self.stages, degrees={STAGES: self.stages, **mesh.degrees}, zigzag=dealt)
        mesh = replace(mesh, gpus=self.gpu_map(mesh))
        return replace(graph, mesh=self.with_experts(mesh) if self.expert_gpus else mesh, level="annotated")

    def with_experts(self, mesh: Mesh) -> Mesh:
        """The mesh and, beside its ranks, those that have the experts alone."""
        ranks = mesh.stages * prod(size for _, size in self.experts)
        if len(self.expert_gpus) != ranks:
            raise PassError(f"{len(self.expert_gpus)} GPUs for {ranks} ranks of experts", at="experts")
        if set(self.expert_gpus) & set(mesh.the_gpus.ids):
            raise PassError("a GPU is among those of the experts and the others", at="experts")
        atoms = tuple((name, size) for name, size in self.experts if size > 1)
        own = tuple(name for name, _ in atoms)
        if twice := set(own) & set(mesh.sizes):
            raise PassError(f"experts and other ranks both have an axis {min(twice)}", at="experts")
        axes = {**mesh.axes, **{name: (name,) if size > 1 else () for name, size in self.experts}}
        gpus = replace(mesh.the_gpus, ids=self.expert_gpus)
        if self.expert_domains:
            if not nested(self.expert_domains[0], self.expert_domains[1:]) or not nics_of(self.expert_nics):
                raise PassError("the levels of links do not nest, or the NICs are not (NICs, GPUs)", at="experts")
            nics = (self.expert_nics[0], self.expert_nics[1]) if self.expert_nics else None
            gpus = GpuMap(self.expert_gpus, self.expert_domains[0], self.expert_domains[1:], nics)
        degrees = {**mesh.degrees, **dict(self.experts)}
        apart = Apart(own, gpus, bool(self.expert_domains))
        return replace(mesh, atoms=(*mesh.atoms, *atoms), axes=axes, degrees=degrees, apart=apart)

    def apart(self) -> list[int]:
        """The cut that `dcp` asks for."""
        degree = dict(self.sides[0]).get(TENSOR, 1)
        return [degree // self.dcp] if 1 < self.dcp < degree and degree % self.dcp == 0 else []

    def cut_alike(self, mesh: Mesh, graph: Graph) -> Mesh:
        """The mesh with the axis of experts cut where phases on the same GPUs cut it: what is cut in the same way can be
        stored in one order."""
        experts = {name: (mesh.stride(name), mesh.stride(name) * mesh.sizes[name]) for name in mesh.of("ep")}
        edges = {mesh.stride(name) for name in mesh.sizes}
        added: list[int] = []
        for other in self.beside:
            try:
                found = with_cuts(other.sides, wanted_cuts(graph, other))
            except MeshError:
                continue  # that phase is refused when it is lowered itself
            for name in found.sizes if found.of("ep") else ():
                stride = found.stride(name)
                if stride in edges or not any(low < stride < high for low, high in experts.values()):
                    continue
                try:
                    mesh = refine(self.sides, {}, [*edges, *added, stride])
                except MeshError:
                    continue
                added.append(stride)
        return mesh

    def gpu_map(self, mesh: Mesh) -> GpuMap:
        return GpuMap(self.ids(mesh), self.per_node, self.further, (self.nics[0], self.nics[1]) if self.nics else None)

    def ids(self, mesh: Mesh) -> tuple[int, ...]:
        """GPU ids by mixed radix in `order` (stages outermost unless it says otherwise), or as `place` has them."""
        ranks = mesh.stages * prod(mesh.shape)
        if ranks > MOST_RANKS:
            raise PassError(f"{ranks:,} ranks are more than {MOST_RANKS:,}", at="gpus")
        given = self.place or self.gpus
        if given and len(given) != ranks:
            raise PassError(f"{len(given)} GPUs for {ranks} ranks", at="gpus")
        if min(given, default=0) < 0:
            raise PassError(f"no GPU has the id {min(given)}", at="gpus")
        if self.place:
            return self.place
        coordinates = axis_coordinates(mesh, self.sides[0])
        sizes = {STAGES: self.stages, **dict(self.sides[0])}
        order = [axis for axis in dict.fromkeys((REPLICA, *self.order, *sizes)) if axis in sizes]
        index = np.zeros((self.stages, *mesh.shape), dtype=np.int64)
        for axis in order:
            index = index * sizes[axis] + coordinates[axis]
        gpus = np.asarray(self.gpus or range(ranks), dtype=np.int64)
        return tuple(gpus[index].ravel().tolist())


def wanted_cuts(graph: Graph, factors: Factors) -> list[int]:
    """Where dimensions that do not fill the axis would cut it: those of rules, then tensor dimensions in the order of `tp`."""
    degree = dict(factors.sides[0]).get(TENSOR, 1)
    rules = set(factors.rules)
    dims = [(d, size) for s in graph.segments for d, size in s.sizes.items() if d in rules or is_tensor_dim(d)]
    sizes = {(-1 if d in rules else priority(d), int(size)) for d, size in dims}
    return list(dict.fromkeys(cut for _, size in sorted(sizes) for cut in head_cuts(degree, [size])))


def with_cuts(sides: Sequence[Side], wanted: list[int]) -> Mesh:
    """The factorisations refined, and cut wherever a cut nests with those before it: a dimension that does not get its
    own takes a smaller part of the axis, or stays whole."""
    mesh = refine(sides, {})
    cuts: list[int] = []
    for cut in wanted:
        try:
            mesh = refine(sides, {TENSOR: [*cuts, cut]})
        except MeshError:
            continue
        cuts.append(cut)
    return mesh


def _product(side: Side) -> str:
    return " x ".join(f"{name} {size}" for name, size in side if size > 1) or "1"
