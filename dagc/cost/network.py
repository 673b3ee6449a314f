"""Collectives on a network of levels: which domains a group spans, and what one call costs (alpha-beta).

`payload_B` is always the local input buffer of one call: the shard before an all-gather, the full local buffer of
a reduce-scatter, all-reduce or all-to-all, the message of a send or permute.

Every algorithm is a line in the payload: a latency, and seconds and bytes on the wire for each byte of payload.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import ceil, log2
from typing import Generic, TypeVar

import numpy as np

from ..base.arrays import NDArray
from ..base.collectives import ACROSS
from ..base.frozen import record, replace
from ..ir.groups import GroupShape, Spread
from ..spec.hardware import Link

Links = tuple[Link, ...]
"""Of each level, innermost first."""
Size = TypeVar("Size", float, NDArray[np.float64])


@record
class CollectiveTime(Generic[Size]):
    """Seconds of one call, the algorithm taken, and the bytes that one device puts on the links of each level, innermost
    first: the mean device where domains have equally many ranks. All have the shape of the payload."""

    time_s: Size
    algorithm: str
    level_B: tuple[Size, ...]

    @property
    def node_B(self) -> Size:
        """On the innermost links."""
        return self.level_B[0]

    @property
    def cluster_B(self) -> Size:
        """On all others."""
        total = self.level_B[1]
        for size in self.level_B[2:]:
            total = total + size
        return total


def collective_time(
    kind: str, payload_B: Size, shape: GroupShape, *links: Link, floor: bool = False
) -> CollectiveTime[Size]:
    """Time of one call by the fastest algorithm at this size. `links`: of each level, innermost first. floor: bandwidth terms
    only, no latency.

    An array of payloads gets one algorithm, the fastest at the largest of them, and an array of times.
    """
    if shape.ends is not None:
        return crossing_time(payload_B, shape, *links, floor=floor)
    if shape.ranks == 1:
        return CollectiveTime(0.0 * payload_B, "none", (0.0 * payload_B,) * len(links))
    lines, kept = _prepared(kind, shape, links, floor)
    largest_B = float(np.max(payload_B, initial=0.0)) if isinstance(payload_B, np.ndarray) else payload_B
    options = lines(largest_B)
    best = _fastest(options, largest_B)
    line = options[best]
    sent = dict(zip(kept, line.sent, strict=True))
    level_B = tuple(sent.get(i, 0.0) * payload_B for i in range(len(links)))
    return CollectiveTime(line.at(payload_B), best, level_B)


@lru_cache(maxsize=4096)
def _prepared(kind: str, shape: GroupShape, links: Links, floor: bool) -> tuple[BySize, tuple[int, ...]]:
    """What a transfer can run as, and the levels that it crosses."""
    own, used, kept = _at_bandwidth(shape, links) if floor else spanned(shape, links)
    return ALGORITHMS[kind](own, used), kept


def crossing_time(
    payload_B: Size, shape: GroupShape, *links: Link, floor: bool = False, sent: float = 1.0, received: float = 1.0
) -> CollectiveTime[Size]:
    """Every rank of one set sends to every rank of another, all at once (M2N of MegaScale-Infer, arXiv 2504.02263): the latency
    of the outermost links between, and the time of the slower end on the level that takes longest. `payload_B`: what a rank gets,
    on average; `sent`, `received`: times the mean on the busiest rank of each end."""
    ends = shape.ends
    assert ends is not None
    share = ends.receivers / ends.senders
    leaving, latest = _to_peers(shape, links, ends.near_senders, ends.receivers)
    arriving, _ = _to_peers(shape, links, ends.near_receivers, ends.senders)
    used = _shared_ports(shape, links)
    s_per_B = max(
        share * sent * max(one / link.bandwidth_Bps for one, link in zip(leaving, used, strict=True)),
        received * max(one / link.bandwidth_Bps for one, link in zip(arriving, used, strict=True)),
    )
    latency_s = 0.0 if floor else links[latest].latency_s
    own = [one - leaving[i + 1] if i + 1 < len(links) and links[i + 1].onward else one for i, one in enumerate(leaving)]
    return CollectiveTime(latency_s + s_per_B * payload_B, "m2n", tuple(share * one * payload_B for one in own))


def _to_peers(shape: GroupShape, links: Links, near: tuple[int, ...], peers: int) -> tuple[list[float], int]:
    """Of what a rank exchanges with its peers of the other end, the share that passes each level of links, and the outermost that
    any does. `near`: peers in its domain of each level but the outermost."""
    reached = (*near, peers)
    passing = []
    for i in range(len(links)):
        end = i + 1
        while end < len(links) and links[end].onward:
            end += 1
        passing.append((reached[end - 1] - (reached[i - 1] if i else 0)) / peers)
    return passing, max(i for i in range(len(links)) if i == 0 or reached[i] > reached[i - 1])


def _shared_ports(shape: GroupShape, links: Links) -> Links:
    """The links, those behind NICs that GPUs share as fast as each GPU's part."""
    if shape.sharing == 1:
        return links
    outside = next((i for i, link in enumerate(links) if i and not link.onward), len(links))
    shared = (Link(one.bandwidth_Bps / shape.sharing, one.latency_s, one.onward) for one in links[outside:])
    return (*links[:outside], *shared)


