"""The attributes of ops: a frozen record per kind, each field with its default, its range and a line of documentation.

The language's keywords are read from the same fields (`keywords`); what passes set is marked `made`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isfinite
from typing import Any, ClassVar, NoReturn, Self, dataclass_transform

from ...base.draft_trees import is_tree
from ...base.frozen import record, replace
from ...base.number_texts import are_numbers
from ...base.schema.attribute import LARGE, REQUIRED, Attribute
from ...base.schema.model import ROPE
from ...base.schema.phase import PLACINGS
from ...base.schema.phase_sections import ATTENTION_KERNELS, MOST_SKIPPED
from ..sharding import Axes

Value = str | int | float | bool | Axes | None


@record
class Field:
    """One attribute of a record. `made`: passes set it, not blocks of the language."""

    name: str
    attribute: Attribute
    default: Any
    made: bool


def _field(attribute: Attribute, default: Any, made: bool = False) -> Any:
    return Field("", attribute, default, made)


def _flag(about: str, *, made: bool = False, default: bool) -> Any:
    return _field(Attribute(about, "flag"), default, made)


def _number(
    about: str,
    *,
    low: float = 0.0,
    open_low: bool = True,
    high: float = LARGE,
    made: bool = False,
    default: Any = REQUIRED,
) -> Any:
    return _field(Attribute(about, low=low, open_low=open_low, high=high), default, made)


def _count(about: str, *, low: float = 1, high: float = 1e12, made: bool = False, default: Any = REQUIRED) -> Any:
    return _field(Attribute(about, "count", low=low, high=high, open_low=False), default, made)


def _word(about: str, *words: str, made: bool = False, default: str) -> Any:
    return _field(Attribute(about, "word", words=words), default, made)


def _axes(about: str, *, default: Axes) -> Any:
    return _field(Attribute(about, "axes"), default, made=True)


def _tree(*, default: str) -> Any:
    return _field(Attribute("drafted tokens that branch, by depth: 4x2x1", "tree"), default, made=True)


def _dim(about: str, *, default: str) -> Any:
    return _field(Attribute(about, "dim"), default, made=True)


def _rope(name: str, *, default: Any) -> Any:
    """As the model's `rope` section has it."""
    return _field(ROPE[name], default)


@dataclass_transform(frozen_default=True, field_specifiers=(_flag, _number, _count, _word, _axes, _tree, _dim, _rope))
class _Record(type):
    """Makes frozen records with slots from classes whose fields each carry an Attribute (range, default, documentation),
    which a dataclass has no place for."""

    fields: tuple[Field, ...]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _Record:
        own = [replace(named, name=key) for key, named in namespace.items() if isinstance(named, Field)]
        for one in own:
            del namespace[one.name]
        namespace["__slots__"] = tuple(one.name for one in own)
        made = super().__new__(mcs, name, bases, namespace)
        made.fields = (*(one for base in bases for one in getattr(base, "fields", ())), *own)
        return made


