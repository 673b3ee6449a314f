"""The record of an op's attributes as texts have it: which kinds have which, and which values these take."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite

from ....base.draft_trees import is_tree
from ....base.number_texts import are_numbers
from ....base.schema.attribute import REQUIRED, Attribute
from .attrs import NONE, Attrs, Value, schema


class AttributeFault(ValueError):
    """An attribute that a kind of op does not have, or a value that it does not take."""


def read_record(kind: str, made: type[Attrs], given: Iterable[tuple[str, Value]]) -> Attrs:
    """The record of an op of this kind. Whole numbers become integers. Raises AttributeFault."""
    pairs = dict(given)
    if not pairs and made is Attrs:
        return NONE
    known = schema(made)
    for name in pairs:
        if name not in known:
            raise AttributeFault(f"{kind} has no attribute {name}" + (f" (it has {', '.join(known)})" if known else ""))
    missing = sorted(_required(made) - pairs.keys())
    if missing:
        raise AttributeFault(f"{kind} needs attribute {missing[0]}")
    for name, value in pairs.items():
        if not _fits(known[name], value):
            raise AttributeFault(f"attribute {name} = {value} is not {_wanted(known[name])}")
        if known[name].kind == "count" and isinstance(value, float):
            pairs[name] = int(value)
    return made(**pairs)


def _required(record: type[Attrs]) -> set[str]:
    return {f.name for f in record.fields if f.default is REQUIRED}


def check_values(attrs: Attrs) -> None:
    """Raises AttributeFault where its kind of value or its range does not allow a field's value."""
    for f in type(attrs).fields:
        value = getattr(attrs, f.name)
        if value != f.default:
            attribute = f.attribute
            if not _fits(attribute, value) or (attribute.kind == "count" and not isinstance(value, int)):
                raise AttributeFault(f"attribute {f.name} = {value} is not {_wanted(attribute)}")


def _fits(wanted: Attribute, value: Value) -> bool:
    if wanted.kind == "flag":
        return isinstance(value, bool)
    if wanted.kind == "word":
        return value in wanted.words
    if wanted.kind == "dim":
        return isinstance(value, str)
    if wanted.kind == "tree":
        return isinstance(value, str) and is_tree(value)
    if wanted.kind == "text":
        return isinstance(value, str) and are_numbers(value)
    if wanted.kind == "axes":
        return isinstance(value, tuple) and all(isinstance(axis, str) for axis in value)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value):
        return False
    whole = wanted.kind != "count" or value == int(value)
    return whole and (wanted.low < value if wanted.open_low else wanted.low <= value) and value <= wanted.high


def _wanted(wanted: Attribute) -> str:
    if wanted.kind == "flag":
        return "true or false"
    if wanted.kind == "word":
        return "one of " + ", ".join(wanted.words)
    if wanted.kind == "tree":
        return "candidates by depth, such as 4x2x1"
    if wanted.kind == "text":
        return 'a text of positive numbers, such as "1 1.5 4"'
    if wanted.kind in ("axes", "dim"):
        return "mesh axes" if wanted.kind == "axes" else "the name of a dimension"
    kind = "a whole number" if wanted.kind == "count" else "a number"
    low = "" if wanted.low == -inf else f" {'above' if wanted.open_low else 'of at least'} {wanted.low:g}"
    return kind + low
