"""Early exits of a decode step: behind which layers which share of the sequences has its token, and what that makes of the stack."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from ..base.frozen import record, replace
from .model import Layer, Model

CLOSE = 1e-9


@record
class Exit:
    """`share` of all sequences leave behind the `layer`-th layer (1: the first one)."""

    layer: int
    share: float


@record
class LayerExit:
    """Of a kind of layer: the share of the sequences that left before it, and whether some leave behind it."""

    gone: float = 0.0
    leaves: bool = False


STAYS = LayerExit()
Exits = tuple[Exit, ...]


def rows_left(each: int, gone: float) -> int:
    """Of `each` sequences of a rank those that are still there, rounded up: the busiest rank."""
    return ceil(each * (1.0 - gone) - CLOSE)


def depth(exits: Exits, layers: int) -> float:
    """Layers that a token takes on average."""
    return layers - sum(one.share * (layers - one.layer) for one in exits)


def with_exits(model: Model, exits: Exits) -> tuple[Model, Mapping[str, LayerExit]]:
    """The model with kinds of layers of their own where some leave and behind them, and what each is. Layers that nobody reaches are
    not there."""
    if not exits:
        return model, {}
    by_layer = {one.layer: one.share for one in exits}
    first, *body, head = model.stack
    stack: list[Layer] = [first]
    kinds: dict[str, LayerExit] = {}
    gone, after = 0.0, 0
    number = 0
    for layer in body:
        for _ in range(layer.repeat):
            number += 1
            if gone >= 1.0 - CLOSE:
                continue
            leaves = number in by_layer
            behind = gone + by_layer.get(number, 0.0)
            ends = behind >= 1.0 - CLOSE  # the head behind it is the model's own
            suffix = f"_at{number}" if leaves and not ends else f"_after{after}" if after else ""
            kind = replace(layer, name=f"{layer.name}{suffix}", repeat=1)
            kinds[kind.name] = LayerExit(gone, leaves and not ends)
            if stack[-1].name == kind.name:
                kind = replace(kind, repeat=stack.pop().repeat + 1)
            stack.append(kind)
            if leaves:
                gone, after = behind, number
    last = gone if gone < 1.0 - CLOSE else next((k.gone for k in (kinds[stack[-1].name],)), 0.0)
    kinds[head.name] = LayerExit(last)
    return replace(model, stack=(*stack, head)), kinds
