"""A value as the kind that an attribute is of, within its range."""

from __future__ import annotations

import re

from ..base.diagnostics import Collector
from ..base.dtypes import FORMS, find
from ..base.schema.attribute import Attribute
from ..base.source import Span
from ..base.units import BYTE_RATE, BYTES, EXAMPLES, SCALAR, Dim, Quantity, dim_name, dim_words
from .values.evaluate import Value, kind_of

MOST_SHARES = 4096
"""Numbers of a list, and of the lists in it."""


def typed(name: str, attribute: Attribute, value: Value, span: Span, out: Collector) -> Value | None:
    """The value as the attribute's kind, within its range; None after reporting that it is not."""
    if attribute.kind in ("number", "count"):
        return _number(name, attribute, value, span, out)
    if attribute.kind in ("word", "dtype"):
        return _word(name, attribute, value, span, out)
    if attribute.kind == "flag" and not isinstance(value, bool):
        out.add("E08", f"`{name}` is true or false, not {kind_of(value)}", span)
        return None
    if attribute.kind == "shares":
        return _shares(name, attribute, value, span, out)
    if attribute.kind == "counts":
        return _counts(name, attribute, value, span, out)
    if attribute.kind == "text" and not isinstance(value, str):
        out.add("E08", f"`{name}` is a text in quotes, not {kind_of(value)}", span)
        return None
    if attribute.kind == "list" and not isinstance(value, tuple):
        return (value,)
    return value


def _counts(name: str, attribute: Attribute, value: Value, span: Span, out: Collector) -> Value | None:
    """A list of plain whole numbers from 0."""
    if isinstance(value, range) and value.start >= 0:
        return value
    items = value if isinstance(value, tuple) else (value,)
    plain = (
        isinstance(v, Quantity) and v.dim in (SCALAR, attribute.dim) and v.value >= 0 and v.value == int(v.value)
        for v in items
    )
    if items and all(plain):
        return items
    dash = re.fullmatch(r'[\["]?\s*(\d+)\s*(?:-|\.\.)\s*(\d+)\s*[\]"]?', span.text)
    help_ = (f"a range is written `{dash[1]}..{dash[2]}`",) if dash else ()
    out.add("E08", f"`{name}` is a list of whole numbers: {attribute.about}", span, help=help_)
    return None


def _shares(name: str, attribute: Attribute, value: Value, span: Span, out: Collector) -> Value | None:
    """A number, or a list of numbers and of lists of them, each within the range."""
    if not isinstance(value, tuple):
        return _number(name, attribute, value, span, out)
    if not value:
        out.add("E08", f"`{name}` has no numbers", span)
        return None
    items = [one for item in value for one in (item if isinstance(item, tuple) else (item,))]
    if any(isinstance(item, tuple) and not item for item in value) or len(items) > MOST_SHARES:
        out.add("E09", f"`{name}` has {len(items)} numbers, or a list without one: {MOST_SHARES} at most", span)
        return None
    found = [_number(name, attribute, one, span, out) for one in items if not isinstance(one, tuple)]
    if len(found) < len(items):
        out.add("E08", f"`{name}` is a list of numbers, or of lists of them", span)
    return value if len(found) == len(items) and None not in found else None


def whole_numbers(value: Value | None) -> tuple[int, ...] | None:
    """What an attribute of whole numbers says; None: nothing."""
    if value is None or isinstance(value, range):
        return value if value is None else tuple(value)
    return tuple(int(v.value) for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, Quantity))


