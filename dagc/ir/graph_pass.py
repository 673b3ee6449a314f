"""What a pass is: a value that makes a graph of a graph. Its fields are its options, and it knows nothing but the graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ..base.frozen import record
from .graph import Graph


class PassError(ValueError):
    """A pass cannot go on. `at`: the option that is wrong; `where`: the segment and the op at which it stopped."""

    def __init__(
        self,
        message: str,
        *,
        at: str = "",
        where: tuple[str, str] = ("", ""),
        because: tuple[str, ...] = (),
        help: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.at, self.where, self.because, self.help = at, where, because, help


@record
class Doubt:
    """What a graph does that is probably not meant, and the op that does it."""

    segment: str
    op: str
    message: str
    because: tuple[str, ...] = ()
    help: tuple[str, ...] = ()


class GraphPass:
    """The base class of every pass, which is a frozen dataclass. `name` is what pipelines call it; `levels` are the levels of graphs that it takes."""

    name: ClassVar[str]
    levels: ClassVar[tuple[str, ...]] = ("annotated",)

    def run(self, graph: Graph) -> Graph:
        """The graph after the pass. Raises PassError where the pass cannot go on."""
        raise NotImplementedError

    def doubts(self, graph: Graph) -> Iterable[Doubt]:
        """What is worth a warning in the graph that the pass has made."""
        return ()
