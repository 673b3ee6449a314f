"""Figures of simulated servings, kept from one run of dagc to the next: a simulation follows from the spec and from dagc alone, and
takes longer than all else that a verdict needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from ..base import user_cache
from ..base.frozen import fields_of, types_of
from ..plan.plan import CompiledPlan
from ..serving.records import Outcome, Setup
from ..serving.result import Limits, RoleResult, ServeResult, Spread
from ..serving.verdict import VERDICTS, Growth
from ..spec.serve import Serve
from ..spec.spec import Spec
from .kept_keys import key_of

FORM = 3
"""Of an entry."""
NUMBERS = ("duration_s", "offered_per_s", "met", "prices_error", "to_decode_s", "to_prefill_s", "moved_B")
SPREADS = ("ttft", "tpot", "itl", "e2e")


def key(spec: Spec, serve: Serve, limits: Limits) -> str | None:
    """The name of its entry; None where figures are not kept."""
    return key_of(spec, f"serving {FORM}", serve, limits)


class KeptResult(ServeResult):
    """Figures of an earlier run; what was not kept of it is simulated again when somebody asks."""

    again: Any

    @cached_property
    def _whole(self) -> ServeResult:
        found: ServeResult = self.again()
        return found

    @property
    def outcome(self) -> Outcome:
        return self._whole.outcome

    @property
    def setup(self) -> Setup:
        return self._whole.setup

    @property
    def counts(self) -> Mapping[str, int]:
        return self.__dict__["kept_counts"]  # type: ignore[no-any-return]


def read(key: str, plan: CompiledPlan, serve: Serve, limits: Limits) -> KeptResult | None:
    """The result of an earlier run; None: there is none."""

    def again() -> ServeResult:
        from .serve import Servings

        return Servings(plan).run(serve, limits)

    return restored(user_cache.read(key), serve, limits, again)


def keep(key: str, result: ServeResult) -> None:
    user_cache.write(key, entry(result))


def entry(result: ServeResult) -> dict[str, Any]:
    """What is kept of a result."""
    return {
        **{name: getattr(result, name) for name in NUMBERS},
        **{name: _values(getattr(result, name)) for name in SPREADS},
        "counts": dict(result.counts),
        "met_each": dict(result.met_each),
        "roles": [_values(role) for role in result.roles],
        "growth": _values(result.growth),
        "verdict": result.verdict,
    }


def _values(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in fields_of(type(record))}


def restored(found: Any, serve: Serve, limits: Limits, again: Callable[[], ServeResult]) -> KeptResult | None:
    """The result of an entry; None where it has another form."""
    try:
        values = {
            **{name: _number(found[name]) for name in NUMBERS},
            **{name: _record(Spread, found[name]) for name in SPREADS},
            "kept_counts": {str(name): _count(value) for name, value in found["counts"].items()},
            "met_each": {str(name): _number(value) for name, value in found["met_each"].items()},
            "roles": tuple(_record(RoleResult, role) for role in found["roles"]),
            "growth": _record(Growth, found["growth"]),
            "verdict": VERDICTS[VERDICTS.index(found["verdict"])],
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    made = object.__new__(KeptResult)
    made.__dict__.update(values, name=serve.name, arrivals=serve.arrivals, limits=limits, again=again)
    return made


def _record(kind: Any, found: Any) -> Any:
    """A record of plain values, each of its field's type."""
    types = types_of(kind)
    if set(found) != set(types):
        raise ValueError("other fields")
    return kind(**{name: _CHECKED[types[name]](value) for name, value in found.items()})


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError("not a number")
    return value  # type: ignore[no-any-return]


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a count")
    return value


def _word(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a word")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("not a flag")
    return value


_CHECKED: Mapping[str, Callable[[Any], Any]] = {"float": _number, "int": _count, "str": _word, "bool": _flag}
