"""How long the simulator takes for the collectives of a phase, and with which algorithms and links it comes nearest to their prices.

In its analytical backend (congestion unaware) a message takes latency + bytes / bandwidth of the outermost links between its ends,
whatever else is on the way, so a collective is a sum of messages that wait for one another:

    ring       2 (n-1) messages of S/n for an all-reduce, n-1 of S/n for a reduce-scatter, n-1 of S for an all-gather, hop by hop
    halving    log2(n) messages: S/2, S/4, .. to partners at distance 1, 2, 4, ..; an all-gather the other way round, an all-reduce both
    direct     one round of messages to all others at once (an all-reduce two): bandwidth is charged once, not n-1 times
    direct1    an all-to-all's n-1 messages of S/n one after the other

One algorithm serves all groups of a kind of collective, so the one is taken by which their times together come nearest. Where prices
are of measured kernels, links are fitted to them too: as least squares of relative errors, weighted by time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import log2

import numpy as np

from ...base.arrays import NDArray
from ...base.frozen import record
from ...cost.records import Transfer
from ...ir.op import Op
from ...ir.segment import Segment
from ...plan.result import PhaseResult
from ...plan.step_totals import called, edge_between, passes
from ...plan.trained import TrainingResult
from ...spec.hardware import Hardware, Link
from .layer_nodes import comm_size
from .ranks import Ints, Network, Placed, Ranks
from .trace_rows import message_size

Floats = NDArray[np.float64]

RING, HALVING, DIRECT, DIRECT_1 = "oneRing", "oneHalvingDoubling", "oneDirect", "oneDirect1"
"""As the simulator calls them: over all dimensions at once, so that they hold for groups of any size."""
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "all_reduce": (RING, HALVING, DIRECT),
    "all_gather": (RING, HALVING, DIRECT),
    "reduce_scatter": (RING, HALVING, DIRECT),
    "all_to_all": (DIRECT_1, DIRECT),
}
WIDEST = 4.0
"""A fitted link has at most so many times the bandwidth that the spec gives it."""


@record(slots=False)
class Call:
    """A collective, or a message (`send`), as often as a phase makes it. `places`: of the members of one group in the order in
    which the simulator has them, or of the two ends."""

    kind: str
    places: Ints
    size_B: float
    priced_s: float
    count: int


@record(slots=False)
class Simulated:
    """Algorithms by kind of collective, and the links of each dimension of the network."""

    algorithms: Mapping[str, str]
    links: tuple[Link, ...]


def nearest(result: Placed, ranks: Ranks, hardware: Hardware, links: tuple[Link, ...]) -> Simulated:
    """The algorithms, and where the hardware names a calibration the links, whose times come nearest to the prices. `links`: of
    each dimension by the spec."""
    calls = [*_calls(result, ranks)]
    kinds = sorted({call.kind for call in calls} - {"send"})
    priced_s = np.asarray([call.priced_s for call in calls])
    counts = np.asarray([call.count for call in calls], dtype=np.float64)
    options = [[a for a in ALGORITHMS[kind] if a != HALVING or _halves(kind, calls)] for kind in kinds]
    best: tuple[float, Simulated] | None = None
    for choice in itertools.product(*options):
        taken = dict(zip(kinds, choice, strict=True))
        lines = np.asarray([line(call, taken.get(call.kind, ""), ranks.network) for call in calls])
        found = fitted(lines, priced_s, counts, links) if hardware.calibration is not None and calls else links
        off_s = float(counts @ np.abs(lines @ _costs(found) - priced_s)) if calls else 0.0
        if best is None or off_s < best[0] * (1 - 1e-9):
            best = off_s, Simulated({kind: ALGORITHMS[kind][0] for kind in ALGORITHMS} | taken, found)
    assert best is not None
    return best[1]


def _halves(kind: str, calls: list[Call]) -> bool:
    """Whether all groups of a kind have a power of two of ranks."""
    return all(len(call.places) & (len(call.places) - 1) == 0 for call in calls if call.kind == kind)


def _costs(links: tuple[Link, ...]) -> Floats:
    """Seconds of a latency, and then of a byte, on each dimension."""
    return np.asarray([link.latency_s for link in links] + [1 / link.bandwidth_Bps for link in links])


def line(call: Call, algorithm: str, network: Network) -> Floats:
    """Latencies of each dimension that a call waits for, and then bytes."""
    n, out = len(call.places), np.zeros(2 * len(network.shape))
    where = np.stack(np.unravel_index(call.places, network.shape))

    def add(a: Ints, b: Ints, times: float, message_B: float) -> None:
        """Messages between members: the mean of their dimensions."""
        dims = np.bincount(_crossed(where[:, a], where[:, b]), minlength=len(network.shape)) / len(a) * times
        out[: len(dims)] += dims
        out[len(dims) :] += dims * message_B

    all_n = np.arange(n)
    passes = 2 if call.kind == "all_reduce" else 1
    message_B = call.size_B if call.kind in ("all_gather", "send") else call.size_B / n
    if call.kind == "send":
        add(all_n[:1], all_n[1:], 1.0, message_B)
    elif algorithm == RING:
        add(all_n, np.roll(all_n, -1), passes * (n - 1), message_B)
    elif algorithm == HALVING:
        for step in range(round(log2(n))):
            add(all_n, all_n ^ (1 << step), passes, message_B * (n >> (step + 1)))
    elif algorithm == DIRECT_1:
        for step in range(1, n):
            add(all_n, np.roll(all_n, -step), 1.0, message_B)
    else:
        outermost = np.asarray([_crossed(where[:, :1], where[:, k : k + 1])[0] for k in range(1, n)])
        last = int(np.argmin(outermost)) + 1
        add(all_n[:1], all_n[last : last + 1], passes, message_B)
    return out


def _crossed(a: Ints, b: Ints) -> Ints:
    """The first dimension in which places differ."""
    first: Ints = np.argmax(a != b, axis=0)
    return first


def fitted(lines: Floats, priced_s: Floats, counts: Floats, links: tuple[Link, ...]) -> tuple[Link, ...]:
    """Links by which the lines come nearest to the prices; those that nothing crosses stay."""
    weights = np.sqrt(counts / priced_s)
    least = np.concatenate([np.zeros(len(links)), [1 / (WIDEST * link.bandwidth_Bps) for link in links]])
    rows, wanted = lines * weights[:, None], (priced_s - lines @ least) * weights
    used = np.flatnonzero(lines.any(axis=0))
    best, found = np.inf, np.zeros(len(least))
    for count in range(len(used) + 1):
        for chosen in itertools.combinations(used, count):
            own = np.zeros(len(least))
            own[[*chosen]] = np.linalg.lstsq(rows[:, chosen], wanted, rcond=None)[0] if chosen else 0.0
            off = float(np.sum((rows @ own - wanted) ** 2))
            if (own >= 0).all() and off < best * (1 - 1e-9):
                best, found = off, own
    found += least
    used_here = [bool(lines[:, k].any()) for k in range(len(links))]
    return tuple(
        Link(1 / found[len(links) + k], float(found[k]), link.onward) if used_here[k] else link
        for k, link in enumerate(links)
    )


def _calls(result: Placed, ranks: Ranks) -> Iterator[Call]:
    counts = _step_counts(result) if isinstance(result, TrainingResult) else _pass_counts(result)
    for segment in result.graph.segments:
        for op in segment.ops:
            if op.is_collective:
                yield from _op(result, ranks, segment, op, counts[segment.name, op.name])
    places = ranks.network.places
    for source, target, count, edge in _messages(result):
        ends = np.stack([places[ranks.number[source].ravel()], places[ranks.number[target].ravel()]])
        where = np.stack(np.unravel_index(ends, ranks.network.shape))
        farthest = int(np.argmin(_crossed(where[:, 0], where[:, 1])))
        yield Call("send", ends[:, farthest], message_size(edge.payload_B), edge.time_s, count)


def _pass_counts(result: PhaseResult) -> Counter[tuple[str, str]]:
    """How often each (segment, op) runs, over all stages."""
    graph = result.graph
    layers: Counter[str] = Counter()
    for stage in graph.stages:
        for name, count in stage.layers:
            layers[name] += count * graph.microbatches * graph.lanes
    return Counter({(s.name, op.name): layers[s.name] for s in graph.segments for op in s.ops})


def _step_counts(result: TrainingResult) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for stage in range(result.steps.schedule.gpus):
        for segment, op, calls in called(result, stage):
            found[segment.name, op.name] += calls
    return found


def _messages(result: Placed) -> Iterator[tuple[int, int, int, Transfer]]:
    """(stage, next one, messages between equal ranks, what each of them sends)."""
    if isinstance(result, TrainingResult):
        for route in result.steps.schedule.routes:
            for k, (here, there) in enumerate(pairwise(route.seats)):
                both = [edge_between(result.costs, here, there, k, back=back) for back in (False, True)]
                if here.gpu != there.gpu and both[0] == both[1]:
                    yield here.gpu, there.gpu, 2 * passes(result), both[0]
                elif here.gpu != there.gpu:
                    yield from ((here.gpu, there.gpu, passes(result), edge) for edge in both)
    else:
        times = result.graph.microbatches * result.graph.lanes
        yield from ((source, source + 1, times, edge) for source, edge in enumerate(result.costs.edges))


def _op(result: Placed, ranks: Ranks, segment: Segment, op: Op, count: int) -> Iterator[Call]:
    cost = result.costs.ops[segment.name, op.name]
    priced_s = float(cost.time_s.max())
    if op.runtime_kind == "permute" or priced_s <= 0:
        return
    yield Call(op.runtime_kind, ranks.widest(op), comm_size(result, segment, op), priced_s, count)
