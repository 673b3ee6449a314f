"""What a timing is: the median of repeated samples of one call, and how far they spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..base.frozen import record


@record
class Timing:
    """Seconds of one call. `spread`: distance between the quartiles over the median. `clock`: `cuda_graph`,
    `cuda_events` or `perf_counter`."""

    median_s: float
    spread: float
    samples: int
    clock: str

    @staticmethod
    def of(samples_s: Sequence[float], clock: str) -> Timing:
        low, median, high = (float(q) for q in np.quantile(np.asarray(samples_s), (0.25, 0.5, 0.75)))
        return Timing(median, (high - low) / median if median else 0.0, len(samples_s), clock)


@record
class Effort:
    """How long to measure one kernel: samples wanted, warm-up calls before them, and seconds after which no further
    sample begins (a slow kernel gets fewer, never none)."""

    samples: int = 20
    warm_up: int = 3
    limit_s: float = 5.0
