"""The verdict on a spec, kept from one run of dagc to the next: it follows from what the text says, the settings and dagc alone, and whoever
checks a folder before each commit has changed one file of it, if not a comment. What was kept was compiled and verified as any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..base import user_cache
from ..base.diagnostics import Diagnostic
from ..base.frozen import record
from ..base.heard import LISTENERS, Listener, timed
from ..base.kept_diagnostics import data_of, diagnostics_from
from ..base.said_text import Said, said
from ..view.report.requirement_lines import Judged
from .manner import manner

if TYPE_CHECKING:
    from pathlib import Path

    from ..base.source import Source
    from ..plan.plan import CompiledPlan

FORM = 2
"""Of an entry."""


@record
class Checked:
    """`state`: passed, FAILED, DOES NOT FIT; `verdict`: in a line; `failing`: requirements, the furthest from what is required first."""

    diagnostics: tuple[Diagnostic, ...]
    passed: bool
    state: str
    verdict: str
    failing: tuple[Judged, ...]

    @classmethod
    def of(cls, plan: CompiledPlan) -> Checked:
        from ..view.facts.plan_answer import ordered, state, verdict

        failing = tuple(Judged.of(one) for one in ordered(plan) if not one.passed)
        return cls(plan.diagnostics, plan.passed, state(plan), verdict(plan), failing)


class Elsewhere(Listener):
    """Whether this process has looked for anything but the specs that were given: other files, and packages that add to dagc."""

    found = False

    def opened(self, path: str) -> None:
        self.found = True

    def looked_for(self, group: str) -> None:
        self.found = True


_elsewhere = Elsewhere()


def checked(
    source: Source,
    settings: Mapping[str, str],
    phases: Sequence[str],
    base_dir: Path | None,
    allow_import: Sequence[str | Path],
) -> Checked:
    """The verdict on a source. Raises SpecError."""
    own = said(source.text)
    key = _key(source.name, own, settings, phases)
    if key is not None and (known := restored(user_cache.read(key), source, own)) is not None:
        return known
    LISTENERS.append(_elsewhere)
    try:
        plan, made = _compiled(source, settings, phases, base_dir, allow_import)
    finally:
        LISTENERS.remove(_elsewhere)
    found = Checked.of(plan)
    if key is not None and not _elsewhere.found:
        for name, data in ((key, entry(found, source, own)), *made):
            if data is not None:
                user_cache.write(name, data)
    return found


def _compiled(
    source: Source, settings: Mapping[str, str], phases: Sequence[str], base_dir: Path | None, allow_import: Sequence[str | Path]
) -> tuple[CompiledPlan, list[tuple[str, Any]]]:  # fmt: skip
    """A plan, of which the verdict may be all that is there, and what is worth being kept of it."""
    from ..base.diagnostics import Collector
    from ..lang.load import load
    from . import kept_metrics

    out = Collector()
    with timed("spec", "parse, check"):
        spec = load(source, out, settings, base_dir, allow_import)
    own = None if phases else kept_metrics.plan_text(spec, source)
    key = None if own is None else _key(source.name, own, settings, ("", "plan"))
    loaded = tuple(out.items)
    if own is not None and key is not None and (data := user_cache.read(key)) is not None:
        found = kept_metrics.judged(data, spec, out, source, own)
        if found is not None:
            return found, []
    from ..pipeline.compile import compile_spec

    with user_cache.using():
        plan = compile_spec(spec, out, phases or None, cures=True, kept=True)
    if own is None or key is None:
        return plan, []
    return plan, [(key, kept_metrics.entry(plan, loaded, source, own))]


def _key(name: str, said: Said, settings: Mapping[str, str], phases: Sequence[str]) -> str | None:
    """The name of its entry; None where verdicts are not kept. With `-v` people ask what takes how long: it is done again."""
    if manner().verbose or user_cache.folder() is None or (own := user_cache.surroundings()) is None:
        return None
    asked = (name, said.text, *phases, "--set", *sorted(map("=".join, settings.items())))
    return user_cache.digest("\n".join(["check", str(FORM), own, *(f"{len(part)} {part}" for part in asked)]))


def entry(found: Checked, source: Source, own: Said) -> dict[str, Any] | None:
    """What is kept of a verdict; None where it points to another text than what the spec says."""
    diagnostics = data_of(found.diagnostics, source, own.place)
    if diagnostics is None:
        return None
    failing = [[one.label, one.sides, one.by] for one in found.failing]
    return {
        "diagnostics": diagnostics,
        "passed": found.passed,
        "state": found.state,
        "verdict": found.verdict,
        "failing": failing,
    }


def restored(found: Any, source: Source, own: Said) -> Checked | None:
    """The verdict of an entry; None where it has another form."""
    try:
        words = [found["state"], found["verdict"], *(text for row in found["failing"] for text in row)]
        if set(map(type, words)) != {str} or (type(found["passed"]), type(found["failing"])) != (bool, list):
            return None
        failing = tuple(Judged(label, sides, by, False) for label, sides, by in found["failing"])
        diagnostics = diagnostics_from(found["diagnostics"], source, own.back)
        return Checked(diagnostics, found["passed"], found["state"], found["verdict"], failing)
    except (KeyError, TypeError, ValueError):
        return None
