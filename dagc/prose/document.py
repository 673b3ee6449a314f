"""A document in prose as lines that know their label and the headings above them: Markdown, or plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..base.diagnostics import Diagnostic, SpecError
from ..base.files import TooLong, Unreadable, read_named
from ..base.frozen import record, replace
from ..base.harmless import harmless
from ..base.source import Source, Span
from .words import unit_in

MOST_BYTES = 1_000_000
MOST_LINE = 4_000
"""Characters of a line: what is longer is no prose, and patterns would take their time."""
MOST_LINES = 5_000
MOST_LEAD = 400
"""Characters around a line of a paragraph that are looked at."""

_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_BULLET = re.compile(r"[\s>*+\-•├└│─]*(?:\d{1,3}[.)]\s+)?")
_ORDINAL = re.compile(
    r"^(?:\d{1,3}(?:\.\d+)*[.)]?\s+|(?:issue|section|step|part|chapter|phase|table|figure|appendix)\s+\d+(?:\.\d+)*\s*[:.]?\s*)",
    re.I,
)
_MARKUP = re.compile(r"\*\*|__|`|[✓✔✅☑❌✗]️?")
_LABEL = re.compile(r"([^:.?!=×÷]{1,80}?)\s*:\s+(?=\S)")
_RULE = re.compile(r"\s*\|?[\s:|\-]+\|[\s:|\-]*$")


@record
class Line:
    """`text`: without bullets and markup; `body`: where the text behind the label begins; `headings`: outermost first; `block`: lines of one
    list or paragraph have the same; `ticked`: it ends with a mark that says it holds; `carry`: of a line that goes on, the sentence that it is in, and `ahead`: that of it
    which follows; `lead`: its paragraph so far; `cell`: of a table."""

    number: int
    text: str
    body: int
    label: str
    headings: tuple[str, ...]
    block: int
    ticked: bool
    carry: str = ""
    ahead: str = ""
    lead: str = ""
    cell: bool = False

    def sentence(self, start: int) -> str:
        """That in which a place is, lower case, with what began on a line before."""
        head, tail = self.text[:start], self.text[start:]
        begin, end = head.rfind(". "), tail.find(". ")
        own = self.text[begin + 2 if begin >= 0 else 0 : start + end if end >= 0 else len(self.text)]
        return f"{self.carry if begin < 0 else ''} {own} {self.ahead if end < 0 else ''}".lower().strip()


def read_document(path: str, allowed: Sequence[str | Path] = ()) -> Source:
    """A link out of its project is followed into `allowed` folders only. Raises SpecError: E05 where it cannot be
    read, E01 where it is no text of lines that people wrote."""
    import sys

    name = "<stdin>" if path == "-" else path
    try:
        data = sys.stdin.buffer.read(MOST_BYTES + 1) if path == "-" else read_named(path, MOST_BYTES, allowed)
        if len(data) > MOST_BYTES:
            raise TooLong(f"it is longer than {MOST_BYTES:,} bytes")
    except TooLong as error:
        help_ = ("audit the pages that have the claims, one at a time",)
        raise SpecError([Diagnostic("E01", f"cannot read {name!r}: {error}", help=help_)]) from None
    except (OSError, ValueError, Unreadable) as error:
        reason = getattr(error, "strerror", None) or str(error)
        found = Diagnostic("E05", f"cannot read {name!r}: {reason}", help=getattr(error, "help", ()))
        raise SpecError([found]) from None
    return document(name, data)


def document(name: str, data: bytes) -> Source:
    """Bytes as text. Raises SpecError with E01."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"`{name}` is not UTF-8 text (byte {error.start})"
        raise SpecError([Diagnostic("E01", message, help=("save it as UTF-8 text or Markdown",))]) from None
    source = Source(name, text.replace("\r\n", "\n"))
    if "\0" in source.text:
        at = source.text.index("\0")
        help_ = ("`dagc audit` reads text and Markdown: convert a PDF or a Word document first",)
        raise SpecError(
            [Diagnostic("E01", "this is not a text: it contains a zero byte", Span(source, at, at + 1), help=help_)]
        )
    rows = source.text.split("\n")
    long = next((n for n, row in enumerate(rows) if len(row) > MOST_LINE), None)
    if long is not None or len(rows) > MOST_LINES:
        what = (
            f"line {(long or 0) + 1} has over {MOST_LINE:,} characters"
            if long is not None
            else f"it has over {MOST_LINES:,} lines"
        )
        raise SpecError(
            [Diagnostic("E01", f"`{name}` is not prose: {what}", help=("break its lines, or audit a part of it",))]
        )
    return source


def lines(text: str) -> list[Line]:
    """Lines that say something; a row of a table is a line for each cell, labelled by its row and column."""
    out: list[Line] = []
    headings: list[tuple[int, str]] = []
    columns: list[str] = []
    block = 0
    rows = text.split("\n")
    for number, raw in enumerate(rows, 1):
        row = harmless(raw)
        if not row.strip() or row.lstrip().startswith("```"):
            block, columns = block + 1, []
            continue
        above = tuple(words for _, words in headings)
        ticked = row.rstrip().endswith(("✓", "✔", "✅", "☑"))
        if found := _HEADING.match(row):
            depth = len(found[1])
            headings = [(d, w) for d, w in headings if d < depth]
            words = _ORDINAL.sub("", _clean(found[2]))
            out.append(_line(number, words, tuple(w for _, w in headings), block := block + 1, ticked))
            headings.append((depth, words))
            block += 1
        elif row.lstrip().startswith("|") or columns:
            cells = [_clean(cell) for cell in row.strip().strip("|").split("|")]
            if number < len(rows) and _RULE.match(rows[number]) and "-" in rows[number]:
                columns = cells
            elif columns and not _RULE.match(row):
                out += _cells(number, cells, columns, above, block, ticked)
        else:
            bullet = _BULLET.match(row)
            at = bullet.end() if bullet is not None else 0
            one = _line(number, _clean(row[at:]), above, block, ticked)
            if out and out[-1].block == block and not row[:at].strip() and not one.label:
                last = out[-1]
                one = replace(
                    one, carry=_unfinished(f"{last.carry} {last.text}"), lead=f"{last.lead} {last.text}"[-MOST_LEAD:]
                )
                if one.carry:
                    out[-1] = replace(last, ahead=re.split(r"[.?!](?:\s|$)", one.text)[0][:MOST_LEAD])
            out.append(one)
    return out


def _unfinished(text: str) -> str:
    """What comes after the last full stop, at most a few lines of it."""
    return text.rpartition(". ")[2][-400:].strip() if not text.rstrip().endswith(".") else ""


def _cells(
    number: int, cells: list[str], columns: list[str], above: tuple[str, ...], block: int, ticked: bool
) -> Iterator[Line]:
    """The first column names the row."""
    for name, cell in zip(columns[1:], cells[1:], strict=False):
        label = f"{cells[0]} {name}"
        if re.fullmatch(r"[~≈<>=≤≥\s]*[\d.,]+", cell):
            cell = f"{cell} {unit_in(name) or unit_in(cells[0])}".strip()
        yield Line(number, f"{label}: {cell}", len(label) + 2, label.lower(), above, block, ticked, cell=True)


def _clean(text: str) -> str:
    return " ".join(_MARKUP.sub("", text).split())


def _line(number: int, text: str, headings: tuple[str, ...], block: int, ticked: bool) -> Line:
    text = text.lstrip()
    found = _LABEL.match(text)
    body = found.end() if found else 0
    return Line(number, text, body, found[1].strip().lower() if found else "", headings, block, ticked)
