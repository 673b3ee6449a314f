"""Questions that are not answered yet where experts have GPUs of their own: they are refused, rather than answered for other plans."""

from __future__ import annotations

from collections.abc import Iterable

from ..base.diagnostics import Diagnostic, SpecError
from ..spec.phase import Phase


def refuse(phases: Iterable[Phase], command: str, instead: str) -> None:
    """Raises SpecError with E18 where one of the phases is such a plan."""
    for phase in phases:
        if phase.strategy.apart is not None:
            raise SpecError(
                [
                    Diagnostic(
                        "E18", f"`{command}` knows no experts on GPUs of their own, which `{phase.name}` has", phase.spans.get("experts", phase.span),
                        help=(instead,),
                    )
                ]
            )  # fmt: skip
