"""Cheapest chains of moves on a mesh, kept for all plans that have it, and what moves cost there."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property, lru_cache
from typing import ClassVar, Protocol

from ..base.collectives import ACROSS, TO_EXPERTS, TRANSFERS, wire_bytes
from ..base.traced import chosen
from .cuts import Cuts, cut_layout, cut_mesh, useful
from .least import CALL_S, MOST_ATOMS, Calls, Price
from .mesh import Mesh
from .moves import NoRoute, TensorSizes, cheapest, search_chain
from .sharding import AT_EXPERTS, Axes, Move, Sharding


class Prices(Hashable, Protocol):
    """What moves cost on some machine; a pass gets one as an option and asks it for the prices on its mesh: the same ones on each
    mesh of equal sizes on the same GPUs. `noted`: somebody wants to know which prices a search needs, so that it asks for no others."""

    noted: ClassVar[bool]

    def of(self, mesh: Mesh) -> Price: ...


class PlainPrices:
    """Of no machine: one microsecond for each step of a ring, and the bytes that a rank sends in it at 100 GB/s."""

    noted: ClassVar[bool] = False

    def of(self, mesh: Mesh) -> Price:
        def price(kind: str, payload_B: float, axes: Axes) -> float:
            ranks = mesh.size(axes)
            if kind in ACROSS:
                ends = [mesh.size(mesh.on(place)) for place in ("", AT_EXPERTS)]
                senders, receivers = ends if kind == TO_EXPERTS else ends[::-1]
                return 1e-6 + max(1.0, receivers / senders) * payload_B / 100e9
            return TRANSFERS[kind].steps(ranks) * 1e-6 + wire_bytes(kind, payload_B, ranks) / 100e9

        return price


PLAIN_PRICES = PlainPrices()


class Chains:
    """Cheapest chains on a mesh, each looked for once: plans of one mesh ask for the same ones."""

    def __init__(self, prices: Prices, mesh: Mesh) -> None:
        self.prices, self.mesh, self.price = prices, mesh, prices.of(mesh)
        self.known = _known(prices, mesh.atoms, mesh.where)

    @cached_property
    def calls(self) -> Calls | None:
        """What calls cost on meshes like this one; None: no prices may be asked but those of a search without bounds."""
        if self.prices.noted or len(self.mesh.atoms) > MOST_ATOMS or self.mesh.apart is not None:
            return None
        made = _calls(self.prices, self.mesh.shape, self.mesh.where)
        if not made:
            made.append(Calls(self.price, self.mesh))
        return made[0]

    def cheapest(self, source: Sharding, target: Sharding, shape: TensorSizes) -> Sequence[Move]:
        """As `cheapest`."""

        def choose(*sizes: float) -> tuple[Move, ...] | NoRoute:
            try:
                return self._cheapest(source, target, shape.of(sizes))
            except NoRoute as error:
                return error

        found = chosen(choose, shape.sizes)
        if isinstance(found, NoRoute):
            raise found
        return found

    def _cheapest(self, source: Sharding, target: Sharding, shape: TensorSizes) -> tuple[Move, ...]:
        key = source, target, shape
        found = self.known.get(key)
        if found is None:
            if len(self.known) >= MOST_CHAINS:
                self.known.clear()
            found = self.known[key] = tuple(cheapest(*key, self.mesh, self.price, self.calls))
        return found

    def cuts(self, source: Sharding, target: Sharding, shape: TensorSizes) -> Cuts:
        """Cuts of axes that make the chain cheaper; mostly none."""
        found = useful(source, target, self.mesh) if source.on == target.on else {}
        if not found:
            return {}
        finer = Chains(self.prices, cut_mesh(self.mesh, found))
        ends = cut_layout(source, found), cut_layout(target, found)

        def cheaper(*sizes: float) -> bool:
            own = shape.of(sizes)
            try:
                whole_s, _ = search_chain(source, target, own, self.mesh, self.price, self.calls)
                cut_s, _ = search_chain(*ends, own, finer.mesh, finer.price, finer.calls)
            except NoRoute:
                return False
            return cut_s < whole_s - CALL_S

        return found if chosen(cheaper, shape.sizes) else {}


MOST_CHAINS = 4096


@lru_cache(maxsize=512)
def _known(
    prices: Prices, atoms: tuple[tuple[str, int], ...], where: Hashable
) -> dict[tuple[Sharding, Sharding, TensorSizes], tuple[Move, ...]]:
    return {}


@lru_cache(maxsize=64)
def _calls(prices: Prices, sizes: tuple[int, ...], where: Hashable) -> list[Calls]:
    """Of meshes of these sizes, once they were made."""
    return []
