"""Which known name was meant: the same name spelt differently, then one with the same beginning, then one with a
similar spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice

from .synonyms import IN_SERVINGS, IN_TRAINING, SYNONYMS

_SEPARATORS = re.compile(r"[-_\s./]+")
_LETTERS_AND_NUMBERS = re.compile(r"[a-z]+|\d+")
MOST_KNOWN = 256
"""Names that are looked at: a spec of thousands of constants and as many slips is answered in seconds."""
MAX_WORD = 48
"""Letters of a word whose slips are counted."""
DESIGNATION = 4
"""Letters from which on the family of a product may be misspelt: `deepsek` is, `b` of `b200` is another product's."""


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that is meant, or None when nothing is near."""
    candidates = list(islice(dict.fromkeys(known), MOST_KNOWN))
    lowered = word.lower()
    if f"{lowered}s" in candidates:
        return f"{lowered}s"
    for name in (*IN_SERVINGS.get(lowered, ()), *IN_TRAINING.get(lowered, ()), SYNONYMS.get(lowered)):
        if name in candidates:
            return name
    for alike in (_bare, _sorted_parts):
        for name in candidates:
            if alike(name.lower()) == alike(lowered):
                return name
    longer = [n for n in candidates if len(word) > 1 and n.lower().startswith(lowered)]
    if longer:
        return min(longer, key=len)
    shorter = [n for n in candidates if _begins(lowered, n.lower())]
    if shorter:
        return max(shorter, key=len)
    near = [
        (d, -_common(lowered, n.lower()), len(n) < len(word), i)
        for i, n in enumerate(candidates)
        if len(word) <= MAX_WORD and {*lowered[:2]} & {*n[:2].lower()} and (d := _off(lowered, n.lower())) is not None
    ]
    return candidates[min(near)[3]] if near else None


def products(word: str, known: Iterable[str]) -> list[str]:
    """Names of products (GPUs, models, architectures) that are meant. Their numbers tell them apart: `h20` is no `h200`.

    The same name with other separators or an owner before it; then those that begin with the word, or that it begins with;
    then those of the same first part; then a misspelt family with the same numbers.
    """
    candidates = sorted(known)
    text = word.lower().rsplit("/", 1)[-1].strip()
    bare = _bare(text)
    parts = [p for p in _SEPARATORS.split(text) if p]
    if not parts:
        return []
    ways = (
        [n for n in candidates if _bare(n.lower()) == bare],
        [n for n in candidates if len(bare) > 1 and _goes_on(n.lower(), text)],
        sorted((n for n in candidates if _goes_on(text, n.lower())), key=len)[-1:],
        [n for n in candidates if any(c.isdigit() for c in parts[0]) and _SEPARATORS.split(n.lower())[0] == parts[0]],
        [n for n in candidates if any(p == _SEPARATORS.split(n.lower())[0] for p in parts[1:])],
        [n for n in candidates if _misspelt(text, n.lower())],
    )  # fmt: skip
    return next((found for found in ways if found), [])


def preset_help(kind: str, word: str, known: Sequence[str]) -> tuple[str, ...]:
    """Help for an unknown preset: those that may be meant, those of its family, and the command that lists all."""
    all_ = f"`dagc list presets` shows the {len(known)} {kind} presets"
    meant = products(word, known)
    if meant:
        return (f"did you mean {_or(meant)}?", all_)
    family = re.match("[a-z]{3,}", word.lower().rsplit("/", 1)[-1])
    alike = [n for n in sorted(known) if family and n.startswith(family[0])]
    return (f"of that family there is {_or(alike)}", all_) if alike else (all_,)


MOST = 4


def _or(names: Sequence[str]) -> str:
    shown = [f'"{n}"' for n in names[:MOST]]
    if len(names) > MOST:
        return ", ".join(shown) + f" or {len(names) - MOST} more"
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _goes_on(name: str, start: str) -> bool:
    """`name` begins with `start`, and no number is cut: `h200-sxm` begins with `h200` and not with `h20`."""
    return name.startswith(start) and not (start[-1].isdigit() and re.match(r"\.?\d", name[len(start) :]))


def _misspelt(text: str, name: str) -> bool:
    ours, theirs = _LETTERS_AND_NUMBERS.findall(text), _LETTERS_AND_NUMBERS.findall(name)
    if not ours or not theirs or [p for p in ours if p.isdigit()] != [p for p in theirs if p.isdigit()]:
        return False
    if ours[0] != theirs[0] and (min(len(ours[0]), len(theirs[0])) < DESIGNATION or _off(ours[0], theirs[0]) is None):
        return False
    return _off(text, name) is not None


@lru_cache(4096)
def _bare(text: str) -> str:
    return _SEPARATORS.sub("", text)


@lru_cache(4096)
def _sorted_parts(text: str) -> list[str]:
    return sorted(_SEPARATORS.split(text))


def _begins(word: str, name: str) -> bool:
    """`word` goes on where `name` ends: `layers_count`, `memory2`."""
    return word.startswith(name) and (not word[len(name)].isalnum() or (len(name) > 3 and word[len(name)].isdigit()))


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _off(word: str, name: str) -> int | None:
    """Slips between two names, part by part where both have dots; None where they are too many."""
    ours, theirs = word.split("."), name.split(".")
    if len(ours) != len(theirs):
        ours, theirs = [word], [name]
    total = 0
    for a, b in zip(ours, theirs, strict=True):
        off = distance(a, b)
        if off > _allowed(a) or (len(a) == 2 and off and a[0] != b[:1]):
            return None
        total += off
    return total


def _allowed(word: str) -> int:
    """A slip in three letters; none in one."""
    return max(len(word), 3) // 3 if len(word) > 1 else 0


def distance(a: str, b: str) -> int:
    """Letters left out, put in, changed, or swapped with their neighbour (optimal string alignment)."""
    if abs(len(a) - len(b)) > max(len(a), len(b)) // 2:
        return max(len(a), len(b))
    if not {*a} & {*b}:
        return max(len(a), len(b))
    before: Sequence[int] = ()
    row: Sequence[int] = range(len(b) + 1)
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            cost = min(new[-1] + 1, row[j] + 1, row[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            new.append(cost)
        before, row = row, new
    return row[-1]
