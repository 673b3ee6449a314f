"""A rank run as often as is asked for, once more under the profiler where a trace is wanted, and what it measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from ...base.frozen import record
from ..marks import about
from .outcome import Options
from .profiled import traced
from .rank import Key, Rank
from .spans import Span


@record
class Repeats:
    """Medians over the runs, in seconds; `spans` of the last one."""

    wall_s: float
    times: Mapping[Key, float]
    spans: tuple[Span, ...]

    def kept(self, options: Options) -> tuple[Span, ...]:
        """Spans that the first rank is to get."""
        return self.spans if options.trace is not None else ()


def repeated(rank: Rank, options: Options) -> Repeats:
    walls, runs = [], []
    for _ in range(options.repeat):
        walls.append(rank.run())
        runs.append(dict(rank.times))
    spans = tuple(rank.spans)
    if options.trace is not None:
        phase = rank.shards.graph.phase
        own = about(phase, rank.ranks.rank, options.dtype, options.device, options.check)
        traced(rank, options.trace, own)
    times = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return Repeats(statistics.median(walls), times, spans)