@record
class Network:
    """What a group has beyond the ports of its GPUs, where NICs begin. `domains`: nodes, or NVLink domains of several, that the
    NICs join; `wire_B`: what one GPU sends over them; `link_Bps`: of one GPU, by the level that its bytes take longest on."""

    domains: int
    wire_B: float
    link_Bps: float


def beyond_ports(kind: str, payload_B: float, shape: GroupShape, links: Links) -> Network | None:
    """Of one call; None where the group stays within ports."""
    if shape.nodes == 1:
        return None
    own, used, kept = spanned(shape, links)
    outside = next((i for i, link in enumerate(used) if i and not link.onward), len(used))
    if own.domains[outside - 1] == 1:
        return None
    level_B = collective_time(kind, payload_B, shape, *links).level_B
    beyond_B = [sum(level_B[i] for i in kept[first:]) for first in range(outside, len(used))]
    onward = zip(used[outside + 1 :], beyond_B[1:], strict=True)
    farther = (link.bandwidth_Bps * beyond_B[0] / size for link, size in onward if size)
    slowest = min((used[outside].bandwidth_Bps, *farther))
    return Network(own.domains[outside - 1], beyond_B[0], slowest)


def ports_s(kind: str, payload_B: float, shape: GroupShape, links: Links) -> float:
    """Seconds that the ports of GPUs need for what passes them in one call, whatever the algorithm, of a group that stays within
    ports. Every rank sends its part to every other (all-to-all), or takes in what it lacks, as each inner domain does once; of a
    reduce-scatter backwards. Where switches add, an all-reduce takes its payload once in and once out (`nvls` of NCCL)."""
    n = shape.ranks
    if n == 1 or kind not in WITHIN_PORTS:
        return 0.0
    own, used, _ = spanned(shape, links)
    if kind == "all_to_all":
        return payload_B * _at_once(own, used, n)[0]
    if kind == "all_reduce":
        return payload_B / used[0].bandwidth_Bps
    inner = (1, *own.least) if len(used) > 1 else (1,)
    lacking = max((n - held) / held / link.bandwidth_Bps for held, link in zip(inner, used, strict=True))
    return payload_B * lacking / (n if kind == "reduce_scatter" else 1)


WITHIN_PORTS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
"""Collectives of which `ports_s` says the least."""


@lru_cache(maxsize=1024)
def spanned(shape: GroupShape, links: Links) -> tuple[GroupShape, Links, tuple[int, ...]]:
    """A group on the levels that it crosses alone, their links, and which they are; the innermost is always there. GPUs that
    share a NIC at once divide what it carries."""
    links = _shared_ports(shape, links)
    if not shape.further:
        kept: tuple[int, ...] = (0,) if shape.nodes == 1 else (0, len(links) - 1)
        return shape, tuple(links[i] for i in kept), kept
    touched = shape.domains
    kept = (0, *(i for i in range(1, len(links)) if touched[i] < touched[i - 1]))
    used = [links[0]]
    for before, i in itertools.pairwise(kept):
        onward = all(link.onward for link in links[before + 1 : i + 1])
        used.append(Link(links[i].bandwidth_Bps, links[i].latency_s, onward))
    further = tuple(shape.further[i - 1] for i in kept[1:-1])
    return GroupShape(shape.ranks, shape.per_node, shape.nodes, further), tuple(used), kept


@lru_cache(maxsize=1024)
def _at_bandwidth(shape: GroupShape, links: Links) -> tuple[GroupShape, Links, tuple[int, ...]]:
    """The same of links that have no latency."""
    own, used, kept = spanned(shape, links)
    return own, tuple(Link(link.bandwidth_Bps, 0.0, link.onward) for link in used), kept


