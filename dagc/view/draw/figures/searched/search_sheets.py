"""Pictures of a search as SVG files of their own."""

from __future__ import annotations

from functools import cache
from importlib import resources

from .....plan.searched import Findings, Space, SpaceMap
from ....facts import found_plans as said
from ..standalone import Sheet, document
from . import cells, front


@cache
def style() -> str:
    """Colours of plans and reasons, beside those of every figure."""
    return (resources.files(__package__) / "searched.css").read_text(encoding="utf-8")


def front_svg(found: Findings, space: Space) -> str:
    heading = f"{said.spec_name(found)}: {space.phase}, tokens/s per GPU against tokens/s per user"
    return _document(Sheet([heading, said.verdict(found)], front.draw(found, space), front.keys(found, space)))


def map_svg(found: Findings, one: SpaceMap) -> str:
    heading = f"{said.spec_name(found)}: the space of {one.phase}"
    return _document(Sheet([heading, said.verdict(found)], cells.draw(one), cells.keys(one)))


def _document(sheet: Sheet) -> str:
    return document(sheet, sheet.heading[:1], style())
