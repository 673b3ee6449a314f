"""Lengths of prompts and outputs from a file (`dagc/base/length_rows.py`), as chances of pairs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.files import stamp
from ..base.foreign_lines import TraceError, lines
from ..base.frozen import record
from ..base.length_rows import length_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_ROWS = 10**6
"""Pairs that are kept, in 24 bytes each."""


@record(slots=False)
class Pairs:
    """`upto[i]`: chance of one of the first i + 1 pairs; the last is 1. `means` of prompt and output; `most`: of the pair that
    has most of both together, in line `most_line`."""

    prompts: NDArray[np.int64]
    outputs: NDArray[np.int64]
    upto: NDArray[np.float64]
    means: tuple[float, float]
    most: tuple[int, int]
    most_line: int


@lru_cache(maxsize=4)
def _read(path: Path, as_of: tuple[int, ...]) -> Pairs:
    import numpy as np

    prompts: list[int] = []
    outputs: list[int] = []
    shares: list[float] = []
    places: list[int] = []
    for line, prompt, output, share in length_rows(lines(path), path):
        if len(prompts) == MOST_ROWS:
            raise TraceError(path, line, f"more than {MOST_ROWS:,} rows", "count equal lengths together")
        prompts.append(prompt)
        outputs.append(output)
        shares.append(share)
        places.append(line)
    if not prompts:
        raise TraceError(path, 0, "it has a header and no rows")
    if not any(shares):
        raise TraceError(path, 0, "all its shares are 0")
    weights = np.array(shares)
    keep = weights > 0
    prompt_counts, output_counts = np.array(prompts)[keep], np.array(outputs)[keep]
    upto = np.cumsum(weights[keep])
    means = [float(counts @ weights[keep] / upto[-1]) for counts in (prompt_counts, output_counts)]
    largest = int(np.argmax(prompt_counts + output_counts))
    most = int(prompt_counts[largest]), int(output_counts[largest])
    most_line = int(np.array(places)[keep][largest])
    return Pairs(prompt_counts, output_counts, upto / upto[-1], (means[0], means[1]), most, most_line)


def read_histogram(path: Path) -> Pairs:
    """Raises TraceError."""
    try:
        at = stamp(path)
    except OSError as error:
        raise TraceError(path, 0, f"cannot be read: {error.strerror}") from None
    return _read(path, at)