class Attrs(metaclass=_Record):
    """What an op says besides its operands. Without fields, as here, it is the record of most kinds.

    `runtime_kind`: the collective that runtimes know the op as, where it is not its own kind."""

    runtime_kind: ClassVar[str] = ""

    def __init__(self, *args: Any, **named: Any) -> None:
        fields = type(self).fields
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} has {len(fields)} fields, not {len(args)}")
        for field, value in zip(fields, args, strict=False):
            object.__setattr__(self, field.name, value)
        for field in fields[len(args) :]:
            value = named.pop(field.name, field.default)
            if value is REQUIRED:
                raise TypeError(f"{type(self).__name__} needs {field.name}")
            object.__setattr__(self, field.name, value)
        if named:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(named)}")

    def but(self, **changes: Any) -> Self:
        """The same with other values of some fields."""
        return type(self)(**{**values(self), **changes})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and values(self) == values(other)

    def __hash__(self) -> int:
        return hash((type(self), *values(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in values(self).items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(values(self).values())


NONE = Attrs()


# -- element by element --------------------------------------------------------------------------


class ScaleAttrs(Attrs):
    factor: float = _number("multiplies every number", low=-inf, high=inf)


class DropoutGradAttrs(Attrs):
    rate: float = _number("share of the numbers that are put to nothing", open_low=False, high=1.0, made=True)


class DropoutAttrs(DropoutGradAttrs):
    number: int = _count("which of the layer's it is", low=0, made=True, default=0)


class ShiftAttrs(Attrs):
    by: float = _number("is added to every number", low=-inf, high=inf)


class ClampAttrs(Attrs):
    low: float = _number("lower bound", default=-inf, low=-LARGE, open_low=False)
    high: float = _number("upper bound", default=inf, low=-LARGE, open_low=False)


class NormAttrs(Attrs):
    eps: float = _number("added to the mean square", default=1e-6, open_low=False)


class PartAttrs(Attrs):
    first: int = _count("entry of the last dimension with which it begins", low=0, high=1e9, default=0)


class SinkhornAttrs(Attrs):
    iterations: int = _count("times that columns are divided by their sums, rows between", default=20, low=1, high=1000)
    eps: float = _number("added to the softmax of rows, and to each sum", default=1e-6, open_low=False)


class OperandAttrs(Attrs):
    """Of the gradient of an op that takes several operands."""

    operand: int = _count("operand whose gradient it is", low=0, high=63, made=True, default=0)


class RopeAttrs(Attrs):
    theta: float = _rope("theta", default=ROPE["theta"].default)
    fraction: float = _rope("fraction", default=ROPE["fraction"].default)
    interleaved: bool = _rope("interleaved", default=ROPE["interleaved"].default)
    scaling: str = _rope("scaling", default=ROPE["scaling"].default)
    factor: float = _rope("factor", default=ROPE["factor"].default)
    original: int = _rope("original", default=ROPE["original"].default)
    beta_fast: float = _rope("beta_fast", default=ROPE["beta_fast"].default)
    beta_slow: float = _rope("beta_slow", default=ROPE["beta_slow"].default)
    truncate: bool = _rope("truncate", default=ROPE["truncate"].default)
    low: float = _rope("low", default=ROPE["low"].default)
    high: float = _rope("high", default=ROPE["high"].default)
    magnitude: float = _rope("magnitude", default=ROPE["magnitude"].default)
    stretch: str = _rope("stretch", default="")
    tail: bool = _flag("it is the last numbers that are rotated, not the first", default=False)
    inverse: bool = _flag("rotated back, as gradients are", default=False)
    tree: str = _tree(default="")


class TemperAttrs(Attrs):
    floor: float = _number("positions that share a step", default=8192.0)
    scale: float = _number("growth with the logarithm of a step", default=0.1, open_low=False)
    first: int = _count("position of the first token", default=1, low=0, high=1)
    tree: str = _tree(default="")


# -- attention -----------------------------------------------------------------------------------


class AttendAttrs(Attrs):
    """`pairs` queries come first, then as many keys, then the values; with `entries` as many keys of entries, and their values; sinks and
    chosen tokens where there are some."""

    causal: bool = _flag("a token attends only to itself and earlier tokens", default=True)
    width: float | None = _number("under the root, instead of the queries' width", default=None)
    scale: float = _number("factor of the scores in addition to 1 / sqrt(width)", default=1.0)
    window: int = _count("tokens that a sliding window sees (0: all)", default=0, low=0)
    chunk: int = _count("tokens of a chunk, which sees only itself (0: all)", default=0, low=0)
    cap: float = _number("bound that scores come near, by a tanh (0: none)", open_low=False, default=0.0)
    pairs: int = _count("pairs of queries and keys, whose scores add", default=1, made=True)
    chosen: int = _count(
        "tokens that `select` chose for each query (0: no choice)", default=0, low=0, high=1e9, made=True
    )
    chosen_together: int = _count(
        "tokens of a block that `select` chose as one (0: single tokens)", default=0, low=0, made=True
    )
    entries: bool = _flag(
        "beside tokens it sees entries of groups, once all tokens of a group are there", made=True, default=False
    )
    chosen_entries: int = _count(
        "entries that `select` chose for each query (0: no choice)", default=0, low=0, high=1e9, made=True
    )
    ring: Axes = _axes("axes around which keys and values travel", default=())
    tree: str = _tree(default="")
    kernel: str = _word(
        "flash: scores stay on the chip; unfused: they are written and read",
        *ATTENTION_KERNELS,
        made=True,
        default="flash",
    )


class CacheAttrs(Attrs):
    """What is kept of a cache. A pass begins with the tokens that are kept of those before it; its own are added."""

    keep: int = _count("tokens that are kept from one pass to the next (0: all)", low=0, made=True, default=0)
    sinks: int = _count("of these, the first of the sequence", low=0, made=True, default=0)
    heavy: float = _number(
        "share of them that is chosen by the largest scores; the others are the newest",
        open_low=False,
        high=1.0,
        made=True,
        default=0.0,
    )
    ratio: float = _number(
        "how many times fewer bytes than its numbers it takes", low=1.0, open_low=False, made=True, default=1.0
    )
    host: float = _number("share that host memory keeps", open_low=False, high=1.0, made=True, default=0.0)
    prefetch: bool = _flag("what is needed of it comes while the layer before runs", made=True, default=True)


class CopyAttrs(Attrs):
    """Of copies between a GPU's memory and its host's, which have a stream of their own. One that is prefetched begins with its layer,
    for the layer behind: what reads it waits for the copies of the layer before."""

    prefetch: bool = _flag("it is done for the layer behind", made=True, default=True)


class ExpertCopyAttrs(CopyAttrs):
    resident: int = _count("experts of the layer that its GPUs hold, all together", high=65_536, made=True, default=1)
    share: float = _number("of what they lack", open_low=False, high=1.0, made=True, default=1.0)


class HostCacheAttrs(CopyAttrs):
    share: float = _number("share of the tokens that host memory keeps", high=1.0, made=True, default=1.0)


class AttendGradAttrs(AttendAttrs):
    operand: int = _count("operand whose gradient it is", low=0, high=63, made=True, default=0)


class SelectAttrs(Attrs):
    together: int = _count(
        "tokens that are selected as one, by the largest score among them (0: single tokens)", default=0, low=0
    )
    local: int = _count("blocks up to the query's own that are always selected", default=1)


class PoolAttrs(Attrs):
    overlap: bool = _flag(
        "an entry is of several groups, the last of them its own, by the first dimension behind `seq`", default=False
    )


class LeavingAttrs(Attrs):
    """Of the ops between all sequences of a step and those that have not left early."""

    groups: int = _count("ranks that split the sequences: of each the first ones stay", high=1e9, made=True)


# -- tokens in order -----------------------------------------------------------------------------


class DeltaAttrs(Attrs):
    correct: bool = _flag("what a key gave before is taken away first, as the delta rule does", default=True)


class DeltaGradAttrs(DeltaAttrs):
    operand: int = _count("operand whose gradient it is", low=0, high=63, made=True, default=0)


# -- experts -------------------------------------------------------------------------------------


SCORES = ("softmax", "sigmoid", "sparsemixer", "sqrtsoftplus")


class RouterAttrs(Attrs):
    """How scores become choices of experts and their weights."""

    top_k: int = _count("experts per token", high=1e6)
    score: str = _word("router score", *SCORES, default="softmax")
    normalize: bool = _flag("the chosen weights sum to one", default=True)
    groups: int = _count("expert groups of group-limited routing", default=1, high=1e6)
    groups_limit: int = _count("groups that a token may use", default=1, high=1e6)
    group_score: str = _word(
        "strength of a group: its best expert or its two best", "best", "best_two", default="best_two"
    )
    scale: float = _number("factor of the chosen weights", default=1.0)
    eps: float = _number("added to the sum that the chosen weights are divided by", open_low=False, default=0.0)
    jitter: float = _number(
        "sparsemixer: half the distance from the best within which a score counts", open_low=False, default=0.0
    )


class RouteAttrs(RouterAttrs):
    """Of the choice itself."""

    chosen_by: str = _word(
        "what the largest are chosen of, bias included: scores, or the numbers that these are made of",
        "scores",
        "logits",
        default="scores",
    )
    skip: float = _number(
        "share of the choices that are left out", open_low=False, high=MOST_SKIPPED, made=True, default=0.0
    )
    skip_below: float = _number(
        "those of less than this share of the token's largest weight", open_low=False, high=1.0, made=True, default=0.0
    )
    capacity: float = _number(
        "what an expert takes of the tokens of a rank, in times the mean; 0: all",
        open_low=False,
        made=True,
        default=0.0,
    )
    empty: bool = _flag("some experts do nothing: their scores are the second operand", made=True, default=False)
    by_token: bool = _flag(
        "a token's id chooses: operands 2 and 3 are the ids, and a table of the experts of each",
        made=True,
        default=False,
    )


OF_CHOICE = ("skip", "skip_below", "capacity", "empty", "by_token", "chosen_by")
"""What is chosen, and which choices count: that is constant to gradients."""


class RouteGradAttrs(RouterAttrs):
    """Of the gradient of its weights: of the scores, or of two operands of scores the one that it is of."""

    empty: bool = _flag("some experts do nothing: their scores are the third operand", made=True, default=False)
    operand: int = _count("operand of the router, counted from 0", low=0, high=1, made=True, default=0)


_WEIGHTED = "rows are multiplied by the router's weights"
_EXCHANGE = "axes over which tokens are exchanged between their owners and the experts"


class ExchangeAttrs(Attrs):
    """Of the ops between tokens at home and rows of experts."""

    exchange: Axes = _axes(_EXCHANGE, default=())


class DispatchAttrs(ExchangeAttrs):
    weighted: bool = _flag(_WEIGHTED, default=False)
    skips: bool = _flag("choices whose weight is 0 are left out", made=True, default=False)
    placed: str = _word("how the experts that rows go to are placed on ranks", *PLACINGS, made=True, default="")


class CombineAttrs(ExchangeAttrs):
    weighted: bool = _flag(_WEIGHTED, default=True)


# -- training -----------------------------------------------------------------------------------


class RowMaxAttrs(Attrs):
    """Of the largest number of a row, without its index."""


class WeightAttrs(Attrs):
    """Of what becomes of a weight's gradients."""

    weight: str = _dim("weight that it is of", default="")


class AccumulateAttrs(WeightAttrs):
    """Of the sum of them over micro-batches."""

    over: Axes = _axes(
        "axes of stages that have copies of the weight, each with the gradients of its own layers", default=()
    )


class StoreAttrs(WeightAttrs):
    """Of the new weight in its place."""


class QuantiseAttrs(WeightAttrs):
    """Of a new weight (named) or of what a product reads."""

    moved: bool = _flag("ranks that share out a weight gather it quantised", made=True, default=False)


class FetchAttrs(Attrs):
    """Of a stored weight, as its owners have it."""

    kept: bool = _flag("what is gathered of it forward is there on the way back", made=True, default=False)


class AdamAttrs(WeightAttrs):
    rate: float = _number("step size", high=1.0, made=True, default=1e-3)
    mean: float = _number("share that the mean keeps", high=1.0, open_low=False, made=True, default=0.9)
    square: float = _number("share that the mean square keeps", high=1.0, open_low=False, made=True, default=0.95)
    eps: float = _number("added to the root of the mean square", open_low=False, made=True, default=1e-8)
    decay: float = _number("weight decay", open_low=False, made=True, default=0.1)


class ShareAttrs(Attrs):
    sequences: int = _count(
        "sequences over which shares are taken (0: all of a micro-batch)", low=0, made=True, default=0
    )


class ScoreAttrs(Attrs):
    score: str = _word("router score", *SCORES, default="softmax")


class LabelsAttrs(Attrs):
    ahead: int = _count("how many tokens ahead of each", high=1e6, made=True, default=1)


class LossAttrs(Attrs):
    tokens: int = _count("tokens of a step, over which the mean is taken", high=1e15, made=True, default=1)
    factor: float = _number("of it in the loss of the step", made=True, default=1.0)


# -- moves ---------------------------------------------------------------------------------------


class SliceAttrs(Attrs):
    target_dim: str = _dim("dimension that is split", default="")
    axes: Axes = _axes("axes that split it", default=())


class CollectiveAttrs(Attrs):
    """Of ops whose ranks exchange messages."""


class MoveAttrs(CollectiveAttrs):
    source_dim: str = _dim("dimension that is gathered", default="")
    target_dim: str = _dim("dimension that is split", default="")
    reduce: str = _word("how partial values are reduced", "sum", "max", made=True, default="sum")


class RingTurnAttrs(CollectiveAttrs):
    runtime_kind: ClassVar[str] = "permute"
    steps: int = _count("messages that each rank passes on, one after another", made=True)


class SoftmaxMergeAttrs(CollectiveAttrs):
    """Of (row sums, row maxima, maxima over all pieces), or of (outputs, shares of the row sums)."""

    runtime_kind: ClassVar[str] = "all_reduce"


class SoftmaxScatterAttrs(CollectiveAttrs):
    """Of (outputs, shares of the row sums)."""

    runtime_kind: ClassVar[str] = "reduce_scatter"
    target_dim: str = _dim("dimension that is split", default="")


# -- records as tables ---------------------------------------------------------------------------


def schema(record: type[Attrs]) -> Mapping[str, Attribute]:
    """Range and documentation of every field."""
    return {f.name: f.attribute for f in record.fields}


def keywords(record: type[Attrs]) -> Mapping[str, Attribute]:
    """The fields that blocks of the language may write."""
    return {f.name: f.attribute for f in record.fields if not f.made}


def values(attrs: Attrs) -> dict[str, Any]:
    """Every field with its value."""
    return {f.name: getattr(attrs, f.name) for f in type(attrs).fields}


def stated(attrs: Attrs) -> list[tuple[str, Any]]:
    """The fields that differ from their default, in the order of the record: what texts print."""
    return [(f.name, value) for f in type(attrs).fields if (value := getattr(attrs, f.name)) != f.default]


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
