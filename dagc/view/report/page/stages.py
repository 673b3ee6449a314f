"""The stages of a phase as cards, with what goes from one to the next."""

from __future__ import annotations

import itertools

from ....base.units import show_runs
from ....plan.result import PhaseResult
from ...draw.figures.markup import Markup, join, tag
from ...draw.overview import (
    Card,
    collectives_of,
    gpus_of,
    handed_on,
    is_slowest,
    layers_of,
    layers_text,
    memory_text,
    name_of,
    pool_of,
    shown_cards,
    time_text,
)


def draw(result: PhaseResult) -> Markup:
    """A list of stages; of many, equal neighbours share a card."""
    shown = shown_cards(result)
    items = [_card(result, shown[0])]
    for before, after in itertools.pairwise(shown):
        items += [_send(result, before, after), _card(result, after)]
    return tag("ol", join(items), cls="stages")


def _send(result: PhaseResult, before: Card, after: Card) -> Markup:
    said, missing, kind = handed_on(result, before, after)
    more = f", {missing} more stages" if missing else ""
    what = ", ".join(said).removeprefix("send ") + more
    if kind == "send":
        return tag("li", tag("b", "→", aria_hidden="true"), tag("span", "send"), tag("span", what), cls="hop")
    return tag("li", tag("b", "⇄", aria_hidden="true"), tag("span", what), cls="hop both-ways")


def _card(result: PhaseResult, card: Card) -> Markup:
    stage = result.seats[card[0]]
    memory = result.memory.stages[card[0]]
    lines = [
        tag("h5", name_of(result, card)),
        tag("p", layers_text(stage) + (" each" if len(card) > 1 else "")),
        tag("p", f"GPU {show_runs(gpus_of(result, card), most=4)}{pool_of(result, card)}"),
        tag("p", time_text(result, card[0]), cls="time"),
        tag("p", memory_text(memory)),
    ]
    for name in layers_of(stage):
        counts = collectives_of(result, name, stage.on)
        if counts:
            chips = [
                tag("span", tag("i", cls=f"sw k-{kind}"), f"{n} {kind}({over})", cls="key")
                for (kind, over), n in counts.items()
            ]
            lines.append(tag("p", f"{name}: ", join(chips, " "), cls="chips"))
    return tag("li", join(lines), cls="stage slowest" if is_slowest(result, card[0]) else "stage")
