"""How the times of the requests are spread: the share of them that is faster, one panel a time."""

from __future__ import annotations

import numpy as np

from .....base.units import TIME, show
from .....serving.result import Column, ServeResult, columns
from ..markup import Markup
from ..plot import Panel, linear, logarithmic, thinned
from ..svg import Figure, Keys, figure, words

WIDTH, HEIGHT, GAP, LEFT, TOP = 270, 230, 62, 46, 26
SHOWN = (("TTFT", "ttft_s", "s0"), ("TPOT", "tpot_s", "s1"), ("E2E", "e2e_s", "s2"))
MOST = 240
"""Points of a curve."""


def draw(result: ServeResult) -> Figure:
    """TTFT, TPOT and E2E, with their percentiles and what limits them."""
    found = columns(result.outcome.served)
    body: list[Markup] = []
    for k, (name, column, cls) in enumerate(SHOWN):
        values = np.sort(found[column][np.isfinite(found[column])])
        x = LEFT + k * (WIDTH + GAP)
        if not len(values):
            body.append(words(x, TOP + 20, f"{name}: no request has one", "soft"))
            continue
        body += _panel(x, name, values, cls, getattr(result.limits, column))
    label = f"times of {result.finished:,} requests of {result.name}"
    return figure("latencies", LEFT + 3 * WIDTH + 2 * GAP + 20, TOP + HEIGHT + 44, label, *body)


def keys(result: ServeResult) -> Keys:
    """Dots are percentiles; the dashed line is what a requirement asks for."""
    limit = [("path", "limit of a request")] if result.limits.any else []
    return [*((cls, f"{name}, dots at p50, p90, p99") for name, _, cls in SHOWN), *limit]


def _panel(x: float, name: str, values: Column, cls: str, limit: float | None) -> list[Markup]:
    low, high = float(values[0]), float(values[-1])
    high = max(high, limit or 0.0)
    across = logarithmic(low, high, lambda v: show(v, TIME, 3), most=6)
    panel = Panel(x, TOP, WIDTH, HEIGHT, across, linear(1.0, lambda v: f"{v:.0%}", most=5))
    count = len(values)
    points = [(low, 0.0), *((float(values[k]), (k + 1) / count) for k in thinned(values.tolist(), MOST)), (high, 1.0)]
    out = panel.frame(name, bottom="time")
    if limit is not None:
        out += panel.upright(limit, "limit", show(limit, TIME), dy=HEIGHT - 34)
    out.append(panel.curve(points, cls))
    for share in (0.5, 0.9, 0.99):
        at = float(np.percentile(values, 100 * share))
        out.append(panel.mark(at, share, cls))
        px, py = panel.point(at, share)
        left = px > x + 0.62 * WIDTH
        out.append(
            words(
                px + (-7 if left else 7),
                py + (13 if share > 0.5 else 4),
                show(at, TIME, 3),
                "small end" if left else "small",
            )
        )
    return out
