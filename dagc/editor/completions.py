"""What can be typed at a place: what a section still needs first, then all else that the language knows there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..base.axes import AXES
from ..base.files import Reach, Unreadable
from ..base.frozen import record
from ..base.phase_kinds import PHASE_KINDS, SERVED, TRAIN
from ..base.schema.attribute import ANY, Attribute
from ..base.sections import FORMS, SECTIONS, Section, default_text, kind_text
from ..base.units import EXAMPLES, SCALAR, UNITS, Dim, dim_words
from ..lang import library
from ..spec.metrics.known_metrics import TABLE
from ..spec.metrics.metric import HARDWARE, MODEL, SERVE, WORKLOAD, Metric
from ..spec.metrics.metric import PHASE as OF_PHASE
from ..spec.metrics.metric import TRAIN as OF_TRAINING
from . import bindings as b
from .buffer import Document
from .checked import Checked
from .cursor import Cursor, cursor_at
from .hovers import attribute_text, block_function, metric_of, phase_kind
from .known_sections import KEYWORDS, given_in, missing, path_of, section_of, sections_in
from .library_files import named_path, read_beside, unquoted
from .statement_tree import BLOCK, IMPORT, LAYER, PARAM, SECTION, Statement
from .tokens import NAME, NUMBER

MOST_FILES = 200
"""Of a folder, that are offered."""
FIRST, NEXT, LAST = "0", "1", "2"
"""Ranks of items: missing ones, those of the place, what may be anywhere."""


@record
class Item:
    """`kind`: attribute, section, keyword, value, preset, file, metric, dim, constant, function, unit, name. `insert`: where it is
    another text than the label, with `$` places of a snippet where `snippet`. It takes the place of the characters from `start`."""

    label: str
    kind: str
    start: int
    detail: str = ""
    about: str = ""
    insert: str = ""
    snippet: bool = False
    rank: str = NEXT


def completions(document: Document, offset: int, checked: Checked, *, snippets: bool = False) -> list[Item]:
    """All that may be typed at an offset; the editor leaves out what does not begin as the word there."""
    cursor = None if document.too_long else cursor_at(document, offset)
    if cursor is None:
        return []
    names = b.names_of(document)
    found = Completer(document, cursor, names, checked, snippets)
    unique: dict[str, Item] = {}
    for item in found.items():
        unique.setdefault(item.label, item)
    return sorted(unique.values(), key=lambda item: item.rank)


@record(slots=False)
class Completer:
    """One place of one text."""

    document: Document
    cursor: Cursor
    names: b.Names
    checked: Checked
    snippets: bool

    def item(
        self, label: str, kind: str, detail: str = "", about: str = "", insert: str = "", rank: str = NEXT
    ) -> Item:
        return Item(label, kind, self.cursor.start, detail, about, insert, False, rank)

    def items(self) -> Iterator[Item]:
        cursor = self.cursor
        first = cursor.before[0].text if cursor.before else ""
        if cursor.string is not None:
            yield from self.in_string()
        elif cursor.sections and cursor.sections[0].kind == BLOCK:
            yield from self.in_block(cursor.sections[0])
        elif cursor.sections and cursor.sections[0].kind == LAYER:
            yield from self.named(b.BLOCK_NAME)
        elif not cursor.before:
            yield from self.beginnings()
        elif cursor.last is not None and cursor.last.kind == NUMBER:
            yield from self.units()
        elif first == "require":
            yield from self.in_requirement()
        elif first in ("let", PARAM):
            if any(t.text == "=" for t in cursor.before):
                yield from self.anywhere()
                yield from (self.item("in", "keyword", KEYWORDS["in"]) for _ in "x" if first == PARAM)
        elif first == "block":
            yield from (
                self.item(kind, "value", "kind of phase")
                for kind in PHASE_KINDS
                if cursor.last and cursor.last.text == "in"
            )
        elif cursor.attribute or any(t.text == "=" for t in cursor.before):
            yield from self.values(cursor.attribute or first)
        elif first == "link" and not cursor.sections:
            yield from (self.named(b.POOL) if len(cursor.before) != 2 else [self.item("to", "keyword")])
        elif first in SECTIONS and cursor.last is not None:
            yield from self.heads(first, cursor.last.text)

    # -- beginnings of statements

    def beginnings(self) -> Iterator[Item]:
        sections = self.cursor.sections
        if not sections:
            for word in ("import", "let", "param", "require", "block", "layer", "moe"):
                if word != "moe" or not self.cursor.statements or self.cursor.statements[0].word != "moe":
                    yield self.item(word, "keyword", KEYWORDS[word], insert="moe 1\n" if word == "moe" else f"{word} ")
            yield from self.section_heads(())
            return
        known = section_of(sections)
        if known is None:
            return
        given = given_in(sections[-1])
        preset = self.of_preset()
        needed = {*missing(known.attributes, given | preset)}
        if path_of(sections) == "phase" and sections[-1].name is not None:
            needed |= {"kind"} - {*given} if unquoted(sections[-1].name) not in PHASE_KINDS else set()
        path = path_of(sections)
        for name, one in known.attributes.items():
            if name in given:
                continue
            detail = "needed" if name in needed else kind_text(name, one)
            about = attribute_text(path, name, one)
            yield self.item(name, "attribute", detail, about, f"{name} = ", FIRST if name in needed else NEXT)
        if path == "model.weights":
            yield from (
                self.item(n, "name", "block", insert=f"{n} = ") for n in self.names.of(b.BLOCK_NAME) if n not in given
            )
        if path == "phase":
            yield self.item("place gpu", "attribute", "ids as a formula over axes", insert="place gpu = ", rank=LAST)
        yield from self.section_heads(given)

    def section_heads(self, given: Iterable[str]) -> Iterator[Item]:
        names = {"link": "${1:node}"}
        for word, one in sections_in(self.cursor.sections).items():
            if word in given and "NAME" not in one.written:
                continue
            head = one.written.partition(" {")[0]
            for optional in (" [NAME]", ' [from "PRESET"]'):
                head = head.replace(optional, "")
            if self.snippets:
                shown = head.replace("NAME", names.get(word, "${1:name}")).replace(
                    "POOL to POOL", "${1:one} to ${2:other}"
                )
                shown = f'{shown} from "$1"' if "PRESET" in one.written else shown.replace("BLOCK", "${1:block}")
                yield Item(
                    word,
                    "section",
                    self.cursor.start,
                    one.about,
                    one.written,
                    f"{shown} {{\n  $0\n}}",
                    True,
                    self._rank(word),
                )
            else:
                yield self.item(word, "section", one.about, one.written, f"{word} ", self._rank(word))

    def _rank(self, word: str) -> str:
        """Sections that every spec needs come first as long as they are missing."""
        top = not self.cursor.sections and word in ("hardware", "model", "workload", "phase")
        return FIRST if top and not any(s.kind == SECTION and s.word == word for s in self.cursor.statements) else NEXT

    def of_preset(self) -> set[str]:
        """What the preset of the outermost section gives, in the section where the cursor is."""
        outer, *inner = self.cursor.sections
        if outer.preset is None:
            return set()
        path = named_path(self.document, outer.word, unquoted(outer.preset))
        if path is None:
            return set()
        read = read_beside(path) if path.endswith(".moe") else None
        if read is None:
            return {*self._everything()}
        section = next((s for s in read.statements if s.kind == SECTION and s.word == outer.word), None)
        for one in inner:
            section = section.section(one.word) if section is not None else None
        return given_in(section) if section is not None else set()

    def _everything(self) -> Iterable[str]:
        known = section_of(self.cursor.sections)
        return known.attributes if known is not None else ()

    def heads(self, word: str, last: str) -> Iterator[Item]:
        """Between the first word of a section and its brace."""
        if last == "from":
            yield from (self.item(f'"{name}"', "preset", f"{word} preset") for name in self._presets(word))
        elif word == "checkpoint" and last == word:
            yield from self.named(b.BLOCK_NAME)
        elif word in ("hardware", "model"):
            yield self.item("from", "keyword", KEYWORDS["from"], insert="from ")
        elif word == "phase" and last == word:
            yield from (self.item(kind, "value", "a phase of this kind") for kind in PHASE_KINDS)

    def _presets(self, word: str) -> list[str]:
        return library.names(word) if word in ("hardware", "model") else []

    def in_string(self) -> Iterator[Item]:
        first = self.cursor.before[0].text if self.cursor.before else ""
        last = self.cursor.last.text if self.cursor.last is not None else ""
        if first == IMPORT:
            yield from self.files((".moe",))
        elif last == "from":
            yield from (self.item(name, "preset", f"{first} preset") for name in self._presets(first))
            yield from self.files((".moe", ".json") if first == "model" else (".moe",))
        elif self.cursor.attribute in FORMS or self.cursor.attribute == "calibration":
            yield from self.files((".csv", ".jsonl", ".json"))

    def files(self, endings: tuple[str, ...]) -> Iterator[Item]:
        """Files beside the document that it may read."""
        assert self.cursor.string is not None
        typed = self.document.text[self.cursor.string :].partition('"')[0].partition("\n")[0]
        folder = typed.rpartition("/")[0]
        try:
            path = Reach.of(self.document.path, self.document.settings.allow_import).find(folder or ".")
            inside = sorted(path.iterdir())[:MOST_FILES] if path.is_dir() else []
        except (Unreadable, OSError):
            return
        start = f"{folder}/" if folder else ""
        own = Path(self.document.path).name if self.document.path else ""
        for file in inside:
            if file.name != own and file.suffix in endings and file.is_file():
                yield self.item(f"{start}{file.name}", "file")

    # -- values

    def values(self, attribute: str) -> Iterator[Item]:
        path = path_of(self.cursor.sections)
        known = section_of(self.cursor.sections)
        one = known.attributes.get(attribute) if known is not None else None
        if attribute == "place" or (attribute == "order" and "[" in "".join(self.cursor.calls)):
            yield from (self.item(axis, "value", a.about) for axis, a in AXES.items())
        for kind in b.VALUES_OF.get((path, attribute), ()):
            yield from self.named(kind)
        if attribute in FORMS:
            yield from (self.item(word, "value", rank=FIRST) for word in FORMS[attribute])
            call = self.cursor.calls[-1].removesuffix("(") if self.cursor.calls else ""
            section = SECTIONS.get(f"{path}.{attribute}")
            takes = section.attributes if section is not None else {}
            for name, argument in takes.items():
                if name.partition(".")[0] == call:
                    yield self.item(
                        name.partition(".")[2],
                        "attribute",
                        argument.about,
                        insert=f"{name.partition('.')[2]} = ",
                        rank=FIRST,
                    )
        if attribute == "calibration":
            from ..calib import available

            yield from (self.item(word, "value", "measured kernels", rank=FIRST) for word in available())
        if one is not None and known is not None:
            yield from self.of_attribute(attribute, one, known)
        yield from self.anywhere()

    def of_attribute(self, name: str, one: Attribute, known: Section) -> Iterator[Item]:
        for word in dict.fromkeys(one.words):
            yield self.item(word, "value", "default" if word == one.default else "", rank=FIRST)
        if one.kind == "flag":
            yield from (self.item(word, "value", rank=FIRST) for word in ("true", "false"))
        if name in known.open:
            yield self.item(ANY, "value", "left to `dagc search`")
        if name == "gpus" and one.kind == "counts":
            yield from (self.item(f"0..{n - 1}", "value", "all GPUs", rank=FIRST) for n in self._gpus())
        if one.dim in EXAMPLES and one.kind in ("number", "count"):
            yield self.item(EXAMPLES[one.dim], "value", f"for example; {default_text(one)} otherwise", rank=LAST)

    def _gpus(self) -> Iterator[int]:
        for s in self.cursor.statements:
            given = s.attribute("gpus") if s.kind == SECTION and s.word == "hardware" else None
            if (
                given is not None
                and len(given.value) == 1
                and given.value[0].text.isdigit()
                and int(given.value[0].text) > 0
            ):
                yield int(given.value[0].text)

    def anywhere(self) -> Iterator[Item]:
        """What any value may have: constants and functions."""
        from ..lang.values.functions import FUNCTIONS

        own = (
            self.cursor.before[1].text
            if len(self.cursor.before) > 1 and self.cursor.before[0].text in ("let", PARAM)
            else ""
        )
        for name in self.names.of(b.CONSTANT):
            if name == own:
                continue
            yield self.item(name, "constant", self.checked.constants.get(name, ""))
        for name, one in FUNCTIONS.items():
            yield self.item(name, "function", one.written, one.about, f"{name}(", LAST)

    def named(self, kind: str) -> Iterator[Item]:
        yield from (self.item(name, "name", kind) for name in self.names.of(kind))

    def units(self) -> Iterator[Item]:
        """Behind a number: those of the attribute, or of what it is compared with; all where that is not known."""
        wanted = self._dim()
        for unit, (_, dim) in UNITS.items():
            if wanted is None or dim == wanted or (wanted == SCALAR and unit == "%"):
                yield self.item(unit, "unit", dim_words(dim))

    def _dim(self) -> Dim | None:
        if self.cursor.before[0].text == "require":
            words = [t.text for t in self.cursor.before if t.kind == NAME and t.text != "require"]
            found = metric_of(self.names, words[0], ".".join(words[1:])) if len(words) > 1 else None
            return None if found is None else found.dim
        known = section_of(self.cursor.sections)
        one = known.attributes.get(self.cursor.attribute) if known is not None else None
        return one.dim if one is not None and one.kind in ("number", "count", "counts") else None

    # -- requirements

    def in_requirement(self) -> Iterator[Item]:
        dotted = self.cursor.dotted
        if dotted:
            start = self.cursor.start - sum(len(name) + 1 for name in dotted[1:])
            for one in self._metrics(dotted[0]):
                if one.name.startswith("".join(f"{name}." for name in dotted[1:])):
                    yield Item(one.name, "metric", start, one.unit, one.about)
            if dotted[0] == MODEL:
                for name, value in self.checked.attributes.items():
                    yield Item(name, "attribute", start, value, rank=LAST)
            return
        for kind in (b.PHASE, b.SERVING, b.POOL):
            yield from self.named(kind)
        several = len(self.names.of(b.POOL)) > 1
        yield from (self.item(o, "section", rank=NEXT) for o in b.OWNERS if o != HARDWARE or not several)
        yield from self.anywhere()

    def _metrics(self, owner: str) -> list[Metric]:
        whose = {HARDWARE: HARDWARE, MODEL: MODEL, WORKLOAD: WORKLOAD}.get(owner, "")
        for kind, of in ((b.PHASE, OF_PHASE), (b.SERVING, SERVE), (b.POOL, HARDWARE)):
            if (kind, owner) in self.names.defined:
                whose = of
        own = phase_kind(self.cursor.statements, owner)
        if whose == OF_PHASE and own == TRAIN.name:
            whose = OF_TRAINING
        times = {one.metric for one in SERVED.values() if one.name != own} if own and whose == OF_PHASE else set()
        return [m for m in TABLE if m.owner == whose and m.name not in times]

    # -- blocks

    def in_block(self, block: Statement) -> Iterator[Item]:
        from ..lang.expand.functions import FUNCTIONS
        from ..lang.expand.scope import MADE_DIMS, PHASE_DIMS

        cursor = self.cursor
        if not cursor.before:
            yield from (self.item(word, "keyword", KEYWORDS[word], insert=f"{word} ") for word in ("let", "return"))
            return
        bracket = cursor.calls[-1] if cursor.calls else ""
        if bracket.endswith("[") and bracket != "[":
            sizes = {
                name.rpartition(".")[2]: value for name, value in self.checked.attributes.items() if value[:1].isdigit()
            }
            known = [
                u.name
                for u in self.names.uses
                if u.role in (b.DIM, b.SIZE) and block.start <= u.token.start < block.end
            ]
            for dim in dict.fromkeys([*PHASE_DIMS, *known, *sizes, *MADE_DIMS]):
                yield self.item(
                    dim, "dim", sizes.get(dim, "") or PHASE_DIMS.get(dim, ""), rank=FIRST if dim in known else NEXT
                )
            return
        call = bracket.removesuffix("(")
        if call in FUNCTIONS:
            for key, one in FUNCTIONS[call].keywords.items():
                yield self.item(key, "attribute", one.about, insert=f"{key} = ")
        if not any(t.text in ("=", "return", "let") for t in cursor.before):
            return
        for use in self.names.uses:
            if use.defines and use.scope == (block.start, block.end) and use.token.start < cursor.start:
                yield self.item(use.name, "name", "size" if use.role == b.SIZE else "value", rank=FIRST)
        for name in FUNCTIONS:
            yield self.item(
                name, "function", f"{name}({FUNCTIONS[name].operands})", block_function(name) or "", f"{name}("
            )
        for name, value in self.checked.attributes.items():
            yield self.item(name, "dim", value, rank=LAST)
        yield from self.anywhere()
