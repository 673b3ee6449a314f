"""Layout to layout: the moves that dagc's search finds against the steps that XLA and DTensor take."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from dagc.base.collectives import wire_bytes
from dagc.ir.chains import Chains
from dagc.ir.cuts import cut_layout, cut_mesh
from dagc.ir.mesh import Mesh, refine
from dagc.ir.moves import NoRoute, TensorSizes, cheapest
from dagc.ir.sharding import Axes, Move, Sharding

from .records import DATA, KINDS, axes_of

FILES = {"jax": "reshard_jax.json", "torch": "reshard_torch.json"}


@dataclass(frozen=True, slots=True)
class Row:
    """`wire_B`: sent by one device in all steps. `planner_B`: the same by DTensor's graph-search planner."""

    mesh: list[list[Any]]
    source: list[Any]
    target: list[Any]
    shape: list[int]
    partial_over: list[str]
    wire_B: float
    kinds: list[str]
    lower_bound_B: float | None = None
    partial_target: list[str] | None = None
    planner_B: float | None = None

    def __str__(self) -> str:
        return f"{layout_text(self.source, self.partial_over)} -> {layout_text(self.target, self.partial_target or [])}"

    @property
    def device_mesh(self) -> Mesh:
        return refine([[(name, size) for name, size in self.mesh]], {})

    @property
    def tensor(self) -> TensorSizes:
        return TensorSizes(tuple(map(float, self.shape)), 4.0, (False,) * len(self.shape))


def layout_text(dims: list[Any], partial: list[str]) -> str:
    inside = ", ".join("+".join(a) or "-" for a in axes_of(dims))
    return f"[{inside}]" + (f" sum({', '.join(partial)})" if partial else "")


def pricing(mesh: Mesh) -> Callable[[str, float, Axes], float]:
    """Wire bytes of a collective, for a search of the fewest bytes."""
    return lambda kind, payload_B, axes: wire_bytes(kind, payload_B, mesh.size(axes))


@dataclass(frozen=True, slots=True)
class WirePrices:
    """Wire bytes of a collective, for a search of the fewest bytes."""

    noted: ClassVar[bool] = False

    def of(self, mesh: Mesh) -> Callable[[str, float, Axes], float]:
        return pricing(mesh)


@dataclass(frozen=True, slots=True)
class Chain:
    """Moves from a layout, on a mesh whose axes may be cut."""

    mesh: Mesh
    source: Sharding
    moves: list[Move]


def moves(row: Row) -> Chain:
    mesh = row.device_mesh
    source = Sharding(axes_of(row.source), mesh.sort(row.partial_over))
    target = Sharding(axes_of(row.target), mesh.sort(row.partial_target or []))
    if cuts := Chains(WirePrices(), mesh).cuts(source, target, row.tensor):
        mesh, source, target = cut_mesh(mesh, cuts), cut_layout(source, cuts), cut_layout(target, cuts)
    chain = cheapest(source, target, row.tensor, mesh, pricing(mesh))
    assert (chain[-1].result if chain else source) == target
    return Chain(mesh, source, chain)


def chain_wire_B(row: Row, chain: Chain) -> float:
    state, total = chain.source, 0.0
    for move in chain.moves:
        if move.kind != "slice":
            sent = move.result if move.kind == "permute" else state
            total += pricing(chain.mesh)(move.kind, row.tensor.local_bytes(sent, chain.mesh), move.axes)
        state = move.result
    return total


def stored_rows(tool: str) -> list[Row]:
    return [Row(**r) for r in json.loads((DATA / FILES[tool]).read_text())["rows"]]


def read_rows(directory: Path, tool: str) -> list[Row]:
    """The table of a directory of records; none without one."""
    path = directory / f"{tool}_reshard_table.json"
    if not path.exists():
        return []
    return [(jax_row if tool == "jax" else torch_row)(r) for r in json.loads(path.read_text())["rows"]]


def steps_B(steps: Iterable[Mapping[str, Any]]) -> float:
    return sum(step_of(s)[1] for s in steps)


def step_of(step: Mapping[str, Any]) -> tuple[str, float]:
    """(kind, wire bytes). An all-reduce that is only sliced afterwards counts as the reduce-scatter that accelerators
    make of it."""
    wire = float(step["wire_bytes_per_device"])
    if step.get("followed_only_by_dynamic_slice"):
        return "reduce_scatter", wire / 2
    return KINDS[step["kind"]], wire


def jax_row(r: Mapping[str, Any]) -> Row:
    return Row(
        r["mesh"], r["source"], r["target"], r["shape"], r["partial_over"], steps_B(r["steps"]),
        [step_of(s)[0] for s in r["steps"]], r.get("receive_lower_bound_bytes"),
    )  # fmt: skip


def torch_row(r: Mapping[str, Any]) -> Row:
    source, target = placements(r, "source"), placements(r, "target")
    planner = r.get("steps_min_cost_planner")
    return Row(
        r["mesh"], source[0], target[0], r["shape"], source[1], steps_B(r["steps"]), [step_of(s)[0] for s in r["steps"]],
        r.get("receive_lower_bound_bytes"), target[1], None if not isinstance(planner, list) else steps_B(planner),
    )  # fmt: skip


def placements(r: Mapping[str, Any], which: str) -> tuple[list[Any], list[str]]:
    """DTensor placements, one per mesh axis (R, S0, S1, P), as axes of each dimension and the axes of a partial sum."""
    dims: list[list[str]] = [[] for _ in r["shape"]]
    partial = []
    for (axis, _), placement in zip(r["mesh"], r[which], strict=True):
        if placement == "P":
            partial.append(axis)
        elif placement != "R":
            dims[int(placement[1:])].append(axis)
    return [a or None for a in dims], partial


def dump_rows(rows: Iterable[Row], source: str) -> str:
    lines = ",\n".join(json.dumps({k: v for k, v in asdict(r).items() if v is not None}) for r in rows)
    return f'{{"source": {json.dumps(source)},\n"rows": [\n{lines}\n]}}\n'


__all__ = ["NoRoute", "Row", "chain_wire_B", "moves", "read_rows", "stored_rows"]
