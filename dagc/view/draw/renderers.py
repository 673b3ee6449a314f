"""SVG as PNG and PDF: by rsvg-convert where that is installed, else by CairoSVG."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from math import sqrt
from typing import Final

from ...base.frozen import record

PRINTED: Final = ("png", "pdf")
SCALE = 2.0
"""Pixels of a PNG for one of the drawing: sharp on paper and on dense screens."""
MOST_SIDE, MOST_PIXELS = 32_000, 100e6
"""Of a PNG; larger drawings are scaled down to it. Cairo's limit is 32,767 a side."""
MOST_PAGE = 19_200
"""Of a side of a PDF, which readers show up to 200 inches."""
TIMEOUT_S = 300
SIZE = re.compile(r' width="([0-9]+)" height="([0-9]+)"')


class RendererMissing(RuntimeError):
    """No installed program makes the format."""


@record
class Renderer:
    """`found`: whether it is installed. `render`: bytes of a kind from an SVG document at a scale; raises RendererMissing where
    what it found turns out not to work."""

    name: str
    install: str
    found: Callable[[], bool]
    render: Callable[[str, str, float], bytes]


def printed(svg: str, kind: str) -> bytes:
    """PNG or PDF of a document of ours, by the first renderer there is. Raises RendererMissing."""
    size = SIZE.search(svg)
    assert size is not None, "every document says how large it is"
    width, height = float(size[1]), float(size[2])
    longest = max(width, height)
    scale = min(SCALE, MOST_SIDE / longest, sqrt(MOST_PIXELS / (width * height)))
    scale = scale if kind == "png" else min(1.0, MOST_PAGE / longest)
    return renderer(kind).render(svg, kind, scale)


def installed() -> bool:
    """Whether there is one at all."""
    return any(one.found() for one in RENDERERS)


def renderer(kind: str) -> Renderer:
    """The first that is installed. Raises RendererMissing."""
    for one in RENDERERS:
        if one.found():
            return one
    ways = " or ".join(f"{one.name} ({one.install})" for one in RENDERERS)
    raise RendererMissing(f"{kind} needs {ways}, and neither is installed; SVG is made without them")


def _rsvg(svg: str, kind: str, scale: float) -> bytes:
    env = {"SOURCE_DATE_EPOCH": "0", **os.environ}  # the same drawing is the same PDF
    command = ["rsvg-convert", "--format", kind, "--zoom", f"{scale:.4f}", "--unlimited"]
    try:
        done = subprocess.run(command, input=svg.encode(), capture_output=True, timeout=TIMEOUT_S, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RendererMissing(f"rsvg-convert made no {kind}: {error}") from None
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RendererMissing(f"rsvg-convert made no {kind}: {''.join(said) or f'exit status {done.returncode}'}")
    return done.stdout


def _has_cairosvg() -> bool:
    """Installed, and with it the library cairo, which it looks for when it is imported."""
    try:
        import cairosvg  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def _cairosvg(svg: str, kind: str, scale: float) -> bytes:
    import cairosvg

    make = cairosvg.svg2png if kind == "png" else cairosvg.svg2pdf
    try:
        made: bytes = make(bytestring=svg.encode(), scale=scale)
    except Exception as error:  # (cairo's own errors have no common base)
        raise RendererMissing(f"CairoSVG made no {kind}: {type(error).__name__}: {error}") from None
    return made


RENDERERS = (
    Renderer(
        "rsvg-convert",
        "`apt-get install librsvg2-bin`, `dnf install librsvg2-tools`, `brew install librsvg`",
        lambda: shutil.which("rsvg-convert") is not None,
        _rsvg,
    ),
    Renderer("CairoSVG", "`pip install 'dagc-moe[pictures]'`", _has_cairosvg, _cairosvg),
)
"""In the order in which they are asked: the first one shows every character that any installed font has."""
