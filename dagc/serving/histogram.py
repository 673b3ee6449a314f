"""Lengths of prompts and outputs from a file: pairs, and how often each comes.

Text of comma-separated values with a header: `prompt_tokens`, `output_tokens` (also `input_tokens`), and `share` or `count`; without the
latter every row counts once, so that a trace of any form is a histogram of its own lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.frozen import record
from .lines import TraceError, columns, lines, number, whole
from .trace_files import trace_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROMPT = ("prompt_tokens", "input_tokens", "contexttokens")
OUTPUT = ("output_tokens", "generatedtokens")
SHARE = ("share", "count")
MOST_TOKENS = 10**9
MOST_ROWS = 10**6
"""Pairs that are kept, in 24 bytes each."""
MOST_SHARE = 1e18


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
def _read(path: Path, stamp: tuple[int, int]) -> Pairs:
    import numpy as np

    prompts: list[int] = []
    outputs: list[int] = []
    shares: list[float] = []
    places: list[int] = []
    for line, prompt, output, share in _rows(path):
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


def _rows(path: Path) -> Iterator[tuple[int, int, int, float]]:
    """(line, prompt, output, share)."""
    rows = lines(path)
    first = next(rows, None)
    if first is None:
        raise TraceError(path, 0, "it is empty")
    if first[1].startswith(b"{"):
        yield from ((line, one.prompt, one.output, 1.0) for line, one in trace_rows(path))
        return
    names = columns(first[1])
    prompt, output = (_column(names, known, path, first[0]) for known in (PROMPT, OUTPUT))
    share = next((names.index(name) for name in SHARE if name in names), None)
    for line, text in rows:
        words = text.split(b",")
        if len(words) != len(names):
            raise TraceError(path, line, f"it has {len(words)} values, the header {len(names)}")
        weight = 1.0 if share is None else number(words[share], names[share], path, line)
        if weight > MOST_SHARE:
            raise TraceError(path, line, f"`{names[share or 0]}` is more than {MOST_SHARE:g}")
        sizes = (whole(words[at], names[at], MOST_TOKENS, path, line) for at in (prompt, output))
        yield line, next(sizes), next(sizes), weight


def read_histogram(path: Path) -> Pairs:
    """Raises TraceError."""
    try:
        at = path.stat()
    except OSError as error:
        raise TraceError(path, 0, f"cannot be read: {error.strerror}") from None
    return _read(path, (at.st_mtime_ns, at.st_size))


def _column(names: list[str], known: tuple[str, ...], path: Path, line: int) -> int:
    found = next((names.index(name) for name in known if name in names), None)
    if found is None:
        raise TraceError(
            path,
            line,
            f"there is no column `{known[0]}`",
            f"a histogram has the columns {PROMPT[0]}, {OUTPUT[0]}, and {SHARE[0]} or {SHARE[1]}",
        )
    return found