@record
class _Line:
    """Cost of one algorithm: seconds at no payload; then, for each byte of payload, seconds and the bytes that a
    device puts on the links of each level."""

    latency_s: float
    s_per_B: float
    sent: tuple[float, ...]

    def at(self, payload_B: Size) -> Size:
        return self.latency_s + self.s_per_B * payload_B

    def of(self, share: float) -> _Line:
        """The same algorithm on `share` bytes for each byte of payload."""
        return _Line(self.latency_s, self.s_per_B * share, tuple(one * share for one in self.sent))

    def then(self, other: _Line) -> _Line:
        """One after the other."""
        return _Line(
            self.latency_s + other.latency_s,
            self.s_per_B + other.s_per_B,
            tuple(a + b for a, b in zip(self.sent, other.sent, strict=True)),
        )

    def on(self, levels: tuple[int, ...], count: int) -> _Line:
        """With its bytes on some of `count` levels."""
        at = dict(zip(levels, self.sent, strict=True))
        return replace(self, sent=tuple(at.get(i, 0.0) for i in range(count)))


Options = Mapping[str, _Line]
BySize = Callable[[float], Options]
"""What a transfer can run as, by payload: algorithms choose others for their parts."""
Algorithms = Callable[[GroupShape, Links], BySize]


def _at_any_size(lines: Callable[[GroupShape, Links], Options]) -> Algorithms:
    """Of algorithms whose lines are the same for every payload: made once for a group and its links."""

    @lru_cache(maxsize=1024)
    def made(shape: GroupShape, links: Links) -> BySize:
        options = lines(shape, links)
        return lambda size: options

    return made


def _fastest(options: Options, size: float) -> str:
    return min(options, key=lambda name: options[name].latency_s + options[name].s_per_B * size)


def _best(options: Options, size: float) -> _Line:
    return options[_fastest(options, size)]


def _flat(shape: GroupShape, links: Links) -> Link:
    """A flat ring's slowest hop: the ranks of a node share its rails, which add up until the node link is slower
    (NCCL's ring channels, one for each rail; bandwidths as in nccl-tests PERFORMANCE.md). All levels of the same ports have
    the same rails."""
    if shape.nodes == 1:
        return links[0]
    least = shape.least
    bandwidth_Bps, rails = links[0].bandwidth_Bps, least[0]
    for i in range(1, len(links)):
        rails = rails if links[i].onward else least[i - 1]
        bandwidth_Bps = min(bandwidth_Bps, rails * links[i].bandwidth_Bps)
    return Link(bandwidth_Bps, links[-1].latency_s)


def _spread(wire: float, hops: tuple[int, ...]) -> tuple[float, ...]:
    """Bytes that the mean device sends over equal hops, so many on each level."""
    total = sum(hops)
    crossing = [wire * each / total for each in hops[1:]]
    return (wire - sum(crossing), *crossing)


def ring_hops(shape: GroupShape) -> tuple[int, ...]:
    """Hops of a closed ring on each level: one out of each domain, and none out of the only one."""
    leaving = [n if n > 1 else 0 for n in shape.domains]
    hops = (shape.ranks - leaving[0], *(a - b for a, b in itertools.pairwise(leaving)))
    return hops if shape.nodes > 1 else hops[:1]


def _tree_hops(shape: GroupShape) -> tuple[int, ...]:
    """Edges of a tree on each level."""
    touched = shape.domains
    hops = (shape.ranks - touched[0], *(a - b for a, b in itertools.pairwise(touched)))
    return hops if shape.nodes > 1 else hops[:1]


def _ring_hops_s(shape: GroupShape, links: Links) -> float:
    """Latency of one trip round a ring of all ranks but one: the hop that is left out is of the innermost level that has any."""
    hops = list(ring_hops(shape))
    hops[next(i for i, count in enumerate(hops) if count)] -= 1
    return sum(count * link.latency_s for count, link in zip(hops, links, strict=True))


def _steps(ranks: int) -> int:
    return ceil(log2(ranks))


def _same_ports(links: Links) -> bool:
    """Whether all ranks reach each other through the ports of one fabric."""
    return all(link.onward for link in links[1:])


