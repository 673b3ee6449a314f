"""Prove every plan, with two processes: `python -m tests.proofs [WORD]` (only models or strategies that have the word)."""

from __future__ import annotations

import re
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from .judge import judge
from .plans import plans


def rule(why: str) -> str:
    """The kind of error: its message without names and numbers."""
    return re.sub(r"`[^`]*`|\d+", "N", why)


def main(words: list[str]) -> int:
    chosen = [p for p in plans() if all(any(w in part for part in p) for w in words)]
    found: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    with ProcessPoolExecutor(2) as pool:
        for plan, verdict in zip(chosen, pool.map(judge, *zip(*chosen, strict=True)), strict=True):
            found[verdict.word] += 1
            if verdict.word == "refused":
                refused[rule(verdict.why)] += 1
            elif verdict.word != "equal":
                print(f"{' / '.join(plan)}: {verdict.word}: {verdict.why}", flush=True)
    print(f"{len(chosen)} plans: " + ", ".join(f"{n} {word}" for word, n in sorted(found.items())))
    for text, n in refused.most_common():
        print(f"  {n} refused: {text}")
    return 0 if set(found) <= {"equal", "refused"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
