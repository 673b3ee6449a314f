"""`python -m tests.mutants --count 300 --seed 0`: who catches what, by kind of mutation; exit 1 when one escapes."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

from .judge import Verdict, judge, sample

HEAD = ("kind of mutation", "tried", "structural", "numeric", "unnamed", "equal", "escaped")


def row(name: str, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Structural and numeric are counted apart: most mutants are caught by both."""
    counts = (
        len(verdicts),
        sum(bool(v.structural) for v in verdicts),
        sum(v.proved_wrong for v in verdicts),
        sum(v.numeric == "unnamed" for v in verdicts),
        sum(not v.caught and bool(v.equal) for v in verdicts),
        sum(v.escaped for v in verdicts),
    )
    return (name, *map(str, counts))


def table(verdicts: Sequence[Verdict]) -> str:
    kinds = dict.fromkeys(v.mutant.kind for v in verdicts)
    rows = [HEAD, *(row(kind, [v for v in verdicts if v.mutant.kind == kind]) for kind in kinds), row("all", verdicts)]
    width = max(len(r[0]) for r in rows)
    return "\n".join(f"{r[0]:{width}} " + " ".join(f"{cell:>10}" for cell in r[1:]) for r in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    verdicts = [judge(plan, mutant) for plan, mutant in sample(options.count, options.seed)]
    print(table(verdicts))
    for reason, number in Counter(v.equal for v in verdicts if v.equal and not v.caught).items():
        print(f"equal: {number}: {reason}")
    escaped = [verdict for verdict in verdicts if verdict.escaped]
    for verdict in escaped:
        print(f"escaped: {verdict}")
    return 1 if escaped else 0


if __name__ == "__main__":
    raise SystemExit(main())
