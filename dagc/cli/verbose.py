"""`-v`: which files a command read, and how long each part of its work took, on standard error when it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..base.harmless import harmless
from ..base.heard import LISTENERS, Listener
from .manner import manner


class Heard(Listener):
    """Files by name, and seconds by part of the work."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.seconds: dict[str, dict[str, float]] = {}

    def opened(self, path: str) -> None:
        self.files[path] = None

    def took(self, where: str, what: str, time_s: float) -> None:
        of = self.seconds.setdefault(where, {})
        of[what] = of.get(what, 0.0) + time_s

    def lines(self, total_s: float) -> list[str]:
        """For people."""
        told = [f"read      {harmless(path)}" for path in self.files]
        for where, parts in self.seconds.items():
            told += [f"{harmless(where):<9} {what:<12} {time_s * 1e3:8.2f} ms" for what, time_s in parts.items()]
        return [*told, f"{'all':<22} {total_s * 1e3:8.2f} ms"]


@contextmanager
def listening() -> Iterator[None]:
    """While a command runs."""
    if not manner().verbose:
        yield
        return
    heard, started_s = Heard(), time.perf_counter()
    LISTENERS.append(heard)
    try:
        yield
    finally:
        LISTENERS.remove(heard)
        sys.stdout.flush()
        print("\n".join(heard.lines(time.perf_counter() - started_s)), file=sys.stderr)
