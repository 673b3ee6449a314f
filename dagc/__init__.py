"""dagc: a compiler for parallel execution graphs of Mixture-of-Experts models.

plan = dagc.compile("examples/plan_a.moe")
plan.phases["prefill"].time_s, plan.passed, plan.to_json()
"""

from __future__ import annotations

import os

from .base.version import VERSION

__all__ = ["Plan", "SpecError", "compile", "compile_text"]

TYPE_CHECKING = False  # `typing` and `pathlib` take longer to import than `dagc --help` to print
if TYPE_CHECKING:
    from typing import Any

    from .api import Plan as Plan
    from .api import compile as compile
    from .api import compile_text as compile_text
    from .base.diagnostics import SpecError as SpecError

__version__ = VERSION

_HOME = {
    "compile": ".api",
    "compile_text": ".api",
    "Plan": ".api",
    "SpecError": ".base.diagnostics",
}
_here = os.path.dirname(os.path.realpath(__file__))
if not os.path.isdir(os.path.join(_here, "passes")) and os.path.isdir(os.path.join(_here, os.pardir, "passes")):
    __path__.append(os.path.dirname(_here))  # a bare checkout: `passes` and `grammar` are next to the package


def __getattr__(name: str) -> Any:
    """Public names load on first use: importing dagc alone stays cheap."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
