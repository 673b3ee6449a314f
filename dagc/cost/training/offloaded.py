"""offloaded: activations that wait in the memory of the host: copied there from each layer while the next one computes, and back before its
gradients. The copies of a direction have a stream and a direction of the link to themselves, so a layer waits for what its copy takes longer than it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...base.frozen import record, replace
from .cell_costs import CellCost
from .kept_activations import Kept

COPIED = ("forward", "backward", "input")
"""Cells beside which a layer's copies run: out in the first, back in the others."""


@record(slots=False)
class Offloaded:
    """Bytes of a micro-batch in each layer that wait in the host's memory, on one rank, and seconds of their copy in one direction."""

    bytes: Mapping[str, float]
    copy_s: Mapping[str, float]


def offloaded(
    kept: Mapping[str, Kept], layers: Collection[str], share: float, lanes: int, link_Bps: float
) -> Offloaded:
    """Of these layers; others keep all."""
    sizes = {name: share * kept[name].whole_B * lanes for name in layers} if share else {}
    return Offloaded(sizes, {name: size_B / link_Bps for name, size_B in sizes.items()})


def left(kept: Mapping[str, Kept], share: float, layers: Collection[str]) -> Mapping[str, Kept]:
    """What a GPU still keeps. What gradients of weights read stays from when it is back."""
    if not share:
        return kept
    return {
        name: Kept(max((1.0 - share) * own.whole_B, 1.0), own.late_B) if name in layers else own
        for name, own in kept.items()
    }


def with_copies(cells: Mapping[tuple[str, str], CellCost], copied: Offloaded) -> Mapping[tuple[str, str], CellCost]:
    """A cell takes at least as long as its copy."""
    return {
        (layer, cell): waiting(cost, copied.copy_s[layer]) if cell in COPIED and layer in copied.copy_s else cost
        for (layer, cell), cost in cells.items()
    }


def waiting(cost: CellCost, copy_s: float) -> CellCost:
    more_s = max(0.0, copy_s - cost.own_s)
    return (
        replace(cost, time_s=cost.time_s + more_s, own_s=cost.own_s + more_s, exposed_s=cost.exposed_s + more_s)
        if more_s
        else cost
    )
