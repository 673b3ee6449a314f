"""The record of an op's attributes: frozen, each field with its default, its range and a line of documentation.

The language's keywords are read from the same fields (`keywords`); what passes set is marked `made`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, Self, dataclass_transform

from ....base.frozen import record, replace
from ....base.schema.attribute import LARGE, REQUIRED, Attribute
from ....base.schema.model import ROPE
from ...sharding import Axes

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


def flag_field(about: str, *, made: bool = False, default: bool) -> Any:
    return _field(Attribute(about, "flag"), default, made)


def number_field(
    about: str,
    *,
    low: float = 0.0,
    open_low: bool = True,
    high: float = LARGE,
    made: bool = False,
    default: Any = REQUIRED,
) -> Any:
    return _field(Attribute(about, low=low, open_low=open_low, high=high), default, made)


def count_field(about: str, *, low: float = 1, high: float = 1e12, made: bool = False, default: Any = REQUIRED) -> Any:
    return _field(Attribute(about, "count", low=low, high=high, open_low=False), default, made)


def word_field(about: str, *words: str, made: bool = False, default: str) -> Any:
    return _field(Attribute(about, "word", words=words), default, made)


def axes_field(about: str, *, default: Axes) -> Any:
    return _field(Attribute(about, "axes"), default, made=True)


def tree_field(*, default: str) -> Any:
    return _field(Attribute("drafted tokens that branch, by depth: 4x2x1", "tree"), default, made=True)


def dim_field(about: str, *, default: str) -> Any:
    return _field(Attribute(about, "dim"), default, made=True)


def rope_field(name: str, *, default: Any) -> Any:
    """As the model's `rope` section has it."""
    return _field(ROPE[name], default)


@dataclass_transform(
    frozen_default=True,
    field_specifiers=(flag_field, number_field, count_field, word_field, axes_field, tree_field, dim_field, rope_field),
)
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
