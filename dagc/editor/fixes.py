"""Edits that do what a finding's help says. An edit is offered where a check of the edited text shows that it helps: the finding
is gone, and no other came."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..base.diagnostics import FATAL
from ..base.frozen import record
from ..base.schema.attribute import Attribute
from ..base.sections import SECTIONS
from ..base.syntax.errors import WORDS
from ..base.units import EXAMPLES, SCALAR
from .buffer import Document, Edit, applied
from .checked import ERROR, PLAN, SPEC, Checked, Finding
from .checking import check_plan, check_spec
from .known_sections import given_in, missing, path_of, section_of
from .statement_tree import ASSIGN, SECTION, Statement, around, walk
from .tokens import STRING

MOST_TRIED = 12
"""Edits that are checked for one finding: each takes as long as a check."""
MOST_FINDINGS = 8
"""At one place."""


@record
class Fix:
    """What a code action does to the document; `code` and `message` of the finding that it ends."""

    title: str
    edits: tuple[Edit, ...]
    code: str
    message: str


Check = Callable[[Document], Checked]


def fixes(document: Document, start: int, end: int, stage: str = SPEC) -> list[Fix]:
    """For the findings between two offsets, those that help. `stage` PLAN: for findings of the compiled plan alone."""
    before = check_spec(document)
    check, early = check_spec, set[tuple[str, str]]()
    if stage == PLAN:
        check, early = check_plan, {(f.code, f.message) for f in before.findings}
        before = check_plan(document)
    here = [f for f in before.findings if touches(f, start, end) and (f.code, f.message) not in early]
    found: list[Fix] = []
    for finding in here[:MOST_FINDINGS]:
        found += helpful(document, finding, before, check)
    return found


def touches(finding: Finding, start: int, end: int) -> bool:
    """Whether a finding is at characters of the document."""
    return (
        not finding.spot.path and finding.spot.start <= end and start <= max(finding.spot.end, finding.spot.start + 1)
    )


def helpful(document: Document, finding: Finding, before: Checked, check: Check = check_spec) -> list[Fix]:
    """Of the edits that its help may mean, those after which the finding is gone and no other came. Of several that say the same,
    the first."""
    seen: set[str] = set()
    titles: set[str] = set()
    found = []
    for title, edits in candidates(document, finding):
        text = applied(document.text, edits)
        if text in seen or text == document.text or title in titles:
            continue
        seen.add(text)
        if len(seen) > MOST_TRIED:
            break
        if cures(before, check(document.with_text(text)), finding):
            titles.add(title)
            found.append(Fix(title, tuple(edits), finding.code, finding.message))
    return found


def cures(before: Checked, after: Checked, finding: Finding) -> bool:
    """The finding is gone once, and no other error came. Verdicts of a plan that was not judged before are none."""
    count = _count(after, finding.code, finding.message)
    if count >= _count(before, finding.code, finding.message):
        return False
    known = {(f.code, f.message) for f in before.findings}
    return all((f.code, f.message) in known for f in after.findings if f.severity == ERROR and f.code in FATAL)


def _count(checked: Checked, code: str, message: str) -> int:
    return sum((f.code, f.message) == (code, message) for f in checked.findings)


_MEANT = re.compile(
    r"did you mean |(?:^|, or )write (?!a plain|a separate)|is written|are written|spell the number out|of that family there is "
)
_CODE = re.compile(r'`([^`]+)`|from "([^"]+)"|"([^"]+)"')
_EXAMPLE = re.compile(r"write a unit, e\.g\. `[0-9.]+ ([^`]+)`")
_PLAIN = re.compile(r"write a plain (`-`|one)|remove it|write `([^`]+)`")
_LEFT_OUT = re.compile(r"leave out `(\w+)`|leave one of them out")
_SETS = re.compile(r"^`?(\w+) = ([^`]+?)`? (?:or more )?(?:cuts|makes|fills|leaves|keeps|uses|fits|divides)\b")
_SIGNS = (
    ("statements end with", ","),
    ("a section has no `:`", ""),
    ("a section has no `=`", ""),
    ("write `name = value`", "="),
)
"""Helps on a sign that is out of place -> what takes its place."""
_INSTEAD = re.compile("|".join(re.escape(words) for words, _ in _SIGNS))
_ADDED = re.compile(r"add the line `([^`]+)`|a spec begins with `([^`]+)`")
_NEEDS = re.compile(r"^`([^`]+)` needs `(\w+)`")
_TWICE = re.compile(r"is (?:given|defined) twice$")


def candidates(document: Document, finding: Finding) -> Iterator[tuple[str, list[Edit]]]:
    """Edits that may be meant, the likeliest first: a title, and the edits."""
    text, spot = document.text, finding.spot
    shown = text[spot.start : spot.end]
    tree = document.statements
    for line in finding.help:
        if found := _ADDED.search(line):
            code = found[1] or found[2]
            yield f"add `{code}`", [Edit(_head_end(text), _head_end(text), f"{code}\n")]
        if found := _EXAMPLE.search(line):
            yield f"write `{shown} {found[1]}`", [Edit(spot.end, spot.end, f" {found[1]}")]
        if finding.code == "E01" and spot.end - spot.start == 1 and (found := _PLAIN.search(line)):
            plain = {"`-`": "-", "one": " "}.get(found[1] or "", found[2] or "")
            yield f"write `{plain}`" if plain.strip() else "write a plain blank", [Edit(spot.start, spot.end, plain)]
        if _MEANT.search(line):
            for code in _codes(line):
                yield from _written(document, tree, finding, code)
        if found := _SETS.search(line):
            for value in found[2].split(" or "):
                yield from _set(tree, spot.start, f"{found[1]} = {value}")
        if (found := _INSTEAD.search(line)) and len(shown.strip()) <= 2:
            plain = next(text for pattern, text in _SIGNS if pattern == found[0])
            yield f"write `{plain}`" if plain else f"remove `{shown}`", [Edit(spot.start, spot.end, plain)]
        if (found := _LEFT_OUT.search(line)) and (s := _attribute(tree, spot.start, found[1] or "")) is not None:
            yield f"remove `{text[s.start : s.end]}`", [_removal(text, s)]
    if found := _NEEDS.match(finding.message):
        yield from _missing(tree, spot.start, found[2])
    if _TWICE.search(finding.message) and (s := _statement(tree, spot.start)) is not None:
        yield f"remove the second `{s.word}`", [_removal(text, s)]


def _codes(line: str) -> list[str]:
    """What is in backticks or quotes."""
    return [code for found in _CODE.findall(line) for code in found if code and "..." not in code and code not in WORDS]


def _written(
    document: Document, tree: Sequence[Statement], finding: Finding, code: str
) -> Iterator[tuple[str, list[Edit]]]:
    """Ways to write a piece of code where a finding is."""
    text, spot = document.text, finding.spot
    shown = text[spot.start : spot.end]
    title = f"write `{code}`"
    s = _statement(tree, spot.start)
    yield from ((title, [edit]) for edit in _spelt(text, spot.start, code))
    if " = " in code:
        name = code.partition(" = ")[0]
        if s is not None and s.kind == ASSIGN and s.word == name:
            yield title, [Edit(s.start, s.end, code)]
        if s is not None and s.inside is None:
            line_end = min(i for i in (text.find("\n", s.start), len(text)) if i >= 0)
            yield title, [Edit(s.start, s.end, code)]
            yield title, [Edit(s.start, line_end, code)]
        yield from _set(tree, spot.start, code)
        return
    if shown.startswith('"') and shown.endswith('"') and len(shown) > 1:
        yield title, [Edit(spot.start, spot.end, f'"{code.strip(chr(34))}"')]
    if "\n" not in shown:
        yield title, [Edit(spot.start, spot.end, code)]
    for word in re.findall("`([^`]+)`", finding.message):
        places = [t for t in document.tokens if t.text == word]
        near = sorted(places, key=lambda t: abs(t.start - spot.start))[:2]
        for token in near:
            yield title, [Edit(token.start, token.end, code)]
    if s is not None:
        for token in s.head[:3]:
            if token.kind != STRING:
                yield title, [Edit(token.start, token.end, code)]
        if s.inside is not None:
            yield title, [Edit(s.start, s.head[-1].start, f"{code} ")]


def _spelt(text: str, offset: int, code: str) -> Iterator[Edit]:
    """What was written in place of the code, where its own words say what that was: a list without brackets, a range with another
    sign, a preset without quotes."""
    start = text.rfind("\n", 0, offset) + 1
    stop = text.find("\n", offset)
    line = text[start : len(text) if stop < 0 else stop]
    wrong, right = "", code
    if listed := re.fullmatch(r"(\w+) = \[(.*)\]", code):
        items = r"\s*,\s*".join(map(re.escape, listed[2].split(", ")))
        wrong = rf"\b{listed[1]}\s*=\s*{items}"
    elif ends := re.fullmatch(r"(\d+)\.\.(\d+)", code):
        wrong = rf"\b{ends[1]}\s*[^\w\s.]\s*{ends[2]}\b"
    elif re.search(rf"\bfrom\s+{re.escape(code)}(?!\S)", line):
        wrong, right = rf"(?<=from ){re.escape(code)}", f'"{code}"'
    if wrong and (found := re.search(wrong, line)):
        yield Edit(start + found.start(), start + found.end(), right)


def _set(tree: Sequence[Statement], offset: int, code: str) -> Iterator[tuple[str, list[Edit]]]:
    """Set an attribute in the section around an offset, or in one that begins there."""
    name = code.partition(" = ")[0]
    sections = list(around(tree, offset))
    begun = [s for s, _ in walk(tree) if s.kind == SECTION and s.inside is not None and s.start <= offset < s.inside[0]]
    for section in [*begun, *reversed(sections)]:
        given = section.attribute(name)
        if given is not None:
            yield f"write `{code}`", [Edit(given.start, given.end, code)]
            return
    for section in [*begun, *reversed(sections)]:
        yield f"add `{code}`", [_insertion(section, code)]


def _insertion(section: Statement, code: str) -> Edit:
    """A statement at the end of a section, as its other statements are written."""
    assert section.inside is not None
    if not section.body:
        return Edit(section.inside[0], section.inside[1], f" {code} ")
    last = section.body[-1]
    return Edit(last.end, last.end, f", {code}")


def _missing(tree: Sequence[Statement], offset: int, name: str) -> Iterator[tuple[str, list[Edit]]]:
    """An attribute that a section needs, with a value to begin with."""
    for s, above in walk(tree):
        if s.kind != SECTION or s.inside is None or not s.start <= offset < s.inside[0]:
            continue
        path = (*above, s)
        known = section_of(path)
        if known is not None and name in missing(known.attributes, given_in(s)):
            value = example(name, known.attributes[name], path_of(path))
            yield f"add `{name} = {value}`", [_insertion(s, f"{name} = {value}")]


def example(name: str, one: Attribute, path: str = "") -> str:
    """A value that an attribute may have."""
    if one.words:
        return one.words[0]
    if one.kind == "counts":
        return "0..7"
    if one.kind == "form":
        return next((f"{found.partition('.')[0]}(1 req/s)" for found in SECTIONS[f"{path}.{name}"].attributes), "")
    if one.dim != SCALAR:
        return EXAMPLES.get(one.dim, "1")
    return {"flag": "true", "text": '""'}.get(one.kind, "8" if one.kind == "count" else "1")


def _statement(tree: Sequence[Statement], offset: int) -> Statement | None:
    """The innermost statement whose words have the offset."""
    found = [s for s, _ in walk(tree) if s.head and s.start <= offset <= s.head[-1].end]
    return found[-1] if found else None


def _attribute(tree: Sequence[Statement], offset: int, name: str) -> Statement | None:
    """The statement that sets an attribute, in the section around an offset or that begins there; without a name, the one there."""
    if not name:
        return _statement(tree, offset)
    begun = [s for s, _ in walk(tree) if s.inside is not None and s.start <= offset < s.inside[0]]
    for section in (*begun, *reversed(around(tree, offset))):
        for s in section.body:
            if s.word == name:
                return s
    return None


def _removal(text: str, s: Statement) -> Edit:
    """A statement with the comma behind it, or the line that it has to itself."""
    line = text.rfind("\n", 0, s.start) + 1
    stop = text.find("\n", s.end)
    stop = len(text) if stop < 0 else stop
    if not text[line : s.start].strip() and not text[s.end : stop].strip(" \t,"):
        return Edit(line, min(stop + 1, len(text)), "")
    after = re.compile(r"[ \t]*,[ \t]*").match(text, s.end)
    if after is not None:
        return Edit(s.start, after.end(), "")
    ahead = re.search(r"[ \t]*,[ \t]*$", text[line : s.start])
    return Edit(line + ahead.start() if ahead is not None else s.start, s.end, "")


def _head_end(text: str) -> int:
    """Behind the comments that a file begins with."""
    found = re.match(r"(?:[ \t]*(?:#[^\n]*)?\n)*", text)
    return found.end() if found is not None else 0


def to_plain(found: Sequence[Fix]) -> list[dict[str, Any]]:
    """As JSON has it."""
    return [
        {"title": f.title, "edits": [[e.start, e.end, e.text] for e in f.edits], "code": f.code, "message": f.message}
        for f in found
    ]


def from_plain(data: Sequence[dict[str, Any]]) -> list[Fix]:
    return [Fix(d["title"], tuple(Edit(*e) for e in d["edits"]), d["code"], d["message"]) for d in data]
