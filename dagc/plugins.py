"""What other packages add, by Python entry points: exporters (`dagc.exporters`) and presets (`dagc.library`).

An exporter is a function (plan, phase) -> {suffix: bytes}; `--emit NAME` writes PLAN.PHASE.SUFFIX. A library is a package with
folders `hardware` and `models` of `.moe` files. Entry points are read only when a name is not dagc's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plan import Plan

    Exporter = Callable[[Plan, str], Mapping[str, bytes]]

EXPORTERS, LIBRARY = "dagc.exporters", "dagc.library"


def exporters() -> list[str]:
    """Names that installed packages give `--emit`."""
    return sorted({point.name for point in entry_points(group=EXPORTERS)})


def export(name: str, plan: Plan, phase: str) -> dict[str, bytes]:
    """Files of an exporter: suffix -> content. Raises SpecError with E05 when it fails."""
    point = next(p for p in entry_points(group=EXPORTERS) if p.name == name)
    made: Exporter = _loaded(point)
    try:
        found = dict(made(plan, phase))
    except Exception as error:
        raise _broken(point, f"failed on `{phase}`: {type(error).__name__}: {error}") from error
    for suffix, data in found.items():
        if not isinstance(data, bytes) or not isinstance(suffix, str) or "/" in suffix or not suffix:
            raise _broken(point, "does not give a mapping from file suffixes to bytes")
    return found


def libraries() -> Iterator[tuple[str, Traversable]]:
    """Name and folder of each installed library."""
    for point in sorted(entry_points(group=LIBRARY), key=lambda p: p.name):
        yield point.name, resources.files(_loaded(point))


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise _broken(point, f"cannot be loaded: {type(error).__name__}: {error}") from error


def _broken(point: EntryPoint, reason: str) -> Exception:
    from .lang.diagnostics import Diagnostic, SpecError

    owner = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
    return SpecError([Diagnostic("E05", f"plugin `{point.name}`{owner} {reason}")])
