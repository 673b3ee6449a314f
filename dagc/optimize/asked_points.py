"""The points of a sweep that somebody asks for: every combination of values of params, checked before the first is compiled."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.frozen import replace
from ..base.source import Source
from ..base.units import SCALAR, UNITS, Quantity, dim_name
from .point import Task
from .points import points

if TYPE_CHECKING:
    from ..spec.model import AttrValue

MOST = 1_000_000
"""Points of one sweep."""


def tasks(
    source: Source,
    base: Path | None,
    over: Mapping[str, Sequence[str]],
    settings: Mapping[str, str],
    phases: Sequence[str],
    allow_import: Sequence[str | Path],
    metrics: Sequence[str],
) -> list[Task]:
    """The product of the values of `over`, or of the domains that the spec's params declare and the alternatives of its phases. Servings
    that a metric names are simulated. Raises SpecError."""
    from ..lang.load import load

    domains = dict(over)
    if not domains:
        spec = load(source, Collector(), settings, base, allow_import)
        for name, values in spec.domains.items():
            if name not in settings:
                domains[name] = [str(v) if name in spec.alternatives else _text(v) for v in values]
    if not domains:
        help = ("dagc sweep SPEC --over k=1,2,4", "or give a param its domain: param k = 1 in [1, 2, 4]")
        raise SpecError([Diagnostic("E14", "there is nothing to sweep over", help=help)])
    count = prod(len(values) for values in domains.values())
    if count > MOST:
        raise SpecError([Diagnostic("E14", f"{count:,} points are more than {MOST:,}", help=("--over narrows them",))])
    if over and count:
        first = {**settings, **{name: values[0] for name, values in domains.items()}}
        _declared(source, first, base, allow_import)
    made = (tuple({**settings, **point}.items()) for point in points(domains))
    allowed = tuple(os.path.realpath(folder) for folder in allow_import)
    named = tuple(dict.fromkeys(name.partition(".")[0] for name in metrics))
    folder = None if base is None else str(base)
    return [Task(source.text, source.name, folder, point, tuple(phases), allowed, named) for point in made]


def _text(value: AttrValue) -> str:
    """A value of a domain as `--set` reads it."""
    if not isinstance(value, Quantity):
        return str(value).lower() if isinstance(value, bool) else f'"{value}"'
    units = sorted(((f, u) for u, (f, dim) in UNITS.items() if dim == value.dim and u != "%"), reverse=True)
    for factor, unit in units if value.dim != SCALAR else ():
        if value.value >= factor and float(f"{value.value / factor:.6g}") * factor == value.value:
            return f"{value.value / factor:.6g} {unit}"
    number = str(int(value.value)) if value.value == int(value.value) else repr(value.value)
    return number if value.dim == SCALAR else f"{number} {dim_name(value.dim)}"


def _declared(source: Source, settings: Mapping[str, str], base: Path | None, allowed: Sequence[str | Path]) -> None:
    """Params that the spec does not declare are reported once, not at every point."""
    from ..lang.load import load

    try:
        load(source, Collector(), settings, base, allowed)
    except SpecError as error:
        undeclared = [d for d in error.diagnostics if d.code == "E14" and "no such param" in d.message]
        if undeclared:
            raise SpecError([replace(d, message=d.message.replace("--set", "--over")) for d in undeclared]) from None
