"""docs/accuracy.md: the text around the tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from . import prose
from .case import Inexpressible
from .classes import ALL
from .static import Compared, class_errors
from .statistics import Errors, cells, error_table, table


def groups(items: Iterable[Compared], name: Callable[[Compared], str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for item in items:
        found[name(item)].append(item.ratio)
    return found


def static_section(compared: Sequence[Compared]) -> str:
    kinds = ("prefill", "decode")
    metric = {"prefill": "TTFT", "decode": "TPOT"}
    parts = [
        error_table(
            "step",
            groups(
                compared,
                lambda c: (
                    f"{metric[c.reference.point.kind]}, experts on "
                    f"{'one rank' if c.reference.point.deployment.layout.ep <= 1 else 'several ranks'}"
                ),
            ),
        )
    ]
    parts.append(
        error_table(
            "GPU, model, step", groups(compared, lambda c: f"{c.reference.where}, {metric[c.reference.point.kind]}")
        )
    )
    parts.append(prose.CLASSES)
    for kind in kinds:
        for title, alone in (("experts on one rank", True), ("experts on several ranks", False)):
            chosen = [
                c
                for c in compared
                if c.reference.point.kind == kind and (c.reference.point.deployment.layout.ep <= 1) == alone
            ]
            if chosen:
                parts += [f"### {kind.capitalize()} by class of op, {title}", class_table(chosen)]
    parts += ["### Memory", prose.MEMORY, memory_table(compared)]
    return "\n\n".join(parts)


def class_table(compared: Sequence[Compared]) -> str:
    def order(name: str) -> tuple[bool, int]:
        first = name.split(" + ")[0]
        return (first not in ALL, ALL.index(first) if first in ALL else 0)

    rows = []
    for found in sorted(class_errors(compared), key=lambda e: order(e.name)):
        errors = Errors.of(found.ratios)
        figures = ("0", "", "", "", "") if errors is None else cells(errors)
        if errors is None and abs(found.adds) < 5e-4:
            continue
        rows.append((found.name, f"{found.share:.1%}", *figures, f"{found.adds:+.1%}"))
    return table(("class", "share", "n", "median", "mean", "p90", "bias", "adds to the step"), rows)


def memory_table(compared: Sequence[Compared]) -> str:
    parts: dict[str, list[float]] = defaultdict(list)
    for item in compared:
        theirs, ours = item.reference.memory_B, item.ours
        # Below a MiB the reference's own rounding shows.
        for name, mine in (("weights", ours.weights_B), ("kvcache", ours.kv_cache_B)):
            if theirs[name] > 2**20:
                parts[name].append(mine / theirs[name])
    return error_table("part", parts)


def refused_table(refused: Iterable[tuple[str, Inexpressible]]) -> str:
    counts = Counter((source, str(error)) for source, error in refused)
    rows = sorted(counts.items(), key=lambda item: (item[0][0], -item[1]))
    return table(("source", "reason", "figures"), ((source, reason, n) for (source, reason), n in rows))
