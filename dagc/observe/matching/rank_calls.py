"""What is kept of a rank's trace to be laid beside a plan call by call."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import record
from ...execute.marks import Mark, mark_of
from ..rank_trace import Product, RankTrace
from .seen_calls import SeenCall, seen_calls


@record
class MarkedOp:
    """One execution of an op that the trace names. `number`: of the pass. Seconds as those of `SeenCall`; `took_s`: from its begin to
    its end, or on a GPU of the kernels that were launched in it."""

    mark: Mark
    number: int
    start_s: float
    end_s: float
    took_s: float


@record(slots=False)
class RankCalls:
    """`world`: 0 where the trace does not say. `about`: what a trace of `dagc run` says of itself; of another program it is empty, and so are
    `ops` and `passes`, when each pass began and ended. `products`: seconds of each time that a matrix product of these sizes ran. `on_gpu`: kernels of a GPU, not calls of a host."""

    file: str
    rank: int | None
    world: int
    about: Mapping[str, Any]
    on_gpu: bool
    seen: tuple[SeenCall, ...]
    ops: tuple[MarkedOp, ...]
    products: Mapping[Product, tuple[float, ...]]
    passes: tuple[tuple[float, float], ...]

    @property
    def phase(self) -> str:
        """That `dagc run` names; empty: another program's."""
        found = self.about.get("phase")
        return found if isinstance(found, str) else ""

    @property
    def twin(self) -> bool:
        """Whether the small twin of the phase ran."""
        return bool(self.phase) and self.about.get("twin") is True

    @property
    def run(self) -> tuple[str, bool, str]:
        """What traces of one run have in common."""
        return (self.phase, self.twin, str(self.about.get("dtype", "")) if self.phase else "")


def calls_of(trace: RankTrace, origin_ns: int, inside: NDArray[np.bool_] | None = None) -> RankCalls:
    """`origin_ns`: of the times of all ranks. `inside`: of each kernel, whether it counts; None: all do."""
    shift_s = (trace.origin_ns - origin_ns) / 1e9
    marks, parsed = trace.marks, [mark_of(name) for name in trace.names]
    phase = trace.about.get("phase")
    found: list[tuple[Mark, float, float]] = []
    columns = (marks.start_s.tolist(), marks.time_s.tolist(), marks.name.tolist(), marks.on_gpu.tolist())
    for start, time, name, on_gpu in zip(*columns, strict=True):
        mark = parsed[name]
        if mark is not None and mark.phase == phase and not on_gpu:
            found.append((mark, start + shift_s, start + time + shift_s))
    passes = tuple((start, end) for mark, start, end in found if not mark.op)
    begins = [start for start, _ in passes]
    named = [one for one in found if one[0].op]
    took_s = _took_s(trace, [start - shift_s for _, start, _ in named], [end - shift_s for _, _, end in named])
    ops = (
        MarkedOp(m, max(0, bisect_right(begins, start) - 1), start, end, took)
        for (m, start, end), took in zip(named, took_s, strict=True)
    )
    return RankCalls(
        trace.path.name, trace.rank, trace.world, trace.about, len(trace.kernels) > 0,
        tuple(seen_calls(trace, origin_ns, inside)), tuple(ops), _products(trace), passes,
    )  # fmt: skip


def _took_s(trace: RankTrace, starts: Sequence[float], ends: Sequence[float]) -> list[float]:
    begin, end, kernels = np.array(starts), np.array(ends), trace.kernels
    if not len(kernels) or not starts:
        found: list[float] = (end - begin).tolist()
        return found
    launched = np.where(np.isnan(kernels.launched_s), kernels.start_s, kernels.launched_s)
    at = np.searchsorted(begin, launched, side="right") - 1
    inside = (at >= 0) & (launched <= end[np.maximum(at, 0)])
    sums: list[float] = np.bincount(at[inside], weights=kernels.time_s[inside], minlength=len(starts)).tolist()
    return sums


def _products(trace: RankTrace) -> dict[Product, tuple[float, ...]]:
    found: dict[Product, list[float]] = {}
    for number, time_s in zip(trace.products.of.tolist(), trace.products.time_s.tolist(), strict=True):
        found.setdefault(trace.products.sizes[number], []).append(time_s)
    return {product: tuple(times) for product, times in found.items()}
