"""Frozen records: what `dataclass(frozen=True, slots=True)` makes, at a quarter of its cost at import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any, TypeVar, cast, dataclass_transform, overload

T = TypeVar("T")


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(*, slots: bool = True) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T] | None = None, /, *, slots: bool = True) -> Any:
    """A frozen dataclass. `dataclass` compiles eight functions for every class; all but the initialiser are the same for all of
    them and are not compiled here. `slots=False`: for classes with cached properties."""
    if cls is None:
        return lambda late: _made(late, slots)
    return _made(cls, slots)


def replace(made: T, /, **changes: Any) -> T:
    """As `dataclasses.replace`, in half the time: passes make many thousands of ops out of others."""
    own = type(made)
    known = _REPLACED.get(own)
    if known is None:
        names = [f.name for f in fields(cast(Any, own)) if f.init]
        values: Any = attrgetter(*names) if len(names) > 1 else lambda one: tuple(getattr(one, name) for name in names)
        known = _REPLACED[own] = values, {name: k for k, name in enumerate(names)}
    found = list(known[0](made))
    for name, value in changes.items():
        found[known[1][name]] = value
    return own(*found)


_REPLACED: dict[type, tuple[Callable[[Any], tuple[Any, ...]], dict[str, int]]] = {}
"""Of each class: the arguments of its initialiser, and where each is."""


def _made(cls: type[T], slots: bool) -> type[T]:
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # else dataclass asks inspect for a signature
    derived = any(is_dataclass(base) for base in cls.__bases__)
    made: Any = dataclass(init=derived, frozen=derived, slots=slots, repr=False, eq=False)(cls)
    if not derived:
        _freeze(made, slots)
    own = made.__dict__
    compared = [f.name for f in fields(made) if f.compare]
    values: Callable[[Any], Any] = attrgetter(*compared) if compared else lambda self: ()
    shown = [f.name for f in fields(made) if f.repr]

    def equal(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(values(self))

    def text(self: Any) -> str:
        return f"{made.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    for name, function in (("__eq__", equal), ("__hash__", hashed), ("__repr__", text)):
        if name not in own or own[name] is None or (name == "__hash__" and own[name] is object.__hash__):
            setattr(made, name, function)
    return cast(type[T], made)


def _freeze(made: Any, slots: bool) -> None:
    """What `frozen=True` would compile for the class."""
    made.__init__ = _initialiser(made, slots)
    made.__setattr__, made.__delattr__ = _no_assignment, _no_deletion
    made.__dataclass_params__.init = made.__dataclass_params__.frozen = True
    if slots:
        made.__getstate__, made.__setstate__ = _state, _restore


def _initialiser(made: Any, slots: bool) -> Callable[..., None]:
    """`__init__`: its fields by position or name."""
    scope: dict[str, Any] = {"_set": object.__setattr__, "_MISSING": MISSING}
    arguments, body = ["self"], []
    for f in fields(made):
        given, otherwise = f.name, f"_or_{f.name}"
        if f.default_factory is not MISSING:
            scope[otherwise] = f.default_factory
            if f.init:
                arguments.append(f"{f.name}=_MISSING")
                given = f"{otherwise}() if {f.name} is _MISSING else {f.name}"
            else:
                given = f"{otherwise}()"
        elif f.default is not MISSING:
            scope[otherwise] = f.default
            if f.init:
                arguments.append(f"{f.name}={otherwise}")
            else:
                given = otherwise
        elif f.init:
            arguments.append(f.name)
        else:
            continue
        body.append(f"    _set(self, {f.name!r}, {given})")
    if hasattr(made, "__post_init__"):
        body.append("    self.__post_init__()")
    exec("\n".join([f"def __init__({', '.join(arguments)}):", *(body or ["    pass"])]), scope)
    made_init: Any = scope["__init__"]
    made_init.__qualname__ = f"{made.__qualname__}.__init__"
    made_init.__module__ = made.__module__
    return cast(Callable[..., None], made_init)


def _no_assignment(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_deletion(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[object]:
    """For copies and pickles."""
    return [getattr(self, f.name) for f in fields(self)]


def _restore(self: Any, state: list[object]) -> None:
    for f, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, f.name, value)
