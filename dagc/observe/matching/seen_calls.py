"""Collectives that a rank called, from its trace."""

from __future__ import annotations

from math import nan

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import record
from ..kernel_classes import EXCHANGE
from ..rank_trace import Call, RankTrace

RENAMED = {"reduce_to_one": "reduce"}
"""Classes of kernels that metadata call otherwise."""


@record
class SeenCall:
    """`elements`, `payload_B`: of this rank's input (NaN: not known); `size`, `ranks`: of the group (0, (): not known). Seconds on the clock of
    the rank, since the origin that `seen_calls` was given. `launched_s`: when the host called it."""

    kind: str
    elements: float
    payload_B: float
    size: int
    ranks: tuple[int, ...]
    start_s: float
    end_s: float
    launched_s: float


def seen_calls(trace: RankTrace, origin_ns: int, inside: NDArray[np.bool_] | None = None) -> list[SeenCall]:
    """In the order in which they began: kernels of exchanges that are `inside`, or where no GPU took part the host's calls."""
    shift_s = (trace.origin_ns - origin_ns) / 1e9
    kernels = trace.kernels
    exchange = np.array([one.part == EXCHANGE for one in trace.classes] or [False])
    out = []
    chosen = exchange[kernels.of] if inside is None else exchange[kernels.of] & inside
    for i in np.flatnonzero(chosen) if len(kernels) else ():
        call = trace.calls[kernels.call[i]] if kernels.call[i] >= 0 else None
        name = trace.classes[kernels.of[i]].name
        start_s, launched_s = float(kernels.start_s[i]), float(kernels.launched_s[i])
        launched_s = start_s if np.isnan(launched_s) else launched_s
        times = (start_s + shift_s, float(kernels.end_s[i]) + shift_s, launched_s + shift_s)
        out.append(_seen(RENAMED.get(name, name), call, *times))
    if out or inside is not None:
        return out
    host = trace.host_calls
    for start_s, time_s, number in zip(host.start_s.tolist(), host.time_s.tolist(), host.call.tolist(), strict=True):
        call = trace.calls[number]
        out.append(_seen(call.kind, call, start_s + shift_s, start_s + time_s + shift_s, start_s + shift_s))
    return out


def _seen(kind: str, call: Call | None, start_s: float, end_s: float, launched_s: float) -> SeenCall:
    if call is None:
        return SeenCall(kind, nan, nan, 0, (), start_s, end_s, launched_s)
    elements = float(call.elements) if call.elements >= 0 else nan
    return SeenCall(kind, elements, call.in_B, call.size, call.ranks, start_s, end_s, launched_s)
