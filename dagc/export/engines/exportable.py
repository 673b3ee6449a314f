"""The nearest plan that an engine runs: the fewest changes of those parts of a plan that broken rules are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, product

from ...base.axes import AXES, DATA, EXPERT, SEQUENCE, STAGES, TENSOR
from ...base.diagnostics import Collector, SpecError
from ...base.frozen import record, replace
from ...engines.facts import Facts
from ...ir.verify.violation import VerifyError
from ...pipeline.changed import Changes, with_phases
from ...pipeline.lower import unverified
from ...spec.kv_cache import KvCache
from ...spec.model import Precision
from ...spec.phase import Phase
from ...spec.strategy import Fold
from ...spec.unit import Unit
from .degrees import EngineDegrees, layout
from .draft import ServerDraft
from .servers import refused

TRIED, LOOKED_AT = 24, 400
"""Plans that are lowered at most, and those of which rules alone are asked."""
FAILURES = (SpecError, VerifyError, ArithmeticError, ValueError, KeyError)
"""Of a plan that has no layout."""


@record
class Change:
    """What to write, and the phase with it."""

    text: str
    of: Callable[[Phase], Phase]


def nearest(draft: ServerDraft, known: Facts) -> str:
    """What to write in place of what the phases of the server say; nothing where no change of these parts is enough."""
    one = draft.layout
    if not all(broken.rule.change for broken in draft.refused):
        return ""
    parts = list(dict.fromkeys(part for broken in draft.refused for part in broken.rule.change))
    seen: set[tuple[str, ...]] = set()
    tried = 0
    while True:
        further: dict[str, None] = {}
        for changes in _ordered(one, parts):
            text = tuple(change.text for change in changes)
            if text in seen:
                continue
            seen.add(text)
            if tried == TRIED or len(seen) > LOOKED_AT:
                return ""
            layouts = _layouts(one, changes)
            if layouts is None:
                continue
            tried += 1
            found = refused(layouts, known)
            if found is None:
                return ", ".join(text)
            further |= dict.fromkeys(found.change)
        # What a change would break besides may be changed with it.
        if set(further) <= set(parts):
            return ""
        parts += [part for part in further if part not in parts]


def _layouts(one: EngineDegrees, changes: tuple[Change, ...]) -> list[EngineDegrees] | None:
    """Of the phases with these changes; None: a rule of the language refuses them."""
    phases = [_changed(phase, changes) for phase in one.phases]
    spec = with_phases(one.spec, phases)
    rules = Changes(spec, {})
    if any(rules.refusal(phase) is not None for phase in phases):
        return None
    layouts = []
    try:
        for phase in phases:
            unit = Unit(spec, phase, Collector())
            graph = unverified(unit)
            layouts.append(layout(graph, graph.the_mesh.the_gpus.ids, unit))
    except FAILURES:
        return None
    return layouts


def _changed(phase: Phase, changes: tuple[Change, ...]) -> Phase:
    for change in changes:
        phase = change.of(phase)
    return phase


def _ordered(one: EngineDegrees, parts: list[str]) -> Iterator[tuple[Change, ...]]:
    """Fewest changes first."""
    each = {part: CHANGES[part](one) for part in parts}
    for count in range(1, len(parts) + 1):
        for chosen in combinations(parts, count):
            yield from product(*(each[part] for part in chosen))


def _strategy(text: str, **fields: object) -> Change:
    return Change(text, lambda phase: replace(phase, strategy=replace(phase.strategy, **fields)))


def _folded(phase: Phase, one: EngineDegrees, **degrees: int) -> Phase:
    """With other degrees of attention (dp, sp, tp) or experts (ep, etp); what is not named stays."""
    d = {**one.degree, **degrees}
    if not one.moe:
        flat = replace(phase.strategy, attention=None, experts=None, dp=d[DATA], ep=1, sp=d[SEQUENCE], tp=d[TENSOR])
        return replace(phase, strategy=flat)
    attention = Fold(tuple((axis, d[axis]) for axis in (DATA, SEQUENCE, TENSOR)))
    experts = Fold(((EXPERT, d["ep"]), (TENSOR, d["etp"])))
    strategy = replace(phase.strategy, attention=attention, experts=experts, dp=1, ep=1, sp=1, tp=1)
    return replace(phase, strategy=strategy)


def _split(total: int, near: int) -> list[int]:
    """Divisors, those of nearly the same size first."""
    found = [n for n in range(1, total + 1) if total % n == 0]
    return sorted(found, key=lambda n: (max(n / near, near / n), -n))


def _attention(one: EngineDegrees) -> list[Change]:
    ranks = one.degree["dp"] * one.degree["sp"] * one.degree["tp"]
    out = []
    for tp in _split(ranks, one.degree["tp"]):
        dp = ranks // tp
        if (dp, 1, tp) != (one.degree["dp"], one.degree["sp"], one.degree["tp"]):
            text = _text(one, "attention", dp=dp, tp=tp)
            out.append(Change(text, lambda phase, dp=dp, tp=tp: _folded(phase, one, dp=dp, sp=1, tp=tp)))  # type: ignore[misc]
    return out


def _experts(one: EngineDegrees) -> list[Change]:
    ranks = one.degree["dp"] * one.degree["sp"] * one.degree["tp"]
    out = []
    for ep in _split(ranks, one.degree["ep"]):
        if (ep, ranks // ep) != (one.degree["ep"], one.degree["etp"]):
            text = _text(one, "experts", ep=ep, tp=ranks // ep)
            etp = ranks // ep
            out.append(Change(text, lambda phase, ep=ep, etp=etp: _folded(phase, one, ep=ep, etp=etp)))  # type: ignore[misc]
    return out


def _text(one: EngineDegrees, name: str, **degrees: int) -> str:
    """As the language has it; a dense model has the degrees of attention alone."""
    inside = ", ".join(f"{axis} = {n}" for axis, n in degrees.items() if n > 1)
    if not one.moe:
        return inside or "dp = 1"
    return f"{name} {{ {inside} }}" if inside else f"{name} {{ }}"


def _order(one: EngineDegrees) -> list[Change]:
    """As engines number GPUs: stages outermost, or inside a data-parallel rank, or parts of experts outside whole ones."""
    plain = {"place": None, "best": False, "ids": ()}
    inside = (DATA, STAGES, EXPERT, SEQUENCE, TENSOR)
    orders = (tuple(AXES), inside, (STAGES, DATA, SEQUENCE, TENSOR, EXPERT))
    without = " without `place`" if one.strategy.place is not None or one.strategy.best else ""
    return [_strategy(f"order = [{', '.join(order)}]{without}", order=order, **plain) for order in orders]


def _draft(one: EngineDegrees) -> list[Change]:
    return [
        Change("draft = 0", lambda phase: replace(phase, tokens=1, tree=(), chances=()) if phase.speculative else phase)
    ]


def _toggle(name: str, value: object, text: str = "") -> Callable[[EngineDegrees], list[Change]]:
    """The value of a field of the strategy, if it is another."""

    def change(one: EngineDegrees) -> list[Change]:
        same = getattr(one.strategy, name) == value
        return [] if same else [_strategy(text or f"{name} = {value}", **{name: value})]

    return change


def _replicas(one: EngineDegrees) -> list[Change]:
    """A copy of a dense model for each data-parallel rank."""
    copies = one.copies * one.degree["dp"]

    def of(phase: Phase) -> Phase:
        changed = _folded(phase, one, dp=1)
        return replace(changed, strategy=replace(changed.strategy, replicas=copies))

    return [Change(f"replicas = {copies}, {_text(one, 'attention', tp=one.degree['tp'])}", of)]


def _dispatch(one: EngineDegrees) -> list[Change]:
    return [
        _strategy(f"dispatch = {word}", dispatch=word)
        for word in ("allgather", "all_to_all")
        if word != one.strategy.dispatch
    ]


def _cache(one: EngineDegrees) -> list[Change]:
    """In the dtype that is computed in, which every engine has, or in 8 bits."""

    def stored(dtype: str) -> Change:
        return Change(
            f"kv_dtype = {dtype}",
            lambda phase: replace(phase, precision=replace(phase.precision or Precision(), kv_dtype=dtype)),
        )

    model = one.spec.model
    return [stored(dtype) for dtype in dict.fromkeys((model.dtype, "fp8")) if dtype != model.kv_dtype]


def _kept_cache(one: EngineDegrees) -> list[Change]:
    return [Change("no `kv_cache`", lambda phase: replace(phase, cache=KvCache()))]


def _attention_kernel(one: EngineDegrees) -> list[Change]:
    return [Change("attention { kernel = flash }", lambda phase: replace(phase, attention_kernel="flash"))]


CHANGES: dict[str, Callable[[EngineDegrees], list[Change]]] = {
    "attention": _attention,
    "experts": _experts,
    "sequence": _attention,
    "dispatch": _dispatch,
    "order": _order,
    "replicas": _replicas,
    "draft": _draft,
    "exits": lambda one: [Change("no `exit`", lambda phase: replace(phase, exits=()))],
    "overlap": _toggle("overlap", "none"),
    "redundant": _toggle("redundant", 0),
    "dcp": _toggle("dcp", 1),
    "sequence_parallel": _toggle("sequence_parallel", False, "sequence_parallel = false"),
    "shard": _toggle("shard", (), "no `shard`"),
    "passes": _toggle("passes", (), "no `passes`"),
    "cache": _cache,
    "skip": lambda one: [Change("skip = 0", lambda phase: replace(phase, experts=replace(phase.experts, skip=0.0)))],
    "kept_cache": _kept_cache,
    "attention_kernel": _attention_kernel,
    "resident": lambda one: [
        Change("all experts resident", lambda phase: replace(phase, experts=replace(phase.experts, resident=0)))
    ],
    "expert_placement": _toggle("expert_placement", "linear"),
}
"""By the names of parts that rules of the data files have."""
