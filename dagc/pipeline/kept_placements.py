"""GPUs that `place = best` found, kept in a process, and from one run of dagc to the next: the search compiles many ways, follows from the spec and
from dagc alone, and what it found is compiled and verified as any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..base import user_cache
from ..base.frozen import fields_of, replace, types_of
from ..plan.placement import LevelBytes, Placement
from ..spec.phase import Phase
from ..spec.spec import Spec
from .kept_keys import key_of
from .kept_phases import PLACED, keeps, values_of

FORM = 1
"""Of an entry."""
Placed = tuple[Spec, Mapping[str, Placement]]


MOST = 4
"""Specs whose placements a process keeps."""


def placed_again(spec: Spec, found: Callable[[Spec], Placed]) -> Placed:
    """What `found` says of a spec, now or of one that said the same of GPUs, model, workload and phases."""
    phases = *spec.phases, *spec.trainings
    if not keeps(spec, phases):
        return found(spec)
    own = spec.hardware, spec.others, spec.pool_links, spec.model, spec.workload, spec.constants
    asked = (*own, len(spec.phases), *map(values_of, phases))
    known = next((one for one in PLACED if one[0] == asked), None)
    before = None if known is None else restored(known[1], spec)
    if known is not None and before is not None:
        PLACED[:] = [known, *(one for one in PLACED if one is not known)]
        return before
    result = found(spec)
    PLACED.insert(0, (asked, entry(spec, result)))
    del PLACED[MOST:]
    return result


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