def _number(name: str, attribute: Attribute, value: Value, span: Span, out: Collector) -> Value | None:
    if not isinstance(value, Quantity):
        one: tuple[str, ...] = (
            ("write one value; `dagc sweep` goes through the domain of a param",) if isinstance(value, tuple) else ()
        )
        if isinstance(value, (str, bool)):
            one = number_meant(name, str(value).lower()) or _in_quotes(value)
        out.add("E08", f"`{name}` is a number, not {kind_of(value)}", span, help=one)
        return None
    plain_count = attribute.kind == "count" and value.dim == SCALAR
    if value.dim != attribute.dim and not plain_count:
        expected = dim_words(attribute.dim)
        help_ = _unit_help(attribute.dim, value.dim, span)
        out.add(
            "E08",
            f"`{name}` is {expected}, found {dim_words(value.dim)}",
            span,
            f"expected {dim_name(attribute.dim)}",
            help=help_,
        )
        return None
    if attribute.kind == "count" and value.value != int(value.value):
        out.add("E08", f"`{name}` is a whole number", span, f"this is {value.value:g}")
        return None
    low = value.value <= attribute.low if attribute.open_low else value.value < attribute.low
    if low or value.value > attribute.high:
        bound = f"more than {attribute.low:g}" if attribute.open_low else f"at least {attribute.low:g}"
        out.add(
            "E09",
            f"`{name}` must be {bound} and at most {attribute.high:g}",
            span,
            f"this is {value.value:g}",
            help=(f"write `{span.text}%`",) if attribute.high == 1 and _percentage(value.value, span) else (),
        )
        return None
    return Quantity(value.value, attribute.dim)


def number_meant(name: str, word: str) -> tuple[str, ...]:
    """The help where elsewhere a word is written for a number."""
    from ..base.synonyms import AS_NUMBERS

    meant = AS_NUMBERS.get(name, {}).get(word)
    return () if meant is None else (f"did you mean `{meant}`?",)


def _in_quotes(value: str | bool) -> tuple[str, ...]:
    """The help where a number is written as a text: `"2048"`."""
    number = isinstance(value, str) and re.fullmatch(r"[0-9][0-9_.]*([ \t]*[A-Za-z/]+)?", value)
    return (f"a number is written without quotes: `{value}`",) if number else ()


def _percentage(value: float, span: Span) -> bool:
    """`90` where 90 % is meant."""
    return 1 < value <= 100 and re.fullmatch(r"[0-9][0-9_.]*", span.text) is not None


def _unit_help(wanted: Dim, found: Dim, span: Span) -> tuple[str, ...]:
    """How to write what was meant."""
    literal = re.fullmatch(r"([0-9][0-9_.]*)[ \t]*([A-Za-z/]+)", span.text)
    if wanted == SCALAR and found == BYTES and literal:
        power = {"kB": "e3", "MB": "e6", "GB": "e9", "TB": "e12"}.get(literal[2], "e9")
        return (f"`{literal[2]}` is bytes; a billion is written `1e9`: {literal[1]}{power}",)
    if found == SCALAR and wanted in EXAMPLES:
        return (f"write a unit, e.g. `{EXAMPLES[wanted]}`",)
    if (found, wanted) == (BYTES, BYTE_RATE) and literal:
        return (f"a bandwidth is written `{literal[1]} {literal[2]}/s`",)
    return ()


def _word(name: str, attribute: Attribute, value: Value, span: Span, out: Collector) -> Value | None:
    if not isinstance(value, str):
        # `true` of what is nothing or one word is that word.
        meant = attribute.words[value] if isinstance(value, bool) and len(attribute.words) == 2 else ""
        help_ = (f"did you mean `{meant}`?",) if attribute.default == "none" and meant else ()
        out.add("E08", f"`{name}` is a word, not {kind_of(value)}", span, help=help_)
        return None
    known = find(value) is not None if attribute.kind == "dtype" else value in attribute.words
    if attribute.words and not known:
        from ..base.synonyms import SYNONYMS

        near = out.near(value, attribute.words)
        if attribute.kind == "dtype" and value not in SYNONYMS:  # `fp6` is no `fp64`
            from ..base.suggest import products

            near = next(iter(products(value, attribute.words)), None)
        more = f", {FORMS}" if attribute.kind == "dtype" else ""
        hint = f"did you mean `{near}`?" if near else f"known: {', '.join(attribute.words)}{more}"
        out.add("E02", f"`{name}` cannot be `{value}`", span, help=(hint,))
        return None
    return value


def default_of(attribute: Attribute) -> Value | None:
    """The value of an attribute that nobody gives."""
    value = attribute.default
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Quantity(float(value), attribute.dim)
    return value if isinstance(value, (str, bool)) else None
