"""What a command does, told to those who listen: which files it opens, and how long the parts of a compilation take."""

from __future__ import annotations

import time
from types import TracebackType


class Listener:
    """Hears what is done; changes nothing."""

    def opened(self, path: str) -> None:
        """A file is about to be opened; whether it is there is not known yet."""

    def looked_for(self, group: str) -> None:
        """Other packages are asked for what they add to dagc."""

    def took(self, where: str, what: str, time_s: float) -> None:
        """A part of the work is done. `where`: a phase, or nothing."""


LISTENERS: list[Listener] = []
"""Those who listen now."""


class timed:
    """`with timed("prefill", "cost"):` tells how long the block took. Asks no clock where nobody listens."""

    def __init__(self, where: str, what: str) -> None:
        self.where, self.what, self.started_s = where, what, 0.0

    def __enter__(self) -> None:
        if LISTENERS:
            self.started_s = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in LISTENERS:
            one.took(self.where, self.what, time.perf_counter() - self.started_s)
