"""What starts a deployment: one entry each, of which the command line and the documentation read names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from ...base.frozen import record
from .deployment import Deployment

Write = Callable[[Deployment], Mapping[str, str]]
"""Suffix -> text. Raises SpecError with E05 where the launcher cannot."""


@record
class Launcher:
    """`source`: "module:function" here, loaded when it is used."""

    name: str
    about: str
    source: str

    def files(self, one: Deployment) -> dict[str, bytes]:
        """File name -> content."""
        module, _, function = self.source.partition(":")
        write: Write = getattr(import_module(f".{module}", __package__), function)
        return {f"{one.name}.{one.engine}.{suffix}": text.encode() for suffix, text in write(one).items()}


LAUNCHERS: tuple[Launcher, ...] = (
    Launcher("shell", "one script: on this machine, and on others over ssh", "shell:write"),
    Launcher("slurm", "one job, a step for each server", "slurm:write"),
)


def launcher(name: str) -> Launcher:
    return next(one for one in LAUNCHERS if one.name == name)


def names() -> tuple[str, ...]:
    return tuple(one.name for one in LAUNCHERS)
