"""Files of settings that a command names: they are read beside it, as options or as settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...base.diagnostics import Diagnostic, SpecError
from ...base.files import Unreadable, read_named
from ...base.harmless import harmless
from ...base.source import Source
from ...base.yaml_text import plain, read_yaml
from ...engines.facts import Facts, Option
from .options import names

KEY = "config"
"""Of the option, in the data files."""
MOST_BYTES = 1 << 20


def named_files(words: Sequence[str], facts: Facts) -> Iterator[str]:
    """Paths of the files that a command names."""
    known = names(facts)
    for at, word in enumerate(words):
        name, equals, given = word.partition("=")
        option = known.find(name) if name.startswith("--") else None
        if isinstance(option, Option) and option.key == KEY:
            path = given if equals else words[at + 1] if at + 1 < len(words) else ""
            if path:
                yield path


def read_files(words: Sequence[str], facts: Facts, allowed: Sequence[str] = ()) -> dict[str, str]:
    """Text of each by its path. Raises SpecError with E05."""
    out = {}
    for path in named_files(words, facts):
        try:
            out[path] = read_named(path, MOST_BYTES, allowed).decode("utf-8-sig")
        except (Unreadable, UnicodeDecodeError) as why:
            reason = str(why) if isinstance(why, Unreadable) else "it is not UTF-8 text"
            message = f"cannot read the settings of the command, `{harmless(path)[:200]}`: {reason}"
            raise SpecError([Diagnostic("E05", message)]) from None
    return out


def mapping(path: str, text: str) -> Mapping[str, Any]:
    """Of one document of YAML. Raises SpecError."""
    source = Source(path.rsplit("/", 1)[-1] or "settings", text)
    documents = read_yaml(source)
    held = plain(documents[0]) if documents else {}
    if len(documents) > 1 or not isinstance(held, dict):
        raise SpecError([Diagnostic("E05", f"`{harmless(path)[:200]}` is no mapping of settings")])
    return held


def as_options(held: Mapping[str, Any]) -> list[str]:
    """Entries of a file that are options without their dashes. The parsers put them before those of the command, which hold."""
    out = []
    for key, value in held.items():
        name = f"--{key.strip().lstrip('-')}"
        if value is True:
            out.append(name)
        elif isinstance(value, list):
            out += [name, *map(str, value)]
        elif isinstance(value, dict):
            out += [name, json.dumps(value)]
        elif value is not None and value is not False:
            out += [name, str(value)]
    return out
