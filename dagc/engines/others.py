"""Options of an engine that say nothing of a plan: their names, how many values they take, and what they are about."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from ..base.frozen import record
from .facts import is_within


@record
class Other:
    """`names`: spellings of one option. `values`: "" none, "=" one, "=?" one or none, "+" several. `why`: what it is about; `missing`: a plan
    could have that, and this language has not."""

    names: tuple[str, ...]
    values: str
    why: str
    missing: bool = False


@cache
def others(engine: str, version: str) -> tuple[Other, ...]:
    """Of one version. Empty for an engine whose further options are not listed."""
    import json

    file = files(__package__) / f"{engine}.others.json"
    if not file.is_file():
        return ()
    found = []
    for group in json.loads(file.read_bytes())["groups"]:
        if not is_within(version, group.get("since", ""), group.get("before", "")):
            continue
        for text in group["names"]:
            names = text.rstrip("=?+")
            found.append(
                Other(tuple(names.split("|")), text[len(names) :], group["why"], bool(group.get("missing", False)))
            )
    return tuple(found)
