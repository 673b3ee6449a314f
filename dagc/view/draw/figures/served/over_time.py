"""A run over time: requests that wait, requests that run, how full the cache is."""

from __future__ import annotations

from collections.abc import Sequence

from .....base.units import TIME, show
from .....serving.result import ServeResult
from ..markup import Markup
from ..plot import Panel, linear, thinned
from ..svg import Figure, Keys, figure, line, moment_text, words

WIDTH, HEIGHT, GAP, LEFT, TOP = 840, 120, 34, 60, 26
MOST = 800
"""Points of a curve."""
ROLES = {"both": "s0", "decode": "s0", "prefill": "s1"}
PANELS = (("waiting", "requests that wait"), ("running", "requests that run"), ("blocks", "KV cache held"))


def draw(result: ServeResult) -> Figure:
    """A panel each, one below the other; a curve a role."""
    series = result.outcome.series
    times = series.get("time_s", ())
    end = result.outcome.end_s
    across = linear(end, moment_text, most=9)
    body: list[Markup] = []
    y = float(TOP)
    for k, (what, name) in enumerate(PANELS):
        curves = [(role.role, _column(result, role.role, what)) for role in result.roles]
        high = max([*(max(c, default=0.0) for _, c in curves), 1e-9])
        said = (lambda v: f"{v:,.0f}") if what != "blocks" else (lambda v: f"{100 * v:.3g}%")
        up = linear(min(1.0, high), said, 4) if what == "blocks" else linear(max(1.0, high), said, 4, least_step=1.0)
        panel = Panel(LEFT, y, WIDTH, HEIGHT, across, up)
        body += panel.frame(name, numbers=k == len(PANELS) - 1, bottom="time" if k == len(PANELS) - 1 else "")
        if what == "waiting":
            body += _last_arrival(panel, result)
        for role, values in curves:
            chosen = thinned(values, MOST)
            body.append(panel.curve([(times[i], values[i]) for i in chosen], ROLES[role], steps=True))
        y += HEIGHT + GAP
    label = f"{result.name} over {show(end, TIME)}: waiting, running and cache"
    return figure("over-time", LEFT + WIDTH + 20, y + 14, label, *body)


def keys(result: ServeResult) -> Keys:
    """A colour a role."""
    return [
        (ROLES[role.role], "all workers" if role.role == "both" else f"{role.role} workers") for role in result.roles
    ]


def _column(result: ServeResult, role: str, what: str) -> Sequence[float]:
    values = result.outcome.series.get(f"{role}.{what}", ())
    if what != "blocks":
        return [float(v) for v in values]
    mine = [w for w in result.setup.workers if w.role == role]
    blocks = sum(w.count * w.engine.ranks * w.engine.kv_blocks for w in mine)
    return [v / blocks for v in values]


def _last_arrival(panel: Panel, result: ServeResult) -> list[Markup]:
    came = result.outcome.served.arrival_s
    if result.arrivals.kind in ("closed", "burst") or not came or max(came) > 0.98 * result.outcome.end_s:
        return []
    x, y = panel.point(max(came), panel.up.low)
    return [line(x, panel.y, x, y, "edge"), words(x + 5, y - 6, "the last request has arrived", "soft small")]
