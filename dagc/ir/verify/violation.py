"""How the verifier says that an invariant does not hold."""

from __future__ import annotations

from ..graph import Op, Segment


class VerifyError(AssertionError):
    """An invariant of the IR does not hold. `behind`: the pass that made the graph."""

    behind = ""


def require(truth: bool, segment: Segment, op: Op | None, message: str) -> None:
    if not truth:
        where = f"{segment.name}/%{op.name}" if op is not None else segment.name
        raise VerifyError(f"{where}: {message}")
