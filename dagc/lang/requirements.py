"""What a plan must hold: `require` statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base.phase_kinds import PHASE_KINDS
from ..base.units import meant_unit
from ..spec.metrics.known_metrics import metric
from ..spec.metrics.metric import PHASE, SERVE
from ..spec.model import AttrValue
from ..spec.requirement import Requirement
from .statements import Statements
from .values.evaluate import names_in


def _owner(metric_name: str, phases: Sequence[str]) -> str:
    """The phase that is probably meant: one whose time the metric is, by its name, else the first."""
    timed = [kind.name for kind in PHASE_KINDS.values() if kind.metric == metric_name]
    return next((name for name in (*timed, *phases) if name in phases), PHASE)


def read_requirements(
    statements: Statements,
    values: Mapping[str, AttrValue],
    phases: set[str],
    serves: set[str],
    pools: Sequence[str],
    *,
    unnamed: bool,
) -> tuple[Requirement, ...]:
    """Every `require`, whose names are looked up as far as they can be before anything is compiled. `phases` and `serves`:
    names of them; `pools`: names where there are several; `unnamed`: what some of them is called is not known, and a requirement may
    mean it."""
    roots = {*(pools or ("hardware",)), "model", "workload", *phases, *serves, *values, *statements.failed}
    out = []
    for i, s in enumerate(statements.requires):
        for name in names_in(s.test):
            doubtful = unnamed and (len(name.parts) > 1 and metric(f"PHASE.{'.'.join(name.parts[1:])}") is not None)
            if name.parts[0] not in roots and not statements.out.incomplete and not doubtful:
                roots.add(name.parts[0])  # once is enough
                near = statements.out.near(name.parts[0], roots - {name.parts[0]})
                hint = f"did you mean `{near}`?" if near else f"known: {', '.join(sorted(roots - {name.parts[0]}))}"
                if any(s.kind == "hardware" and s.name == name.parts[0] for s, _ in statements.sections):
                    hint = f"did you mean `{'.'.join(('hardware', *name.parts[1:]))}`?"
                if pools and name.parts[0] == "hardware":
                    hint = f"it has several pools: did you mean `{'.'.join((pools[0], *name.parts[1:]))}`?"
                elif pools and any(name.parts[0] == s.name for s, _ in statements.sections if s.kind == "hardware"):
                    continue  # a pool with a wrong name, which is reported
                if unit := meant_unit(name.text):
                    hint = f"if this is a unit, did you mean {unit}?"
                owner = _owner(name.text, sorted(phases))
                if (meant := metric(f"{owner}.{name.text}")) is not None:
                    whose, owner = (
                        ("phase", owner) if meant.owner == PHASE else ("serving", next(iter(sorted(serves)), SERVE))
                    )
                    hint = f"a metric follows its {whose}: `{owner}.{name.text}`"
                statements.out.add(
                    "E02",
                    f"the requirement names `{name.parts[0]}`, which this spec does not define",
                    name.span,
                    help=(hint,),
                )
        out.append(Requirement(s.label or s.text or f"requirement {i + 1}", s.text, s.test, s.span))
    return tuple(out)
