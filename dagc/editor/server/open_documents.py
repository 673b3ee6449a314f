"""The documents that an editor has open, and what is known of each: checked soon after a change, costed when typing pauses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from ...base.files import UNSAVED
from ..buffer import Document, Settings
from ..checked import INFORMATION, NOTHING, PLAN, SPEC, Checked, Finding, Spot, kept
from ..library_files import strings_of
from .checkers import Checker

QUIET_S = 0.03
"""After a change, until the spec is checked: fast typing is checked once."""
PAUSE_S = 0.3
"""Until the plan is compiled."""
SPEC_BUDGET_S, PLAN_BUDGET_S = 10.0, 60.0
"""Of one text: a spec that takes longer is told so."""
PATIENCE_S = 2.0
"""How long a plan may go on being compiled when there is a newer text: starting a process takes about as long."""

Publish = Callable[["OpenDocument"], None]


@dataclass(slots=True)
class OpenDocument:
    """`checked`: of this very text, or of an earlier one that did parse, for figures; `costed`: the last compiled plan and its text."""

    uri: str
    version: int
    document: Document
    checked: Checked = NOTHING
    current: bool = False
    costed: Checked | None = None
    costed_text: str = ""
    note: Finding | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of this text: of its compiled plan as soon as there is one, until then what an earlier one said of lines that did
        not change."""
        note = (self.note,) if self.note is not None else ()
        if self.costed is None or self.costed_text == self.document.text:
            return (*self.checked.findings, *note)
        if any(f.severity == "error" for f in self.checked.findings):
            return (*self.checked.findings, *note)
        return (*self.checked.findings, *kept(self.costed, self.costed_text, self.checked, self.document.text), *note)

    @property
    def facts(self) -> Checked:
        """What hovers and hints show: of this text where it was compiled, else of the last that was."""
        if self.costed is None:
            return self.checked
        if self.costed_text == self.document.text or self.checked.stage != SPEC or not self.checked.phases:
            return self.costed
        shown = {
            name: self.costed.phases[name] if self.costed.phases.get(name, facts).product == facts.product and name in self.costed.phases else facts
            for name, facts in self.checked.phases.items()
        }  # fmt: skip
        return Checked(
            PLAN, (), self.checked.constants, self.checked.attributes, shown, self.costed.params, self.costed.figures,
            self.costed.verdict, self.costed.limits,
        )  # fmt: skip


@dataclass(slots=True)
class OpenDocuments:
    """`publish` hears of every document whose findings changed."""

    publish: Publish
    settings: Settings = field(default_factory=Settings)
    known: dict[str, OpenDocument] = field(default_factory=dict)
    quick: Checker = field(default_factory=lambda: Checker(SPEC, SPEC_BUDGET_S, SPEC_BUDGET_S))
    costly: Checker = field(default_factory=lambda: Checker(PLAN, PLAN_BUDGET_S, PATIENCE_S))

    def put(self, uri: str, path: str | None, text: str, version: int) -> None:
        """A document that was opened or changed. An older version than that which is known is dropped."""
        before = self.known.get(uri)
        if before is not None and version < before.version:
            return
        document = Document.of(text, path, self.settings)
        if before is None:
            before = self.known[uri] = OpenDocument(uri, version, document)
        before.version, before.document, before.current = version, document, False
        self.recheck(before)
        self.held(document)

    def held(self, document: Document, closed: bool = False) -> None:
        """What other documents read of its file: its text, while it is open. Those that may import it are checked again."""
        if document.path is None:
            return
        path = os.path.realpath(document.path)
        if closed or document.too_long:
            UNSAVED.pop(path, None)
        else:
            UNSAVED[path] = document.text
        for other in self.known.values():
            if other.document is not document and any(True for _ in strings_of(other.document.statements)):
                other.document = other.document.again()
                self.recheck(other)

    def recheck(self, one: OpenDocument) -> None:
        """Its text or a file beside it changed."""
        for timer in one.timers:
            timer.cancel()
        loop = asyncio.get_running_loop()
        one.timers = [loop.call_later(QUIET_S, self._check, one)]

    def drop(self, uri: str) -> None:
        """It was closed."""
        one = self.known.pop(uri, None)
        if one is not None:
            for timer in one.timers:
                timer.cancel()
            self.held(one.document, closed=True)
            self.quick.forget(uri)
            self.costly.forget(uri)

    def end(self) -> None:
        """The editor goes."""
        for uri in list(self.known):
            self.drop(uri)
        self.quick.end()
        self.costly.end()

    def _check(self, one: OpenDocument) -> None:
        document = one.document

        def told(found: Checked | None, why: str) -> None:
            if one.document is not document or self.known.get(one.uri) is not one:
                return  # of an older text
            one.note = None if found is not None else _not_known(why)
            one.checked, one.current = found or NOTHING, True
            self.publish(one)
            if found is not None and found.stage == SPEC and found.phases:
                one.timers = [asyncio.get_running_loop().call_later(PAUSE_S, self._cost, one)]

        self.quick.check(one.uri, document, told)

    def _cost(self, one: OpenDocument) -> None:
        document = one.document

        def told(found: Checked | None, why: str) -> None:
            if one.document is not document or self.known.get(one.uri) is not one:
                return
            if found is None:
                one.note = _not_known(why)
            else:
                one.checked = found
                if found.stage == PLAN:
                    one.costed, one.costed_text = found, document.text
            self.publish(one)

        self.costly.check(one.uri, document, told)


def _not_known(why: str) -> Finding:
    """An answer that did not come."""
    return Finding(
        "", INFORMATION, f"not checked to the end: {why}", Spot(0, 0), help=("`dagc check` has no limit of time",)
    )
