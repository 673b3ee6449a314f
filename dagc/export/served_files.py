"""Simulated servings as files: a line per request, the figures as JSON, pictures, a timeline of steps and requests."""

from __future__ import annotations

from collections.abc import Iterator

from ..base.picture_words import Theme
from ..plan.plan import CompiledPlan
from ..serving.knee import Knee
from ..serving.records import Served
from .served_object import serving_object

HEAD = "arrival_s,queued_s,ttft_s,tpot_s,e2e_s,prompt_tok,output_tok,cached_tok"
CHUNK = 4096
"""Requests of one piece of a file."""


def requests_file(plan: CompiledPlan, name: str) -> dict[str, Iterator[bytes]]:
    return {"requests.csv": requests_csv(plan.servings[name].outcome.served)}


def requests_csv(served: Served) -> Iterator[bytes]:
    """A line per request that ended, in the order in which they ended, streamed. `tpot_s` is empty where the output is one token."""
    yield f"{HEAD}\n".encode()
    for start in range(0, len(served.e2e_s), CHUNK):
        part = slice(start, start + CHUNK)
        rows = []
        for came, queued, first, whole, prompt, output, cached in zip(*(c[part] for c in served.columns), strict=True):
            each = f"{(whole - first) / (output - 1):.9g}" if output > 1 else ""
            rows.append(f"{came:.9f},{queued:.9g},{first:.9g},{each},{whole:.9g},{prompt},{output},{cached}\n")
        yield "".join(rows).encode()


def serving_file(plan: CompiledPlan, name: str, *, knee: Knee | None = None) -> dict[str, bytes]:
    from .json import dumps

    return {"serve.json": dumps({"serving": name, **serving_object(plan, plan.servings[name], knee)}, indent=True)}


def pictures(
    plan: CompiledPlan, serving: str, *, name: str, knee: Knee | None = None, theme: Theme = "auto"
) -> dict[str, bytes]:
    """One file per view; that of the load where several loads were simulated."""
    from ..view.draw.figures.served.sheets import LOAD, VIEWS, load_svg, svg
    from .pictures import file_of

    made = {view: svg(plan, plan.servings[serving], view, theme) for view in VIEWS}
    made |= {LOAD: load_svg(plan, knee, theme)} if knee is not None else {}
    return {f"{view}.{name}": file_of(drawn, name) for view, drawn in made.items()}


def timeline(plan: CompiledPlan, name: str) -> dict[str, Iterator[bytes]]:
    """Steps, requests and counters, for Perfetto and for chrome://tracing."""
    from . import chrome, perfetto
    from .served_events import events

    result = plan.servings[name]
    about = {"model": plan.spec.model.name, "serving": name, "duration_s": result.duration_s}
    return {"trace.json": chrome.written(events(result), about), "pftrace": perfetto.written(events(result))}
