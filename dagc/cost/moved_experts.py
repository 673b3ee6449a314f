"""moved_experts: placements of experts over time, and what moves from one to the next.

Which rank gets which of the new sets of experts is free: sets go where most of their experts are already (greedy by what is kept, over the ranks of a
node where groups of experts stay on nodes), never with more that moves than if they were dealt out in order."""

from __future__ import annotations

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from .expert_placement import place_layers

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@record
class Moves:
    """Experts that ranks get in one new placement [layers, ranks]: those that a rank of their node had, and those that none had there."""

    inside: Ints
    across: Ints


def placements(
    loads: Floats, ranks: int, spare: int, groups: int = 1, nodes: int = 1, how: str = "eplb", once: bool = False
) -> Ints:
    """The expert in each slot [periods - 1, layers, ranks, slots]: in a period experts are where the loads of the one before put them. `loads` [periods,
    layers, experts]; `once`: as in the first of these, always."""
    first = place_layers(loads[0], ranks, spare, groups, nodes, how)
    found = [first]
    by_node = 1 < nodes < groups + 1 and not (groups % nodes or spare % nodes or ranks % nodes)
    for before in loads[1:-1]:
        last = found[-1]
        found.append(
            last
            if once
            else kept_close(
                place_layers(before, ranks, spare, groups, nodes, how), last, loads.shape[2], nodes if by_node else 1
            )
        )
    return np.stack(found)


def held(slots: Ints, experts: int) -> Ints:
    """[layers, ranks, experts]: 1 where a rank has an expert."""
    out = np.zeros((*slots.shape[:2], experts), dtype=np.int64)
    np.put_along_axis(out, slots, 1, axis=2)
    return out


def kept_close(slots: Ints, before: Ints, experts: int, nodes: int = 1) -> Ints:
    """The same sets of experts on other ranks, so that few have to move. `nodes`: sets stay on theirs."""
    layers, ranks, _ = slots.shape
    common = np.einsum("lne,lme->lnm", held(slots, experts), held(before, experts))
    plain = np.trace(common, axis1=1, axis2=2)
    if nodes > 1:
        node = np.arange(ranks) * nodes // ranks
        common = np.where(node[:, None] == node[None, :], common, -1)
    left = common.copy()
    target = np.zeros((layers, ranks), dtype=np.int64)  # of each new set the rank that gets it
    row = np.arange(layers)
    for _ in range(ranks):
        new, old = np.divmod(left.reshape(layers, -1).argmax(axis=1), ranks)
        target[row, new] = old
        left[row, new, :] = -2
        left[row, :, old] = -2
    kept = np.take_along_axis(common, target[:, :, None], axis=2)[:, :, 0]
    better = (kept.sum(axis=1) > plain) & (kept >= 0).all(axis=1)
    target[~better] = np.arange(ranks)
    out = np.empty_like(slots)
    np.put_along_axis(out, target[:, :, None], slots, axis=1)
    return out


def moves(before: Ints, after: Ints, experts: int, nodes: int = 1) -> Moves:
    """What ranks get that they had not."""
    had, has = held(before, experts), held(after, experts)
    layers, ranks, _ = had.shape
    new = has * (1 - had)
    near = had.reshape(layers, nodes, ranks // nodes, experts).max(axis=2).repeat(ranks // nodes, axis=1)
    return Moves((new * near).sum(axis=2), (new * (1 - near)).sum(axis=2))
