"""Prices of moves on the links of the hardware."""

from __future__ import annotations

from functools import lru_cache

from ..base.traced import is_traced, number
from ..ir.mesh import GpuMap, Mesh
from ..ir.moves import Price
from ..ir.sharding import Axes
from ..spec.hardware import Link
from .network import collective_time

KEPT = 1 << 14
"""Prices on one mesh that are remembered."""


@lru_cache(maxsize=64)
def _kept(
    links: tuple[Link, ...], atoms: tuple[tuple[str, int], ...], gpus: GpuMap | None
) -> dict[tuple[str, float, Axes], float]:
    return {}


class LinkPrices(tuple[Link, ...]):
    """Alpha-beta times over links, innermost first."""

    __slots__ = ()

    def __new__(cls, *links: Link) -> LinkPrices:
        return super().__new__(cls, links)

    def of(self, mesh: Mesh) -> Price:
        """Seconds of a collective between the GPUs of the mesh, memoised: the searches ask the same few questions again."""
        kept = _kept(self, mesh.atoms, mesh.gpus)
        own: dict[tuple[str, float, Axes], float] = {}

        def price(kind: str, payload_B: float, axes: Axes) -> float:
            key = (kind, payload_B, axes)
            memo = own if is_traced(payload_B) else kept
            if key not in memo:
                if len(memo) >= KEPT:
                    memo.clear()
                time = collective_time(kind, payload_B, mesh.group(axes), *self)
                memo[key] = number(time.time_s)
            return memo[key]

        return price
