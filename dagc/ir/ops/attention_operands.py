"""What the operands of an attention are, by their place."""

from __future__ import annotations

from ..op import Op
from .attributes.attention import AttendAttrs


def attend_operands(op: Op) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """(queries, keys, values) of an attend: as many queries as keys, their scores add."""
    pairs = op.of(AttendAttrs).pairs
    return op.inputs[:pairs], op.inputs[pairs : 2 * pairs], op.inputs[2 * pairs]


def entry_operands(op: Op) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(keys, values) of the entries that an attend sees beside tokens; none where it sees tokens alone."""
    attrs = op.of(AttendAttrs)
    first = 2 * attrs.pairs + 1
    if not attrs.entries:
        return (), ()
    return op.inputs[first : first + attrs.pairs], op.inputs[first + attrs.pairs : first + attrs.pairs + 1]


def chooses(attrs: AttendAttrs) -> bool:
    """Whether the last operand of an attend is what `select` chose."""
    return bool(attrs.chosen or attrs.chosen_entries)


def attend_extras(op: Op) -> tuple[str | None, str | None]:
    """(sinks, selected tokens or entries) of an attend, where it has them."""
    attrs = op.of(AttendAttrs)
    rest = list(op.inputs[2 * attrs.pairs + 1 + (attrs.pairs + 1 if attrs.entries else 0) :])
    selected = rest.pop() if chooses(attrs) else None
    return (rest[0] if rest else None), selected
