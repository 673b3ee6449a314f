"""Tokens of prompts and outputs, in blocks.

Every request takes the same random numbers whatever the means are: a longer prompt is the same traffic, stretched.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor, log
from typing import TYPE_CHECKING

from ..spec.serve import Lengths
from .arrivals import BLOCK, LENGTHS, stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_TOKENS = 10**9
"""Of a prompt or an output: longer ones, of a distribution without an end, are cut to it."""


def lengths(kind: Lengths, seed: int, block: int = BLOCK) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Prompts and outputs, without end. Uniform: whole numbers between both shares of the mean, each equally likely.
    Lognormal: `exp(sigma z - sigma^2 / 2)` times the mean with `sigma^2 = log(1 + cv^2)`, rounded, at least 1: its mean and
    its variation are the stated ones. Histogram: pairs of the file. Raises TraceError."""
    import numpy as np

    random = stream(seed, LENGTHS)
    table = None
    if kind.kind == "histogram":
        from .histogram import read_histogram

        assert kind.path is not None
        table = read_histogram(kind.path)
    while True:
        if table is not None:
            rows = np.searchsorted(table.upto, random.random(block), side="right")
            yield table.prompts[rows], table.outputs[rows]
        elif kind.kind == "fixed":
            yield np.full(block, kind.prompt), np.full(block, kind.output)
        elif kind.kind == "uniform":
            u = random.random((block, 2))
            yield _uniform(u[:, 0], kind.prompt, kind), _uniform(u[:, 1], kind.output, kind)
        else:
            z = random.standard_normal((block, 2))
            yield _lognormal(z[:, 0], kind.prompt, kind.cv), _lognormal(z[:, 1], kind.output, kind.cv)


def bounds(kind: Lengths, mean: int) -> tuple[int, int]:
    """Least and most tokens of a uniform length."""
    low = max(1, ceil(round(kind.low * mean, 6)))
    return low, max(low, floor(round(kind.high * mean, 6)))


def longest(kind: Lengths) -> tuple[int, int] | None:
    """Most tokens of a prompt and of an output that are fixed or uniform; None where they have no end."""
    if kind.kind not in ("fixed", "uniform"):
        return None
    return bounds(kind, kind.prompt)[1], bounds(kind, kind.output)[1]


def _uniform(u: NDArray[np.float64], mean: int, kind: Lengths) -> NDArray[np.int64]:
    low, high = bounds(kind, mean)
    found: NDArray[np.int64] = (low + u * (high - low + 1)).astype("int64")
    return found


def _lognormal(z: NDArray[np.float64], mean: int, cv: float) -> NDArray[np.int64]:
    import numpy as np

    sigma = log(1 + cv * cv) ** 0.5
    drawn = np.exp(sigma * z - sigma * sigma / 2) * mean
    found: NDArray[np.int64] = np.clip(np.rint(drawn), 1, MOST_TOKENS).astype("int64")
    return found
