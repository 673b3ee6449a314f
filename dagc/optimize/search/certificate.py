"""certificate: what a search looked at, what it left out, and why: every plan of the space is counted once."""

from __future__ import annotations

from ...base.frozen import record
from .space import Rejected


@record
class Certificate:
    """`size`: plans of the whole space. `rejected`: by rule. `equal`: plans that are another one in other words. `costed`: plans
    whose exact cost is known and that meet every requirement. `bounded`: plans that a bound proves to be worse than
    those found. `left`: plans that were neither costed nor excluded. `bound`: best figure that any of those left could have (None: none
    left). `gap`: by which share of the best figure one of those left could be better at most. `broken`: plans that cost less than their bound said, so that nothing is proved.
    `compiled`: plans that were costed exactly, those that fail a requirement or do not fit included."""

    size: int
    rejected: tuple[Rejected, ...] = ()
    equal: int = 0
    costed: int = 0
    bounded: int = 0
    left: int = 0
    bound: float | None = None
    gap: float | None = None
    broken: int = 0
    compiled: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Every plan was costed, or excluded by a rule or a proven bound."""
        return not self.left and not self.broken

    @property
    def counted(self) -> int:
        """What all that is listed adds up to: the size."""
        return sum(one.count for one in self.rejected) + self.equal + self.costed + self.bounded + self.left
