"""How the ranks of a phase were placed by `place = best`: over which links its axes lie, and what that gains."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.frozen import record


@record
class LevelBytes:
    """What one device of every stage sends on the links of a level in one pass, or in a training step, in the default order and as placed."""

    level: str
    before_B: float
    after_B: float


@record
class Placement:
    """`inside`: (level, axis -> ranks of it that the level adds to a domain), innermost first; empty where axes do not end together
    with domains: then `order` has the axes outermost first, as the GPUs were dealt out, domain by domain. `together`: phases that were placed alike, so that weights stay stored once. Of so many `ways`, `priced` were
    compiled and `alike` have groups of the same shapes as one of those; `held_back` were better, but would store weights a second
    time. `moved`: it is not the default order; `every`: each assignment of GPUs to ranks was among the ways; `cut`: there are more
    ways, which were not looked at. Times are of the phase."""

    inside: tuple[tuple[str, Mapping[str, int]], ...]
    order: tuple[str, ...]
    levels: tuple[LevelBytes, ...]
    before_s: float
    after_s: float
    ways: int
    priced: int
    alike: int
    held_back: int
    together: tuple[str, ...]
    moved: bool
    every: bool
    cut: bool = False

    @property
    def complete(self) -> bool:
        """Whether every way was priced, or has the cost of one that was."""
        return self.priced + self.alike == self.ways and not self.cut

    @property
    def gain(self) -> float:
        """Share of the time in the default order that the placement saves."""
        return 1.0 - self.after_s / self.before_s if self.before_s else 0.0
