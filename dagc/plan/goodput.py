"""What a request of a serving must keep to count for goodput: the limits that the spec's requirements say."""

from __future__ import annotations

from ..base.diagnostics import Collector
from ..base.syntax import ast
from ..base.units import TIME, Quantity
from ..lang.values.evaluate import quantity
from ..serving.result import Limits
from ..spec.model import AttrValue
from ..spec.requirement import Requirement
from ..spec.spec import Spec

OF_A_REQUEST = ("ttft", "tpot", "e2e")
"""Times that every request has; ITL is of gaps, and a request's mean of them is its TPOT."""
STRICTEST = ("p99", "p90", "p50", "mean")
"""The one of several requirements that a single request is held to: the first."""


def limits(spec: Spec, name: str) -> Limits:
    """Of the serving `name`: a request keeps `require NAME.ttft.p99 <= 2 s` if its own TTFT is at most 2 s. Of several
    percentiles the highest counts: what 99 of 100 requests must keep is the limit, half of them may have a tighter one."""
    found: dict[tuple[str, str], float] = {}
    for requirement in spec.requirements:
        for metric, bound in _upper_bounds(requirement, spec):
            owner, _, rest = metric.partition(".")
            time, _, of = rest.partition(".")
            if owner == name and time in OF_A_REQUEST and of in STRICTEST:
                found[time, of] = min(bound, found.get((time, of), bound))
    kept = {}
    for time in OF_A_REQUEST:
        kept[f"{time}_s"] = next((found[time, of] for of in STRICTEST if (time, of) in found), None)
    return Limits(**kept)


def _upper_bounds(requirement: Requirement, spec: Spec) -> list[tuple[str, float]]:
    """(metric, seconds) of a requirement `metric <= time`, whichever side each is on."""
    test = requirement.test
    sides = {
        "<=": (test.left, test.right),
        "<": (test.left, test.right),
        ">=": (test.right, test.left),
        ">": (test.right, test.left),
    }
    if test.op not in sides:
        return []
    metric, bound = sides[test.op]
    if not isinstance(metric, ast.Name):
        return []
    value = quantity(bound, lambda node: _constant(node, spec), Collector())
    return [(metric.text, value.value)] if value is not None and value.dim == TIME else []


def _constant(node: ast.Name | ast.CallExpr, spec: Spec) -> AttrValue | None:
    found = spec.constants.get(node.text) if isinstance(node, ast.Name) else None
    return found if isinstance(found, Quantity) else None
