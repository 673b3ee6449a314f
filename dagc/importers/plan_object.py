"""A plan as `dagc compile --json` wrote it: its figures and verdicts, read back to be compared with another plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..base.diagnostics import Diagnostic, SpecError
from ..base.files import MAX_GRAPH_BYTES, Unreadable, read_named
from ..base.plain_data import DataError
from ..base.units import SCALAR
from ..plan.recorded import SCHEMA, Metric, Recorded
from ..spec.metrics.known_metrics import of_phase, of_serving, of_training
from ..spec.metrics.metric import Metric as MetricRecord

READS = (1, SCHEMA)
"""Versions of the plan object that this dagc reads."""


def is_recorded(data: Any) -> bool:
    """A plan object rather than a placed graph."""
    return isinstance(data, dict) and "phases" in data and "nodes" not in data


def read(path: str, allow_import: Sequence[str | Path] = ()) -> Recorded | None:
    """The plan object of a file; None where it is something else. Raises SpecError with the path of what is wrong."""
    import orjson

    try:
        data = orjson.loads(read_named(path, MAX_GRAPH_BYTES, allow_import))
    except (Unreadable, orjson.JSONDecodeError):
        return None
    if not is_recorded(data):
        return None
    try:
        return recorded(data)
    except DataError as error:
        message = f"`{path}` is not a plan that `dagc compile --json` wrote"
        raise SpecError([Diagnostic("E05", message, because=(str(error),))]) from None


def recorded(data: Mapping[str, Any]) -> Recorded:
    """Of an object of any schema that is known. Raises DataError."""
    schema = data.get("schema")
    if schema not in READS or isinstance(schema, bool):
        raise DataError("schema", f"is {schema!r}; this dagc reads {' and '.join(map(str, READS))}")
    model = _object(data, "model", "")
    phases = _object(data, "phases", "")
    for name in phases:
        _object(phases, name, "phases")
    trainings = _object(data, "training", "") if "training" in data else {}
    both = [(f"phases.{name}", name, phase) for name, phase in phases.items()]
    both += [(f"training.{name}", name, _object(trainings, name, "training")) for name in trainings]
    verdicts = {}
    for i, one in enumerate(_list(data, "requirements", "")):
        place = f"requirements[{i}]"
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or not isinstance(one.get("passed"), bool):
            raise DataError(place, "has no name and verdict")
        verdicts[one["name"]] = one["passed"]
    pools: dict[tuple[str, ...], float] = {}
    for i, pool in enumerate(_list(data, "pools", "") if schema > 1 else []):
        place = f"pools[{i}]"
        if not isinstance(pool, dict):
            raise DataError(place, "is not an object")
        names = _list(pool, "phases", place)
        if not all(isinstance(n, str) for n in names):
            raise DataError(f"{place}.phases", "is not a list of names")
        if len(names) > 1:
            pools[tuple(names)] = _number(pool, "peak_B", place)
    return Recorded(
        schema,
        (_number(model, "params_total", "model"), _number(model, "params_active", "model")),
        {name: len(_list(phase, "gpus", place)) for place, name, phase in both},
        {name: dict(_degrees(phase, place)) for place, name, phase in both},
        {name: dict(_metrics(phase, f"phases.{name}")) for name, phase in phases.items()},
        pools,
        verdicts,
        _fits(data, phases),
        dict(_servings(data)),
        {name: _word(one, "verdict", f"servings.{name}") for name, one in data.get("servings", {}).items()},
        {name: _word(phase, "hardware", place) for place, name, phase in both if "hardware" in phase},
        {name: dict(_of_table(phase, f"training.{name}", of_training())) for name, phase in trainings.items()},
    )


def _servings(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Metric]]]:
    """Of those that were simulated; what this dagc does not know is left out."""
    every = _object(data, "servings", "") if "servings" in data else {}
    dims = {metric.name: metric.dim for metric in of_serving()}
    for name in every:
        place = f"servings.{name}"
        found = _object(_object(every, name, "servings"), "metrics", place)
        yield name, {key: (_number(found, key, f"{place}.metrics"), dims[key]) for key in found if key in dims}


def _fits(data: Mapping[str, Any], phases: Mapping[str, Any]) -> bool:
    """Of schema 1, whether every phase alone did."""
    held = [data] if data["schema"] > 1 else [_object(p, "memory", f"phases.{name}") for name, p in phases.items()]
    for one in held:
        if not isinstance(one.get("fits"), bool):
            raise DataError("fits", "is not a verdict")
    return all(one["fits"] for one in held)


def _metrics(phase: Mapping[str, Any], path: str) -> Iterator[tuple[str, Metric]]:
    """What an older schema does not have is left out."""
    yield from _of_table(phase, path, of_phase())
    counts: dict[str, float] = {}
    for part in ("collectives", *(["requests"] if "requests" in phase else [])):
        for i, one in enumerate(_list(phase, part, path)):
            if not isinstance(one, dict) or not isinstance(one.get("kind"), str):
                raise DataError(f"{path}.{part}[{i}]", "has no kind")
            counts[one["kind"]] = counts.get(one["kind"], 0.0) + _number(one, "count", f"{path}.{part}[{i}]")
    for kind, count in counts.items():
        if kind != "recv":
            yield f"collectives.{kind}", (count, SCALAR)


def _of_table(phase: Mapping[str, Any], path: str, metrics: Sequence[MetricRecord]) -> Iterator[tuple[str, Metric]]:
    """Those of the table that an object has."""
    memory = _object(phase, "memory", path)
    for metric in metrics:
        place, _, name = metric.json.rpartition(".")
        held = memory if place else phase
        if held.get(name) is not None:
            yield metric.name, (_number(held, name, f"{path}.{place}" if place else path), metric.dim)


def _degrees(phase: Mapping[str, Any], path: str) -> Iterator[tuple[str, int]]:
    for axis, degree in _object(phase, "axes", path).items():
        if not isinstance(degree, int) or isinstance(degree, bool) or degree < 1:
            raise DataError(f"{path}.axes.{axis}", f"is {degree!r}, not a degree")
        yield axis, degree


def _object(data: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, dict):
        raise DataError(_join(path, name), "is missing" if value is None else "is not an object")
    return value


def _list(data: Mapping[str, Any], name: str, path: str) -> list[Any]:
    value = data.get(name)
    if not isinstance(value, list):
        raise DataError(_join(path, name), "is missing" if value is None else "is not a list")
    return value


def _word(data: Mapping[str, Any], name: str, path: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise DataError(_join(path, name), "is missing" if value is None else "is not a word")
    return value


def _number(data: Mapping[str, Any], name: str, path: str) -> float:
    value = data.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise DataError(_join(path, name), "is missing" if value is None else "is not a number")
    return float(value)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
