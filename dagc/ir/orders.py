"""Ways to deal out GPUs to the ranks of a mesh, over the domains of links that the GPUs are in.

Ranks have coordinates along dimensions (stages, then the atoms of the mesh). A *way* cuts the dimensions into digits and puts
these in an order; ranks take the GPUs as they count in it. What decides what a way costs is which digits lie inside a domain: of
ways that put the same there one is enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record

Ints = NDArray[np.int64]
Digit = tuple[int, int]
"""(dimension, size): a digit of the coordinate along a dimension. Of several of one dimension the outer one counts first."""
Domains = Sequence[tuple[str, int]]
"""Levels whose domains do not join all GPUs, innermost first: what it is called, and how many GPU ids a domain has."""
SMALL = 6
"""GPUs up to which every assignment of GPUs to ranks is a way."""


@record
class Way:
    """`digits`: outermost first. `gpus`: in the order in which they are dealt out. `levels`: digits inside a domain of each level,
    innermost first, without those of the levels inside it, and what the level is called; none where digits and domains do not
    end together."""

    digits: tuple[Digit, ...]
    gpus: tuple[int, ...]
    levels: tuple[tuple[str, tuple[Digit, ...]], ...] = ()

    def ids(self) -> tuple[int, ...]:
        """The GPU of every rank, ranks counted by the dimensions; made anew, as there may be thousands of ways."""
        order = sorted(range(len(self.digits)), key=lambda i: self.digits[i][0])  # digits of a dimension stay in order
        dealt = np.arange(len(self.gpus)).reshape([size for _, size in self.digits])
        return tuple(np.asarray(self.gpus, dtype=np.int64)[dealt.transpose(order).ravel()].tolist())

    def inside(self, dims: frozenset[int]) -> tuple[int, ...]:
        """Ranks of a group over some dimensions that each level adds to a domain, innermost first."""
        return tuple([prod([size for dim, size in digits if dim in dims]) for _, digits in self.levels])


def ways(
    dims: Sequence[int],
    gpus: Sequence[int],
    domains: Domains,
    outermost: Sequence[int] = (),
    nics: tuple[int, int] | None = None,
) -> Iterator[Way]:
    """Every way that differs, lazily. `dims`: sizes of the dimensions, whose product is the number of GPUs; `outermost`: in which
    order they are inside a domain, where any will do (default: as given); `nics`: (NICs, GPUs that have so many)."""
    sizes, in_order = tuple(dims), sorted(gpus)
    counts = even_counts(in_order, domains)
    if counts is not None:
        yield from aligned(sizes, in_order, counts, outermost or range(len(sizes)))
    if len(in_order) <= SMALL:
        whole = tuple((dim, size) for dim, size in enumerate(sizes))
        yield from (Way(whole, found) for found in assignments(in_order, domains, nics))
    else:
        yield from crossing(sizes, in_order, domains, counts)


def even_counts(gpus: Sequence[int], domains: Domains) -> tuple[tuple[str, int], ...] | None:
    """GPUs in each domain of each level, and all of them, innermost first, where they are more than in the level before; None
    where domains of one level have unequally many."""
    counts: list[tuple[str, int]] = []
    ids = np.asarray(gpus, dtype=np.int64)
    for name, size in (*domains, ("", max(gpus) + 1)):
        held = np.bincount(ids // size)
        held = held[held > 0]
        if (held != held[0]).any():
            return None
        if int(held[0]) > (counts[-1][1] if counts else 1):
            counts.append((name, int(held[0])))
    return tuple(counts)


def aligned(
    dims: tuple[int, ...], gpus: Sequence[int], counts: Sequence[tuple[str, int]], outermost: Sequence[int]
) -> Iterator[Way]:
    """Ways that fill the domains of every level with whole digits."""
    ratios = [outer // inner for inner, outer in itertools.pairwise((1, *(count for _, count in counts)))]
    dealt = tuple(gpus)

    def fill(left: tuple[int, ...], level: int) -> Iterator[tuple[tuple[Digit, ...], ...]]:
        if level == len(ratios):
            yield ()
            return
        for parts in factors(left, ratios[level]):
            digits = tuple((dim, parts[dim]) for dim in outermost if parts[dim] > 1)
            rest = tuple(a // b for a, b in zip(left, parts, strict=True))
            for outer in fill(rest, level + 1):
                yield (digits, *outer)

    for levels in fill(dims, 0):
        digits = tuple(digit for level in reversed(levels) for digit in level)
        yield Way(digits, dealt, tuple((name, own) for (name, _), own in zip(counts, levels, strict=True)))


def factors(left: tuple[int, ...], product: int) -> Iterator[tuple[int, ...]]:
    """Divisors, one of each number, with a product; those that take most of the last numbers first."""
    if not left:
        if product == 1:
            yield ()
        return
    *before, last = left
    for size in range(min(last, product), 0, -1):
        if last % size == 0 and product % size == 0:
            for parts in factors(tuple(before), product // size):
                yield (*parts, size)


def assignments(
    gpus: Sequence[int], domains: Domains, nics: tuple[int, int] | None = None
) -> Iterator[tuple[int, ...]]:
    """Every order of the GPUs that puts other domains, or another NIC, at some rank."""
    count, among = nics or (0, 1)
    seen: set[tuple[tuple[int, ...], ...]] = set()
    for order in itertools.permutations(gpus):
        where = tuple((*(gpu // size for _, size in domains), gpu * count // among) for gpu in order)
        if where not in seen:
            seen.add(where)
            yield order


def crossing(
    dims: tuple[int, ...], gpus: Sequence[int], domains: Domains, counts: Sequence[tuple[str, int]] | None
) -> Iterator[Way]:
    """Permutations of whole dimensions that put some of them across a domain's end, over several orders of unequal domains."""
    long = [(dim, size) for dim, size in enumerate(dims) if size > 1]
    deals = [tuple(gpus)] if counts is not None else list(uneven_deals(gpus, [size for _, size in domains]))
    for order in itertools.permutations(reversed(long)):
        if counts is not None and not _crosses(order, [count for _, count in counts]):
            continue  # is one of the aligned ones
        for deal in deals:
            yield Way(tuple(reversed(order)), deal)


