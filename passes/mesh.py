"""mesh: factor the GPUs of a stage into axes, and give every rank its GPU id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dagc.base.syntax import ast
from dagc.base.units import UNITS, Quantity
from dagc.ir.axes import is_tensor_dim, priority
from dagc.ir.graph import Graph
from dagc.ir.mesh import GpuMap, Mesh, MeshError, axis_coordinates, head_cuts, refine
from dagc.spec.factors import factorisations
from dagc.spec.strategy import Strategy
from dagc.spec.unit import Unit

ABOUT = "factor the GPUs of a stage into mesh axes and give every rank its GPU id"


def run(graph: Graph, unit: Unit) -> Graph:
    strategy = unit.phase.strategy
    sides = factorisations(strategy)
    try:
        mesh = refine(sides, {})
    except MeshError as error:
        unit.stop(
            "E03",
            "the attention and expert factorisations of a stage do not nest",
            at="experts",
            because=(" | ".join(_product(s) for s in sides), f"group boundaries: {error}"),
            help=("choose degrees whose inner products divide each other, e.g. an ep that is a multiple of tp",),
        )
    mesh = with_cuts(sides, wanted_cuts(graph, dict(sides[0]).get("tp", 1), strategy))
    mesh = cut_alike(mesh, sides, graph, unit)
    dealt = mesh.of("sp") if strategy.sp_layout == "zigzag" and graph.kind == "prefill" else ()
    mesh = replace(mesh, stages=strategy.pp, degrees={"pp": strategy.pp, **mesh.degrees}, zigzag=dealt)
    return replace(graph, mesh=replace(mesh, gpus=place(mesh, unit, sides[0])), level="annotated")


def wanted_cuts(graph: Graph, degree: int, strategy: Strategy) -> list[int]:
    """Where dimensions that do not fill the axis would cut it: those of rules, then tensor dimensions in the order of `tp`."""
    rules = {d for d, _ in strategy.shard}
    dims = [(d, int(size)) for s in graph.segments for d, size in s.sizes.items()]
    sizes = {(-1 if d in rules else priority(d), size) for d, size in dims if d in rules or is_tensor_dim(d)}
    return list(dict.fromkeys(cut for _, size in sorted(sizes) for cut in head_cuts(degree, [size])))


def with_cuts(sides: list[list[tuple[str, int]]], wanted: list[int]) -> Mesh:
    """The factorisations refined, and cut wherever a cut nests with those before it: a dimension that does not get its
    own takes a smaller part of the axis, or stays whole."""
    mesh = refine(sides, {})
    cuts: list[int] = []
    for cut in wanted:
        try:
            mesh = refine(sides, {"tp": [*cuts, cut]})
        except MeshError:
            continue
        cuts.append(cut)
    return mesh


def cut_alike(mesh: Mesh, sides: list[list[tuple[str, int]]], graph: Graph, unit: Unit) -> Mesh:
    """The mesh with the axis of experts cut where phases cut it that sit on the same GPUs: what is cut alike can be
    stored in one order."""
    experts = {name: (mesh.stride(name), mesh.stride(name) * mesh.sizes[name]) for name in mesh.of("ep")}
    edges = {mesh.stride(name) for name in mesh.sizes}
    added: list[int] = []
    for other in neighbours(unit):
        theirs = factorisations(other)
        found = with_cuts(theirs, wanted_cuts(graph, dict(theirs[0]).get("tp", 1), other))
        for name in found.sizes if found.of("ep") else ():
            stride = found.stride(name)
            if stride in edges or not any(low < stride < high for low, high in experts.values()):
                continue
            try:
                mesh = refine(sides, {}, [*edges, *added, stride])
            except MeshError:
                continue
            added.append(stride)
    return mesh


def neighbours(unit: Unit) -> list[Strategy]:
    """Strategies of other phases that number the same GPUs as this one: stages outermost, ranks in mesh order."""
    own = unit.phase
    if not _plain(own.strategy):
        return []
    found: dict[tuple[object, ...], Strategy] = {}
    for phase in unit.spec.phases:
        s = phase.strategy
        alike = (s.pp, s.replicas) == (own.strategy.pp, own.strategy.replicas) and _plain(s)
        if phase.name != own.name and alike and phase.gpus == own.gpus:
            found.setdefault(tuple(tuple(side) for side in factorisations(s)), s)
    return list(found.values())


def _plain(strategy: Strategy) -> bool:
    return strategy.place is None and strategy.order[0] == "pp"


def _product(side: list[tuple[str, int]]) -> str:
    return " x ".join(f"{name} {size}" for name, size in side if size > 1) or "1"


def place(mesh: Mesh, unit: Unit, side: list[tuple[str, int]]) -> GpuMap:
    """GPU ids by mixed radix in `order` (stages outermost unless it says otherwise), or by `place`."""
    phase = unit.phase
    strategy = phase.strategy
    per_node = unit.spec.hardware.per_node
    gpus = np.asarray(phase.gpus, dtype=np.int64)
    coordinates = axis_coordinates(mesh, side)
    if strategy.place is not None:
        ids = _by_expression(strategy.place, coordinates, unit, gpus)
        return GpuMap(tuple(ids.ravel().tolist()), per_node)
    sizes = {"pp": strategy.pp, **dict(side)}
    order = ["replica", *(a for a in strategy.order if a in sizes)]
    order += [a for a in sizes if a not in order]
    index = np.zeros((strategy.pp, *mesh.shape), dtype=np.int64)
    for axis in order:
        index = index * sizes[axis] + coordinates[axis]
    return GpuMap(tuple(gpus[index].ravel().tolist()), per_node)


def _by_expression(
    expr: ast.Expr, coordinates: Mapping[str, NDArray[np.int64]], unit: Unit, gpus: NDArray[np.int64]
) -> NDArray[np.int64]:
    shape = coordinates["pp"].shape
    value = np.broadcast_to(_evaluate(expr, coordinates, unit), shape)
    ids = value.astype(np.int64)
    wanted = np.sort(gpus)
    if (ids != value).any() or not np.array_equal(np.sort(ids.ravel()), wanted):
        unit.stop(
            "E03",
            "`place gpu` is not a bijection onto the phase's GPU ids",
            at="place",
            because=_why_not(ids, wanted),
            help=("every rank needs a GPU id of its own: give each axis a stride, e.g. `dp * 16 + ep`",),
        )
    return ids


def _why_not(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[str, ...]:
    """Which ids are taken twice, out of the phase, or left without a rank."""
    found, counts = np.unique(ids, return_counts=True)
    lines = []
    for text, bad in (
        ("given to several ranks", found[counts > 1]),
        ("outside the phase", np.setdiff1d(found, wanted)),
        ("without a rank", np.setdiff1d(wanted, found)),
    ):
        if bad.size:
            more = f" and {bad.size - 5} more" if bad.size > 5 else ""
            lines.append(f"{text}: GPU {', '.join(str(i) for i in bad[:5])}{more}")
    return tuple(lines) or ("some ids are not whole numbers",)


def _evaluate(expr: ast.Expr, names: Mapping[str, NDArray[np.int64]], unit: Unit) -> NDArray[np.float64]:
    """`place` over coordinate arrays: one expression, all ranks at once."""
    if isinstance(expr, ast.Number):
        return np.asarray(expr.value * (UNITS[expr.unit][0] if expr.unit else 1.0))
    if isinstance(expr, ast.Name):
        if expr.text in names:
            return names[expr.text].astype(np.float64)
        constant = unit.phase.constants.get(expr.text)
        if constant is None:
            found = unit.spec.constants.get(expr.text)
            constant = found.value if isinstance(found, Quantity) else None
        if constant is not None:
            return np.asarray(float(constant))
    if isinstance(expr, ast.Unary):
        return -_evaluate(expr.operand, names, unit)
    if isinstance(expr, ast.Binary):
        left, right = _evaluate(expr.left, names, unit), _evaluate(expr.right, names, unit)
        if expr.op == "/":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(np.nan_to_num(left / right, nan=-1.0, posinf=-1.0, neginf=-1.0))
        result: NDArray[np.float64] = {"+": np.add, "-": np.subtract, "*": np.multiply}[expr.op](left, right)
        return result
    unit.stop("E08", "a `place` expression consists of numbers, axes and + - * /", at="place")
