"""expert_placement: which experts each rank has, by the loads of the experts.

Equally many slots a rank, no two copies of one expert on a rank:

    linear    as they are numbered; spare copies are of the first experts, numbered on
    eplb      greedy, as deepseek-ai/EPLB places them: the default of phases with spare copies
    balanced  as `expert_balance` finds it, never a busier busiest rank than linear

Where nodes divide `groups` of experts and the spare slots, groups first go to `nodes` (of consecutive ranks), so that a token that may
use few groups reaches few nodes (EPLB's hierarchical placement).
"""

from __future__ import annotations

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@record
class ExpertPlacement:
    """`slots` [ranks, slots a rank]: the expert in each slot. `load` [ranks]: expected choices of one token that
    land on each rank (they add up to top_k)."""

    slots: Ints
    load: Floats


def place_experts(
    p: Floats, ranks: int, redundant: int, groups: int = 1, nodes: int = 1, how: str = ""
) -> ExpertPlacement:
    """One layer of `place_layers`. `p` [experts]."""
    slots = place_layers(p[None], ranks, redundant, groups, nodes, how)[0]
    return ExpertPlacement(slots, rank_loads(p[None], slots[None])[0])


def place_layers(p: Floats, ranks: int, redundant: int, groups: int = 1, nodes: int = 1, how: str = "") -> Ints:
    """The expert in each slot [layers, ranks, slots]. `p` [layers, experts]: chance that a token picks each expert; `how`: one of
    the words above, the empty one is `linear` without spare copies and `eplb` with them.

    Raises ValueError when the slots do not divide over the ranks, or a doubled expert cannot be avoided.
    """
    layers, experts = p.shape
    per_rank = (experts + redundant) // ranks
    if (experts + redundant) % ranks:
        raise ValueError(f"{experts} experts + {redundant} redundant do not divide over {ranks} ranks")
    if per_rank > experts:
        raise ValueError(f"{redundant} redundant: replicas of one expert do not fit {ranks} ranks without doubles")
    linear = np.arange(experts + redundant).reshape(ranks, per_rank) % experts
    in_order = np.broadcast_to(linear, (layers, *linear.shape))
    how = how or ("eplb" if redundant else "linear")
    if how == "linear":
        return in_order
    if 1 < nodes < groups + 1 and not (groups % nodes or redundant % nodes or ranks % nodes):
        found = _by_node(p, ranks, redundant, groups, nodes, how)
    else:
        found = in_order.copy()
        uneven = np.flatnonzero((np.ptp(p, axis=1) >= 1e-15) | (redundant % experts > 0))
        if len(uneven):
            found[uneven] = PACKED[how](p[uneven], ranks, redundant)
    if how == "eplb":
        return found
    better = rank_loads(p, found).max(axis=1) < rank_loads(p, in_order).max(axis=1) * (1 - 1e-12)
    return np.where(better[:, None, None], found, in_order)


def _packed(p: Floats, ranks: int, redundant: int) -> Ints:
    from .expert_packing import copies_of, pack_layers

    slots = (p.shape[1] + redundant) // ranks
    copies = copies_of(p, redundant, ranks)
    return pack_layers(p / copies, copies, ranks, slots)


def _balanced(p: Floats, ranks: int, redundant: int) -> Ints:
    from .expert_balance import balanced_slots

    return balanced_slots(p, ranks, redundant)


PACKED = {"eplb": _packed, "balanced": _balanced}


def _by_node(p: Floats, ranks: int, redundant: int, groups: int, nodes: int, how: str) -> Ints:
    """Groups on nodes, then the experts of each node on its ranks."""
    layers, experts = p.shape
    members = np.arange(experts).reshape(groups, -1)
    by_group = p[:, members].sum(axis=2)
    of_node = PACKED[how](by_group, nodes, 0)  # [layers, nodes, groups]
    own = members[of_node].reshape(layers * nodes, -1)
    inside = place_layers(
        np.take_along_axis(np.repeat(p, nodes, axis=0), own, axis=1), ranks // nodes, redundant // nodes, how=how
    )
    placed = np.take_along_axis(own, inside.reshape(layers * nodes, -1), axis=1)
    return placed.reshape(layers, ranks, -1)


def rank_loads(p: Floats, slots: Ints) -> Floats:
    """Expected choices of one token that land on each rank [layers, ranks]; copies share an expert's."""
    layers, experts = p.shape
    numbered = (slots.reshape(layers, -1) + experts * np.arange(layers)[:, None]).ravel()
    copies = np.bincount(numbered, minlength=layers * experts)
    return np.asarray((p.ravel() / np.maximum(copies, 1))[numbered].reshape(slots.shape).sum(axis=2))
