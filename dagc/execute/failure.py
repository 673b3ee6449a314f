"""How a run ends early: the lowering is wrong, or the executor cannot run it."""

from __future__ import annotations


class Wrong(ValueError):
    """What ran contradicts the graph: a value that is not what its op declares, or data that no member of a group has."""


class CannotRun(Exception):
    """The executor has no way to run this; it says nothing about the lowering."""


class ExecutionError(Exception):
    """A run broke off. `where`: segment[layer]/op. `wrong`: what ran shows the lowering wrong; else nothing is shown."""

    def __init__(self, where: str, reason: str, wrong: bool = True) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason, self.wrong = where, reason, wrong
