"""A figure as an SVG file of its own, with its title, colours and legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....base.frozen import replace
from ....base.picture_words import EVERY_VIEW, TRAINING_VIEWS, VIEWS, Theme
from ....plan.plan import CompiledPlan
from ....plan.result import PhaseResult
from ...facts.gpu_map import gpu_map as devices
from ...facts.lanes.grid import drawn
from ...facts.lanes.shown_part import DEFAULT, Choice, refused
from ...facts.lanes.words import heading
from ...facts.size import check_size
from ..layer_digraph import subtitle
from ..overview import facts
from . import cards, gpu_map, lanes, layers, memory, tracks, waterfall
from .looks import HATCHED, classes_of, file_style, painted
from .markup import Markup, fit, join, tag, width, wrapped
from .sheet import Sheet
from .svg import Keys, gathered, hatch, rect, words

PAD = 16
ROW = 18
HEAD = 19
LEAST = 640
WIDEST, TALL, BETWEEN = 1080.0, 700.0, 32.0
"""Of two figures side by side; and between them."""


def _overview(plan: CompiledPlan, result: PhaseResult, choice: Choice) -> Sheet:
    """The stages, and their GPUs beside them where there is room."""
    stages, found = cards.draw(result), devices(plan, result.name)
    gpus = gpu_map.draw(found, room=WIDEST - stages.width - BETWEEN, brief=True)
    beside = stages.width + BETWEEN + gpus.width <= WIDEST and gpus.height <= max(stages.height, TALL)
    if not beside:
        gpus = gpu_map.draw(found, room=max(WIDEST, stages.width), brief=True)
    keys = dict.fromkeys((*cards.keys(result), *gpu_map.keys(found)))
    return Sheet(facts(result), gathered("overview", stages, gpus, beside=beside, gap=BETWEEN), list(keys))


def _map(plan: CompiledPlan, result: PhaseResult, choice: Choice) -> Sheet:
    found = devices(plan, result.name)
    return Sheet(
        gpu_map.heading(found, choice.color_by),
        gpu_map.draw(found, choice.color_by),
        gpu_map.keys(found, choice.color_by),
    )


def _layer(plan: CompiledPlan, result: PhaseResult, choice: Choice) -> Sheet:
    return Sheet(subtitle(result), layers.whole(result), layers.keys(result))


def _lanes(plan: CompiledPlan, result: PhaseResult, choice: Choice) -> Sheet:
    grid = drawn(result, choice)
    figure = lanes.draw(grid)
    return Sheet(heading(grid.picture, lettered=grid.lettered), figure, lanes.keys(grid))


def _timeline(plan: CompiledPlan, result: PhaseResult, choice: Choice) -> Sheet:
    check_size(result, "the timeline")
    one = (
        "one pass" if result.passes == 1 else f"one pass of {result.passes}, of a whole chunk at the end of the prompt"
    )
    return Sheet([f"{result.name}: timeline of {one}"], tracks.draw(result), tracks.keys(result))


def _memory(plan: CompiledPlan, result: PhaseResult, choice: Choice) -> Sheet:
    return Sheet([f"{result.name}: memory per GPU"], memory.draw(result), memory.keys(result))


def _path(plan: CompiledPlan, result: PhaseResult, choice: Choice) -> Sheet:
    words = f"{result.name}: critical path, all executions of an op added up"
    return Sheet([words], waterfall.draw(result), waterfall.keys(result))


SHEETS: dict[str, Callable[[CompiledPlan, PhaseResult, Choice], Sheet]] = {
    "overview": _overview,
    "map": _map,
    "layer": _layer,
    "lanes": _lanes,
    "timeline": _timeline,
    "memory": _memory,
    "path": _path,
}
"""View -> what is on it."""


def heeded(view: str, choice: Choice) -> None:
    """Only `lanes` draws a part of the graph, and only the map has colours to choose. Raises SpecError."""
    if view != "lanes" and replace(choice, color_by="") != DEFAULT:
        raise refused(f"the {view} has no --select, --hops or --unfold", "lanes has")
    if view != "map" and choice.color_by:
        raise refused(f"the {view} has no --color-by", "map has")


def check_view(plan: CompiledPlan, phase: str, view: str) -> None:
    """Raises SpecError where phases of its kind have no such picture."""
    trains = phase in plan.trainings
    views = TRAINING_VIEWS if trains else VIEWS
    if view not in views:
        what = "trains" if trains else "does not train"
        raise refused(f"`{phase}` {what}: it has no picture `{view}`", f"it has {', '.join(views)}")


def svg(plan: CompiledPlan, phase: str, view: str, choice: Choice = DEFAULT, theme: Theme = "auto") -> str:
    """An SVG document. ValueError when there is no such view, SpecError where the
    choice selects nothing or the view has no parts."""
    if view not in EVERY_VIEW:
        raise ValueError(f"no view {view!r}: {', '.join(EVERY_VIEW)}")
    heeded(view, choice)
    check_view(plan, phase, view)
    if phase in plan.trainings:
        from .training_sheets import TRAINING_SHEETS

        sheet = TRAINING_SHEETS[view](plan, plan.trainings[phase], choice)
    else:
        sheet = SHEETS[view](plan, plan.phases[phase], choice)
    return document(sheet, (*plan.titles_of(phase), f"{plan.spec.model.name}, {sheet.heading[0]}"), theme)


def document(sheet: Sheet, titles: Sequence[str], theme: Theme = "auto") -> str:
    """A sheet as an SVG document. `titles` are above it in place of the first line of its heading."""
    figure = sheet.figure
    w = max(figure.width, LEAST)
    first, *more = titles
    rest = [part for line in (*more, *sheet.heading[1:]) for part in wrapped(line, w, 12, 4)]
    entries, lines = _legend(sheet.keys, w)
    top = PAD + 12 + HEAD * len(rest) + 14
    height = top + figure.height + 10 + ROW * lines + PAD
    body = join(
        [
            rect(0, 0, w + 2 * PAD, height, "paper"),
            words(PAD, PAD + 12, fit(first, w, 14), "head"),
            *(words(PAD, PAD + 12 + HEAD * (k + 1), line, "soft") for k, line in enumerate(rest)),
            tag("g", figure.body, transform=f"translate({PAD} {top})", cls=figure.name),
            tag("g", *entries, transform=f"translate({PAD} {top + figure.height + 10:.0f})"),
        ]
    )
    made = tag(
        "svg",
        tag("title", first),
        tag("style", Markup(file_style(theme, {"fig", *classes_of(body)}))),
        body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {w + 2 * PAD:.0f} {height:.0f}",
        width=f"{w + 2 * PAD:.0f}",
        height=f"{height:.0f}",
        cls="fig",
        role="img",
        aria_label=first,
    )
    return f"{painted(made, theme)}\n"


def _legend(entries: Keys, room: float) -> tuple[list[Markup], int]:
    """Swatches in as many lines as they need."""
    out: list[Markup] = []
    x, line = 0.0, 0
    for cls, what in entries:
        need = width(what, 12) + 36
        if x and x + need > room:
            x, line = 0.0, line + 1
        out += [rect(x, line * ROW, 11, 11, cls), words(x + 16, line * ROW + 10, what)]
        if cls in HATCHED:
            out.append(tag("path", d="".join(hatch(x, line * ROW, 11, 11, 3.5)), cls="mute hatch"))
        x += need
    return out, line + 1
