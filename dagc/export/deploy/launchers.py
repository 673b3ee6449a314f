"""What starts a deployment: one entry each, of which the command line and the documentation read names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from ...base.frozen import record
from .deployment import Deployment

Write = Callable[[Deployment], Mapping[str, str]]
"""Suffix -> text. Raises SpecError with E05 where the launcher cannot."""
Versions = Callable[[str], str | None]
"""Engine -> its version that a platform is built with; None: it does not run that engine."""


@record
class Launcher:
    """`source`, `versions`: "module:function" here, loaded when it is used; no `versions`: any version of an engine does.
    `in_containers`: an image has to be named."""

    name: str
    about: str
    source: str
    in_containers: bool = False
    versions: str = ""

    def engine_version(self, engine: str) -> str | None:
        """That it starts unless another one is asked for; None: the newest."""
        if not self.versions:
            return None
        versions: Versions = _loaded(self.versions)
        return versions(engine)

    def files(self, one: Deployment) -> dict[str, bytes]:
        """File name -> content."""
        return _files(one, self.source)


def bench_files(one: Deployment) -> dict[str, bytes]:
    """File name -> content of what measures a deployment, whatever starts it."""
    return _files(one, "bench:bench")


def _files(one: Deployment, source: str) -> dict[str, bytes]:
    write: Write = _loaded(source)
    return {f"{one.name}.{one.engine}.{suffix}": text.encode() for suffix, text in write(one).items()}


def _loaded(source: str) -> Any:
    module, _, function = source.partition(":")
    return getattr(import_module(f".{module}", __package__), function)


LAUNCHERS: tuple[Launcher, ...] = (
    Launcher("shell", "one script: on this machine, and on others over ssh", "shell:write"),
    Launcher("slurm", "one job, a step for each server", "slurm:write"),
    Launcher("kubernetes", "LeaderWorkerSets, a router, services", "kubernetes:write", in_containers=True),
    Launcher(
        "dynamo", "a graph deployment of Dynamo", "dynamo:write", in_containers=True, versions="dynamo:engine_version"
    ),
    Launcher("llm-d", "values of its chart of model servers", "llmd:write", in_containers=True),
)


def launcher(name: str) -> Launcher:
    return next(one for one in LAUNCHERS if one.name == name)


def names() -> tuple[str, ...]:
    return tuple(one.name for one in LAUNCHERS)