def _at_once(shape: GroupShape, links: Links, parts: int) -> tuple[float, tuple[float, ...]]:
    """Every rank sends one of `parts` of its payload to every other, all at once: seconds and bytes on each level, for each
    byte. Ports carry their traffic side by side; what crosses a further level of the same ports passes those inside it."""
    passing, least = [], shape.least
    for i in range(len(links)):
        end = i + 1
        while end < len(links) and links[end].onward:
            end += 1
        reached = shape.ranks if end == len(links) else (shape.per_node, *(s.ranks for s in shape.further))[end - 1]
        passing.append((reached - (least[i - 1] if i else 1)) / parts)
    sent = [
        own - passing[i + 1] if i + 1 < len(links) and links[i + 1].onward else own for i, own in enumerate(passing)
    ]
    moving = max(own / link.bandwidth_Bps for own, link in zip(passing, links, strict=True))
    return moving, tuple(sent)


@lru_cache(maxsize=1024)
def _all_reduce(shape: GroupShape, links: Links) -> BySize:
    """Ring: 2 (n-1) a + 2 (n-1)/n S/BW (nccl-tests PERFORMANCE.md). Recursive halving and doubling: 2 log2(n) a and
    the ring's bytes; pipelined tree: 2 log2(n) a + 2 S/BW (Thakur et al. 2005). One-shot, inside a fabric: a +
    (n-1) S/BW. Reduce-scatter then all-gather, each by its own best. Across domains also reduce-scatter inside,
    all-reduce of S/g on every rail, all-gather inside (Calculon, calculon-ai/calculon, network model)."""
    flat, halves = _flat_all_reduce(shape, links)(0.0), _scatter_then_gather(shape, links)
    if not (shape.nodes > 1 and (shape.per_node > 1 or len(links) > 2)):
        return lambda size: {**flat, "scatter_gather": halves(size)}
    name, inside = "two_level" if len(links) == 2 else "levels", _inside_first(shape, links)
    return lambda size: {**flat, "scatter_gather": halves(size), name: inside(size)}


@_at_any_size
def _flat_all_reduce(shape: GroupShape, links: Links) -> Options:
    """Those that do not choose algorithms for their parts."""
    n, link = shape.ranks, _flat(shape, links)
    wire = 2 * (n - 1) / n
    s_per_B = wire / link.bandwidth_Bps
    out = {
        "ring": _Line(2 * _ring_hops_s(shape, links), s_per_B, _spread(wire, ring_hops(shape))),
        "tree": _Line(2 * _steps(n) * link.latency_s, 2 / link.bandwidth_Bps, _spread(wire, _tree_hops(shape))),
    }
    if n & (n - 1) == 0 and shape.nodes == 1:
        out["halving_doubling"] = _Line(2 * _steps(n) * link.latency_s, s_per_B, (wire,))
    if _same_ports(links):
        out["one_shot"] = _Line(links[-1].latency_s, *_at_once(shape, links, 1))
    return out


def _inside_first(shape: GroupShape, links: Links) -> Callable[[float], _Line]:
    """Reduce-scatter in the innermost domains of several ranks, all-reduce across them, all-gather inside."""
    if shape.per_node > 1:
        inside = GroupShape(shape.per_node, shape.per_node, 1)
        near: tuple[int, ...] = (0,)
        across, far, share = shape.heads(), tuple(range(len(links))), 1 / shape.rails
    else:
        first, rest = shape.further[0], shape.further[1:]
        inside, near = GroupShape(first.inner, 1, first.inner), (0, 1)
        held, spreads = 1, []
        for s in rest:
            held = min(held * s.inner, first.domains - s.domains + 1)
            spreads.append(Spread(s.domains, held, s.inner))
        across, far = GroupShape(first.domains, 1, first.domains, tuple(spreads)), (0, *range(2, len(links)))
        share = 1 / shape.least[1]
    middles = _all_reduce(across, tuple(links[i] for i in far))
    halves = _scatter_then_gather(inside, tuple(links[i] for i in near))
    known: dict[tuple[int, int], tuple[_Line, _Line, _Line]] = {}

    def of(size: float) -> _Line:
        middle, ends = _best(middles(size * share), size * share), halves(size)
        found = known.get((id(middle), id(ends)))
        if found is None:
            made = ends.on(near, len(links)).then(middle.of(share).on(far, len(links)))
            found = known[id(middle), id(ends)] = middle, ends, made
        return found[2]

    return of


def _scatter_then_gather(shape: GroupShape, links: Links) -> Callable[[float], _Line]:
    """The two halves of an all-reduce, each by its fastest algorithm: they cost the same (nccl-tests PERFORMANCE.md)."""
    share = 1 / shape.ranks
    gathers = _gather(shape, links)(0.0)
    both = {name: line.of(share).then(line.of(share)) for name, line in gathers.items()}
    return lambda size: both[_fastest(gathers, size * share)]


