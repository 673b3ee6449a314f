"""refusals: what a search raises where it cannot begin, beside SpecError."""

from __future__ import annotations

from .domains import Unbounded
from .objectives import NoObjective
from .optimum import Nothing
from .served import TooMany
from .space import TooLarge
from .within import Wrong

REFUSALS = (Nothing, NoObjective, Unbounded, TooLarge, TooMany, Wrong)
