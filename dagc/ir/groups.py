"""Where the ranks of a group sit: in how many domains of each level of links, and how many of them in one."""

from __future__ import annotations

import itertools

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record

Ints = NDArray[np.int64]


@record
class Spread:
    """Of one level of links beyond the node: the domains touched, the most ranks in one of them, and the most domains of
    the next inner level in one of them."""

    domains: int
    ranks: int
    inner: int


@record
class Ends:
    """Ranks of which each sends to each of another set. `near_senders`, `near_receivers`: of the rank that has fewest, the ranks
    of the other end in its domain of each level of links but the outermost, innermost first: of a sender, and of a receiver."""

    senders: int
    receivers: int
    near_senders: tuple[int, ...]
    near_receivers: tuple[int, ...]


@record
class GroupShape:
    """`ranks` in all; the most ranks on one node; the nodes touched. A node is a domain of the innermost links; `further`: the
    levels between those and the outermost links, which join all. `sharing`: the most GPUs that use one NIC at once when all
    groups alike communicate. `ends`: where one part of the ranks sends to the other."""

    ranks: int
    per_node: int
    nodes: int
    further: tuple[Spread, ...] = ()
    sharing: int = 1
    ends: Ends | None = None

    @property
    def rails(self) -> int:
        """Most ranks that the emptiest node can have: the rails its bytes leave by. `per_node` when nodes are equal."""
        return _emptiest(self.ranks, self.per_node, self.nodes)

    @property
    def least(self) -> tuple[int, ...]:
        """The same of a domain of each level but the outermost, innermost first."""
        return (self.rails, *(_emptiest(self.ranks, s.ranks, s.domains) for s in self.further))

    @property
    def domains(self) -> tuple[int, ...]:
        """Domains touched of each level, innermost first; the outermost links have one."""
        return (self.nodes, *(s.domains for s in self.further), 1)

    def heads(self) -> GroupShape:
        """One rank of each node. Where domains are unequal, no fewer nodes in the fullest than it has."""
        if not self.further:
            return GroupShape(self.nodes, 1, self.nodes)
        held, spreads = 1, []
        for s in self.further:
            held = min(held * s.inner, self.nodes - s.domains + 1)
            spreads.append(Spread(s.domains, held, s.inner))
        return GroupShape(self.nodes, 1, self.nodes, tuple(spreads))


def _emptiest(ranks: int, fullest: int, domains: int) -> int:
    return fullest if domains == 1 else (ranks - fullest) // (domains - 1)


def group_shape(
    ids: NDArray[np.int64], per_node: int, beyond: tuple[int, ...] = (), nics: tuple[int, int] | None = None
) -> GroupShape:
    """The slowest shape among groups (`ids` [groups, ranks] of GPU ids): the most domains, of the outermost level first, and
    among those groups the most ranks in one. `beyond`: GPUs in a domain of each level but the node's and the outermost;
    `nics`: of so many GPUs so many NICs, where GPUs share them."""
    nodes = np.sort(np.asarray(ids) // per_node, axis=1)
    starts = _starts(nodes)
    touched = starts.sum(axis=1)
    most = int(touched.max())
    size = nodes.shape[1]
    if most == 1:
        return GroupShape(size, size, 1)
    sharing = 1 if nics is None else _sharing(np.asarray(ids)[touched > 1], *nics)
    if not beyond:
        worst = starts[touched == most]
        return GroupShape(size, int(_runs(worst).max()), most, (), sharing)
    levels = [starts, *(_starts(np.sort(np.asarray(ids) // gpus, axis=1)) for gpus in beyond)]
    kept = np.ones(len(nodes), dtype=bool)
    for level in reversed(levels):
        touched = np.where(kept, level.sum(axis=1), 0)
        kept &= touched == touched.max()
    levels = [level[kept] for level in levels]
    spreads = [
        Spread(int(outer.sum(axis=1).max()), int(_runs(outer).max()), int(_held(inner, outer).max()))
        for inner, outer in itertools.pairwise(levels)
    ]
    return GroupShape(size, int(_runs(starts[kept]).max()), int(levels[0].sum(axis=1).max()), tuple(spreads), sharing)


def _starts(domains: Ints) -> NDArray[np.bool_]:
    """Where another domain begins in rows of sorted domains."""
    starts = np.ones(domains.shape, dtype=bool)
    starts[:, 1:] = domains[:, 1:] != domains[:, :-1]
    return starts


def _runs(starts: NDArray[np.bool_]) -> Ints:
    """Ranks of each domain touched."""
    return np.diff(np.append(np.flatnonzero(starts.ravel()), starts.size))


def _held(inner: NDArray[np.bool_], outer: NDArray[np.bool_]) -> Ints:
    """Domains of the inner level in each domain of the outer one."""
    return np.add.reduceat(inner.ravel().astype(np.int64), np.flatnonzero(outer.ravel()))


def _sharing(ids: Ints, count: int, gpus: int) -> int:
    """The most GPUs that use one NIC; neighbours share one."""
    used = np.sort(ids.ravel() * count // gpus)
    return int(_runs(_starts(used[None])).max())


def between(
    senders: Ints, receivers: Ints, per_node: int, beyond: tuple[int, ...] = (), nics: tuple[int, int] | None = None
) -> GroupShape:
    """The shape of two sets of ranks in every stage (ids [stages, ranks]), of which the one sends to the other."""
    whole = group_shape(np.concatenate([senders, receivers], axis=1), per_node, beyond)
    near = [_near(senders // size, receivers // size) for size in (per_node, *beyond)]
    ends = Ends(senders.shape[1], receivers.shape[1], tuple(of[0] for of in near), tuple(of[1] for of in near))
    sharing = 1
    if nics is not None and whole.nodes > 1:  # ports carry both directions at once
        sharing = max(_sharing(stage, *nics) for end in (senders, receivers) for stage in end)
    return GroupShape(whole.ranks, whole.per_node, whole.nodes, whole.further, sharing, ends)


def _near(senders: Ints, receivers: Ints) -> tuple[int, int]:
    """The fewest receivers in the domain of a sender, and the fewest senders in that of a receiver."""
    stages = list(zip(senders, receivers, strict=True))
    return min(_fewest(one, other) for one, other in stages), min(_fewest(other, one) for one, other in stages)


def _fewest(domains: Ints, others: Ints) -> int:
    """Of some ranks the fewest others that are in one's domain."""
    found = np.sort(others)
    return int((np.searchsorted(found, domains, "right") - np.searchsorted(found, domains, "left")).min())
