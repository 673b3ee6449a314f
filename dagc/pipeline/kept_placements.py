"""GPUs that `place = best` found, kept from one run of dagc to the next: the search compiles many ways, follows from the spec and from
dagc alone, and what it found is compiled and verified as any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base import user_cache
from ..base.frozen import fields_of, replace, types_of
from ..plan.placement import LevelBytes, Placement
from ..spec.phase import Phase
from ..spec.spec import Spec
from .kept_keys import key_of

FORM = 1
"""Of an entry."""
Placed = tuple[Spec, Mapping[str, Placement]]


def placed(spec: Spec) -> Placed:
    """As `place_best.placed`."""
    key = key_of(spec, f"placement {FORM}")
    if key is not None and (known := restored(user_cache.read(key), spec)) is not None:
        return known
    from .place_best import placed

    found = placed(spec)
    if key is not None:
        user_cache.write(key, entry(spec, found))
    return found


def entry(spec: Spec, found: Placed) -> dict[str, Any]:
    """What is kept of a search: the strategies of phases that it changed, and how these lie."""
    after, placements = found
    phases = {
        new.name: {"ids": list(new.strategy.ids), "best": new.strategy.best}
        for old, new in zip((*spec.phases, *spec.trainings), (*after.phases, *after.trainings), strict=True)
        if new is not old
    }
    return {"phases": phases, "placements": {name: _values(one) for name, one in placements.items()}}


def _values(found: Placement) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in fields_of(Placement)}
    inside = [[level, dict(axes)] for level, axes in found.inside]
    levels = [[one.level, one.before_B, one.after_B] for one in found.levels]
    return {**values, "inside": inside, "levels": levels}


def restored(found: Any, spec: Spec) -> Placed | None:
    """What an entry says; None where it has another form."""
    try:
        phases = {name: _phase(spec, name, said) for name, said in found["phases"].items()}
        placements = {name: _placement(values) for name, values in found["placements"].items()}
        if not set(placements) <= set(phases):
            return None
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return None
    own, trainings = (tuple(phases.get(p.name, p) for p in some) for some in (spec.phases, spec.trainings))
    return replace(spec, phases=own, trainings=trainings), placements


def _phase(spec: Spec, name: str, said: Mapping[str, Any]) -> Phase:
    """Each of its own GPUs once, or in its default order."""
    phase, ids = next(p for p in (*spec.phases, *spec.trainings) if p.name == name), tuple(said["ids"])
    if any(type(gpu) is not int for gpu in ids) or (ids and sorted(ids) != sorted(phase.gpus)):
        raise ValueError("other GPUs")
    if not phase.strategy.best or type(said["best"]) is not bool:
        raise ValueError("not to be placed")
    return replace(phase, strategy=replace(phase.strategy, ids=ids, best=said["best"]))


def _placement(values: Mapping[str, Any]) -> Placement:
    types = types_of(Placement)
    if set(values) != set(types):
        raise ValueError("other fields")
    plain = {name: _of(_PLAIN[kind], values[name]) for name, kind in types.items() if kind in _PLAIN}
    return Placement(
        **plain,
        inside=tuple((_of(str, level), _axes(axes)) for level, axes in values["inside"]),
        order=tuple(_of(str, axis) for axis in values["order"]),
        together=tuple(_of(str, name) for name in values["together"]),
        levels=tuple(LevelBytes(_of(str, name), _of(float, a), _of(float, b)) for name, a, b in values["levels"]),
    )


def _axes(found: Mapping[str, Any]) -> dict[str, int]:
    return {axis: _of(int, ranks) for axis, ranks in found.items()}


_PLAIN: Mapping[str, type] = {"float": float, "int": int, "bool": bool}


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"not {kind.__name__}")
    return value
