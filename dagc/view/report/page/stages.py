"""The stages of a phase as cards, with what goes from one to the next."""

from __future__ import annotations

import itertools

from ....base.units import BYTES, TIME, show, show_runs
from ....plan.result import PhaseResult
from ...draw.figures.markup import Markup, join, tag
from ...draw.overview import Card, collectives_of, layers_of, name_of, shown_cards


def draw(result: PhaseResult) -> Markup:
    """A list of stages; of many, equal neighbours share a card."""
    shown = shown_cards(result)
    items = [_card(result, shown[0])]
    for before, after in itertools.pairwise(shown):
        items += [_send(result, before, after), _card(result, after)]
    return tag("ol", join(items), cls="stages")


def _send(result: PhaseResult, before: Card, after: Card) -> Markup:
    transfer, missing = result.costs.edges[before[-1]], after[0] - before[-1] - 1
    more = f", {missing} more stages" if missing else ""
    what = f"{show(transfer.payload_B, BYTES, 3)}, {show(transfer.time_s, TIME, 3)}{more}"
    return tag("li", tag("b", "→", aria_hidden="true"), tag("span", "send"), tag("span", what), cls="hop")


def _card(result: PhaseResult, card: Card) -> Markup:
    stage = result.graph.stages[card[0]]
    memory = result.memory.stages[card[0]]
    capacity = memory.capacity_B
    layers = ", ".join(name if count == 1 else f"{count} × {name}" for name, count in layers_of(stage).items())
    gpus = sorted(g for i in card for g in result.graph.stages[i].gpus)
    times = result.schedule.stage_s
    slowest = times[card[0]] == max(times) and min(times) < max(times) * (1 - 1e-9)
    lines = [
        tag("h5", name_of(card)),
        tag("p", layers + (" each" if len(card) > 1 else "")),
        tag("p", f"GPU {show_runs(gpus, most=4)}{result.of_pool}"),
        tag("p", f"{show(times[card[0]], TIME, 3)} per micro-batch{', the slowest' if slowest else ''}", cls="time"),
        tag(
            "p",
            f"{show(memory.peak_B, BYTES, 3)} of {show(capacity, BYTES, 3)} per GPU ({memory.peak_B / capacity:.1%})",
        ),
    ]
    for name in layers_of(stage):
        counts = collectives_of(result, name)
        if counts:
            chips = [
                tag("span", tag("i", cls=f"sw k-{kind}"), f"{n} {kind}({over})", cls="key")
                for (kind, over), n in counts.items()
            ]
            lines.append(tag("p", f"{name}: ", join(chips, " "), cls="chips"))
    return tag("li", join(lines), cls="stage slowest" if slowest else "stage")
