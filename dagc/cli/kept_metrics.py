"""What requirements ask of a plan, kept from one run of dagc to the next: who changes a bound has the same plan.

Requirements that name a serving are part of the plan: which servings are simulated, and what their requests must keep, follows from them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..base.diagnostics import MAX_STEPS, Collector, Diagnostic
from ..base.kept_diagnostics import data_of, diagnostics_from
from ..base.packaged import folder as packaged
from ..base.said_text import Said, said
from ..base.units import SCALAR, Quantity
from ..lang import library
from ..lang.values.evaluate import names_in

if TYPE_CHECKING:
    from ..base.source import Source, Span
    from ..plan.plan import CompiledPlan
    from ..plan.pools import Pool
    from ..spec.model import AttrValue
    from ..spec.spec import Spec

MOST_SAID = 100
"""Diagnostics: of very many some are left out."""
MOST_GPUS = 4096
"""Of GPUs that phases share."""


class NotKept(Exception):
    """A requirement asks for something else than those of the run before."""


class Known(Mapping[str, Quantity]):
    """Metrics that are kept, and the constants of the text as it is now. Raises NotKept for all else."""

    def __init__(self, known: Mapping[str, Quantity], constants: Mapping[str, AttrValue]) -> None:
        self.known, self.constants = known, constants

    def __getitem__(self, name: str) -> Quantity:
        found = self.known.get(name) if "." in name else self.constants.get(name)
        if not isinstance(found, Quantity):
            raise NotKept(name)
        return found

    def __iter__(self) -> Iterator[str]:
        raise NotKept("all of them")

    def __len__(self) -> int:
        raise NotKept("all of them")


class Named(Mapping[str, Any]):
    """Phases or servings of which no more than names is kept."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __getitem__(self, name: str) -> Any:
        raise NotKept(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def plan_text(spec: Spec, source: Source) -> Said | None:
    """What the text says of the plan: all but requirements that name no serving, and constants that nothing else names. None where requirements
    are not of this text."""
    serves, text = {serve.name for serve in spec.serves}, source.text
    for requirement in spec.requirements:
        span = requirement.span
        if span is None or (span.source.name, span.source.text) != (source.name, source.text):
            return None
        if serves.isdisjoint(name.parts[0] for name in names_in(requirement.test)):
            text = _blanked(text, span.start, span.end)
    places = _constants(text)
    if places:
        beside = library_text(source.text)
        places = {name: place for name, place in places.items() if not _names(beside, name)}
    while True:
        left = text
        for start, end in places.values():
            left = _blanked(left, start, end)
        free = {name: place for name, place in places.items() if not _names(left, name)}
        if len(free) == len(places):
            return said(left)
        places = free


def library_text(text: str) -> str:
    """All that the library has beside a text: its blocks, and the presets that are named."""
    root, names = packaged(library.PACKAGE), re.findall(r'\bfrom[ \t]+"([\w.-]+)"', text)
    named = [root / library.folder(kind) / f"{name}.moe" for name in names for kind in ("hardware", "model", "serving")]
    files = [*sorted(root.glob("*.moe")), *named]
    return re.sub(r"#[^\n]*", "", "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file()))


def _blanked(text: str, start: int, end: int) -> str:
    return text[:start] + "".join(each if each == "\n" else " " for each in text[start:end]) + text[end:]


def _names(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


_TOKENS = re.compile(r'"[^"\n]*"|#[^\n]*|[(\[{]|[)\]}]|^let[ \t]+(?P<name>\w+)[ \t]*=[^\n#"()\[\]{},]*', re.MULTILINE)


def _constants(text: str) -> dict[str, tuple[int, int]]:
    """Where constants are written, each in a line of its own, without strings and brackets."""
    found: dict[str, tuple[int, int]] = {}
    depth = 0
    for part in _TOKENS.finditer(text):
        name, word = part["name"], part.group()
        if name is not None:
            after = text[part.end() : part.end() + 1]
            if depth == 0 and name not in found and after in ("", "\n", "#"):
                found[name] = part.span()
        elif word in "([{":
            depth += 1
        elif word in ")]}":
            depth -= 1
    return found


def entry(plan: CompiledPlan, loaded: Collection[Diagnostic], source: Source, own: Said) -> dict[str, Any] | None:
    """What is kept of a plan that fits; None: nothing. `loaded`: what was told of the text before it was compiled."""
    if not plan.fits or len(plan.diagnostics) > MOST_SAID or any(len(pool.gpus) > MOST_GPUS for pool in plan.shared):
        return None
    spans = [one.span for one in plan.spec.requirements if one.span is not None]
    told = [d for d in plan.diagnostics if d not in loaded and not _within(d.span, spans)]
    diagnostics = data_of(told, source, own.place)
    if diagnostics is None or any(d.code.startswith("E") for d in told):
        return None
    return {
        "diagnostics": diagnostics,
        "metrics": {name: [float(one.value), *one.dim] for name, one in plan.asked.items() if "." in name},
        "names": [list(plan.phases), list(plan.trainings), list(plan.servings)],
        "pools": [
            [
                list(pool.phases),
                *(float(getattr(pool, name)) for name in SIZES_OF_POOL),
                pool.fullest,
                pool.hardware,
                len(pool.gpus),
            ]
            for pool in plan.shared
        ],
    }


SIZES_OF_POOL = ("weights_B", "copies_B", "kv_cache_B", "work_B", "reserve_B", "capacity_B")


def _within(span: Span | None, others: list[Span]) -> bool:
    if span is None:
        return False
    return any(
        one.source.name == span.source.name and one.start <= span.start and span.end <= one.end for one in others
    )


def judged(found: Any, spec: Spec, before: Collector, source: Source, own: Said) -> CompiledPlan | None:
    """The plan with as much of it as verdicts show; None where the entry has another form, or more is asked for. `before`: what was told of
    the text."""
    from ..plan import require
    from ..plan.plan import CompiledPlan

    out = Collector(steps=before.steps)
    try:
        known = {name: _quantity(*row) for name, row in found["metrics"].items()}
        phases, trainings, servings = (Named(list(map(_text, names))) for names in found["names"])
        pools = [_pool(*row) for row in found["pools"]]
        told = diagnostics_from(found["diagnostics"], source, own.back)
        for one in (*before.items, *told):
            out.take(one)
        verdicts = require.run(spec, phases, (0.0, 0.0), pools, out, servings, Known(known, spec.constants), trainings)
    except (AttributeError, KeyError, TypeError, ValueError, NotKept):
        return None
    if out.errors or len(out.items) > MOST_SAID or out.steps > MAX_STEPS // 2:
        return None
    return CompiledPlan(spec, {}, {}, verdicts, (0.0, 0.0), (), tuple(out.items))


def _quantity(value: Any, *dim: Any) -> Quantity:
    if type(value) is not float or len(dim) != len(SCALAR) or set(map(type, dim)) != {int}:
        raise TypeError("no quantity")
    return Quantity(value, dim)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("no text")
    return value


def _pool(phases: Any, *rest: Any) -> Pool:
    from ..plan.pools import Pool

    *sizes, fullest, hardware, count = rest
    if (list(map(type, rest)), len(sizes)) != ([*[float] * len(sizes), int, str, int], len(SIZES_OF_POOL)):
        raise TypeError("no pool")
    if not 0 < count <= MOST_GPUS:
        raise ValueError("too many GPUs")
    weights_B, copies_B, kv_cache_B, work_B, reserve_B, capacity_B = sizes
    gpus = tuple(range(count))
    return Pool(
        tuple(map(_text, phases)), gpus, fullest, weights_B, copies_B, kv_cache_B, work_B, reserve_B, capacity_B, hardware=hardware
    )  # fmt: skip
