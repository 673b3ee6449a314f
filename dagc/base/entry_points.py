"""What other packages add by Python entry points: finding and loading it, and whose fault a broken one is.

Groups: exporters, graph passes and libraries of presets (packages with folders `hardware` and `models` of `.moe` files).
Entry points are read only when a name is not dagc's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from .diagnostics import Diagnostic, SpecError
from .heard import LISTENERS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from importlib.resources.abc import Traversable

EXPORTERS, PASSES, LIBRARY = "dagc.exporters", "dagc.passes", "dagc.library"
ANY_FAULT = (Exception, SystemExit)
"""What code of another package may end with: it is told as its own, and does not end dagc."""


def entry_points(group: str) -> Iterable[EntryPoint]:
    """Of all installed packages."""
    for one in LISTENERS:
        one.looked_for(group)
    return _entry_points(group)


@cache
def _entry_points(group: str) -> Iterable[EntryPoint]:
    """Looked for once: a process that checks text after text asks again and again. Imported here, as `importlib.metadata` loads email and socket too."""
    from importlib import metadata

    return metadata.entry_points(group=group)


def installed(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name; of several with one name, the first that Python finds."""
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        points.setdefault(point.name, point)
    return points


def loaded(point: EntryPoint) -> Any:
    """The object that an entry point names. Raises SpecError with E17."""
    try:
        return point.load()
    except ANY_FAULT as error:
        raise broken(point, f"cannot be loaded: {type(error).__name__}: {error}") from error


def broken(point: EntryPoint, reason: str) -> SpecError:
    return SpecError([Diagnostic("E17", told(point, reason))])


def told(point: EntryPoint, reason: str) -> str:
    """What is wrong with a plugin, and whose it is."""
    owner = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
    return f"plugin `{point.name}`{owner} {reason}"


def libraries() -> tuple[list[tuple[str, Traversable]], list[str]]:
    """Name and folder of each installed library, and what is wrong with those that cannot be loaded."""
    from importlib import resources

    folders: list[tuple[str, Traversable]] = []
    faults: list[str] = []
    for point in sorted(entry_points(group=LIBRARY), key=lambda p: p.name):
        try:
            folders.append((point.name, resources.files(point.load())))
        except ANY_FAULT as error:
            faults.append(told(point, f"cannot be loaded: {type(error).__name__}: {error}"))
    return folders, faults
