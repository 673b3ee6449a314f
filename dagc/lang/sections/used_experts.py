"""Which experts a phase uses: words of its section `experts` beside the degrees."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.phase_kinds import TRAIN
from ...base.schema import EXPERT_USE
from ...base.units import Quantity
from ...spec.expert_use import ExpertUse
from ...spec.model import Model
from ..body import Body
from ..values.evaluate import Value
from ..values.names import Names


def said(inner: Body) -> list[str]:
    """The words of use that a section `experts` has, in the order of the table."""
    return [name for name in EXPERT_USE if name in {*inner.assigns, *inner.bare}]


def uses_alone(inner: Body) -> bool:
    """Whether it has such words and no degree, and so says nothing of how ranks share the experts."""
    found = {*inner.assigns, *inner.bare}
    return bool(found) and found <= {*EXPERT_USE}


def read_expert_use(values: Mapping[str, Value | None], body: Body, kind: str, model: Model, names: Names) -> ExpertUse:
    """`values`: what the section says, read by its schema. What does not go with the phase is reported."""
    inner = body.sub("experts", names.out)
    words = said(inner) if inner is not None else []
    if inner is None or not words:
        return ExpertUse()
    out, first = names.out, inner.span_of(words[0])
    if kind == TRAIN.name:
        why = "a training step takes every choice, or its losses would be of another model"
        out.add("E12", f"`{words[0]}` does not belong to a training phase", first, help=(why,))
    elif not model.count("experts.count", 0):
        out.add("E03", f"`{words[0]}` needs routed experts", first)
    if "skip_below" in words and "skip" not in words:
        help_ = (
            "`skip = 20%` says how many choices are left out; `skip_below` by which rule `dagc verify` leaves them out",
        )
        out.add("E10", "`skip_below` needs `skip`", inner.span_of("skip_below"), help=help_)
    found = {name: value.value for name, value in values.items() if name in EXPERT_USE and isinstance(value, Quantity)}
    return ExpertUse(**found)
