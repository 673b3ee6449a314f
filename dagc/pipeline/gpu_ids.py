"""The ids that a `place` expression gives to the ranks of a phase."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..base.arrays import NDArray
from ..base.axes import STAGES
from ..base.frozen import replace
from ..base.syntax import ast
from ..base.units import UNITS, Quantity
from ..ir.mesh import MeshError, Side, axis_coordinates, refine
from ..spec.unit import Unit


def placed_ids(unit: Unit, sides: tuple[Side, ...]) -> tuple[int, ...]:
    """The id of every rank, stage by stage, ranks in mesh order; none where the phase has no expression and was not placed (see
    `place_best.py`), or its sides have no mesh. Raises SpecError with E03 where they are not the phase's GPUs, each once."""
    strategy = unit.phase.strategy
    if strategy.ids:  # found for these GPUs; a phase that was changed to others since has them in order
        return strategy.ids if set(strategy.ids) == set(unit.phase.gpus) else ()
    expr = strategy.place
    if expr is None:
        return ()
    try:
        mesh = replace(refine(sides, {}), stages=unit.phase.strategy.pp)
    except MeshError:
        return ()  # the pass that makes the mesh says why
    coordinates = axis_coordinates(mesh, sides[0])
    value = np.broadcast_to(evaluated(expr, coordinates, unit), coordinates[STAGES].shape)
    ids = value.astype(np.int64)
    wanted = np.sort(np.asarray(unit.phase.gpus, dtype=np.int64))
    if (ids != value).any() or not np.array_equal(np.sort(ids.ravel()), wanted):
        unit.stop(
            "E03",
            "`place gpu` is not a bijection onto the phase's GPU ids",
            at="place",
            because=_why_not(ids, wanted),
            help=("every rank needs a GPU id of its own: give each axis a stride, e.g. `dp * 16 + ep`",),
        )
    return tuple(ids.ravel().tolist())


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


def evaluated(expr: ast.Expr, names: Mapping[str, NDArray[np.int64]], unit: Unit) -> NDArray[np.float64]:
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
        return -evaluated(expr.operand, names, unit)
    if isinstance(expr, ast.Binary):
        left, right = evaluated(expr.left, names, unit), evaluated(expr.right, names, unit)
        if expr.op == "/":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(np.nan_to_num(left / right, nan=-1.0, posinf=-1.0, neginf=-1.0))
        result: NDArray[np.float64] = {"+": np.add, "-": np.subtract, "*": np.multiply}[expr.op](left, right)
        return result
    unit.stop("E08", "a `place` expression consists of numbers, axes and + - * /", at="place")
