"""Frozen records: what `dataclass(frozen=True, slots=True)` makes, at half its cost at import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(*, slots: bool = True) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T] | None = None, /, *, slots: bool = True) -> Any:
    """A frozen dataclass. `dataclass` compiles six functions for every class; comparison, hash and text are the same for
    all of them and are not compiled here. `slots=False`: for classes with cached properties."""
    if cls is None:
        return lambda late: _made(late, slots)
    return _made(cls, slots)


def _made(cls: type[T], slots: bool) -> type[T]:
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # else dataclass asks inspect for a signature
    made = dataclass(frozen=True, slots=slots, repr=False, eq=False)(cls)
    own = made.__dict__
    compared = [f.name for f in fields(made) if f.compare]  # type: ignore[arg-type]
    values: Callable[[Any], Any] = attrgetter(*compared) if compared else lambda self: ()
    shown = [f.name for f in fields(made) if f.repr]  # type: ignore[arg-type]

    def equal(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(values(self))

    def text(self: Any) -> str:
        return f"{made.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    for name, function in (("__eq__", equal), ("__hash__", hashed), ("__repr__", text)):
        if name not in own or own[name] is None or (name == "__hash__" and own[name] is object.__hash__):
            setattr(made, name, function)
    return made
