"""The stages of a phase as cards, with what goes from one to the next."""

from __future__ import annotations

import itertools

from ....base.units import BYTES, TIME, show, show_runs
from ....plan.result import PhaseResult
from ...draw.figures.markup import Markup, join, tag
from ...draw.overview import Card, collectives_of, handed_on, layers_of, name_of, pool_of, shown_cards, time_s


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
    capacity = memory.capacity_B
    layers = ", ".join(name if count == 1 else f"{count} × {name}" for name, count in layers_of(stage).items())
    gpus = sorted(g for i in card for g in result.seats[i].ids)
    times = result.schedule.stage_s
    own_s = time_s(result, card[0])
    slowest = own_s == max(times) and min(times) < max(times) * (1 - 1e-9)
    lines = [
        tag("h5", name_of(result, card)),
        tag("p", layers + (" each" if len(card) > 1 else "")),
        tag("p", f"GPU {show_runs(gpus, most=4)}{pool_of(result, card)}"),
        tag("p", f"{show(own_s, TIME, 3)} per micro-batch{', the slowest' if slowest else ''}", cls="time"),
        tag(
            "p",
            f"{show(memory.peak_B, BYTES, 3)} of {show(capacity, BYTES, 3)} per GPU ({memory.peak_B / capacity:.1%})",
        ),
    ]
    for name in layers_of(stage):
        counts = collectives_of(result, name, stage.on)
        if counts:
            chips = [
                tag("span", tag("i", cls=f"sw k-{kind}"), f"{n} {kind}({over})", cls="key")
                for (kind, over), n in counts.items()
            ]
            lines.append(tag("p", f"{name}: ", join(chips, " "), cls="chips"))
    return tag("li", join(lines), cls="stage slowest" if slowest else "stage")
