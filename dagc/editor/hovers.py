"""What the word under the cursor is: attributes with units and defaults, names with their values, phases with what they cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..base.axes import AXES
from ..base.frozen import record
from ..base.phase_kinds import PHASE_KINDS, TRAIN
from ..base.schema.attribute import Attribute
from ..base.sections import FORMS, SECTIONS, default_text, kind_text, range_text
from ..base.units import SCALAR, UNITS, dim_words, unit_name
from ..spec.metrics.known_metrics import TABLE
from ..spec.metrics.metric import HARDWARE, SERVE, Metric
from ..spec.metrics.metric import PHASE as OF_PHASE
from ..spec.metrics.metric import TRAIN as OF_TRAINING
from . import bindings as b
from .buffer import Document
from .checked import Checked
from .known_sections import KEYWORDS
from .library_files import named_path, read_beside, strings_of, unquoted
from .statement_tree import BLOCK, IMPORT, SECTION, Statement, statement_at

PRESET_LINES = 40
"""Of a preset's file, shown in a hover."""


@record
class Hover:
    """Markdown for characters of the document."""

    text: str
    start: int
    end: int


def hover(document: Document, offset: int, checked: Checked) -> Hover | None:
    """What is known of the word at an offset; `checked`: figures of the text, or of one shortly before."""
    names = b.names_of(document)
    for kind, token in strings_of(names.statements):
        if token.start <= offset <= token.end:
            text = _file(document, kind, unquoted(token))
            return None if text is None else Hover(text, token.start, token.end)
    use = names.at(offset)
    if use is None:
        return None
    text = _TEXTS[use.role](document, names, use, checked) if use.role in _TEXTS else None
    return None if text is None else Hover(text, use.token.start, use.token.end)


def attribute_text(path: str, name: str, one: Attribute) -> str:
    """An attribute of a section: what it is, in which unit, within which bounds, and what holds without it."""
    default = default_text(one)
    open_ = path in SECTIONS and name in SECTIONS[path].open
    unit = f" in `{unit_name(one.dim)}`" if one.dim != SCALAR else ""
    lines = [f"**`{name}`** of `{path}`: {kind_text(name, one)}{unit if one.kind == 'counts' else ''}", "", one.about]
    if path.startswith("phase") and name in AXES:
        lines[-1] += f": splits {AXES[name].about}"
    lines += ["", f"Default: {default}" if default != "required" else "Required"]
    bounds = range_text(one)
    lines[-1] += f"; {bounds}" if bounds else ""
    lines[-1] += "; `any` leaves it to a search" if open_ else ""
    return "\n".join(lines)


