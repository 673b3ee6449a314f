"""The verdict on one case: dagc's collectives against the reference's, and in words where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dagc.base.units import BYTES, show

from .case import Collective, Group, count, wire_B
from .layout import NotExpressible

EQUAL, SAME_BYTES, CHEAPER, DEARER, MISSING = "equal", "equal bytes", "cheaper", "dearer", "not expressible"
Calls = Counter[tuple[str, Group, float]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` is empty for equal collectives, and the reason for every other word."""

    word: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.why else self.word


def judge(measure: Callable[[], list[Collective]], theirs: Sequence[Collective]) -> tuple[list[Collective], Verdict]:
    """dagc's collectives (none when the case cannot be expressed) and the verdict on them."""
    try:
        ours = measure()
    except NotExpressible as reason:
        return [], Verdict(MISSING, str(reason))
    return ours, compare(ours, theirs)


def compare(ours: Sequence[Collective], theirs: Sequence[Collective]) -> Verdict:
    """Equal: the same kinds, groups and payloads as often. Else judged by the bytes one device sends."""
    mine, other = count(ours), count(theirs)
    if mine == other:
        return Verdict(EQUAL)
    less = wire_B(ours) - wire_B(theirs)
    word = SAME_BYTES if less == 0 else CHEAPER if less < 0 else DEARER
    return Verdict(word, "; ".join(differences(mine, other)))


def differences(mine: Calls, other: Calls) -> list[str]:
    """What the reference does and dagc does not, then the rest of what dagc does instead."""
    only_mine, only_other = mine - other, other - mine
    words = []
    for (kind, group, payload), times in sorted(only_other.items()):
        partner = next((k for k in sorted(only_mine) if k[:2] == (kind, group)), None)
        if partner is not None and only_mine[partner] == times and partner[2] < payload:
            del only_mine[partner]
            words.append(f"{smaller(kind)} ({payload / partner[2]:g}x smaller)")
        elif (kind, group, payload) in mine:
            words.append(f"{kind} of one value done once ({times} fewer)")
        else:
            words.append(f"no {kind} of {show(payload, BYTES)}")
    words += [f"{kind} of {show(payload, BYTES)} instead" for (kind, _, payload) in sorted(only_mine)]
    return list(dict.fromkeys(words))


def smaller(kind: str) -> str:
    """How the same collective over the same ranks comes to carry less."""
    return {
        "all_reduce": "partial sum carried through linear ops and reduced where it is smaller",
        "all_to_all": "tokens sent without padding to a capacity",
    }.get(kind, f"{kind} of less")
