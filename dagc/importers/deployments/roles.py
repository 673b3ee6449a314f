"""What a server is for, as names in a deployment say it."""

from __future__ import annotations

import re
from collections.abc import Iterable

WORDS = {
    "prefill": "prefill",
    "context": "prefill",
    "ctx": "prefill",
    "decode": "decode",
    "generation": "decode",
    "gen": "decode",
}
_PART = re.compile(r"prefill|decode|context|ctx|generation|gen(?![a-z])")


def role_of(names: Iterable[str]) -> str:
    """prefill or decode, where names say one of them only."""
    found = {WORDS[word] for name in names for word in _PART.findall(name.lower())}
    return found.pop() if len(found) == 1 else ""
