"""Names of Kubernetes objects, made of names that may be anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

LONGEST = 40
"""Characters: what controllers append (numbers of replicas and nodes, a revision) keeps a pod's name and its labels within 63."""


def label(name: str, longest: int = LONGEST) -> str:
    """A label by RFC 1123 that begins with a letter, as names of services must, and does not end with a number of its own, as those of replicas
    and pods do. One that is cut short, or of which nothing is left, gets part of a hash of the name."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = f"p{plain}" if plain[:1].isdigit() else plain
    plain = re.sub(r"-(?=\d+$)", "-n", plain)
    if 0 < len(plain) <= longest:
        return plain
    mark = "h" + sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:5]
    kept = (plain or "plan")[: longest - len(mark) - 1].strip("-")
    return f"{kept}-{mark}"


def labels(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """One for each name, all different."""
    out: list[str] = []
    for name in names:
        own, k = label(name, longest), 2
        while own in out:
            end = f"-n{k}"
            own, k = label(name, longest - len(end)) + end, k + 1
        out.append(own)
    return out
