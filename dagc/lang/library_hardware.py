"""GPUs of the library as records."""

from __future__ import annotations

from functools import cache

from ..base.diagnostics import Collector
from ..base.files import Reach
from ..base.source import Source
from ..base.syntax import ast
from ..base.syntax.parse import parse
from ..spec.hardware import Hardware
from .elaborate import Elaborator
from .statements import Statements


@cache
def library_hardware(name: str) -> Hardware | None:
    """A preset of the library, as `hardware from "NAME" { }` reads it; None where it cannot be read."""
    out = Collector()
    file = parse(Source("<list>", f'moe 1\nhardware from "{name}" {{ }}\n'), out)
    section = next(s for s in file.statements if isinstance(s, ast.Section))
    return Elaborator(Statements(out, Reach.of(None))).hardware(section, None)
