"""Typed records (dataclasses) as plain data and back, told apart by their type hints; what is wrong is named by its path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from .diagnostics import did_you_mean
from .harmless import control_in
from .units import SCALAR, Dim, Quantity


class DataError(ValueError):
    """The data is not what the record's type says. `path`: where, as `plan.hardware.gpus`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path or 'the file'}: {reason}")
        self.path, self.reason = path, reason


WRITTEN = 5
"""Exponents of a dimension that are always written: seconds, bytes, FLOPs, tokens, requests."""
Skip = frozenset[tuple[type, str]]
"""(record, field): fields that are not part of the data."""


def to_data(value: Any, skip: Skip = frozenset()) -> Any:
    """Records become objects, tuples lists; fields that take no part in comparisons are left out."""
    if isinstance(value, Quantity):
        return {"value": value.value, "dim": _short(value.dim)}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_data(getattr(value, f.name), skip) for f in _kept(type(value), skip)}
    if isinstance(value, Mapping):
        return {str(k): to_data(v, skip) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_data(v, skip) for v in value]
    return value


def _short(dim: Dim) -> list[int]:
    """Without the exponents that were added to dimensions later, where they are zero."""
    return list(dim if any(dim[WRITTEN:]) else dim[:WRITTEN])


def from_data(kind: Any, data: Any, path: str, skip: Skip = frozenset(), given: Mapping[str, Any] | None = None) -> Any:
    """The value of a type. `given`: fields of the outermost record that are not in the data. Raises DataError."""
    if kind is Quantity and isinstance(data, dict) and isinstance(data.get("dim"), list):
        missing = len(SCALAR) - len(data["dim"])
        data = {**data, "dim": data["dim"] + [0] * (missing if missing <= len(SCALAR) - WRITTEN else 0)}
    if isinstance(kind, type) and is_dataclass(kind):
        return _record(kind, data, path, skip, given or {})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(arguments, data, path, skip)
    if origin is tuple:
        if not isinstance(data, list):
            raise DataError(path, "is not a list")
        if arguments[1:] == (...,):
            return tuple(from_data(arguments[0], v, f"{path}[{i}]", skip) for i, v in enumerate(data))
        if len(data) != len(arguments):
            raise DataError(path, f"has {len(data)} entries, not {len(arguments)}")
        return tuple(
            from_data(a, v, f"{path}[{i}]", skip) for i, (a, v) in enumerate(zip(arguments, data, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise DataError(path, "is not an object")
        return {k: from_data(arguments[1], v, f"{path}.{k}", skip) for k, v in data.items()}
    return _plain(kind, data, path)


def check_object(
    data: Any, known: tuple[str, ...], path: str, required: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """An object with the fields required (all, by default) and none but those known. Raises DataError."""
    if not isinstance(data, dict):
        raise DataError(path, "is not an object")
    inside = f"{path}." if path else ""
    for name in data:
        if name not in known:
            near = did_you_mean(name, known)
            raise DataError(
                f"{inside}{name}", "is not one of its fields" + (f"; did you mean `{near}`?" if near else "")
            )
    for name in known if required is None else required:
        if name not in data:
            raise DataError(f"{inside}{name}", "is missing")
    return data


@cache
def _kept(kind: type, skip: Skip) -> tuple[Field[Any], ...]:
    return tuple(f for f in fields(kind) if f.compare and (kind, f.name) not in skip)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _record(kind: type, data: Any, path: str, skip: Skip, given: Mapping[str, Any]) -> Any:
    kept = tuple(f for f in _kept(kind, skip) if f.name not in given)
    required = tuple(f.name for f in kept if f.default is MISSING and f.default_factory is MISSING)
    known = check_object(data, tuple(f.name for f in kept), path, required)
    values = {name: from_data(_hints(kind)[name], value, f"{path}.{name}", skip) for name, value in known.items()}
    return kind(**values, **given)


def _one_of(options: tuple[Any, ...], data: Any, path: str, skip: Skip) -> Any:
    problems = []
    for option in options:
        if (data is None) != (option is type(None)):
            continue
        try:
            return from_data(option, data, path, skip)
        except DataError as error:
            problems.append(error)
    raise problems[0] if problems else DataError(path, "may not be null")


def _plain(kind: Any, data: Any, path: str) -> Any:
    if kind is float and isinstance(data, int | float) and not isinstance(data, bool):
        return float(data)
    if kind is type(None) and data is None:
        return None
    if isinstance(data, str) and control_in(data):
        raise DataError(path, "contains control characters")
    if isinstance(data, kind) and not (kind is int and isinstance(data, bool)):
        return data
    raise DataError(path, f"is not {'a number' if kind is float else 'a ' + kind.__name__}")