def _attribute(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    if use.path == "block":
        return _block_keyword(use.attribute, use.name)
    section = SECTIONS.get(use.path)
    if section is None:
        return None
    argument = _argument(use.attribute, use.name)
    if argument is not None:
        return keyword_text(use.attribute, use.name, argument)
    one = section.attributes.get(use.name)
    if one is None:
        return f"**`{use.name}`** of `{use.path}`: a size that blocks read by its name" if section.free else None
    text = attribute_text(use.path, use.name, one)
    path = use.path.removeprefix("model").removeprefix(".")
    value = checked.attributes.get(f"{path}.{use.name}" if path else use.name) if use.path.startswith("model") else None
    return f"{text}\n\nHere: {value}" if value is not None else text


def keyword_text(call: str, name: str, one: Attribute) -> str:
    """A keyword of a function, or an argument of a word: what it is, within which bounds, and what holds without it."""
    default, bounds = default_text(one), range_text(one)
    held = [f"Default: {default}"] if default else []
    return "\n".join(
        [
            f"**`{name}`** of `{call}(...)`: {kind_text(name, one)}",
            "",
            one.about,
            "",
            "; ".join([*held, bounds] if bounds else held),
        ]
    ).rstrip()


def _block_keyword(function: str, name: str) -> str | None:
    from ..lang.expand.functions import FUNCTIONS

    one = FUNCTIONS[function].keywords.get(name) if function in FUNCTIONS else None
    return None if one is None else keyword_text(function, name, one)


def _argument(word: str, name: str) -> Attribute | None:
    """Of a word with arguments that is the value of an attribute: `lognormal(sigma = 1)`."""
    takes = (words[word] for words in FORMS.values() if isinstance(words, Mapping) and word in words)
    return next((own[name] for own in takes if isinstance(own, Mapping) and name in own), None)


def _kind(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    section = SECTIONS.get(use.path)
    if section is None:
        return None
    lines = [f"`{section.written}`", "", section.about]
    if use.path == "model" and checked.params:
        lines += ["", f"Here: {checked.params}"]
    if (
        use.path == "phase"
        and (s := statement_at(names.statements, use.token.start)) is not None
        and s.name is not None
    ):
        lines += ["", _phase_facts(unquoted(s.name), checked)]
    return "\n".join(lines).rstrip()


def _constant(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    found = names.defined.get((b.CONSTANT, use.name), ())
    if not found:
        return None
    one = found[0]
    source = one.text[one.statement.start : one.statement.end]
    value = checked.constants.get(use.name)
    shown = f"\n\n`{use.name}` = {value}" if value is not None else ""
    return f"{_code(source)}{shown}{_comment(one)}"


def _block(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    parts = []
    for one in names.defined.get((b.BLOCK_NAME, use.name), ()):
        head = one.text[one.statement.start : one.statement.head[-1].start].strip()
        parts.append(f"{_code(head)}{_comment(one)}")
    return "\n\n".join(parts) or None


def _layer(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    found = names.defined.get((b.LAYER_NAME, use.name), ())
    return _code(found[0].text[found[0].statement.start : found[0].statement.end]) if found else None


def _phase(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str:
    return f"phase **`{use.name}`**\n\n{_phase_facts(use.name, checked)}".rstrip()


_SHOWN = ("memory.weights", "memory.kv_cache", "memory.activations", "memory.peak", "memory.capacity")


def _phase_facts(name: str, checked: Checked) -> str:
    """Kind, degrees, memory of a GPU and time."""
    facts = checked.phases.get(name)
    if facts is None:
        return ""
    experts = f"; experts {facts.experts}" if facts.experts else ""
    lines = [f"{facts.kind}: {facts.product}{experts}"]
    trains = facts.kind == TRAIN.name
    owned = [m for m in TABLE if m.owner == (OF_TRAINING if trains else OF_PHASE) and m.name in facts.figures]
    told = [m for m in owned if trains or m.reported or m.name in _SHOWN]
    if told:
        lines += ["", _aligned({m.name: facts.figures[m.name] for m in told})]
    return "\n".join(lines)


def _serving(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str:
    figures = {m.name: checked.figures.get(f"{use.name}.{m.name}") for m in TABLE if m.owner == SERVE and m.usual}
    known = {name: value for name, value in figures.items() if value is not None}
    return "\n\n".join([f"serving **`{use.name}`**", *([_aligned(known)] if known else [])])


def _aligned(figures: Mapping[str, str]) -> str:
    """Names and values in columns: few editors draw tables."""
    room = max(map(len, figures))
    return "\n".join(["```text", *(f"{name:<{room}}  {value}" for name, value in figures.items()), "```"])


def _owner(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    path = HARDWARE if use.role == b.POOL else use.name
    section = SECTIONS.get(path)
    if section is None:
        return None
    params = f"\n\n{checked.params}" if path == "model" and checked.params else ""
    return f"**`{use.name}`**: {section.about}{params}"


def phase_kind(statements: Sequence[Statement], phase: str) -> str:
    """What a phase of the text says its kind is, or its name; nothing where neither is one."""
    for s in statements:
        if s.kind == SECTION and s.word == "phase" and s.name is not None and unquoted(s.name) == phase:
            said = s.attribute("kind")
            return said.value[0].text if said is not None and said.value else phase if phase in PHASE_KINDS else ""
    return ""


def metric_of(names: b.Names, owner: str, name: str) -> Metric | None:
    """A metric by what stands before it."""
    kinds = {b.PHASE: OF_PHASE, b.SERVING: SERVE, b.POOL: HARDWARE}
    whose = next((kinds[kind] for kind in kinds if (kind, owner) in names.defined), owner)
    whose = OF_TRAINING if whose == OF_PHASE and phase_kind(names.statements, owner) == TRAIN.name else whose
    return next((m for m in TABLE if m.owner == whose and m.name == name), None)


def _metric(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    owner, _, name = use.name.partition(".")
    one = metric_of(names, owner, name)
    facts = checked.phases.get(owner)
    value = facts.figures.get(name) if facts is not None else checked.figures.get(use.name)
    if one is None:
        value = checked.attributes.get(name) if owner == "model" else None
        return None if value is None else f"**`{use.name}`** = {value}"
    better = f"; {one.better} is better" if one.better else ""
    here = f"\n\nHere: {value}" if value is not None else ""
    return f"**`{use.name}`**{f' in {one.unit}' if one.unit else ''}{better}\n\n{one.about}{here}"


def _size(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    """A dimension or a size of the model, inside a block."""
    from ..lang.expand.scope import MADE_DIMS, PHASE_DIMS

    if use.name in PHASE_DIMS:
        return f"dimension **`{use.name}`**: {PHASE_DIMS[use.name]}"
    if use.name in MADE_DIMS:
        return f"dimension **`{use.name}`**: `{MADE_DIMS[use.name]}` makes it, anew in each call"
    found = [k for k in checked.attributes if k.endswith(f".{use.name}")]
    found = [use.name] if use.name in checked.attributes else found
    if len(found) == 1:
        return f"**`{found[0]}`** of the model = {checked.attributes[found[0]]}"
    return f"dimension **`{use.name}`**" if use.role == b.DIM else None


def _local(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    first = next((u for u in names.uses if u.key == use.key and u.defines), None)
    if first is None:
        return None
    s = statement_at(names.statements, first.token.start)
    return None if s is None or s.kind == BLOCK else _code(document.text[s.start : s.end])


def _weight(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str:
    return f"weight **`{use.name}`**: what is no tensor of the block has parameters"


def _function(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    if use.path == "block":
        return block_function(use.name)
    forms = {word: f"serve.{attribute}" for attribute, words in FORMS.items() for word in words}
    if use.attribute in FORMS and use.name in forms:
        section = SECTIONS.get(forms[use.name])
        takes = (
            []
            if section is None
            else [(k.partition(".")[2], a) for k, a in section.attributes.items() if k.startswith(f"{use.name}.")]
        )
        lines = [f"- `{name}`: {one.about} (default: {default_text(one)})" for name, one in takes]
        return "\n".join([f"**`{use.name}(...)`**", *lines])
    if use.name == "any":
        return "**`any(...)`**: one of these values, which `dagc search` chooses"
    from ..lang.values.functions import FUNCTIONS

    known = FUNCTIONS.get(use.name)
    return None if known is None else f"**`{known.written}`**\n\n{known.about}"


def block_function(name: str) -> str | None:
    """A function of blocks: how it is called, and its keywords."""
    from ..ir.ops.op_set import OPS
    from ..lang.expand.functions import FUNCTIONS

    known = FUNCTIONS.get(name)
    if known is None:
        return None
    keywords = [f"- `{key}`: {one.about}" for key, one in known.keywords.items()]
    about = OPS[name].about if name in OPS else ""
    return "\n".join([f"**`{name}({known.operands})`**", "", about, "", *keywords]).rstrip()


def _keyword(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    about = KEYWORDS.get(use.name)
    if about is None:
        return None
    verdict = (
        ["", checked.verdict, *(f"- {line}" for line in checked.limits)]
        if use.name == "moe" and checked.verdict
        else []
    )
    return "\n".join([f"**`{use.name}`**: {about}", *verdict])


def _word(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    """A word of a fixed list: the attribute says what it is for."""
    if use.attribute == "calibration":
        return f"calibration **`{use.name}`**: measured kernels of a GPU"
    section = SECTIONS.get(use.path)
    one = section.attributes.get(use.attribute) if section is not None else None
    return None if one is None else attribute_text(use.path, use.attribute, one)


def _axis(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str:
    return f"axis **`{use.name}`**: splits {AXES[use.name].about}"


def _unit(document: Document, names: b.Names, use: b.Use, checked: Checked) -> str | None:
    known = UNITS.get(use.name)
    if known is None:
        return None
    factor, dim = known
    base = "" if dim == SCALAR else f" {unit_name(dim)}"
    return f"`{use.name}`: {dim_words(dim)}" + (f"; 1 {use.name} = {factor:g}{base}" if factor != 1 else "")


_TEXTS = {
    b.ATTRIBUTE: _attribute, b.KIND: _kind, b.CONSTANT: _constant, b.BLOCK_NAME: _block, b.LAYER_NAME: _layer, b.PHASE: _phase,
    b.SERVING: _serving, b.POOL: _owner, b.OWNER: _owner, b.METRIC: _metric, b.DIM: _size, b.MODEL_SIZE: _size, b.VALUE: _local,
    b.SIZE: _local, b.WEIGHT: _weight, b.FUNCTION: _function, b.KEYWORD: _keyword, b.WORD: _word, b.AXIS: _axis, "unit": _unit,
}  # fmt: skip
"""What is said of a word, by its role."""


def _file(document: Document, kind: str, text: str) -> str | None:
    """A preset or an import: its own text, which is short; of the library's models, what their head says."""
    path = named_path(document, kind, text)
    if path is None or not path.endswith(".moe"):
        return None
    found = read_beside(path)
    if found is None:
        return None
    lines = found.text.strip().splitlines()
    shown = "\n".join(lines[:PRESET_LINES]) + ("\n..." if len(lines) > PRESET_LINES else "")
    name = f"preset **`{text}`**" if kind != IMPORT and not text.endswith(".moe") else f"file **`{text}`**"
    return f"{name}\n\n{_code(shown)}"


def _code(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}moe\n{text}\n{fence}"


def _comment(one: b.Definition) -> str:
    """The comment lines directly above a definition."""
    lines: list[str] = []
    for line in reversed(one.text[: one.text.rfind("\n", 0, one.statement.start) + 1].splitlines()):
        if not line.lstrip().startswith("#"):
            break
        lines.insert(0, line.lstrip().removeprefix("#").strip())
    return f"\n\n{' '.join(lines)}" if lines else ""
