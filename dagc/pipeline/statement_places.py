"""Where the statements of ops are: in texts of blocks, which may be elsewhere the next time that they are read."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.source import Span
from ..spec.unit import Unit

Block = tuple[str, str | None]
"""Names a definition of a model."""
Extents = Mapping[Block, Span]
Places = Mapping[tuple[str, str], tuple[Block, int, int]]
"""(segment, op) -> the block of its statement, and where in the block's text it begins and ends."""


def extents(unit: Unit) -> Extents:
    """Of every block of the model: from its name to its last statement."""
    return {name: block.span.to(block.body[-1].span) for name, block in unit.spec.model.blocks.items()}


def texts(blocks: Extents) -> list[tuple[Block, str]]:
    """What places in blocks follow from; layout counts in no comparison of blocks."""
    return [(name, span.text) for name, span in blocks.items()]


def places_of(unit: Unit, blocks: Extents) -> Places | None:
    """Those of the ops of a phase that was expanded; None if a statement is in no block."""
    found = {}
    for key, span in unit.spans.items():
        for name, block in blocks.items():
            if block.source is span.source and block.start <= span.start and span.end <= block.end:
                found[key] = name, span.start - block.start, span.end - block.start
                break
        else:
            return None
    return found


def tell(unit: Unit, blocks: Extents, places: Places) -> None:
    """The statements of a phase that is not expanded, by those of one that was."""
    for key, (name, start, end) in places.items():
        block = blocks[name]
        unit.spans[key] = Span(block.source, block.start + start, block.start + end)
