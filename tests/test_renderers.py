"""SVG files in renderers that are not browsers: they know neither `var()` nor media queries."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections import Counter

import pytest
from conftest import compiled
from PIL import Image

from dagc.view.draw.figures.looks import LOOKS, look
from dagc.view.draw.figures.standalone import SHEETS
from dagc.view.draw.palette import PALETTE

needs_rsvg = pytest.mark.skipif(
    shutil.which("rsvg-convert") is None, reason="rsvg-convert (librsvg2-bin) is not installed"
)
SHOWN = {
    "overview": "p0",
    "layer": "k-all_reduce",
    "lanes": "k-all_to_all",
    "timeline": "busy",
    "memory": "p0",
    "path": "b-compute",
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
    assert colours[PALETTE[SHOWN[view]].light] > 50


def test_looks_follow_the_rules_of_style_sheets() -> None:
    """More classes win, then the later rule; what is named is in the palette."""
    assert look("box critical")["stroke"] == "critical" and look("box")["stroke"] == "edge"
    assert look("curve s1") == look("s1 curve") and look("curve s1")["fill"] == "none"
    assert look("dot s1 hollow")["fill"] == "paper" and look("dot s1 hollow")["stroke"] == "s1"
    for rule, attributes in LOOKS.items():
        colours = {attributes[name] for name in ("fill", "stroke") if name in attributes}
        assert colours <= {*PALETTE, "none"}, rule
