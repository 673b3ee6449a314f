"""Records: what `dataclass` makes, at a twentieth of its cost at import. Every command imports hundreds of classes and makes
instances of few, so what a class needs is made when it is first asked for. `dataclasses` itself is imported by whoever asks for its
`fields`."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, cast, dataclass_transform, overload

if TYPE_CHECKING:
    from dataclasses import Field

T = TypeVar("T")


class Given:
    """What `field` says of a field; its attributes have the names of those of `dataclasses.Field`, which a record takes too."""

    __slots__ = ("compare", "default", "default_factory", "init", "repr")

    def __init__(self, default: Any, default_factory: Any, init: bool, repr: bool, compare: bool) -> None:
        self.default, self.default_factory = default, default_factory
        self.init, self.repr, self.compare = init, repr, compare


MISSING: Any = object()
"""Where there is no default."""


@overload
def field(*, default: T, init: bool = True, repr: bool = True, compare: bool = True) -> T: ...
@overload
def field(*, default_factory: Callable[[], T], init: bool = True, repr: bool = True, compare: bool = True) -> T: ...
@overload
def field(*, init: bool = True, repr: bool = True, compare: bool = True) -> Any: ...
def field(
    *,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    init: bool = True,
    repr: bool = True,
    compare: bool = True,
) -> Any:
    """As `dataclasses.field`."""
    return Given(default, default_factory, init, repr, compare)


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(*, slots: bool = True, kw_only: bool = False) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T] | None = None, /, *, slots: bool = True, kw_only: bool = False) -> Any:
    """A frozen dataclass. `slots=False`: for classes with cached properties; `kw_only`: no argument by position."""
    if cls is None:
        return lambda late: _made(late, slots, frozen=True, kw_only=kw_only)
    return _made(cls, slots, frozen=True)


@dataclass_transform(field_specifiers=(field,))
def mutable(cls: type[T], /) -> type[T]:
    """A dataclass with slots that is compared by identity: what is under construction."""
    return _made(cls, slots=True, frozen=False)


def replace(made: T, /, **changes: Any) -> T:
    """As `dataclasses.replace`, in half the time: passes make many thousands of ops out of others."""
    own = type(made)
    known = _REPLACED.get(own)
    if known is None:
        names = [name for name, (_, default) in _every(own).items() if getattr(default, "init", True)]
        values: Any = attrgetter(*names) if len(names) > 1 else lambda one: tuple(getattr(one, name) for name in names)
        known = _REPLACED[own] = values, {name: k for k, name in enumerate(names)}
    found = list(known[0](made))
    for name, value in changes.items():
        found[known[1][name]] = value
    return own(**dict(zip(known[1], found, strict=True))) if getattr(own, _BY_NAME, False) else own(*found)


_REPLACED: dict[type, tuple[Callable[[Any], tuple[Any, ...]], dict[str, int]]] = {}
"""Of each class: the arguments of its initialiser, and where each is."""

_OWN = "_record_fields"
"""Attribute of a record: name -> type and default (or `field`) of the fields that the class itself has."""

_BY_NAME = "_record_by_name"
"""Attribute of a record: whether its arguments have no places."""

_IS_FROZEN = "_record_is_frozen"


def _made(cls: type[T], slots: bool, frozen: bool, kw_only: bool = False) -> type[T]:
    own = dict(cls.__dict__)
    written = own.get("__annotations__", {})
    listed = {name: (kind, own.get(name, MISSING)) for name, kind in written.items() if not _of_class(kind)}
    inherited = {name for base in cls.__mro__[1:] for name in _known(base)}
    added: dict[str, Any] = {
        _OWN: listed,
        "__dataclass_fields__": _FIELDS,
        "__dataclass_params__": _PARAMS,
        "__signature__": _SIGNATURE,
        "__init__": _first_init,
        "__match_args__": () if kw_only else _MATCHED,
        _BY_NAME: kw_only,
        _IS_FROZEN: frozen,
    }
    if frozen:
        added |= {"__setattr__": _no_assignment, "__delattr__": _no_deletion}
        given = {"__eq__": _first_eq, "__hash__": _first_hash, "__repr__": _first_repr}
        added |= {name: stub for name, stub in given.items() if own.get(name) is None}
    elif "__repr__" not in own:
        added["__repr__"] = _first_repr
    if not own.get("__doc__"):
        added["__doc__"] = cls.__name__
    if not slots:
        for name, (_, default) in listed.items():
            if _is_given(default):
                if _or_missing(default.default) is MISSING:
                    delattr(cls, name)
                else:
                    setattr(cls, name, default.default)
        for name, value in added.items():
            setattr(cls, name, value)
        return cls
    if frozen:
        added |= {"__getstate__": _state, "__setstate__": _restore}
    added["__slots__"] = tuple(name for name in listed if name not in inherited)
    for name in (*listed, "__dict__", "__weakref__"):
        own.pop(name, None)
    kind: Any = type(cls)
    made = kind(cls.__name__, cls.__bases__, own | added)
    made.__qualname__ = cls.__qualname__
    return cast("type[T]", made)


def _is_given(default: Any) -> bool:
    """Does it say more than a default: is it from `field`, of this module or of `dataclasses`?"""
    return hasattr(default, "default_factory")


def _or_missing(value: Any) -> Any:
    """`dataclasses` has another object for it."""
    return MISSING if type(value).__name__ == "_MISSING_TYPE" else value


def _of_class(kind: Any) -> bool:
    return isinstance(kind, str) and kind.startswith("ClassVar")


def _known(base: type) -> dict[str, tuple[Any, Any]]:
    """The fields that a base itself has."""
    found = base.__dict__.get(_OWN)
    if found is not None:
        return cast("dict[str, tuple[Any, Any]]", found)
    if "__dataclass_fields__" not in base.__dict__:
        return {}
    from dataclasses import fields

    return {f.name: (f.type, f) for f in fields(cast(Any, base))}


def _record_of(cls: type) -> Any:
    """The record that a class is or derives from."""
    return next(base for base in cls.__mro__ if _OWN in base.__dict__)


def _every(made: type) -> dict[str, tuple[Any, Any]]:
    """All its fields, in the order of its arguments."""
    found: dict[str, tuple[Any, Any]] = {}
    for base in reversed(made.__mro__):
        found.update(_known(base))
    return found


def is_record(kind: type) -> bool:
    """Asked without `dataclasses.is_dataclass`, for which the fields would be made."""
    return hasattr(kind, _OWN)


def fields_of(made: type) -> list[str]:
    """Names of all its fields, in the order of its arguments."""
    return list(_every(made))


def types_of(made: type) -> dict[str, str]:
    """The types of all its fields, as they are written."""
    return {name: kind for name, (kind, _) in _every(made).items()}


class _Fields:
    """`__dataclass_fields__`, made by `dataclass` itself when somebody asks."""

    def __get__(self, one: Any, cls: type) -> dict[str, Field[Any]]:
        from dataclasses import dataclass

        made = _record_of(cls)
        every = _every(made)
        scope = {name: _plain(default) for name, (_, default) in every.items() if default is not MISSING}
        scope["__annotations__"] = {name: kind for name, (kind, _) in every.items()}
        scope["__doc__"] = made.__name__
        scope["__module__"] = made.__module__
        plain: Any = dataclass(init=False, repr=False, eq=False)(type(made.__name__, (), scope))
        made.__dataclass_fields__ = plain.__dataclass_fields__
        return cast("dict[str, Field[Any]]", plain.__dataclass_fields__)


def _plain(default: Any) -> Any:
    """A default as `dataclass` takes it: an empty mapping that nobody changes is a mutable default to it."""
    from dataclasses import field

    if not isinstance(default, Given):
        return default if type(default).__hash__ is not None else field(default_factory=lambda: default)
    said = {name: getattr(default, name) for name in Given.__slots__}
    return field(**{name: value for name, value in said.items() if value is not MISSING})


class _Params:
    """`__dataclass_params__`, which `dataclass` asks of what its classes derive from."""

    def __get__(self, one: Any, cls: type) -> Any:
        from dataclasses import dataclass

        class Alike:
            """Alike"""

        made = _record_of(cls)
        frozen = bool(getattr(made, _IS_FROZEN))
        params = cast(Any, dataclass(frozen=frozen, repr=False, eq=frozen)(Alike)).__dataclass_params__
        made.__dataclass_params__ = params
        return params


class _Signature:
    """Of the initialiser that is not made yet."""

    def __get__(self, one: Any, cls: type) -> Any:
        from inspect import Signature, signature

        found = signature(_initialiser(_record_of(cls)))
        return Signature(list(found.parameters.values())[1:])


class _Matched:
    """`__match_args__`."""

    def __get__(self, one: Any, cls: type) -> tuple[str, ...]:
        made = _record_of(cls)
        every = _every(made)
        names = tuple(name for name, (_, default) in every.items() if getattr(default, "init", True))
        setattr(made, "__match_args__", names)  # noqa: B010
        return names


_FIELDS, _PARAMS, _SIGNATURE, _MATCHED = _Fields(), _Params(), _Signature(), _Matched()


def _first_init(self: Any, *args: Any, **kwargs: Any) -> None:
    """Stands where the initialiser will be."""
    made = _record_of(type(self))
    made.__init__ = _interpreted(made)
    made.__init__(self, *args, **kwargs)


HOT = 48
"""Instances of a class that are initialised without a function of its own: making that takes as long as it saves on a hundred."""


def _interpreted(made: Any) -> Callable[..., None]:
    """`__init__` of the first instances, field by field. Of further ones, and to say what is wrong with arguments, it is compiled."""
    rows = [(name, *_given(default)) for name, (_, default) in _every(made).items()]
    names = [] if getattr(made, _BY_NAME) else [name for name, init, _, _ in rows if init]
    put: Any = object.__setattr__ if getattr(made, _IS_FROZEN) else setattr
    finished = hasattr(made, "__post_init__")
    plain = len(names) == len(rows)
    left = HOT

    def filled(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """False where the arguments do not fit."""
        values = dict(zip(names, args, strict=False), **kwargs)
        unused = len(args) + len(kwargs)
        if len(values) < unused:  # too many, or one of them twice
            return False
        for name, init, default, factory in rows:
            if init and name in values:
                unused -= 1
                put(self, name, values[name])
            elif factory is not MISSING:
                put(self, name, factory())
            elif default is not MISSING:
                put(self, name, default)
            elif init:
                return False
        return not unused

    def interpreted(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            made.__init__ = _initialiser(made)
            made.__init__(self, *args, **kwargs)
            return
        if plain and not kwargs and len(args) == len(names):
            for name, value in zip(names, args, strict=True):
                put(self, name, value)
        elif not filled(self, args, kwargs):
            made.__init__ = _initialiser(made)
            made.__init__(self, *args, **kwargs)
            return
        if finished:
            self.__post_init__()

    return interpreted


def _given(default: Any) -> tuple[bool, Any, Any]:
    """Whether a field is an argument, its default and what makes one."""
    if _is_given(default):
        return default.init, _or_missing(default.default), _or_missing(default.default_factory)
    return True, default, MISSING


def _initialiser(made: Any) -> Callable[..., None]:
    """`__init__`: its fields by position or name. A frozen one is filled by the setters of its slots, or in its `__dict__`, which takes
    half the time of `object.__setattr__`."""
    scope: dict[str, Any] = {"_MISSING": MISSING}
    arguments, body = ["self", "*"] if getattr(made, _BY_NAME) and _every(made) else ["self"], []
    frozen = getattr(made, _IS_FROZEN)
    for name, (_, told) in _every(made).items():
        init, default, factory = _given(told)
        given, otherwise = name, f"_or_{name}"
        if factory is not MISSING:
            scope[otherwise] = factory
            if init:
                arguments.append(f"{name}=_MISSING")
                given = f"{otherwise}() if {name} is _MISSING else {name}"
            else:
                given = f"{otherwise}()"
        elif default is not MISSING:
            scope[otherwise] = default
            if init:
                arguments.append(f"{name}={otherwise}")
            else:
                given = otherwise
        elif init:
            arguments.append(name)
        else:
            continue
        slot: Any = (
            next((base.__dict__[name] for base in made.__mro__ if name in base.__dict__), None) if frozen else None
        )
        if not frozen:
            body.append(f"    self.{name} = {given}")
        elif hasattr(slot, "__set__"):
            scope[f"_set_{name}"] = slot.__set__
            body.append(f"    _set_{name}(self, {given})")
        else:
            body.append(f"    self.__dict__[{name!r}] = {given}")
    if hasattr(made, "__post_init__"):
        body.append("    self.__post_init__()")
    exec("\n".join([f"def __init__({', '.join(arguments)}):", *(body or ["    pass"])]), scope)
    made_init: Any = scope["__init__"]
    made_init.__qualname__ = f"{made.__qualname__}.__init__"
    made_init.__module__ = made.__module__
    return cast(Callable[..., None], made_init)


def _named(made: Any, what: str) -> list[str]:
    """Fields that are compared or shown."""
    return [name for name, (_, default) in _every(made).items() if getattr(default, what, True)]


def _compared(made: Any) -> Callable[[Any], Any]:
    names = _named(made, "compare")
    return attrgetter(*names) if names else lambda self: ()


def _stub_of(self: Any, name: str, stub: Any) -> Any:
    """The record from which an instance has a function that is not made yet, or that another thread has just made."""
    of_stub = (base for base in type(self).__mro__ if base.__dict__.get(name) is stub)
    return next(of_stub, None) or _record_of(type(self))


def _first_eq(self: Any, other: object) -> Any:
    made = _stub_of(self, "__eq__", _first_eq)
    values = _compared(made)

    def equal(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    made.__eq__ = equal
    return equal(self, other)


def _first_hash(self: Any) -> int:
    made = _stub_of(self, "__hash__", _first_hash)
    values = _compared(made)

    def hashed(self: Any) -> int:
        return hash(values(self))

    made.__hash__ = hashed
    return hashed(self)


def _first_repr(self: Any) -> str:
    made = _stub_of(self, "__repr__", _first_repr)
    shown = _named(made, "repr")

    def text(self: Any) -> str:
        from .short_repr import short_record

        return short_record(self, shown)

    made.__repr__ = text
    return text(self)


def _no_assignment(self: Any, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_deletion(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[object]:
    """For copies and pickles."""
    return [getattr(self, name) for name in _every(type(self))]


def _restore(self: Any, state: list[object]) -> None:
    for name, value in zip(_every(type(self)), state, strict=True):
        object.__setattr__(self, name, value)
