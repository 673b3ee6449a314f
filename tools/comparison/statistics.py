"""Errors of estimates, and tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True, slots=True)
class Errors:
    """Of `estimate / measured - 1`: `bias` is the median of the signed values; the rest are of absolute values."""

    n: int
    bias: float
    median: float
    mean: float
    p90: float

    @staticmethod
    def of(ratios: Iterable[float]) -> Errors | None:
        """From ratios estimate / measured; None when there are none."""
        signed = [r - 1 for r in ratios]
        if not signed:
            return None
        size = sorted(map(abs, signed))
        return Errors(len(size), median(signed), median(size), fmean(size), quantile(size, 0.9))


def quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


HEAD = ("n", "median", "mean", "p90", "bias")


def cells(errors: Errors) -> tuple[str, ...]:
    return (
        f"{errors.n:,}", f"{errors.median:.1%}", f"{errors.mean:.1%}", f"{errors.p90:.1%}", f"{errors.bias:+.1%}",
    )  # fmt: skip


def error_table(first: str, groups: Mapping[str, Sequence[float]]) -> str:
    """One row of errors a group, in order of name."""
    found = ((name, Errors.of(ratios)) for name, ratios in sorted(groups.items()))
    return table((first, *HEAD), ((name, *cells(errors)) for name, errors in found if errors is not None))
