"""`dagc.diff`: what changes from one plan to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.frozen import record
from ..plan.plan import CompiledPlan
from .face import compile

if TYPE_CHECKING:
    from ..plan.recorded import Recorded
    from ..view.report.diff import Diff
    from .asked_specs import Settings


@record
class Difference:
    """Two plans beside each other. `names`: of both. False where nothing differs."""

    names: tuple[str, str]
    changes: Diff

    def regressions(self, percent: float = 0.0) -> list[str]:
        """What got worse by more than this, and requirements that no longer hold."""
        return self.changes.regressions(percent)

    def rows(self) -> list[dict[str, Any]]:
        """A row per figure that changed, in SI units; `better` is None where neither direction is."""
        return [
            {"metric": f.name, "before": f.before, "after": f.after, "ratio": f.ratio, "better": f.better}
            for f in self.changes.results
        ]

    def to_dataframe(self, *, library: str | None = None) -> Any:
        """The rows as a data frame of pandas or polars. ImportError where neither is installed."""
        from .data_frames import data_frame

        return data_frame(self.rows(), library)

    def to_json(self) -> dict[str, Any]:
        """The object of `dagc diff --format json`."""
        from ..view.report.diff_text import plain

        return plain(self.changes, *self.names)

    def markdown(self) -> str:
        from ..view.report.diff_text import markdown

        return markdown(self.changes, *self.names)

    def __str__(self) -> str:
        """What `dagc diff` prints."""
        from ..view.report.diff_text import text

        return text(self.changes, *self.names)

    def __bool__(self) -> bool:
        return not self.changes.empty

    def __repr__(self) -> str:
        return f"<Difference {self.names[0]} -> {self.names[1]}: {len(self.changes.results)} figures changed>"


def diff(
    a: str | Path | CompiledPlan,
    b: str | Path | CompiledPlan | None = None,
    *,
    settings: Settings | None = None,
    settings_a: Settings | None = None,
    settings_b: Settings | None = None,
    allow_import: Sequence[str | Path] = (),
) -> Difference:
    """Inputs, structure and results of `a` and `b` that differ (`b`: by default `a` again, under other settings). Each is a compiled plan, a
    `.moe` file, or what `dagc compile --json` printed (`.json`). `settings` are of both. Raises SpecError, ValueError where there is
    nothing to compare."""
    from ..view.report.diff import compare

    if b is None and not (settings_a or settings_b):
        raise ValueError("there is nothing to compare with: give another plan, or settings")
    other = a if b is None else b
    sides = [
        _side(one, {**(settings or {}), **(own or {})}, allow_import)
        for one, own in ((a, settings_a), (other, settings_b))
    ]
    names = (_name(a, settings_a), _name(other, settings_b))
    return Difference(names, compare(*sides))


def _side(
    one: str | Path | CompiledPlan, settings: Settings, allow_import: Sequence[str | Path]
) -> CompiledPlan | Recorded:
    if not isinstance(one, str | Path):
        if settings:
            raise ValueError("a compiled plan has no params: settings need its spec")
        return one
    if not str(one).endswith(".json"):
        return compile(one, settings=settings, allow_import=allow_import)
    from ..importers.plan_object import read
    from .face import read_plan

    found = read(str(one), allow_import)
    if settings:
        raise ValueError("a recorded plan has no params: settings need its spec")
    return read_plan(Path(one), allow_import) if found is None else found


def _name(one: str | Path | CompiledPlan, settings: Settings | None) -> str:
    name = str(one) if isinstance(one, str | Path) else one.spec.model.name
    own = ", ".join(f"{key}={value}" for key, value in (settings or {}).items())
    return f"{name} ({own})" if own else name
