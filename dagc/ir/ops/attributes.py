"""The attributes of ops: a frozen record per kind, each field with its default, its range and a line of documentation.

The language's keywords are read from the same fields (`keywords`); what passes set is marked `made`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from math import inf, isfinite
from typing import Any, ClassVar

from ...base.schema import LARGE, REQUIRED, ROPE, Attribute
from ..sharding import Axes

Value = str | int | float | bool | Axes | None


def _field(attribute: Attribute, default: Any, made: bool = False) -> Any:
    stated = MISSING if default is REQUIRED else default
    return field(default=stated, metadata={"attribute": attribute, "made": made})


def _flag(about: str, default: bool) -> Any:
    return _field(Attribute(about, "flag"), default)


def _number(
    about: str, default: object = REQUIRED, low: float = 0.0, open_low: bool = True, high: float = LARGE
) -> Any:
    return _field(Attribute(about, low=low, open_low=open_low, high=high), default)


def _count(about: str, default: object = REQUIRED, low: float = 1, high: float = 1e12, made: bool = False) -> Any:
    return _field(Attribute(about, "count", low=low, high=high, open_low=False), default, made)


def _word(about: str, default: object, *words: str, made: bool = False) -> Any:
    return _field(Attribute(about, "word", words=words), default, made)


def _axes(about: str) -> Any:
    return _field(Attribute(about, "axes"), (), made=True)


def _dim(about: str) -> Any:
    return _field(Attribute(about, "dim"), "", made=True)


def _rope(name: str) -> Any:
    """As the model's `rope` section has it."""
    return _field(ROPE[name], ROPE[name].default)


@dataclass(frozen=True, slots=True)
class Attrs:
    """What an op says besides its operands. Without fields, as here, it is the record of most kinds.

    `runtime_kind`: the collective that runtimes know the op as, where it is not its own kind."""

    runtime_kind: ClassVar[str] = ""


NONE = Attrs()


# -- element by element --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScaleAttrs(Attrs):
    factor: float = _number("multiplies every number", low=-inf, high=inf)


@dataclass(frozen=True, slots=True)
class ShiftAttrs(Attrs):
    by: float = _number("is added to every number", low=-inf, high=inf)


@dataclass(frozen=True, slots=True)
class ClampAttrs(Attrs):
    low: float = _number("lower bound", -inf, low=-LARGE, open_low=False)
    high: float = _number("upper bound", inf, low=-LARGE, open_low=False)


@dataclass(frozen=True, slots=True)
class NormAttrs(Attrs):
    eps: float = _number("added to the mean square", 1e-6, open_low=False)


@dataclass(frozen=True, slots=True)
class RopeAttrs(Attrs):
    theta: float = _rope("theta")
    fraction: float = _rope("fraction")
    interleaved: bool = _rope("interleaved")
    scaling: str = _rope("scaling")
    factor: float = _rope("factor")
    original: int = _rope("original")
    beta_fast: float = _rope("beta_fast")
    beta_slow: float = _rope("beta_slow")
    truncate: bool = _rope("truncate")
    low: float = _rope("low")
    high: float = _rope("high")
    magnitude: float = _rope("magnitude")


@dataclass(frozen=True, slots=True)
class TemperAttrs(Attrs):
    floor: float = _number("positions that share a step", 8192.0)
    scale: float = _number("growth with the logarithm of a step", 0.1, open_low=False)


# -- attention -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttendAttrs(Attrs):
    """`pairs` queries come first, then as many keys, then the values; sinks and chosen tokens where there are some."""

    causal: bool = _flag("a token attends only to itself and earlier tokens", True)
    width: float | None = _number("under the root, instead of the queries' width", None)
    scale: float = _number("factor of the scores in addition to 1 / sqrt(width)", 1.0)
    window: int = _count("tokens that a sliding window sees (0: all)", 0, low=0)
    chunk: int = _count("tokens of a chunk, which sees only itself (0: all)", 0, low=0)
    pairs: int = _count("pairs of queries and keys, whose scores add", 1, made=True)
    chosen: int = _count("tokens that `select` chose for each query (0: no choice)", 0, low=0, high=1e9, made=True)
    ring: Axes = _axes("axes around which keys and values travel")  # noqa: RUF009


