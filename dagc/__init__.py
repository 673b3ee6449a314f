"""dagc: a compiler for parallel execution graphs of Mixture-of-Experts models.

plan = dagc.compile("examples/plan_a.moe")
plan.phases["prefill"].time_s, plan.passed, plan.to_json()
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base.version import VERSION

__all__ = ["Plan", "SpecError", "compile", "compile_text"]

if TYPE_CHECKING:
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
_here = Path(__file__).resolve().parent
if not (_here / "passes").is_dir() and (_here.parent / "passes").is_dir():
    __path__.append(str(_here.parent))  # a bare checkout: `passes` and `grammar` are next to the package


def __getattr__(name: str) -> Any:
    """Public names load on first use: importing dagc alone stays cheap."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
