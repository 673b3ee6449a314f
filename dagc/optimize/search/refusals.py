"""refusals: what a search raises where it cannot begin, beside SpecError."""

from __future__ import annotations

from .by_serving import TooMany
from .domains import Unbounded
from .objectives import NoObjective
from .optimum import Nothing
from .space import TooLarge
from .within import Wrong

REFUSALS = (Nothing, NoObjective, Unbounded, TooLarge, TooMany, Wrong)
