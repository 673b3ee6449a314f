"""Attributes of ops as text: those that differ from their default, and what reads them back as the kind's record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..ops.attributes.attrs import Attrs, Value, schema, stated
from ..ops.attributes.experts import ExchangeAttrs
from ..ops.attributes.read_record import AttributeFault
from ..ops.op_set import OPS, attrs_of
from .implied import AxisNames
from .scan import Cursor, TextError

SHORT = {"source_dim": "from", "target_dim": "to"}
"""How the text calls the dimensions of a move: `from=slot, to=expert`."""

LONG = {short: name for name, short in SHORT.items()}

AXES = frozenset(
    name for kind in OPS.values() for name, attribute in schema(kind.attrs).items() if attribute.kind == "axes"
)
"""Attributes whose value is axes."""

_WORD = re.compile(r"[A-Za-z_][\w.]*")
_NOT_WORDS = ("true", "false", "inf", "nan")


def shown(attrs: Attrs, names: AxisNames, scope: str) -> list[str]:
    """Axes by their names, words without quotes, integral numbers without a fraction."""
    scope = "experts" if isinstance(attrs, ExchangeAttrs) else scope
    return [f"{SHORT.get(name, name)}={_shown(value, names, scope)}" for name, value in stated(attrs)]


def _shown(value: Value, names: AxisNames, scope: str) -> str:
    if isinstance(value, tuple):
        return names.show(value, scope)
    if isinstance(value, str) and _WORD.fullmatch(value) and value not in _NOT_WORDS:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def pair(at: Cursor) -> tuple[str, str]:
    """`name=value`, the value as it is written; a text in quotes keeps the first one."""
    name = at.name()
    at.mark("=")
    if at.takes('"'):
        word = at.until('"')
        at.mark('"')
        return name, f'"{word}'
    return name, at.until(",)}")


def values(pairs: Iterable[tuple[str, str]], names: AxisNames) -> dict[str, Value]:
    """Fields of the kind's record by their names. Raises TextError."""
    values: dict[str, Value] = {}
    for name, text in pairs:
        name = LONG.get(name, name)
        if name in values:
            raise TextError(f"attribute {name} is given twice")
        values[name] = _axes(text, names) if name in AXES else _value(text)
    return values


def attributes(kind: str, found: Mapping[str, Value]) -> Attrs:
    """The record of the kind. Raises TextError."""
    try:
        return attrs_of(kind, found.items())
    except AttributeFault as error:
        raise TextError(str(error)) from None


def _axes(text: str, names: AxisNames) -> tuple[str, ...]:
    text = text.removeprefix('"')
    return names.atoms(part.strip() for part in text.split("+")) if text not in ("", "-") else ()


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"'):
        return text[1:]
    if _WORD.fullmatch(text) and text not in _NOT_WORDS:
        return text
    return float(text) if any(c in text for c in ".einf") else int(text)
