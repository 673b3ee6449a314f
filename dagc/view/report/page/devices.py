"""The GPU map of a phase on the page, with what its script changes between: one colouring is shown, and without a script stays so."""

from __future__ import annotations

from ....plan.plan import CompiledPlan
from ....plan.result import PhaseResult
from ....plan.trained import TrainingResult
from ...draw.figures import gpu_map
from ...draw.figures.markup import Markup, join, tag
from ...draw.figures.svg import legend
from ...facts.gpu_map import gpu_map as device_map


def draw(plan: CompiledPlan, result: PhaseResult | TrainingResult) -> Markup:
    """What the colours mean, a part for each colouring, and the map with the numbers of all of them."""
    found = device_map(plan, result.name)
    parts = (
        tag(
            "div",
            tag("p", f"{gpu_map.reading(found, by).capitalize()}.", cls="soft"),
            legend(gpu_map.keys(found, by.name)),
            data_by=by.name,
            hidden=k > 0,
        )
        for k, by in enumerate(found.colourings)
    )
    figure = gpu_map.draw(found, several=True)
    return tag("div", join(parts), figure.framed(), cls="gpu-map", data_digits=gpu_map.digits(gpu_map.cell_of(found)))
