"""The line of the mesh, and GPU ids, as they are read."""

from __future__ import annotations

from ...base.axes import STAGES
from ...base.frozen import replace
from ..mesh import Apart, GpuMap, Mesh, nested, nics_of
from ..sharding import Axes
from . import implied
from .implied import AxisNames
from .scan import Cursor, TextError

MOST = 10**6
"""GPU ids, and layers of a stage, that are read."""


def a_mesh(at: Cursor) -> Mesh:
    degrees: dict[str, int] = {}
    axes: dict[str, Axes] = {}

    def axis() -> None:
        name, degree = pair(at)
        degrees[name] = degree
        axes[name] = at.axes() if at.takes(":") else () if degree == 1 else (name,)

    at.list("[", axis, "]")
    atoms = tuple((name, degrees[name]) for name, held in axes.items() if held == (name,))
    stages = 1
    others: dict[str, int] | None = None
    zigzag: list[Axes] = []
    per_node: int | None = None
    beyond: list[int] = []
    nics: tuple[int, int] | None = None
    ids: tuple[int, ...] = ()
    apart: tuple[Axes, tuple[int, ...]] | None = None
    linked: list[int] = []
    ports: tuple[int, int] | None = None
    while at.rest():
        if at.takes("atoms"):
            atoms = tuple(at.list("[", lambda: pair(at), "]"))
        elif at.takes("stages"):
            at.mark("=")
            stages = at.count()
        elif at.takes("degrees"):
            others = dict(at.list("[", lambda: pair(at), "]"))
        elif at.takes("zigzag"):
            zigzag = at.list("[", at.axes, "]")
        elif at.takes("per_node"):
            at.mark("=")
            per_node = at.count()
        elif at.takes("domains"):
            beyond = at.list("[", at.count, "]")
        elif at.takes("nics"):
            nics = _share(at)
        elif at.takes("experts"):
            own = tuple(at.list("[", at.name, "]"))
            at.mark("on")
            apart = own, gpu_ids(at)
        elif at.takes("linked"):
            linked = at.list("[", at.count, "]")
        elif at.takes("ports"):
            ports = _share(at)
        else:
            at.mark("gpus")
            ids = gpu_ids(at)
    mesh = Mesh(atoms, axes, {**({STAGES: stages} if others is None else others), **degrees}, stages)
    gpus = gpu_map(ids, per_node, tuple(beyond), nics)
    mesh = replace(mesh, zigzag=AxisNames(mesh).atoms(zigzag[0] if zigzag else ()), gpus=gpus)
    if apart is None:
        return mesh
    known = gpus or GpuMap((), implied.PER_NODE)
    if linked:
        known = gpu_map(apart[1], linked[0], tuple(linked[1:]), ports) or known
    return replace(mesh, apart=Apart(apart[0], replace(known, ids=apart[1]), bool(linked)))


def older_mesh(at: Cursor) -> Mesh:
    at.mark("stages")
    at.mark("=")
    stages = at.count()
    at.mark("atoms")
    atoms = tuple(at.list("[", lambda: pair(at), "]"))
    axes: dict[str, Axes] = {}
    own: dict[str, int] = {}

    def axis() -> None:
        name, own[name] = pair(at)
        at.mark(":")
        axes[name] = at.axes()

    at.mark("axes")
    at.list("[", axis, "]")
    at.mark("degrees")
    degrees = dict(at.list("[", lambda: pair(at), "]"))
    zigzag = at.list("[", at.axes, "]") if at.takes("zigzag") else []
    ids = gpu_ids(at) if at.takes("gpus") else ()
    per_node = at.count() if at.takes("per_node") else None
    at.end()
    return Mesh(atoms, axes, {**degrees, **own}, stages, zigzag[0] if zigzag else (), gpu_map(ids, per_node))


def gpu_map(
    ids: tuple[int, ...], per_node: int | None, beyond: tuple[int, ...] = (), nics: tuple[int, int] | None = None
) -> GpuMap | None:
    if per_node == 0:
        raise TextError("nodes of no GPUs")
    node = implied.PER_NODE if per_node is None else per_node
    if not nested(node, beyond):
        raise TextError(f"domains {list(beyond)} of nodes of {node} GPUs do not nest")
    if nics is not None and not nics_of(nics):
        raise TextError(f"{nics[0]} NICs of {nics[1]} GPUs")
    said = ids or per_node is not None or beyond or nics is not None
    return GpuMap(ids, node, beyond, nics) if said else None


def gpu_ids(at: Cursor) -> tuple[int, ...]:
    """`0..7, 9`. Raises TextError."""
    ids: list[int] = []
    while not ids or at.takes(","):
        low = at.count()
        high = at.count() if at.takes("..") else low
        if high >= MOST or low > high:
            raise TextError(f"GPU {high} is beyond {MOST:,}" if high >= MOST else f"no GPUs from {low} to {high}")
        ids.extend(range(low, high + 1))
        if len(ids) > MOST:
            raise TextError(f"more than {MOST:,} GPUs")
    return tuple(ids)


def pair(at: Cursor) -> tuple[str, int]:
    name = at.name()
    at.mark("=")
    return name, at.count()


def _share(at: Cursor) -> tuple[int, int]:
    """NICs, and the GPUs that have so many: `= 4 / 8`."""
    at.mark("=")
    count = at.count()
    at.mark("/")
    return count, at.count()