def _crosses(inner_first: Sequence[Digit], counts: Sequence[int]) -> bool:
    """Whether a domain ends inside a dimension in a way that whole digits do not have."""
    stride = 1
    for _, size in inner_first:
        for count in counts:
            if stride < count < stride * size and (count % stride or size % (count // stride)):
                return True
        stride *= size
    return False


def uneven_deals(gpus: Sequence[int], domains: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Orders of GPUs of unequal domains: by id, the fullest domains first, and each of these begun at the end of a domain."""
    held = [dict(zip(*_counted(gpus, size), strict=True)) for size in domains]

    def fullest(gpu: int) -> tuple[tuple[int, int], ...]:
        return tuple((-held[i][gpu // domains[i]], gpu // domains[i]) for i in reversed(range(len(domains))))

    seen: set[tuple[int, ...]] = set()
    for order in (list(gpus), sorted(gpus, key=lambda gpu: (*fullest(gpu), (0, gpu)))):
        ends = (
            [i for i in range(1, len(order)) if order[i - 1] // domains[0] != order[i] // domains[0]] if domains else []
        )
        for start in (0, *ends[:3], *ends[3:][-1:]):
            deal = (*order[start:], *order[:start])
            if deal not in seen:
                seen.add(deal)
                yield deal


def _counted(gpus: Sequence[int], size: int) -> tuple[list[int], list[int]]:
    counts: dict[int, int] = {}
    for gpu in gpus:
        counts[gpu // size] = counts.get(gpu // size, 0) + 1
    return list(counts), list(counts.values())


def shares(ids: Sequence[int], dims: Sequence[int], domain: int) -> tuple[int, ...] | None:
    """Ranks along each dimension that a domain of so many GPU ids has, of GPUs by rank; None where that is not the same anywhere."""
    where = np.asarray(ids, dtype=np.int64).reshape(tuple(dims)) // domain
    out = []
    for dim, size in enumerate(dims):
        rows = np.sort(np.moveaxis(where, dim, -1).reshape(-1, size), axis=1)
        touched = 1 + (rows[:, 1:] != rows[:, :-1]).sum(axis=1)
        if (touched != touched[0]).any() or size % touched[0]:
            return None
        out.append(size // int(touched[0]))
    return tuple(out)
