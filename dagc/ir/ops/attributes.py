"""The attributes that each kind of op may have, and what values they take: the language's keywords, and what passes add."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from ...base.dtypes import DTYPE_BYTES
from ...base.schema import ATTEND, CLAMP, NORM, ROPE, ROUTE, SELECT, TEMPER, WEIGHTED, Attribute
from ..graph import COLLECTIVES, Attr, Op

SCOPES = ("dense", "experts")

_ANY = Attribute("any number", low=float("-inf"), open_low=False, high=float("inf"))
_AXES = Attribute("mesh axes, joined by +", "axes")
_DIM = Attribute("a dimension", "dim")
_PAIRS = Attribute("pairs of queries and keys", "count", low=1, open_low=False)

_MOVE: Mapping[str, Attribute] = {
    "from": _DIM,
    "to": _DIM,
    "steps": Attribute("steps of a ring", "count", low=1, open_low=False),
    "reduce": Attribute("how it reduces", "word", words=("sum", "max", "softmax")),
    "of": Attribute("a number of each row", "word", words=("row_max", "row_sum")),
}

ATTRIBUTES: Mapping[str, Mapping[str, Attribute]] = {
    "scale": {"factor": _ANY},
    "shift": {"by": _ANY},
    "clamp": CLAMP,
    "rms_norm": NORM,
    "layer_norm": NORM,
    "rope": ROPE,
    "temper": TEMPER,
    "attend": {**ATTEND, "pairs": _PAIRS, "chosen": SELECT["top_k"], "ring": _AXES},
    "select": SELECT,
    "route": ROUTE,
    "dispatch": {**WEIGHTED, "exchange": _AXES},
    "combine": {**WEIGHTED, "exchange": _AXES},
    "slice": {"axes": _AXES, "from": _DIM, "to": _DIM},
    **dict.fromkeys(COLLECTIVES, _MOVE),
}


def fault(op: Op) -> str:
    """What is wrong with an op's dtype, scope or attributes, or nothing."""
    if op.dtype not in DTYPE_BYTES:
        return f"unknown dtype {op.dtype}"
    if op.scope not in SCOPES:
        return f"unknown scope {op.scope}"
    if not op.attrs:
        return ""
    known = ATTRIBUTES.get(op.kind, {})
    names = [name for name, _ in op.attrs]
    for i, (name, value) in enumerate(op.attrs):
        if name in names[:i]:
            return f"attribute {name} is given twice"
        if name not in known:
            return f"{op.kind} has no attribute {name}" + (f" (it has {', '.join(known)})" if known else "")
        if not _fits(known[name], value):
            return f"attribute {name} = {value} is not {_wanted(known[name])}"
    return ""


def _fits(wanted: Attribute, value: Attr) -> bool:
    if wanted.kind == "flag":
        return isinstance(value, bool)
    if wanted.kind == "word":
        return value in wanted.words
    if wanted.kind in ("axes", "dim"):
        return isinstance(value, str)
    if isinstance(value, (bool, str)) or not isfinite(value) or wanted.kind not in ("number", "count"):
        return False
    whole = wanted.kind != "count" or value == int(value)
    return whole and (wanted.low < value if wanted.open_low else wanted.low <= value) and value <= wanted.high


def _wanted(wanted: Attribute) -> str:
    if wanted.kind == "flag":
        return "true or false"
    if wanted.kind == "word":
        return "one of " + ", ".join(wanted.words)
    if wanted.kind in ("axes", "dim"):
        return f"the name of {wanted.about}"
    kind = "a whole number" if wanted.kind == "count" else "a number"
    low = "" if wanted.low == float("-inf") else f" {'above' if wanted.open_low else 'of at least'} {wanted.low:g}"
    return kind + low
