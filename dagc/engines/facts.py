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
    `since`, `before`: the first version that has it, and the first that has it no more. Of commands that others wrote: `also`, its other
    names; `switch`: it takes no value, `many`: several; `reads`: what of a plan it is read as, where that is not `value`; `default`: what holds
    where it is left out."""

    key: str
    name: str
    value: str = ""
    source: str = ""
    since: str = ""
    before: str = ""
    also: tuple[str, ...] = ()
    switch: bool = False
    many: bool = False
    reads: str = ""
    default: object = None

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
    """Of one version of an engine. `versions`: each that was checked, and why it is covered; `words`: further names of things;
    `read`: options that are read in commands and never written; `programs`: the words that start a server, `others`: those that begin in the same way and start none."""

    name: str
    engine: str
    version: str
    versions: Mapping[str, str]
    checked: str
    tp: str
    options: Mapping[str, Option]
    rules: Mapping[str, Rule]
    words: Mapping[str, Any]
    read: tuple[Option, ...] = ()
    programs: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.engine} {self.version}"

    @property
    def is_between(self) -> bool:
        """Whether it lies between versions that were checked."""
        return self.version not in self.versions


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
    options = [Option(**_listed(entry, "also")) for entry in held["options"]]
    read = [Option(**_listed(entry, "also")) for entry in held.get("read", ())]
    rules = [Rule(name, **_listed(entry, "change")) for name, entry in held.get("rules", {}).items()]
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
        tuple(o for o in read if _holds(o, chosen)),
        tuple(held.get("programs", ())),
        tuple(held.get("others", ())),
    )


@cache
def _read(engine: str) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads((files(__package__) / f"{engine}.json").read_bytes())
    return found


def _listed(entry: Mapping[str, Any], field: str) -> dict[str, Any]:
    """With a list of the file as a tuple."""
    return {**entry, field: tuple(entry.get(field, ()))}


def _holds(entry: Option | Rule, version: str) -> bool:
    return is_within(version, entry.since, entry.before)


def is_within(version: str, since: str, before: str) -> bool:
    """Whether a version is `since` or later and earlier than `before`; nothing: no bound."""
    at = order(version)
    return not (since and at < order(since)) and not (before and at >= order(before))


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
