"""moved_experts: placements of experts over time, and what moves from one to the next.

Which rank gets which of the new sets of experts is free: sets go where most of their experts are already (greedy by what is kept, over the ranks of a
node where groups of experts stay on nodes), never with more that moves than if they were dealt out in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from .expert_placement import place_layers

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CELLS = 2**18
"""Ranks times experts that are looked at together."""


@record
class Moves:
    """Experts that ranks get in new placements [..., layers, ranks]: those that a rank of their node had, and those that none had there."""

    inside: Ints
    across: Ints


def placements(
    loads: Floats, ranks: int, spare: int, groups: int = 1, nodes: int = 1, how: str = "eplb", once: bool = False
) -> Ints:
    """The expert in each slot [periods - 1, layers, ranks, slots]: in a period experts are where the loads of the one before put them. `loads` [periods,
    layers, experts]; `once`: as in the first of these, always."""
    periods, layers, experts = loads.shape
    by_node = 1 < nodes < groups + 1 and not (groups % nodes or spare % nodes or ranks % nodes)
    placed = loads[:1] if once else loads[:-1]
    found = place_layers(placed.reshape(-1, experts), ranks, spare, groups, nodes, how)
    found = found.reshape(len(placed), layers, ranks, -1)
    if once:
        return np.asarray(np.broadcast_to(found, (periods - 1, *found.shape[1:])))
    return kept_close(found, experts, nodes if by_node else 1)


def kept_close(sets: Ints, experts: int, nodes: int = 1) -> Ints:
    """The same sets of experts [placements, layers, ranks, slots] on other ranks, so that few have to move from one placement to the next. The
    first stay as they are. `nodes`: sets stay on theirs."""
    out = sets.copy()
    for layer in range(sets.shape[1]):
        own = np.ascontiguousarray(sets[:, layer])
        np.put_along_axis(out[:, layer], _targets(own, experts, nodes)[:, :, None], own, axis=1)
    return out


def _targets(sets: Ints, experts: int, nodes: int) -> Ints:
    """Of each set of one layer the rank that gets it [placements, ranks]: pairs of a set and a rank in the order of what they have in common, of equal ones
    the first set, then the first rank."""
    ranks = sets.shape[1]
    node = (np.arange(ranks) * nodes // ranks).tolist()
    apart = np.not_equal.outer(node, node)
    square = ranks * ranks
    found = [list(range(ranks))]
    for common in _common(sets, experts):
        before = found[-1]  # the rank of each set of the last placement
        at = np.array(before)
        order = np.empty_like(common)
        order[:, at] = common
        if nodes > 1:
            order[apart] = 0
        plain = int(order.trace())
        key = order.size - 1 - np.arange(square).reshape(ranks, ranks) + order * square
        some = np.sort(key[order > 0])[::-1]
        target, taken, kept = [-1] * ranks, [False] * ranks, 0
        for value in some.tolist():
            worth, place = divmod(value, square)
            new, old = divmod(square - 1 - place, ranks)
            if target[new] < 0 and not taken[old]:
                target[new], taken[old] = old, True
                kept += worth
        if kept <= plain:
            found.append(list(range(ranks)))
            continue
        for part in range(nodes):  # what has nothing in common with any rank that is left
            free = [rank for rank in range(ranks) if not taken[rank] and node[rank] == part]
            for new, old in zip((n for n in range(ranks) if target[n] < 0 and node[n] == part), free, strict=True):
                target[new] = old
        found.append(target)
    return np.array(found)


def _common(sets: Ints, experts: int) -> Iterator[Ints]:
    """Of every placement but the first: experts that each of its sets has in common with each of the placement before [ranks, ranks]."""
    step = max(1, CELLS // (sets.shape[1] * experts))
    for first in range(0, len(sets) - 1, step):
        own = held(sets[first : first + step + 1], experts).astype(np.float32)
        yield from np.matmul(own[1:], own[:-1].transpose(0, 2, 1)).astype(np.int64)


def held(slots: Ints, experts: int) -> Ints:
    """[..., ranks, experts]: 1 where a rank has an expert."""
    out = np.zeros((*slots.shape[:-1], experts), dtype=np.int64)
    np.put_along_axis(out, slots, 1, axis=-1)
    return out


def moves(before: Ints, after: Ints, experts: int, nodes: int = 1) -> Moves:
    """What ranks get that they had not [..., layers, ranks], of slots [..., layers, ranks, slots]."""
    had, has = held(before, experts), held(after, experts)
    *lead, ranks, _ = had.shape
    new = has * (1 - had)
    near = had.reshape(*lead, nodes, ranks // nodes, experts).max(axis=-2).repeat(ranks // nodes, axis=-2)
    return Moves((new * near).sum(axis=-1), (new * (1 - near)).sum(axis=-1))


def moves_between(placed: Ints, experts: int, nodes: int = 1) -> Moves:
    """From each placement to the next [placements - 1, layers, ranks]."""
    step = max(1, CELLS // (placed[0, :, :, 0].size * experts))
    some = [placed[k : k + step + 1] for k in range(0, len(placed) - 1, step)]
    found = [moves(own[:-1], own[1:], experts, nodes) for own in some]
    return Moves(np.concatenate([each.inside for each in found]), np.concatenate([each.across for each in found]))
