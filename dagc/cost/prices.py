"""Prices of moves on the links of the hardware."""

from __future__ import annotations

from ..base.traced import number
from ..ir.mesh import Mesh
from ..ir.moves import Price
from ..ir.sharding import Axes
from ..spec.hardware import Link
from .network import collective_time


class LinkPrices(tuple[Link, ...]):
    """Alpha-beta times over links, innermost first."""

    __slots__ = ()

    def __new__(cls, *links: Link) -> LinkPrices:
        return super().__new__(cls, links)

    def of(self, mesh: Mesh) -> Price:
        """Seconds of a collective between the GPUs of the mesh, memoised: the searches ask the same few questions again."""
        memo: dict[tuple[str, float, Axes], float] = {}

        def price(kind: str, payload_B: float, axes: Axes) -> float:
            key = (kind, payload_B, axes)
            if key not in memo:
                time = collective_time(kind, payload_B, mesh.group(axes), *self)
                memo[key] = number(time.time_s)
            return memo[key]

        return price
