"""Times at which requests come, in blocks: of a million none is kept longer than its block.

Gaps of mean 1 are drawn, summed, and divided by the rate: another rate is the same traffic on another clock, so that
comparisons between rates have no noise of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..spec.serve import Arrivals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 4096
ARRIVALS, LENGTHS = 0, 1
"""Streams of random numbers, each its own: other arrivals leave the lengths as they are."""


def stream(seed: int, which: int) -> np.random.Generator:
    """One of the independent streams of a seed."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, which))))


def times(arrivals: Arrivals, seed: int, block: int = BLOCK) -> Iterator[NDArray[np.float64]]:
    """Rising times in seconds, without end. Poisson: gaps are exponential. Gamma: of shape 1 / cv^2. Constant: the first
    request comes after one gap, like the others. Burst: all at 0."""
    import numpy as np

    random = stream(seed, ARRIVALS)
    at = 0.0
    while True:
        if arrivals.kind == "burst":
            yield np.zeros(block)
            continue
        if arrivals.kind == "constant":
            clock = at + np.arange(1.0, block + 1)
        else:
            shape = 1.0 if arrivals.kind == "poisson" else arrivals.cv**-2
            gaps = random.standard_exponential(block) if shape == 1 else random.standard_gamma(shape, block) / shape
            clock = np.cumsum(np.concatenate(((at,), gaps)))[1:]
        at = float(clock[-1])
        yield clock / arrivals.rate_per_s
