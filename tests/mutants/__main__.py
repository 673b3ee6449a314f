"""Who catches which mutant; exit 1 when one escapes.

`python -m tests.mutants` breaks placed graphs (`--count 300 --seed 0`), `... steps` those of training steps, `... model` the model graphs that `expand` writes, `... passes`
and `... expand` the source of the passes and of `expand`, every function of it (a quarter of an hour each), `... copies` that of passes that copy from hosts and quantise (seconds).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from .judge import Verdict, judge, sample
from .plans import PLANS, STEPS

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
    parser.add_argument(
        "what", nargs="?", choices=("placed", "steps", "model", "passes", "copies", "expand"), default="placed"
    )
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = {"placed": placed, "steps": steps, "model": model, "passes": passes, "copies": copies, "expand": expand}
    return run[options.what](options)


def passes(options: argparse.Namespace) -> int:
    from .passes import judge as judged
    from .passes import mutants

    return told((v.mutant.name, v.killed) for v in map(judged, mutants()))


def copies(options: argparse.Namespace) -> int:
    from .copies import OF, judge, mutants

    return told((v.mutant.name, v.killed) for name in OF for v in (judge(name, m) for m in mutants(name)))


def expand(options: argparse.Namespace) -> int:
    from .expansion import judge_source, source_mutants_of_expand

    return told((v.mutant.name, v.caught) for v in map(judge_source, source_mutants_of_expand()))


def told(verdicts: Iterable[tuple[str, str]]) -> int:
    """Every mutant with what noticed it; then counts. 1 when one survives that is not listed."""
    from .survivors import reason

    by, new = Counter[str](), 0
    for name, noticed in verdicts:
        why = reason(name)
        print(f"{name}\n    {noticed or why or 'SURVIVES, and is not listed'}", flush=True)
        by[noticed.split(":")[0] if noticed else "survives: " + (why or "not listed")] += 1
        new += not noticed and not why
    for what, number in by.most_common():
        print(f"{number:5}  {what}")
    return 1 if new else 0


def model(options: argparse.Namespace) -> int:
    """Each fault of the model graph, the reference models that catch it, and how many have it and do not."""
    from .expansion import EQUAL, catches_graph, graph_mutants, pairs

    escaped = 0
    for mutant in graph_mutants():
        found = {pair: catches_graph(mutant, *pair) for pair in pairs()}
        caught = [f"{name} ({kind})" for (name, kind), seen in found.items() if seen]
        unseen = sum(seen is False for seen in found.values())
        words = (
            f"{', '.join(caught[:3])}{f' and {len(caught) - 3} more' if len(caught) > 3 else ''}"
            if caught
            else EQUAL.get(mutant.name, "nobody")
        )
        print(f"{mutant.name:36} caught {len(caught):3}, unseen {unseen:3}  {words}")
        escaped += not caught and mutant.name not in EQUAL
    return 1 if escaped else 0


def placed(options: argparse.Namespace, plans: Iterable[str] = PLANS) -> int:
    verdicts = [judge(plan, mutant) for plan, mutant in sample(options.count, options.seed, plans)]
    print(table(verdicts))
    for reason, number in Counter(v.equal for v in verdicts if v.equal and not v.caught).items():
        print(f"equal: {number}: {reason}")
    escaped = [verdict for verdict in verdicts if verdict.escaped]
    for verdict in escaped:
        print(f"escaped: {verdict}")
    return 1 if escaped else 0


def steps(options: argparse.Namespace) -> int:
    return placed(options, STEPS)


if __name__ == "__main__":
    raise SystemExit(main())
