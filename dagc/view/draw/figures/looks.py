"""How the parts of figures look: class -> presentation attributes, which any reader of SVG knows.

An element names its classes; `painted` writes their attributes beside them. On top of these, style sheets that are made of the
same table give colours alone: variables in a page, and in a file what changes on a dark screen. Rules are CSS's own: of two
that set an attribute the one of more classes wins, then the later one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache

from ....base.picture_words import Theme
from ..palette import PALETTE
from .markup import Markup

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
TEXT, SMALL, HEAD = 12, 11, 14
"""Sizes of words, in pixels; none is smaller than SMALL."""
Look = Mapping[str, str | float]
"""Attribute -> its value. A fill or stroke that the palette names is of that tone."""
COLOURS = ("fill", "stroke")

LOOKS: dict[str, Look] = {
    "fig": {"fill": "ink", "font-family": FONT, "font-size": TEXT},
    # Words.
    "soft": {"fill": "soft"},
    "strong": {"font-weight": "bold"},
    "late": {"fill": "critical", "font-weight": "bold"},
    "dark": {"fill": "night"},
    "on": {"fill": "on-busy", "font-size": SMALL},
    "on-s": {"fill": "on-s", "font-size": SMALL},
    "small": {"font-size": SMALL},
    "tiny": {"font-size": SMALL, "fill": "soft"},
    "head": {"font-size": HEAD, "font-weight": "bold"},
    "mid": {"text-anchor": "middle"},
    "end": {"text-anchor": "end"},
    # What is filled with a tone of its own name.
    **{name: {"fill": name} for name in PALETTE if re.match(r"[kbt]-|[pmwhg][0-9]$", name)},
    # Thick lines of such a tone, which take fewer words than boxes.
    **{
        f"line-{name}": {"fill": "none", "stroke": name}
        for name in PALETTE
        if name in ("busy", "b-host_link") or name.startswith("k-")
    },
    "paper": {"fill": "paper"},
    "busy": {"fill": "busy"},
    "gain": {"fill": "gain"},
    "loss": {"fill": "loss"},
    "path": {"fill": "critical"},
    "b-mixed": {"fill": "edge"},
    "trough": {"fill": "cell0"},
    "gauge": {"fill": "cell0", "stroke": "paper", "stroke-width": 2},
    "free": {"fill": "cell0", "stroke": "edge"},
    "cell": {"fill": "cell0"},
    "c0": {"fill": "cell0"},
    "c1": {"fill": "cell1"},
    # Boxes and lines.
    "box": {"fill": "box", "stroke": "edge"},
    **{f"box.h{k}": {"fill": f"h{k}"} for k in range(5)},
    "hex": {"stroke": "edge"},
    "box.critical": {"stroke": "critical", "stroke-width": 2.4},
    "hex.critical": {"stroke": "critical", "stroke-width": 2.4},
    "chip.critical": {"stroke": "critical", "stroke-width": 2.4},
    "frame": {"fill": "none", "stroke": "line"},
    "grid": {"fill": "none", "stroke": "line", "stroke-width": 1},
    "limit": {"fill": "none", "stroke": "critical", "stroke-width": 1.5, "stroke-dasharray": "4 3"},
    "edge": {"fill": "none", "stroke": "edge", "stroke-width": 1.1},
    "edge.thin": {"stroke-width": 0.8, "opacity": 0.7},
    "edge.sent": {"stroke": "k-send", "stroke-width": 1.8},
    "edge.critical": {"stroke": "critical", "stroke-width": 2},
    "arrow": {"fill": "edge"},
    "arrow-critical": {"fill": "critical"},
    "op": {"stroke": "paper", "stroke-width": 0.6},
    "op.critical": {"stroke": "critical", "stroke-width": 1.8},
    # GPUs of a map that have no number.
    "gpu-other": {"fill": "cell1"},
    "gpu-none": {"fill": "cell0", "stroke": "edge"},
    "gpu-idle": {"fill": "paper", "stroke": "edge", "stroke-dasharray": "2 2"},
    "gpu-mark": {"fill": "ink"},
    # When nothing runs, and what a break leaves out.
    "bubble": {"fill": "paper", "stroke": "line", "stroke-dasharray": "3 2"},
    "hatch": {"fill": "none", "stroke": "edge", "stroke-width": 0.7},
    "torn": {"fill": "none", "stroke": "edge", "stroke-width": 1.2},
    # Plots.
    **{name: {"fill": name, "stroke": name} for name in PALETTE if re.match(r"s[0-9]$", name)},
    "curve": {"fill": "none", "stroke-width": 1.8, "stroke-linejoin": "round"},
    "curve.faint": {"stroke-width": 1.3, "stroke-dasharray": "5 3"},
    "dot.hollow": {"fill": "paper", "stroke-width": 1.4},
    "step": {"stroke": "paper", "stroke-width": 0.6},
}
"""One class, or several joined by points -> the look of what has them all."""

DRAWING = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
CLASS = re.compile(r' class="([^"]*)"')
QUIET = ".fig text, .fig .mute { pointer-events: none; }"
"""Words do not hide the tooltip of what is behind them."""


@cache
def look(classes: str) -> Look:
    """Attributes of what has these classes."""
    mine = set(classes.split())
    rules = [rule for rule in LOOKS if mine.issuperset(rule.split("."))]
    return {name: value for rule in sorted(rules, key=_weight) for name, value in LOOKS[rule].items()}


def _weight(rule: str) -> int:
    return rule.count(".")


def painted(text: str, theme: Theme) -> Markup:
    """Markup whose drawings have their attributes."""
    return Markup(
        DRAWING.sub(lambda drawing: CLASS.sub(lambda one: one[0] + _attributes(one[1], theme), drawing[0]), text)
    )


@cache
def _attributes(classes: str, theme: Theme) -> str:
    return "".join(f' {name}="{_value(name, value, theme)}"' for name, value in look(classes).items())


def _value(name: str, value: str | float, theme: Theme) -> str:
    return PALETTE[str(value)].of(theme) if name in COLOURS and value in PALETTE else str(value)


HATCHED = ("bubble",)
"""Classes that are drawn with hatching over them."""


def _swatch(rule: str, look: Look) -> str:
    """What is as white as the page beside it would not show: it is hatched, or has its dashes."""
    fill = f"var(--{look['fill']})"
    if rule in HATCHED:
        return f"repeating-linear-gradient(135deg, {fill} 0 2px, var(--{LOOKS['hatch']['stroke']}) 2px 3px)"
    if "stroke-dasharray" in look:
        return f"{fill}; box-sizing: border-box; border: 1px dashed var(--{look['stroke']})"
    return fill


def page_style() -> str:
    """Colours of figures and of the swatches beside them, as variables of a page."""
    rules = [f"{_selector(rule)} {{ {colours} }}" for rule, colours in _coloured("var(--{})".format)]
    swatches = [
        f".sw.{rule} {{ background: {_swatch(rule, look)}; }}"
        for rule, look in LOOKS.items()
        if look.get("fill") in PALETTE and "." not in rule
    ]
    return "\n".join([*rules, *swatches, QUIET])


def file_style(theme: Theme, drawn: Collection[str]) -> str:
    """Of a file with elements of these classes: its attributes are light, or those of a fixed theme, which needs no more."""
    if theme != "auto":
        return QUIET
    dark = (
        f"{_selector(rule)} {{ {colours} }}"
        for rule, colours in _coloured(lambda name: PALETTE[name].dark)
        if {*rule.split(".")} <= {*drawn}
    )
    return f"{QUIET}\n@media screen and (prefers-color-scheme: dark) {{\n" + "\n".join(dark) + "\n}"


def _coloured(shown: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Rules that set colours, and their declarations; `none` is said too, as it hides what a rule of fewer classes fills."""
    for rule, look in LOOKS.items():
        found = [(name, str(look[name])) for name in COLOURS if name in look]
        if found:
            yield rule, " ".join(f"{name}: {shown(tone) if tone in PALETTE else tone};" for name, tone in found)


def _selector(rule: str) -> str:
    return ".fig" if rule == "fig" else f".fig .{rule}"


def classes_of(text: str) -> set[str]:
    """Classes that elements of some markup have."""
    return {name for found in CLASS.findall(text) for name in found.split()}
