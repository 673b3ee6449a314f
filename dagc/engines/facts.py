"""What a data file knows of an engine: its versions, the options that it has in each, and the rules that it refuses plans by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from ..base.diagnostics import Diagnostic, SpecError
from ..base.frozen import record


@record
class Option:
    """How an engine spells one thing. `name`: a flag (`--tp-size`), a variable of the environment (capitals), or the path of a setting.
    `value`: what of the plan it is, by the name that the engine's module has for it; nothing: the module writes it itself.
    `since`, `before`: the first version that has it, and the first that has it no more."""

    key: str
    name: str
    value: str = ""
    source: str = ""
    since: str = ""
    before: str = ""

    @property
    def is_flag(self) -> bool:
        return self.name.startswith("--")

    @property
    def is_environment(self) -> bool:
        return self.name.isupper()


@record
class Rule:
    """What an engine refuses. `source`: its own check, or its line of documentation. `change`: parts of the plan that may be changed to
    keep it. `lacking`: the engine could, but files for that are not written yet. `help`: what else to write."""

    name: str
    source: str = ""
    change: tuple[str, ...] = ()
    lacking: bool = False
    help: str = ""
    since: str = ""
    before: str = ""


@record
class Facts:
    """Of one version of an engine. `versions`: each that was checked, and why it is covered; `words`: further names of things."""

    name: str
    engine: str
    version: str
    versions: Mapping[str, str]
    checked: str
    tp: str
    options: Mapping[str, Option]
    rules: Mapping[str, Rule]
    words: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.engine} {self.version}"

    @property
    def is_between(self) -> bool:
        """Whether it lies between versions that were checked."""
        return self.version not in self.versions


NEWEST = "newest"


@cache
def facts(engine: str, version: str | None = None) -> Facts:
    """Of the newest version that was checked, or of another one. Raises SpecError where it lies outside those that were."""
    held = _read(engine)
    known = {str(v): str(why) for v, why in held["versions"].items()}
    ordered = sorted(known, key=order)
    chosen = ordered[-1] if version is None else version
    if not re.fullmatch(VERSION, chosen) or not order(ordered[0]) <= order(chosen) <= order(ordered[-1]):
        about = ", ".join(f"{v} ({known[v]})" for v in reversed(ordered))
        said = f" {chosen}" if re.fullmatch(VERSION, chosen) else f": {chosen[:40]!r} is no version"
        message = (
            f"the options of {held['engine']}{said} are not known" if said[0] == " " else f"{held['engine']}{said}"
        )
        raise SpecError([Diagnostic("E05", message, help=(f"checked: {about}; versions between them are taken too",))])
    options = [Option(**entry) for entry in held["options"]]
    rules = [Rule(name, **_rule(entry)) for name, entry in held.get("rules", {}).items()]
    return Facts(
        engine,
        held["engine"],
        chosen,
        known,
        held["checked"],
        held["tp"],
        {o.key: o for o in options if _holds(o, chosen)},
        {r.name: r for r in rules if _holds(r, chosen)},
        held.get("words", {}),
    )


@cache
def _read(engine: str) -> dict[str, Any]:
    import orjson

    found: dict[str, Any] = orjson.loads((files(__package__) / f"{engine}.json").read_bytes())
    return found


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "change": tuple(entry.get("change", ()))}


def _holds(entry: Option | Rule, version: str) -> bool:
    at = order(version)
    return not (entry.since and at < order(entry.since)) and not (entry.before and at >= order(entry.before))


VERSION = r"\d{1,6}(\.\d{1,6}){0,3}((rc|\.post)\d{1,6})?"


def order(version: str) -> tuple[tuple[int, ...], int, int]:
    """A key by which versions sort: candidates before the release, `.post` after it."""
    found = re.match(r"(?P<release>\d+(?:\.\d+)*)(?:(?P<kind>rc|\.post)(?P<number>\d+))?", version)
    if found is None:
        return ((), 0, 0)
    parts = [int(n) for n in found["release"].split(".")]
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts), {"rc": -1, None: 0, ".post": 1}[found["kind"]], int(found["number"] or 0)
