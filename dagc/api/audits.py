"""`dagc.audit`: numbers that a document claims, beside the plan of a spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.frozen import record
from .face import Plan, compile

if TYPE_CHECKING:
    from ..prose.judged_claims import Audit as Found
    from ..prose.judged_claims import Finding
    from .asked_specs import Settings


@record
class Audit:
    """The claims of a document, in its order. True where all that could be compared holds."""

    against: str
    plan: Plan
    found: Found

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.found.findings

    @property
    def requirements(self) -> list[str]:
        """Lines of a spec, of the claims that can be judged."""
        from ..prose.audit_text import formatted, requirements

        return [formatted(line) for line in requirements(self.found)]

    def __len__(self) -> int:
        return len(self.found.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found.findings)

    def __bool__(self) -> bool:
        return self.found.holds

    def rows(self) -> list[dict[str, Any]]:
        """A row for each claim, its value in SI units."""
        from ..prose.audit_text import row

        return [{k: v for k, v in row(one).items() if k != "checks"} for one in self.found.findings]

    def to_dataframe(self, *, library: str | None = None) -> Any:
        """The rows as a data frame of pandas or polars. ImportError where neither is installed."""
        from .data_frames import data_frame

        return data_frame(self.rows(), library)

    def to_json(self) -> dict[str, Any]:
        """The object of `dagc audit --json`."""
        from ..prose.audit_text import plain

        return plain(self.found, self.against)

    def __str__(self) -> str:
        """What `dagc audit` prints."""
        from ..prose.audit_text import text

        return "\n".join(text(self.found))

    def __repr__(self) -> str:
        from ..prose.audit_text import summary

        return f"<Audit {summary(self.found)}>"


def audit(
    document: str | Path,
    against: str | Path,
    *,
    settings: Settings | None = None,
    phases: Sequence[str] | None = None,
    allow_import: Sequence[str | Path] = (),
) -> Audit:
    """Every numeric claim of a document (text or Markdown), beside what the plan of a `.moe` file has for it. Raises SpecError where either
    cannot be read."""
    from ..prose.document import read_document
    from ..prose.judged_claims import audit as judged

    source = read_document(str(document), allow_import)
    plan = compile(against, settings=settings, phases=phases, allow_import=allow_import)
    return Audit(str(against), plan, judged(source, plan.subject()))
