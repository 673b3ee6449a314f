"""`dagc.check`: the verdict on a spec, for scripts and CI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError
from ..base.frozen import record
from .face import Plan, compile

if TYPE_CHECKING:
    from ..plan.require import Verdict
    from .asked_specs import Settings


@record
class Check:
    """`plan`: None where the spec is not a plan, and `diagnostics` say why. True where every requirement holds and all fits."""

    file: str
    plan: Plan | None
    diagnostics: tuple[Diagnostic, ...]

    @property
    def passed(self) -> bool:
        return self.plan is not None and self.plan.passed

    @property
    def fits(self) -> bool:
        return self.plan is not None and self.plan.fits

    @property
    def requirements(self) -> tuple[Verdict, ...]:
        return () if self.plan is None else tuple(self.plan.requirements)

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """Requirements that do not hold."""
        return tuple(v for v in self.requirements if not v.passed)

    @property
    def verdict(self) -> str:
        """In a line."""
        return "not a valid plan" if self.plan is None else self.plan.verdict

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        """The line of `dagc check`, and the diagnostics, one per line."""
        from ..base.render import render

        return "\n".join([f"{self.file}: {self.verdict}", *filter(None, [render(self.diagnostics, "concise")])])

    def __repr__(self) -> str:
        return f"<Check {self.file}: {self.verdict}>"


def check(
    spec_file: str | Path,
    *,
    settings: Settings | None = None,
    phases: Sequence[str] | None = None,
    allow_import: Sequence[str | Path] = (),
) -> Check:
    """The verdict on a `.moe` file. A wrong spec is an answer too, not an exception: it does not pass, and `diagnostics` say what is wrong."""
    try:
        plan = compile(spec_file, settings=settings, phases=phases, allow_import=allow_import)
    except SpecError as error:
        return Check(str(spec_file), None, error.diagnostics)
    return Check(str(spec_file), plan, tuple(plan.diagnostics))
