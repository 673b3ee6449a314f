"""Several residual streams in place of one: how many, and the blocks between them and the blocks of a layer."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.frozen import record
from ..base.units import Quantity

STREAM = "stream"
"""The dimension that counts them."""


@record
class Streams:
    """`collapse` makes of all streams what a block of a layer is given, `expand` adds to all of them what the block adds to it. `spread` makes
    them of the embedding's result, `merge` makes one of them for the head."""

    count: int
    collapse: str
    expand: str
    spread: str
    merge: str

    @classmethod
    def of(cls, attributes: Mapping[str, Quantity | str | bool]) -> Streams | None:
        """Of a model's attributes; None where the residual stream is one."""
        count = attributes.get("streams.count")
        if not isinstance(count, Quantity):
            return None
        words = (str(attributes[f"streams.{word}"]) for word in ("collapse", "expand", "spread", "merge"))
        return cls(int(count.value), *words)

    @property
    def mixing(self) -> tuple[str, ...]:
        """The blocks between streams and blocks of layers."""
        return self.collapse, self.expand, self.spread, self.merge

    def around(self, blocks: tuple[str, ...]) -> tuple[str, ...]:
        """The blocks of a layer, each between its `collapse` and its `expand`, unless the layer names these itself."""
        if {self.collapse, self.expand} & set(blocks):
            return blocks
        return tuple(name for block in blocks for name in (self.collapse, block, self.expand))

    def behind(self, blocks: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the first layer, and behind them `spread`."""
        return blocks if self.spread in blocks else (*blocks, self.spread)

    def before(self, blocks: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the last layer, and before them `merge`."""
        return blocks if self.merge in blocks else (self.merge, *blocks)

    def in_turn(self, blocks: tuple[str, ...]) -> bool:
        """Whether each block of a layer is between its `collapse` and its `expand`."""
        inner = blocks[1::3]
        whole = tuple(name for block in inner for name in (self.collapse, block, self.expand))
        return whole == blocks and not set(inner) & set(self.mixing)
