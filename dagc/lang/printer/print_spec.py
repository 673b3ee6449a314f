"""The spec level as text: every preset, param and default resolved. Parsing and elaborating it gives the spec back."""

from __future__ import annotations

from ...base.syntax import ast
from ...spec.spec import Spec
from .expressions import expression
from .hardware import hardware_text, pool_link_text
from .model import model_parts
from .phase import phase_text
from .serve import serve_text
from .workload import workload_text
from .written import value_text


def print_spec(spec: Spec) -> str:
    """A self-contained `.moe` file equal to the spec."""
    parts = ["moe 1", *(f"let {k} = {value_text(v)}" for k, v in spec.constants.items())]
    parts += [hardware_text(own) for own in spec.pools.values()]
    parts += [pool_link_text(link) for link in spec.pool_links]
    parts += model_parts(spec.model)
    parts += [
        workload_text(spec.workload),
        *(phase_text(p) for p in (*spec.phases, *spec.trainings)),
        *(serve_text(s) for s in spec.serves),
    ]
    parts += [requirement_text(r.label, r.test) for r in spec.requirements]
    return "\n\n".join(parts) + "\n"


def requirement_text(label: str, test: ast.Comparison) -> str:
    tolerance = f" +- {expression(test.tolerance)}" if test.tolerance is not None else ""
    return f'require "{label}" {expression(test.left)} {test.op} {expression(test.right)}{tolerance}'
