"""docs/kernels.md: errors of the fitted kernels, from what the fit wrote; nothing is fitted or compiled here.

`kernel_errors.json` has every part by row (K folds of rows) and by unseen shape (K folds of shapes, each on every GPU and engine
left out at once); `nearest.json` has substitutes: another GPU, another engine, another variant.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .statistics import quantile, table

ROOT = Path(__file__).parents[2]
ERRORS = ROOT / "tools" / "kernel_errors.json"
NEAREST = ROOT / "grammar" / "library" / "calibration" / "nearest.json"
PAGE = ROOT / "docs" / "kernels.md"
MEDIAN, P90, UNSEEN = 0.06, 0.20, 0.10
"""Goals, as shares of the measured time."""

INTRO = f"""# How accurate the kernels are

Made by `python tools/kernels.py --write` from what `tools/fit.py` found. Errors are |estimate / measured - 1| of rows that the constants
were not fitted on: by row (the folds are rows), and by unseen shape (the folds are shapes: all rows of a shape, on every GPU
and engine, are out together). The constants that ship are fitted on all rows. Goals: median {MEDIAN:.0%}, p90 {P90:.0%}, unseen shapes
{UNSEEN:.0%} in the median. Servings and whole steps: [accuracy.md](accuracy.md)."""

BY_ENGINE = """A part: one family on one GPU with one engine; `common`: kernels of no engine, such as NCCL's. Median, p90 and unseen shapes are those
of the middle part, each part counted as often as it has rows."""

BY_PART = """Per cent: median / p90 / median of unseen shapes; then the number of rows."""

NEAREST_TEXT = """What dagc takes where nobody measured a kernel, and how far off it was on rows where the kernel had been measured: the same
engine on another GPU, scaled by the datasheets; another engine on the same GPU; another variant (dtype or kernel). W06 names the
table and this error."""


@dataclass(frozen=True, slots=True)
class Part:
    """Errors of a family on a GPU with an engine; `unseen`: the median of unseen shapes, None where there were too few."""

    family: str
    gpu: str
    engine: str
    rows: int
    median: float
    p90: float
    unseen: float | None


def parts(errors: Mapping[str, Any]) -> Iterator[Part]:
    """All parts of the fit's file."""
    for family, gpus in errors.items():
        for gpu, engines in gpus.items():
            for engine, e in engines.items():
                unseen = e.get("unseen", {}).get("median")
                yield Part(family, gpu, engine, e["rows"], e["median"], e["p90"], unseen)


def page(errors: Mapping[str, Any], nearest: Mapping[str, Any]) -> str:
    """The page's text."""
    found = [*parts(errors)]
    body = [INTRO, "## By engine", BY_ENGINE, by_engine(found), "## By family, engine and GPU", BY_PART, by_part(found)]
    return "\n\n".join([*body, "## Kernels that nobody measured", NEAREST_TEXT, substitutes(nearest["errors"])]) + "\n"


def read() -> str:
    """The page of the files in the repository."""
    return page(json.loads(ERRORS.read_text(encoding="utf-8")), json.loads(NEAREST.read_text(encoding="utf-8")))


def shipped() -> list[Part]:
    """Parts of the file in the repository."""
    return [*parts(json.loads(ERRORS.read_text(encoding="utf-8")))]


def by_engine(found: list[Part]) -> str:
    """How many parts reach the goals."""
    groups: dict[str, list[Part]] = defaultdict(list)
    for part in found:
        groups[part.engine].append(part)
    body = []
    for engine, each in [*sorted(groups.items()), ("all", found)]:
        shapes = [part for part in each if part.unseen is not None]
        body.append(
            (
                engine, len(each), f"{sum(p.rows for p in each):,}",
                _middle([(p.median, p.rows) for p in each]),
                _middle([(p.p90, p.rows) for p in each]),
                _middle([(p.unseen or 0.0, p.rows) for p in shapes]),
                _reach(p.median <= MEDIAN for p in each), _reach(p.p90 <= P90 for p in each),
                _reach((p.unseen or 0.0) <= UNSEEN for p in shapes),
            )
        )  # fmt: skip
    head = (
        "engine", "parts", "rows", "median", "p90", "unseen shapes",
        f"median <= {MEDIAN:.0%}", f"p90 <= {P90:.0%}", f"unseen <= {UNSEEN:.0%}",
    )  # fmt: skip
    return table(head, body)


def _reach(hits: Iterator[bool]) -> str:
    each = [*hits]
    return f"{sum(each)} of {len(each)}"


def middle(found: Iterable[tuple[float, int]]) -> float:
    """The median of values, each as often as its weight."""
    return quantile([value for value, weight in sorted(found) for _ in range(weight)], 0.5)


def _middle(found: Sequence[tuple[float, int]]) -> str:
    return f"{middle(found):.1%}" if found else "-"


def by_part(found: list[Part]) -> str:
    """A row per family and engine, a column per GPU."""
    gpus = sorted({part.gpu for part in found})
    cells = {(p.family, p.engine, p.gpu): p for p in found}
    body = []
    for family, engine in sorted({(p.family, p.engine) for p in found}):
        each = [cells.get((family, engine, gpu)) for gpu in gpus]
        body.append((f"{family}, {engine}", *(_cell(part) for part in each)))
    return table(("family, engine", *gpus), body)


def _cell(part: Part | None) -> str:
    if part is None:
        return ""
    unseen = "-" if part.unseen is None else f"{part.unseen * 100:.1f}"
    return f"{part.median * 100:.1f} / {part.p90 * 100:.0f} / {unseen}, {part.rows:,}"


def substitutes(errors: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A row per family."""
    names = {"gpu": "another GPU", "engine": "another engine", "variant": "another variant"}

    def cell(found: Mapping[str, float] | None) -> str:
        return "" if found is None else f"{found['median']:.1%} / {found['p90']:.0%}, {found['rows']:,}"

    body = [(family, *(cell(steps.get(step)) for step in names)) for family, steps in sorted(errors.items())]
    return table(("family: median / p90, rows", *names.values()), body)
