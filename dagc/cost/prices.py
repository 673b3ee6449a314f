"""Prices of moves on the links of the hardware."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import ClassVar

from ..base.collectives import ACROSS
from ..base.frozen import record
from ..base.traced import is_traced, number
from ..ir.groups import GroupShape
from ..ir.least import Price
from ..ir.mesh import Mesh
from ..ir.sharding import Axes
from ..spec.hardware import Link
from .network import collective_time

KEPT = 1 << 14
"""Prices that are remembered."""
Known = dict[tuple[str, float, GroupShape], float]


@lru_cache(maxsize=512)
def _kept(
    links: tuple[Link, ...], atoms: tuple[tuple[str, int], ...], where: Hashable
) -> dict[tuple[str, float, Axes], float]:
    return {}


@lru_cache(maxsize=8)
def _known(links: tuple[Link, ...]) -> Known:
    """Those of groups alike, of whatever mesh."""
    return {}


class LinkPrices(tuple[Link, ...]):
    """Alpha-beta times over links, innermost first."""

    __slots__ = ()
    noted: ClassVar[bool] = False

    def __new__(cls, *links: Link) -> LinkPrices:
        return super().__new__(cls, links)

    def of(self, mesh: Mesh) -> Price:
        """Seconds of a collective between the GPUs of the mesh, memoised: the searches ask the same few questions again."""
        kept, known = _kept(self, mesh.atoms, mesh.where), _known(self)
        own: dict[tuple[str, float, Axes], float] = {}

        def price(kind: str, payload_B: float, axes: Axes) -> float:
            key = (kind, payload_B, axes)
            traced = is_traced(payload_B)
            memo = own if traced else kept
            found = memo.get(key)
            if found is None:
                shape = mesh.group_of(kind, axes)
                if traced:
                    found = number(collective_time(kind, payload_B, shape, *self).time_s)
                else:
                    found = _time_s(self, known, kind, payload_B, shape)
                if len(memo) >= KEPT:
                    memo.clear()
                memo[key] = found
            return found

        return price


@record
class PoolPrices:
    """Of a phase whose experts are in another pool: calls of each side on the links of its own, and what goes across on `between`."""

    noted: ClassVar[bool] = False
    own: LinkPrices
    experts: LinkPrices
    between: Link

    def of(self, mesh: Mesh) -> Price:
        own, experts, across = self.own.of(mesh), self.experts.of(mesh), LinkPrices(self.between).of(mesh)

        def price(kind: str, payload_B: float, axes: Axes) -> float:
            side = across if kind in ACROSS else experts if mesh.place_of(axes) else own
            return side(kind, payload_B, axes)

        return price


def _time_s(links: tuple[Link, ...], known: Known, kind: str, payload_B: float, shape: GroupShape) -> float:
    key = kind, payload_B, shape
    found = known.get(key)
    if found is None:
        if len(known) >= KEPT:
            known.clear()
        found = known[key] = float(collective_time(kind, payload_B, shape, *links).time_s)
    return found
