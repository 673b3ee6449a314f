"""What callers give: settings as texts of the language, and a spec as its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..base.diagnostics import SpecError
    from ..base.source import Source
    from ..spec.spec import Spec

Setting = str | int | float | bool | Sequence["Setting"]
"""The value of a param: a number, a list, or text as a spec writes it (`"64"`, `"10 ms"`, `"[1, 2]"`)."""
Settings = Mapping[str, Setting]


def setting_text(value: Setting) -> str:
    """As a spec writes it; numbers of NumPy too. TypeError for what is no value, ValueError for an infinite one."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or type(value).__name__ == "bool":  # NumPy's is not Python's
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        number = float(value)
        if not isfinite(number):
            raise ValueError(f"{number} is not a value of a param")
        return repr(number)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return f"[{', '.join(map(setting_text, value))}]"
    raise TypeError(f"a setting is a number, a text or a list of them, not {type(value).__name__}")


def setting_texts(settings: Settings | None) -> dict[str, str]:
    return {name: setting_text(value) for name, value in (settings or {}).items()}


def source_of(spec_file: str | Path, allow_import: Sequence[str | Path]) -> tuple[Source, Path | None]:
    """Text of a file (`-`: standard input) and the folder that its imports are looked for in. Raises SpecError."""
    from ..base.syntax.input import folder_of, read_source

    return read_source(str(spec_file), allow_import), folder_of(str(spec_file))


def spec_of(spec_file: str | Path, settings: Settings | None, allow_import: Sequence[str | Path]) -> Spec:
    """Raises SpecError."""
    from ..base.diagnostics import Collector
    from ..lang.load import load

    source, base = source_of(spec_file, allow_import)
    return load(source, Collector(), setting_texts(settings), base, allow_import)


def unknown_phase(name: str, known: Sequence[str]) -> SpecError:
    from ..base.diagnostics import Diagnostic, SpecError

    return SpecError([Diagnostic("E14", f"unknown phase `{name}`", help=(f"phases: {', '.join(known)}",))])


def check_phases(spec: Spec, names: Sequence[str]) -> None:
    """Raises SpecError where one is not of the spec."""
    known = [phase.name for phase in (*spec.phases, *spec.trainings)]
    for name in names:
        if name not in known:
            raise unknown_phase(name, known)
