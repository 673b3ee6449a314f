"""dagc's own collectives for a case, read from the compiled plan."""

from __future__ import annotations

import dagc
from dagc.base.diagnostics import SpecError
from dagc.ir.ops.attributes.moves import RingTurnAttrs
from dagc.plan.result import PhaseResult
from dagc.spec.unit import Unit

from .case import Case, Collective
from .layout import NotExpressible
from .spec import program_of

POSITION = {"embed": 0, "body": 1, "head": 2}
"""Where the parts of a case are in the stack of its spec."""


def measure(case: Case) -> list[Collective]:
    """Collectives of one device in one pass of all micro-batches, along one pipeline path."""
    program = program_of(case)
    try:
        plan = dagc.compile_text(program.text, name=case.id)
    except SpecError as error:
        raise NotExpressible(next(d.message for d in error.diagnostics if d.severity == "error")) from error
    return read(plan.phases[program.phase], plan.units[program.phase], program.parts)


def read(result: PhaseResult, unit: Unit, parts: tuple[str, ...]) -> list[Collective]:
    found = []
    passes = result.graph.microbatches * result.graph.lanes
    for segment in (result.graph.segments[POSITION[part]] for part in parts):
        for op in segment.ops:
            if not op.is_collective:
                continue
            cost = result.costs.ops[segment.name, op.name]
            group = next(g for g in result.graph.the_mesh.groups(op.axes).tolist() if 0 in g)
            payload = cost.payload_B * (len(group) if op.kind == "all_gather" else 1)
            calls = segment.repeat * passes
            steps = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
            found.append(Collective(op.runtime_kind, tuple(sorted(group)), payload, calls * steps, cost.wire_B * calls))
    edges = (len(result.graph.stages) - 1) * passes
    if edges:
        size = result.costs.transfer.payload_B
        found.append(Collective("send", (), size, edges, size * edges))
    return found
