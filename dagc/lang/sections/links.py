"""Elaboration of the links of a pool: levels, innermost first, each with the GPUs that it joins."""

from __future__ import annotations

from ...base.diagnostics import Label, did_you_mean
from ...base.schema.hardware import LINK
from ...base.source import Span
from ...base.units import Quantity
from ...spec.hardware import SHORT, Level, faults
from ..body import Body
from ..reader import Reader
from ..values.names import Names

PREFIX = "link "
LINKS = tuple(PREFIX + name for name in SHORT)
"""The levels that need no size: a node has `per_node` GPUs, the cluster joins all."""


def level_keys(body: Body) -> list[str]:
    """Sections that are levels: `link node`, `link cluster`, and every other link that says how many GPUs it joins, or that
    is no slip for another."""
    found = [key for key in body.sections if key.startswith(PREFIX)]
    others = [key for key in found if key in LINKS or _says(body, key, "gpus")]
    known = {*LINKS, *others}
    return [key for key in found if key in known or did_you_mean(key, sorted(known)) is None]


def _says(body: Body, key: str, attribute: str) -> bool:
    return any(getattr(s, "name", None) == attribute for section in body.sections[key] for s in section.body)


def read_levels(body: Body, names: Names, gpus: int, per_node: int, per_host: int | None) -> tuple[Level, ...] | None:
    """The levels of a hardware section, or None where something is wrong or missing, which is said."""
    out, keys = names.out, level_keys(body)
    if not _long(body, keys) and not set(LINKS) <= set(keys):
        for key in LINKS:
            if key not in keys:
                _missing(body, key, names)
        return None
    levels = [(key, _level(body, key, names)) for key in keys]
    if any(level is None for _, level in levels):
        return None
    found = [(key, level) for key, level in levels if level is not None]
    found = _in_order(body, found)
    sized = _with_node(body, found, per_node, names)
    if sized is None:
        return None
    wrong = False
    for fault in faults(sized, gpus, per_host):
        wrong = True
        key = found[fault.level][0] if fault.level >= 0 else ""
        out.add(fault.code, fault.message, _span(body, key, fault.attribute, names), help=(fault.help,))
    return None if wrong else tuple(sized)


def _long(body: Body, keys: list[str]) -> bool:
    """Whether levels say their sizes themselves."""
    return any(key not in LINKS or _says(body, key, "gpus") for key in keys)


def _missing(body: Body, key: str, names: Names) -> None:
    slip = any(did_you_mean(n, [key]) for n in body.sections if n not in LINKS)
    # It may be where nothing could be read, or under another name.
    if not (names.out.incomplete or body.partial or slip):
        names.out.add("E10", f"`hardware` needs `{key} {{ bandwidth, latency }}`", body.span)


def _level(body: Body, key: str, names: Names) -> Level | None:
    inner = body.sub(key, names.out)
    assert inner is not None
    reader = Reader(key, inner, LINK, names)
    read = reader.read()
    numbers = {name: value.value for name, value in read.items() if isinstance(value, Quantity)}
    given = [name for name in LINK if name in inner.assigns]
    if not {"bandwidth", "latency", *given} <= set(numbers):
        return None
    counts = {name: int(numbers[name]) if name in numbers else None for name in ("gpus", "nics")}
    return Level(
        key.removeprefix(PREFIX), counts["gpus"], numbers["bandwidth"], numbers["latency"],
        numbers["oversubscription"], counts["nics"],
    )  # fmt: skip


def _in_order(body: Body, found: list[tuple[str, Level]]) -> list[tuple[str, Level]]:
    """As they are written; those that a section adds to its preset's, by their size."""
    files = {id(body.sections[key][0].kind_span.source) for key, _ in found}
    if len(files) == 1:
        return found
    return sorted(
        found, key=lambda one: one[1].gpus if one[1].gpus is not None else (0 if one[0] == LINKS[0] else 10**9)
    )


def _with_node(body: Body, found: list[tuple[str, Level]], per_node: int, names: Names) -> list[Level] | None:
    """The levels, of which the node, or else the innermost, takes its size from `per_node`; one that says another is an
    error, unless it takes the place of its preset's."""
    levels = [level for _, level in found]
    at = next((i for i, (key, _) in enumerate(found) if key == LINKS[0]), 0)
    level, said = levels[at], body.assigns.get("per_node")
    if level.gpus is None:
        if found[at][0] == LINKS[0] or (said is not None and len(levels) > 1):
            levels[at] = _sized(level, per_node)
    elif said is not None and level.gpus != per_node:
        span = _span(body, found[at][0], "gpus", names)
        if said.span.source is span.source:
            names.out.add(
                "E11", f"a node has {per_node} GPUs (`per_node`), and `{found[at][0]}` joins {level.gpus}", span, "again here",
                also=(Label(said.value.span, "first here"),), help=("leave one of them out",),
            )  # fmt: skip
            return None
    return levels


def _sized(level: Level, gpus: int) -> Level:
    return Level(level.name, gpus, level.bandwidth_Bps, level.latency_s, level.oversubscription, level.nics)


def _span(body: Body, key: str, attribute: str, names: Names) -> Span:
    """Of an attribute of a level, or of the hardware; where it is not written, of its section."""
    inner = body.sub(key, names.out) if key else body
    assert inner is not None
    return inner.span_of(attribute if attribute in inner.assigns else "")
