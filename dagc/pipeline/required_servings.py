"""The servings that a plan's requirements name, simulated: what is not simulated is said, and never taken for fulfilled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector
from ..base.syntax import ast
from ..lang.values.evaluate import names_in
from ..plan.plan import CompiledPlan
from ..plan.require import owners
from ..spec.metrics.known_metrics import of_serving
from ..spec.metrics.meant import meant_metric
from ..spec.requirement import Requirement
from ..spec.serve import Serve

if TYPE_CHECKING:
    from ..serving.result import ServeResult
    from .serve import Servings

Told = Callable[[str, float], None]


def simulate(
    plan: CompiledPlan, out: Collector, asked: Collection[str] = (), told: Told | None = None, *, kept: bool = False
) -> tuple[Mapping[str, ServeResult], Servings | None]:
    """Results by name, and what simulated them. Errors are reported at the serving's own words. `told`: hears of (serving, share of its
    requests that has come). `kept`: figures of an earlier run will do, where there are any."""
    named = {name for requirement in plan.spec.requirements for name in owners(requirement)} | set(asked)
    serves = [serve for serve in plan.spec.serves if serve.name in named]
    if not serves:
        return {}, None
    from ..plan.goodput import limits
    from . import kept_servings
    from .doubts import warn_of_prices

    servings: Servings | None = None
    found: dict[str, ServeResult] = {}
    for serve in serves:
        mine = [r for r in plan.spec.requirements if serve.name in owners(r)]
        if _unknown(serve, mine, out) or _left_out(serve, plan, mine, out):
            continue
        limited = limits(plan.spec, serve.name)
        key = kept_servings.key(plan.spec, serve, limited) if kept else None
        if key is not None and (known := kept_servings.read(key, plan, serve, limited)) is not None:
            found[serve.name] = known
            warn_of_prices(serve, known.prices_error, out)
            continue
        if servings is None:
            from .serve import Servings

            servings = Servings(plan)
        progress = None if told is None else partial(told, serve.name)
        before = len(out.items)
        result = servings.told(serve, limited, out, progress)
        if result is not None:
            found[serve.name] = result
            again = Collector()
            warn_of_prices(serve, result.prices_error, again)
            if key is not None and len(out.items) - before == len(again.items):  # nothing else was worth a word
                kept_servings.keep(key, result)
    return found, servings


def _unknown(serve: Serve, requirements: Collection[Requirement], out: Collector) -> bool:
    """Whether a requirement names what servings do not have: reported before anything is simulated."""
    known = {f"{serve.name}.{m.name}" for m in of_serving()}
    names: list[ast.Name] = [n for r in requirements for n in names_in(r.test) if n.parts[0] == serve.name]
    unknown = [n for n in names if n.text not in known]
    for name in unknown:
        in_order = (f"{serve.name}.{m.name}" for m in of_serving())
        out.add("E02", f"unknown metric `{name.text}`", name.span, help=meant_metric(name.text, in_order))
    return bool(unknown)


def _left_out(serve: Serve, plan: CompiledPlan, requirements: Collection[Requirement], out: Collector) -> bool:
    """Whether a phase of it was not compiled."""
    missing = [n for n in (serve.prefill, serve.decode, serve.mixed) if n is not None and n not in plan.phases]
    if missing:
        place = requirements[0].span if isinstance(requirements, list) and requirements else serve.span
        help_ = ("compile all of its phases to judge it",)
        out.add("W06", f"serving `{serve.name}` is not simulated without `{missing[0]}`", place, help=help_)
    return bool(missing)
