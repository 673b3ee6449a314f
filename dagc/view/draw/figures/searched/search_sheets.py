"""Pictures of a search as SVG files of their own."""

from __future__ import annotations

from .....base.picture_words import Theme
from .....plan.searched import Findings, Space, SpaceMap
from ....facts import found_plans as said
from ..sheet import Sheet
from ..standalone import document
from . import cells, front


def front_svg(found: Findings, space: Space, theme: Theme = "auto") -> str:
    heading = f"{said.spec_name(found)}: {space.phase}, tok/s per GPU against {front.axis_name(space)}"
    return _document(Sheet([heading, said.verdict(found)], front.draw(found, space), front.keys(found, space)), theme)


def map_svg(found: Findings, one: SpaceMap, theme: Theme = "auto") -> str:
    heading = f"{said.spec_name(found)}: the space of {one.phase}"
    return _document(Sheet([heading, said.verdict(found)], cells.draw(one), cells.keys(one)), theme)


def _document(sheet: Sheet, theme: Theme) -> str:
    return document(sheet, sheet.heading[:1], theme)
