"""How the verifier says that an invariant does not hold: the op, what was found and wanted, and the program around it."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Graph
from ..op import Op
from ..segment import Segment


class VerifyError(AssertionError):
    """An invariant of the IR does not hold. `line` says which, in one line; `segment` and `op` where, if at one op;
    `program` are lines of IR around it, that of the op marked. `behind`: the pass that made the graph; `statement`: lines
    of the block that the op comes from, which whoever runs passes fills in."""

    behind = ""
    statement: tuple[str, ...] = ()

    def __init__(self, line: str, segment: str = "", op: str = "", program: Sequence[str] = ()) -> None:
        super().__init__(line)
        self.line, self.segment, self.op, self.program = line, segment, op, tuple(program)

    def __str__(self) -> str:
        """All of it, over several lines."""
        made = f" (after pass `{self.behind}`)" if self.behind else ""
        return "\n".join((self.line + made, *(f"  {text}" for text in (*self.program, *self.statement))))


def require(truth: bool, segment: Segment, op: Op | None, message: str) -> None:
    if not truth:
        where = f"{segment.name}/%{op.name}" if op is not None else segment.name
        raise VerifyError(f"{where}: {message}", segment.name, op.name if op is not None else "")


def violation(graph: Graph, segment: Segment, op: Op, fault: Exception) -> VerifyError:
    """A fault of one op, with the program around it."""
    return VerifyError(f"{segment.name}/%{op.name}: {fault}", segment.name, op.name, _program(graph, segment, op))


def _program(graph: Graph, segment: Segment, op: Op) -> tuple[str, ...]:
    """The lines around an op, with types; of an op that cannot be printed so, what it is called on."""
    from ..text.write import lines_around

    try:
        return lines_around(graph, segment, op.name, types=True)
    except (KeyError, ValueError, AttributeError, IndexError, StopIteration):
        return (f"> %{op.name} = {op.kind}({', '.join(op.inputs)}) : [{', '.join(op.dims)}] {op.dtype}",)