# -- experts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RouteAttrs(Attrs):
    top_k: int = _count("experts per token", high=1e6)
    score: str = _word("router score", "softmax", "softmax", "sigmoid", "sparsemixer")
    normalize: bool = _flag("the chosen weights sum to one", True)
    groups: int = _count("expert groups of group-limited routing", 1, high=1e6)
    groups_limit: int = _count("groups that a token may use", 1, high=1e6)
    group_score: str = _word("strength of a group: its best expert or its two best", "best_two", "best", "best_two")
    scale: float = _number("factor of the chosen weights", 1.0)
    jitter: float = _number(
        "sparsemixer: half the distance from the best within which a score counts", 0.0, open_low=False
    )


_WEIGHTED = "rows are multiplied by the router's weights"
_EXCHANGE = "axes over which tokens are exchanged between their owners and the experts"


@dataclass(frozen=True, slots=True)
class ExchangeAttrs(Attrs):
    """Of the ops between tokens at home and rows of experts."""

    exchange: Axes = _axes(_EXCHANGE)  # noqa: RUF009


@dataclass(frozen=True, slots=True)
class DispatchAttrs(ExchangeAttrs):
    weighted: bool = _flag(_WEIGHTED, False)


@dataclass(frozen=True, slots=True)
class CombineAttrs(ExchangeAttrs):
    weighted: bool = _flag(_WEIGHTED, True)


# -- moves ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SliceAttrs(Attrs):
    target_dim: str = _dim("dimension that is split")
    axes: Axes = _axes("axes that split it")  # noqa: RUF009


@dataclass(frozen=True, slots=True)
class CollectiveAttrs(Attrs):
    """Of ops whose ranks exchange messages."""


@dataclass(frozen=True, slots=True)
class MoveAttrs(CollectiveAttrs):
    source_dim: str = _dim("dimension that is gathered")
    target_dim: str = _dim("dimension that is split")
    reduce: str = _word("how partial values are reduced", "sum", "sum", "max", made=True)


@dataclass(frozen=True, slots=True)
class RingTurnAttrs(CollectiveAttrs):
    runtime_kind: ClassVar[str] = "permute"
    steps: int = _count("messages that each rank passes on, one after another", made=True)


@dataclass(frozen=True, slots=True)
class SoftmaxMergeAttrs(CollectiveAttrs):
    """Of (row sums, row maxima, maxima over all pieces), or of (outputs, shares of the row sums)."""

    runtime_kind: ClassVar[str] = "all_reduce"


# -- records as tables ---------------------------------------------------------------------------

_FIELDS: dict[type[Attrs], tuple[Field[Any], ...]] = {}


def _fields(record: type[Attrs]) -> tuple[Field[Any], ...]:
    if record not in _FIELDS:
        _FIELDS[record] = fields(record)
    return _FIELDS[record]


def schema(record: type[Attrs]) -> Mapping[str, Attribute]:
    """Range and documentation of every field."""
    return {f.name: f.metadata["attribute"] for f in _fields(record)}


def keywords(record: type[Attrs]) -> Mapping[str, Attribute]:
    """The fields that blocks of the language may write."""
    return {f.name: f.metadata["attribute"] for f in _fields(record) if not f.metadata["made"]}


def values(attrs: Attrs) -> dict[str, Any]:
    """Every field with its value."""
    return {f.name: getattr(attrs, f.name) for f in _fields(type(attrs))}


def stated(attrs: Attrs) -> list[tuple[str, Any]]:
    """The fields that differ from their default, in the order of the record: what texts print."""
    return [(f.name, value) for f in _fields(type(attrs)) if (value := getattr(attrs, f.name)) != f.default]


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
    return {f.name for f in _fields(record) if f.default is MISSING}


def check_values(attrs: Attrs) -> None:
    """Raises AttributeFault where its kind of value or its range does not allow a field's value."""
    for f in _fields(type(attrs)):
        value = getattr(attrs, f.name)
        if value != f.default:
            attribute: Attribute = f.metadata["attribute"]
            if not _fits(attribute, value) or (attribute.kind == "count" and not isinstance(value, int)):
                raise AttributeFault(f"attribute {f.name} = {value} is not {_wanted(attribute)}")


def _fits(wanted: Attribute, value: Value) -> bool:
    if wanted.kind == "flag":
        return isinstance(value, bool)
    if wanted.kind == "word":
        return value in wanted.words
    if wanted.kind == "dim":
        return isinstance(value, str)
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
    if wanted.kind in ("axes", "dim"):
        return "mesh axes" if wanted.kind == "axes" else "the name of a dimension"
    kind = "a whole number" if wanted.kind == "count" else "a number"
    low = "" if wanted.low == -inf else f" {'above' if wanted.open_low else 'of at least'} {wanted.low:g}"
    return kind + low
