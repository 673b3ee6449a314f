"""What every pass is given beside the graph: the spec, the phase, and where diagnostics go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from ..base.diagnostics import Collector
from ..base.source import Span
from ..cost.network import GroupShape, group_shape
from ..ir.mesh import Placement
from ..ir.sharding import Axes
from ..spec.spec import Phase, Spec


@dataclass(slots=True)
class Unit:
    """One compilation: a phase of a spec. `placement` is set by the mesh pass and read by later ones. `spans`: the
    statement that each (segment, op) comes from."""

    spec: Spec
    phase: Phase
    out: Collector = field(default_factory=Collector)
    placement: Placement | None = None
    spans: dict[tuple[str, str], Span] = field(default_factory=dict, repr=False)
    _groups: dict[Axes, GroupShape] = field(default_factory=dict, repr=False)

    @property
    def placed(self) -> Placement:
        assert self.placement is not None, "the mesh pass has not run"
        return self.placement

    def group(self, axes: Axes) -> GroupShape:
        """Ranks, nodes and ranks a node of the groups over some axes."""
        if axes not in self._groups:
            self._groups[axes] = group_shape(self.placed.groups(axes), self.placed.per_node)
        return self._groups[axes]

    def warn(
        self, segment: str, op: str, message: str, *, because: tuple[str, ...] = (), help: tuple[str, ...] = ()
    ) -> None:
        """W06 at the statement of an op, else at the phase."""
        span = self.spans.get((segment, op), self.phase.span)
        self.out.add("W06", message, span, because=because, help=help)

    def stop(
        self,
        code: str,
        message: str,
        *,
        at: str = "",
        because: tuple[str, ...] = (),
        help: tuple[str, ...] = (),
    ) -> NoReturn:
        """Report an error at an attribute of the phase (else at the phase) and end the compilation."""
        span = self.phase.spans.get(at, self.phase.span)
        self.out.add(code, message, span, because=because, help=help)
        self.out.check()
        raise AssertionError(f"{code} is no error")
