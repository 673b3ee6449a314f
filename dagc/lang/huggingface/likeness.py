"""Which architectures read the fields that a config has: what an unknown one may be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from math import log
from pathlib import Path

from .. import library

READ = re.compile(r"\bconfig\.([A-Za-z_]\w*)")
IMPORT = re.compile(r'^import "([^"]+)"', re.MULTILINE)
MOST = 4
"""Architectures that are named."""


def fields_read(kind: str) -> frozenset[str]:
    """Names of fields at the top of a config that an architecture, with what it imports, reads."""
    found: set[str] = set()
    ahead, seen = [library.architecture_folder() / f"{kind}.moe"], set()
    while ahead:
        path = ahead.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        own, imported = _read(path)
        found |= own
        ahead += imported
    return frozenset(found)


@cache
def _read(path: Path) -> tuple[frozenset[str], tuple[Path, ...]]:
    """Fields that a file itself reads, and the files that it imports: most architectures import the same few."""
    text = path.read_text(encoding="utf-8")
    return frozenset(READ.findall(text)), tuple((path.parent / name).resolve() for name in IMPORT.findall(text))


def another(kind: str) -> str | None:
    """The architecture that one is under a name of its own, of which its file says nothing else; None: it is one itself."""
    text = (library.architecture_folder() / f"{kind}.moe").read_text(encoding="utf-8")
    said = [line for line in text.splitlines() if line and not line.startswith(("#", "moe "))]
    found = IMPORT.findall(text)
    return found[0].removesuffix(".moe") if len(said) == 1 and found and "/" not in found[0] else None


def alike(fields: Mapping[str, object], kinds: Iterable[str]) -> list[str]:
    """The architectures that read most of what a config has and least of what it has not; rare fields count more. Best first. Of those that are
    another one under a name of their own the other one."""
    read = {kind: fields_read(kind) for kind in kinds if another(kind) is None}
    count = Counter(name for own in read.values() for name in own)
    weight = {name: log((1 + len(read)) / times) for name, times in count.items()}
    given = {name for name, value in fields.items() if value is not None and name in weight}
    total = sum(weight[name] for name in given)

    def score(kind: str) -> float:
        both = sum(weight[name] for name in given & read[kind])
        return both / (total + sum(weight[name] for name in read[kind] - given)) if total else 0.0

    best = sorted(read, key=lambda kind: (-score(kind), kind))
    return [kind for kind in best[:MOST] if score(kind) > 0.25]
