"""The table of words: units, nouns, axes, phases, and rules that say which metric a number near some words is of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from ..base.frozen import record

Groups = tuple[tuple[str, ...], ...]
"""Phrases: one of each group must be there."""


@record
class Rule:
    """As `about` of words.json says. `metrics`: the first that the plan has counts."""

    of: frozenset[str]
    line: Groups
    under: Groups
    beside: Groups
    never: tuple[str, ...]
    metrics: tuple[str, ...]
    why: str
    kind: str
    over_even: bool
    axis: bool
    named: str = ""
    table: bool = False


@record
class Relation:
    """A figure of the document that is a metric over another figure of the document."""

    of: str
    line: Groups
    over: str
    by: str
    about: str


@record
class Words:
    """The whole table. `units`: longest first; `said_before`: phrases before a number, and what it is of."""

    units: tuple[tuple[str, str], ...]
    nouns: tuple[tuple[str, str], ...]
    axes: dict[str, tuple[str, ...]]
    phases: dict[str, tuple[str, ...]]
    lists: dict[str, tuple[str, ...]]
    rules: tuple[Rule, ...]
    absent: tuple[tuple[tuple[str, ...], str], ...]
    relations: tuple[Relation, ...]
    scales: dict[str, float]
    said_before: tuple[tuple[str, str], ...]


def has(text: str, phrases: Iterable[str]) -> str:
    """The first phrase that a lower-case text has as whole words; empty where it has none."""
    return next((p for p in phrases if p in text and _whole(p).search(text)), "")


@cache
def _whole(phrase: str) -> re.Pattern[str]:
    head = r"(?<![\w-])" if phrase[0].isalnum() else ""
    tail = r"(?![\w-])" if phrase[-1].isalnum() else ""
    return re.compile(head + re.escape(phrase) + tail)


def unit_in(heading: str) -> str:
    """The unit that a heading of a table names: `GB`, `Memory (GB)`, `time, ms`; empty where it names none."""
    found = re.search(r"(?:^|[(\[,]\s*)([^()\[\],]{1,20})[)\]]?\s*$", heading)
    return found[1] if found and any(word == found[1] for word, _ in words().units) else ""


def _groups(given: Iterable[str], per_gpu: tuple[str, ...]) -> Groups:
    return tuple(per_gpu if group == "PER_GPU" else tuple(group.split("|")) for group in given)


@cache
def words() -> Words:
    """Read once."""
    data: dict[str, Any] = json.loads((files(__package__) / "words.json").read_text(encoding="utf-8"))
    per_gpu = tuple(data["per_gpu"])

    def rule(one: dict[str, Any]) -> Rule:
        metric = one["metric"]
        return Rule(
            frozenset(one["of"].split("|")),
            _groups(one.get("line", ()), per_gpu),
            _groups(one.get("under", ()), per_gpu),
            _groups(one.get("beside", ()), per_gpu),
            tuple(one.get("never", ())),
            () if metric is None else (metric,) if isinstance(metric, str) else tuple(metric),
            one.get("why", ""),
            one.get("kind", ""),
            one.get("as") == "over_even",
            bool(one.get("axis")),
            one.get("named", ""),
            bool(one.get("table")),
        )

    units = ((word, entry["unit"]) for entry in data["units"] for word in entry["words"])
    nouns = ((word, noun) for noun, own in data["nouns"].items() for word in own)
    lists = (
        "scope_only", "places", "other_headings", "supposed", "gpu_names", "elsewhere", "asides", "not_below", "not_above", "before_least", "before_most", "wanted", "taken", "met", "again", "divided",
    )  # fmt: skip
    return Words(
        tuple(sorted(units, key=lambda pair: -len(pair[0]))),
        tuple(sorted(nouns, key=lambda pair: -len(pair[0]))),
        {axis: tuple(own) for axis, own in data["axes"].items()},
        {kind: tuple(own) for kind, own in data["phases"].items()},
        {name: tuple(data[name]) for name in lists},
        tuple(map(rule, data["rules"])),
        tuple((tuple(one["words"]), one["metric"]) for one in data["absent"]),
        tuple(
            Relation(one["of"], _groups(one["line"], per_gpu), one["over"], one["by"], one["about"])
            for one in data["relations"]
        ),
        {word: float(scale) for word, scale in data["scales"].items()},
        tuple((phrase, of) for of, own in data["said_before"].items() for phrase in own),
    )
