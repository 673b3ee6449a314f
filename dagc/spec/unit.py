"""One phase of a spec as it is compiled, and where what is found about it goes."""

from __future__ import annotations

from typing import NoReturn

from ..base.diagnostics import Collector
from ..base.frozen import field, record
from ..base.source import Span
from .phase import Phase
from .spec import Spec
from .workload import Routing


@record
class Unit:
    """`spec`: as the phase sees it, with its own pool of GPUs and its own dtypes, whichever it is made with. `spans`: the statement that
    each (segment, op) comes from, filled in as blocks are expanded."""

    spec: Spec
    phase: Phase
    out: Collector = field(default_factory=Collector)
    spans: dict[tuple[str, str], Span] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        own = self.spec.of(self.phase)
        if own is not self.spec:
            object.__setattr__(self, "spec", own)

    @property
    def routing(self) -> Routing:
        """How tokens choose experts: the phase's own, else the workload's."""
        return self.spec.workload.routing if self.phase.routing is None else self.phase.routing

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
        raise AssertionError(f"{code} is not an error")
