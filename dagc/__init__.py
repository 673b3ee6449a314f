"""dagc: a compiler for parallel execution graphs of Mixture-of-Experts models.

    plan = dagc.compile("examples/plan_a.moe", settings={"batch": 64})
    plan.passed, plan.phases["prefill"].time_s, plan.to_dataframe("collectives"), plan.html()

The commands are functions too: `check`, `verify`, `sweep`, `search`, `serve`, `diff` and `audit` take a spec and return what they found, and raise
SpecError where the spec is wrong (its `file`, `line`, `code` and `help` say where, what, and what to write instead).
"""

from __future__ import annotations

from .base.version import VERSION

__all__ = [
    "Audit", "Check", "Diagnostic", "Difference", "Plan", "Search", "SpecError", "Sweep", "Verification",
    "audit", "check", "compile", "compile_text", "diff", "search", "serve", "sweep", "verify",
]  # fmt: skip

TYPE_CHECKING = False  # `typing` takes longer to import than `dagc --help` to print
if TYPE_CHECKING:
    from typing import Any

    from .api import Plan as Plan
    from .api import compile as compile
    from .api import compile_text as compile_text
    from .api.audits import Audit as Audit
    from .api.audits import audit as audit
    from .api.checks import Check as Check
    from .api.checks import check as check
    from .api.differences import Difference as Difference
    from .api.differences import diff as diff
    from .api.proofs import Verification as Verification
    from .api.proofs import verify as verify
    from .api.searches import Search as Search
    from .api.searches import search as search
    from .api.serves import serve as serve
    from .api.sweeps import Sweep as Sweep
    from .api.sweeps import sweep as sweep
    from .base.diagnostics import Diagnostic as Diagnostic
    from .base.diagnostics import SpecError as SpecError

__version__ = VERSION

_HOME = {
    ".api": ("Plan", "compile", "compile_text"),
    ".api.audits": ("Audit", "audit"),
    ".api.checks": ("Check", "check"),
    ".api.differences": ("Difference", "diff"),
    ".api.proofs": ("Verification", "verify"),
    ".api.searches": ("Search", "search"),
    ".api.serves": ("serve",),
    ".api.sweeps": ("Sweep", "sweep"),
    ".base.diagnostics": ("Diagnostic", "SpecError"),
}
"""Module -> public names that load with it."""


def __getattr__(name: str) -> Any:
    """Public names load on first use: importing dagc alone stays cheap."""
    from importlib import import_module

    home = next((module for module, names in _HOME.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home, __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