@_at_any_size
def _gather(shape: GroupShape, links: Links) -> Options:
    """Ring: (n-1) a + (n-1) shard/BW (nccl-tests PERFORMANCE.md). Direct, inside a fabric: all messages at once, one a.
    Doubling, one rank a node: log2(n) a and the same bytes (Thakur et al. 2005). Else level by level, the outermost first:
    the other domains' shards over the rails, then the rest inside (Calculon, calculon-ai/calculon, network model)."""
    n, link = shape.ranks, _flat(shape, links)
    wire = n - 1.0
    s_per_B = wire / link.bandwidth_Bps
    spread = _spread(wire, ring_hops(shape))
    out = {"ring": _Line(_ring_hops_s(shape, links), s_per_B, spread)}
    if _same_ports(links):
        out["direct"] = _Line(links[-1].latency_s, *_at_once(shape, links, 1))
    if shape.nodes > 1 and shape.per_node == 1:
        out["doubling"] = _Line(_steps(n) * link.latency_s, s_per_B, spread)
    if shape.nodes > 1 and (shape.per_node > 1 or len(links) > 2):
        out["two_level" if len(links) == 2 else "levels"] = _gather_by_levels(shape, links)
    return out


def _gather_by_levels(shape: GroupShape, links: Links) -> _Line:
    n, least, touched = shape.ranks, shape.least, shape.domains
    fans = [s.inner for s in shape.further] + [touched[-2]]
    outer, latency_s, moving, sent = n, 0.0, 0.0, [0.0] * len(links)
    for i in range(len(links) - 1, 0, -1):
        inner = least[i - 1]
        sent[i] = (outer - inner) / inner * (n / outer)
        latency_s += _steps(fans[i - 1]) * links[i].latency_s
        moving += sent[i] / links[i].bandwidth_Bps
        outer = inner
    if shape.per_node > 1:
        sent[0] = n - 1.0 - sum(sent[1:])
        latency_s += links[0].latency_s
        moving += sent[0] / links[0].bandwidth_Bps
    return _Line(latency_s, moving, tuple(sent))


@_at_any_size
def _scatter(shape: GroupShape, links: Links) -> Options:
    """A reduce-scatter is an all-gather of size/n run backwards (nccl-tests PERFORMANCE.md)."""
    share = 1 / shape.ranks
    return {name: line.of(share) for name, line in _gather(shape, links)(0.0).items()}


@_at_any_size
def _all_to_all(shape: GroupShape, links: Links) -> Options:
    """Pairwise, all messages at once: the parts on different ports go side by side, a + the longest
    (bytes: nccl-tests PERFORMANCE.md; all at once: DeepEP, deepseek-ai/DeepEP, low-latency interface)."""
    return {"pairwise": _Line(links[-1].latency_s, *_at_once(shape, links, shape.ranks))}


@_at_any_size
def _message(shape: GroupShape, links: Links) -> Options:
    """One message: a + S/BW of the outermost link that the group crosses (nccl-tests PERFORMANCE.md: factor 1)."""
    sent = (*[0.0] * (len(links) - 1), 1.0)
    return {"direct": _Line(links[-1].latency_s, 1 / links[-1].bandwidth_Bps, sent)}


@_at_any_size
def _handed_out(shape: GroupShape, links: Links) -> Options:
    """One rank sends every other one its part, all messages at once: what a rank of an all-to-all sends
    (bytes: nccl-tests PERFORMANCE.md, scatter: factor (n-1)/n)."""
    return {"direct": _Line(links[-1].latency_s, *_at_once(shape, links, shape.ranks))}


@_at_any_size
def _handed_in(shape: GroupShape, links: Links) -> Options:
    """Every other rank sends one rank all that it has, all messages at once: the same backwards, with the bytes that one takes in."""
    return {"direct": _Line(links[-1].latency_s, *_at_once(shape, links, 1))}


ALGORITHMS: dict[str, Algorithms] = {
    "all_reduce": _all_reduce,
    "all_gather": _gather,
    "reduce_scatter": _scatter,
    "all_to_all": _all_to_all,
    "permute": _message,
    "send": _message,
    "scatter": _handed_out,
    "gather": _handed_in,
    **dict.fromkeys(ACROSS, _message),  # from one rank to one; between sets of ranks: `crossing_time`
}
"""Of each kind of transfer."""
