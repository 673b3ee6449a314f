"""SVG files in a renderer that is not a browser: it knows neither `var()` nor media queries."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections import Counter

import pytest
from conftest import compiled
from PIL import Image

from dagc.view.draw.figures.standalone import SHEETS
from dagc.view.draw.figures.svg import standalone_style, style
from dagc.view.draw.overview import PARTS

needs_rsvg = pytest.mark.skipif(
    shutil.which("rsvg-convert") is None, reason="rsvg-convert (librsvg2-bin) is not installed"
)
LOOKS = {
    "overview": "#0b3c5d",
    "layer": "#e69f00",
    "lanes": "#cc79a7",
    "timeline": "#4b5563",
    "memory": "#0b3c5d",
    "path": "#6a5fc1",
}
"""A colour that each view of a plan with experts has."""


@pytest.mark.parametrize("view", SHEETS)
@needs_rsvg
def test_views_have_their_colours(view: str) -> None:
    svg = compiled("plan_a").svg("prefill", view)
    drawn = subprocess.run(["rsvg-convert"], input=svg.encode(), capture_output=True, check=True).stdout
    picture = Image.open(io.BytesIO(drawn)).convert("RGB")
    counted = picture.getcolors(picture.width * picture.height)
    assert counted
    colours = Counter({"#{:02x}{:02x}{:02x}".format(*rgb): count for count, rgb in counted})
    total = picture.width * picture.height
    assert picture.getpixel((1, 1)) == (255, 255, 255)
    assert colours["#000000"] < total / 1000, "what has no colour is painted black"
    assert colours["#ffffff"] > total / 4
    assert colours[LOOKS[view]] > 50


def test_every_variable_has_a_plain_value_before_it() -> None:
    css = standalone_style(".paper { fill: var(--paper); }")
    declared = re.findall(r"([a-z-]+):\s*([^;{}]*)", re.sub(r"--[a-z0-9-]+:[^;}]*", "", css))
    with_variables = [i for i, (_, value) in enumerate(declared) if "var(" in value]
    assert len(with_variables) >= 40
    for i in with_variables:
        (before, plain), (name, _) = declared[i - 1], declared[i]
        assert before == name and "var(" not in plain and plain.strip()


def test_every_part_of_memory_has_its_colour() -> None:
    """One for each theme, and the light one is that of the pictures that Graphviz draws."""
    css = style()
    for k, (name, colour) in enumerate(PARTS):
        found = re.findall(rf"--p{k}: (#[0-9a-f]{{6}});", css)
        assert len(found) == 3 and found[0] == colour, name
        assert f".p{k} {{ fill: var(--p{k}); background: var(--p{k}); }}" in css, name
