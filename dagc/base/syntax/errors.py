"""Syntax errors in words: where the parser stopped, what it found, what is allowed there."""

from __future__ import annotations

import re
from typing import Any

from .. import coming
from ..diagnostics import Collector, did_you_mean
from ..schema.homes import HOMES
from ..source import Source, Span
from ..units import UNITS, meant_unit

WORDS = (
    "moe",
    "import",
    "let",
    "param",
    "in",
    "require",
    "from",
    "true",
    "false",
    "block",
    "layer",
    "return",
)


SECTIONS = ("hardware", "model", "workload", "phase", "checkpoint")


def offset(error: Any, text: str) -> int:
    """Where the parser stumbled."""
    token = getattr(error, "token", None)
    if token is not None and token.type == "$END":
        return max(0, len(text.rstrip()) - 1)
    at = getattr(error, "pos_in_stream", None)
    if at is None:
        at = getattr(token, "start_pos", None)
    return int(at) if at is not None else max(0, len(text) - 1)


_SPOKEN = {
    "NAME": "a name",
    "QUANTITY": "a number",
    "STRING": "a string",
    "COMPARE": "a comparison (<= >= < > == ~)",
    "_END": "the end of the statement",
    "COMMA": "`,`",
    "MOE": "`moe 1`",
    "JOIN": "`link`",
    "EQUAL": "`=`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "DOT": "`.`",
    "PLUS": "an operator",
    "MINUS": "an operator",
    "STAR": "an operator",
    "SLASH": "an operator",
}
_HIDDEN = {
    "$END",
    "RPAR",
    "RSQB",
    "COMMA",
    "MOE",
    "JOIN",
    "DOT",
    "PLUS",
    "MINUS",
    "STAR",
    "SLASH",
    "LPAR",
    "LSQB",
    "TRUE",
    "FALSE",
}


EACH_BOUND = "a `require` is one comparison: write a line for each"


def report(error: Any, at: int, source: Source, out: Collector) -> None:
    """Add the diagnostic of one syntax error."""
    token = getattr(error, "token", None)
    line, column = source.position(at)
    text = source.line(line)
    for pattern, what in coming.TEXTS:
        if statement := pattern.search(text):
            start = at - (column - 1) + len(text) - len(text.lstrip())
            coming.refuse(what, Span(source, start, at - (column - 1) + statement.end()), out)
            return
    if token is None:
        char = source.text[at : at + 1]
        if char == '"':
            out.add("E01", "a string does not end on its line", Span(source, at, at + 1))
        else:
            shown = f"`{char}`" if char.isprintable() else ascii(char)
            help_ = _range_help(text, column) or _char_help(char)
            if char == ":" and text[column:].lstrip().startswith("{"):
                help_ = ("a section has no `:`: write `NAME { ... }`",)
            out.add("E01", f"{shown} is not allowed here", Span(source, at, at + 1), help=help_)
        return
    if (unit := _second_unit(error, at, source)) is not None:
        out.add("E01", f"a number has one unit: `{unit[0].text}` has two", unit[0], help=(unit[1],))
        return
    if (word := _missing_comma(error, at, source)) is not None:
        both = word.text in ("and", "or") and text.lstrip().startswith("require ")
        help_ = (EACH_BOUND,) if both else ()
        out.add("E01", f"a comma or a newline is missing before `{word.text}`", word, help=help_)
        return
    if (digit := _begun_with_digit(at, source)) is not None:
        out.add("E01", f"no name begins with a digit: `{digit[0].text}`", digit[0], help=digit[1])
        return
    ended = token.type == "$END"
    token_text = "end of the file" if ended else "end of the line" if token.value == "\n" else f"`{token.value}`"
    wanted = _expected(error)
    span = Span(source, at, min(len(source.text), at + max(1, 0 if ended else len(token.value))))
    label = f"expected {wanted}" if wanted else ""
    out.add("E01", f"unexpected {token_text}", span, label, help=_hint(error, at, source))


_STARTS = {"NAME", "LET", "PARAM", "REQUIRE", "IMPORT", "BLOCK", "LAYER", "RETURN"}
_UNIT_WORD = re.compile(r"[0-9][0-9_.]*(?:[eE][+-]?[0-9]+)?[ \t]*([A-Za-z]+)[ \t]*$")


def _missing_comma(error: Any, at: int, source: Source) -> Span | None:
    """`tp = 2 pp = 4` (read as the unit of 2) and `kind = gqa heads = 4`: the word that starts a new statement."""
    line_start = source.text.rfind("\n", 0, at) + 1
    before = source.text[line_start:at]
    if error.token.type == "EQUAL" and (unit := _UNIT_WORD.search(before)):
        return Span(source, line_start + unit.start(1), line_start + unit.end(1))
    starts = error.token.type in _STARTS and before.strip() and "_END" in _accepted(error)
    starts = starts and "LBRACE" not in _accepted(error)  # a section's brace is what is missing
    return Span(source, at, at + len(error.token.value)) if starts and "EQUAL" not in _accepted(error) else None


def _begun_with_digit(at: int, source: Source) -> tuple[Span, tuple[str, ...]] | None:
    """`schedule = 1f1b`, read as a number and more. The word, and what it is called here, where that is known."""
    from ..synonyms import IN_TRAINING

    line, column = source.position(at)
    for word in re.finditer(r"(?<![\w.])[0-9]\w*", source.line(line)):
        if word.start() < column <= word.end() and (meant := IN_TRAINING.get(word[0].lower())):
            begin = at - (column - 1) + word.start()
            return Span(source, begin, begin + len(word[0])), (f"did you mean `{meant[0]}`?",)
    return None


_NUMBER_AND_SUFFIX = re.compile(r"([0-9][0-9_.]*)[ \t]*([kKMGTP]i?)[ \t]+$")


def _second_unit(error: Any, at: int, source: Source) -> tuple[Span, str] | None:
    """`4k tok`: a suffix and a unit cannot be combined. The two, and how to write it."""
    if error.token.type != "NAME":
        return None
    line_start = source.text.rfind("\n", 0, at) + 1
    number = _NUMBER_AND_SUFFIX.search(source.text[line_start:at])
    unit = re.match(r"\w+(?:/\w+)?", source.text[at:])
    if number is None or unit is None or source.text[at + len(unit[0]) :].lstrip(" \t").startswith("="):
        return None
    span = Span(source, line_start + number.start(), at + len(unit[0]))
    joined = f"{number[2]}{unit[0]}"
    if joined in UNITS:
        return span, f"write `{number[1]} {joined}`"
    if unit[0] not in UNITS and not meant_unit(unit[0]):
        return None
    factor = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}.get(number[2], 2**10)
    name = unit[0] if unit[0] in UNITS else meant_unit(unit[0]).strip("`")
    try:
        value = float(number[1].replace("_", "")) * factor
    except ValueError:
        return None
    binary = f", or `{value * 1024 / 1000:_.0f} {name}` if 1024 is meant" if number[2] in "kK" else ""
    return span, f"spell the number out: `{value:_.0f} {name}`{binary}"


def _accepted(error: Any) -> set[str]:
    """What is really allowed here; `expected` also has what other places with the same state allow."""
    return set(error.accepts or error.expected)


def _expected(error: Any) -> str:
    """In words, at most five of them."""
    names = _accepted(error)
    if "LET" in names:
        spoken = {"a statement"} | ({"`}`"} if "RBRACE" in names else set())
    else:
        shown = (n for n in names - _HIDDEN if n != "_END" and not n.startswith("__"))
        spoken = {_SPOKEN.get(name, f"`{name.lower()}`") for name in shown}
        # Where only a closing bracket or an operator can follow, say so.
        spoken = spoken or {_SPOKEN[n] for n in names & {"RPAR", "RSQB", "COMMA", "PLUS", "LPAR", "LSQB"}}
    words = sorted(spoken)
    if "_END" in names and "LET" not in names:
        words.append("the end of the statement")
    return ", ".join(words[:5]) + (" ..." if len(words) > 5 else "")


def _hint(error: Any, at: int, source: Source) -> tuple[str, ...]:
    token = error.token
    line, column = source.position(at)
    first = re.match(r"\s*([A-Za-z_]+)\s+\S", source.line(line))
    if first and first[1] in ("assert", "check", "ensure", "expect") and first.end(1) < column:
        return ("did you mean `require`?",)
    if first and first.end(1) < column and first[1] not in (*WORDS, *HOMES) and (near := did_you_mean(first[1], WORDS)):
        return (f"did you mean `{near}`?",)
    if token.type == "NAME" and re.search(r"\bfrom\s+$", source.line(line)[: column - 1]):
        name = re.match(r"[\w.\-/]+", source.line(line)[column - 1 :])
        return (f'a preset is written in quotes: from "{name[0] if name else token.value}"',)
    before = re.search(r"([A-Za-z_]+)[ \t]*$", source.text[:at][-80:])
    if token.value == "=" and before and before[1] in WORDS:
        return _reserved(before[1])
    if token.value == "." and (dots := re.search(r"(\d+)\s*\.{3,}\s*(\d+)", source.line(line))):
        return (f"a range is written `{dots[1]}..{dots[2]}`",)
    required = source.line(line).lstrip().startswith("require ") and not re.search(r"=<|=>|<>|===?", source.line(line))
    if required and (token.value == "in" or (token.type == "COMPARE" and "_END" in _accepted(error))):
        return (EACH_BOUND,)
    if token.value == "." and re.match(r"\s*require\b.*,\s*[\w.]*$", source.line(line)[: column - 1]):
        return (EACH_BOUND,)
    if token.value in WORDS:
        return _reserved(str(token.value))
    if token.value == "{" and (section := re.search(r"((?:\w+[ \t]+)?\w+)[ \t]*[=:][ \t]*$", source.text[:at][-80:])):
        return (f"a section has no `=`: write `{section[1].strip()} {{ ... }}`",)
    if listed := _list_without_brackets(error, at, source):
        return (listed,)
    if token.type == "COMPARE" and token.value == "==" and "EQUAL" in error.expected:
        return ("write `name = value`",)
    if (token.type == "COMPARE" and token.value in "<>") or token.value == "=":
        whole = source.line(line)
        wrong = re.search(r"=<|=>|<>|===?", whole)
        if whole.lstrip().startswith("require") and (wrong or token.value == "="):
            return ("comparisons are <= >= < > == ~",)
    if token.value == "\n" and "LBRACE" in error.expected and source.text[at:].lstrip().startswith("{"):
        return ("the `{` belongs on this line",)
    if re.match(r"\s*link\s+\w+\s", source.line(line)):
        return ("two pools of GPUs are joined by `link A to B { bandwidth = ..., latency = ... }`",)
    head = source.line(line)[: column - 1].strip()
    if "LBRACE" in error.expected and (
        token.value in ("\n", "[", "(") or (token.type == "NAME" and head.split(" ")[0] in SECTIONS)
    ):
        return (f"a section has braces: `{head} {{ ... }}`",)
    if token.type == "STRING" and "FROM" in error.expected and "LBRACE" in error.expected:
        return (f"a preset follows `from`: `from {token.value}`",)
    if token.value == "{" and not source.text[:at].strip():
        return ("a spec begins with `moe 1`; `dagc import CONFIG.json` reads a config of Hugging Face",)
    if token.type in ("SLASH", "MINUS", "STAR") and not source.line(line)[: column - 1].strip():
        return ("comments begin with `#`",)
    if token.type == "NAME" and re.search(r"\bimport\s+$", source.line(line)[: column - 1]):
        return ('a file is written in quotes: import "FILE.moe"',)
    if token.type == "QUANTITY" and "EQUAL" in error.expected:
        return ("write `name = value`",)
    begun = re.match(r"\s*([A-Za-z_]+)", source.line(source.position(at)[0]))
    if token.type == "LPAR" and begun and (near := did_you_mean(begun[1], WORDS)) and near != begun[1]:
        return (f"did you mean `{near}`?",)
    if token.type == "NAME" and (near := did_you_mean(str(token.value), WORDS)) and near != token.value:
        return (f"did you mean `{near}`?",)
    return ()


def _reserved(word: str) -> tuple[str, ...]:
    """A reserved word where a name is needed: the attribute that begins with it is meant."""
    known = {n for schema in HOMES.values() for n in schema}
    names = sorted((n for n in known if n.startswith(word) and 0 < len(n) - len(word) < 3), key=len)
    meant = (f"did you mean `{names[0]}`?",) if names else ()
    return (*meant, f"`{word}` is a reserved word")


def _list_without_brackets(error: Any, at: int, source: Source) -> str:
    """`gpus = 0..7, 8..15`: the comma ends the statement, and a number begins none."""
    if error.token.type not in ("QUANTITY", "STRING", "MINUS"):
        return ""
    line, column = source.position(at)
    text = source.line(line)
    if re.match(r'"[^"]*"\s*[=:]', text[column - 1 :]):
        return f"names are written without quotes: `{error.token.value[1:-1]} = ...`"
    domain = re.match(r"\s*param\s.*\sin\s+([^\[\]#]*,\s*)$", text[: column - 1])
    if domain is not None:
        items = [part.strip() for part in (domain[1] + text[column - 1 :].partition("#")[0]).split(",")]
        return f"a list is written in brackets: `in [{', '.join(filter(None, items))}]`"
    whole = re.match(r"(?:.*[,{])?\s*([A-Za-z_]\w*)\s*=\s*([^={}\[\]]*?,\s*)$", text[: column - 1])
    if whole is None:
        return ""
    rest = re.match(r"[^={}#\[\]]*", text[column - 1 :])
    items = [p.strip() for p in (whole[2] + (rest[0] if rest else "")).split(",") if p.strip()]
    if rest is not None and text[column - 1 + rest.end() :].startswith("="):
        items.pop()  # the name of the next statement
    return f"a list is written in brackets: `{whole[1]} = [{', '.join(items)}]`"


def _range_help(text: str, column: int) -> tuple[str, ...]:
    """`0:7` and `0-7` with a dash of another kind."""
    dash = re.match(
        r"(\d+)\s*[:\u2013\u2014\u2026]\s*(\d+)", text[len(text[: column - 1].rstrip("0123456789 ")) :].lstrip()
    )
    return (f"a range is written `{dash[1]}..{dash[2]}`",) if dash else ()


def _char_help(char: str) -> tuple[str, ...]:
    if char in "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb\u2039\u203a\u300c\u300d`":
        return ('strings are written in plain double quotes: "..."',)
    return {
        "\u2013": ("write a plain `-`",),
        "\u2014": ("write a plain `-`",),
        "\u2212": ("write a plain `-`",),
        "\u00d7": ("write `*`",),
        "\u00f7": ("write `/`",),
        "\u2264": ("write `<=`",),
        "\u2265": ("write `>=`",),
        "\u2248": ("write `~`",),
        "\u2260": ("`!=` does not exist; state what must hold",),
        "\u2026": ("a range is written `0..15`",),
        "\u00b5": ("microseconds are written `us`",),
        "\u03bc": ("microseconds are written `us`",),
        "\u00a0": ("this is a no-break space: write a plain one",),
        "\u3000": ("this is a wide space: write a plain one",),
        "\ufeff": ("this is a byte order mark inside the text: remove it",),
        "|": ("write one value; `dagc sweep` goes through the domain of a param",),
        "&": ("write a separate `require` for each requirement",),
        "^": ("powers are written as products, or `1e9`",),
        "'": ('strings are written in double quotes: "..."',),
        ";": ("statements end with a newline or a comma",),
        ":": ("write `name = value`",),
        "!": ("`!=` does not exist; state what must hold",),
        "/": ("comments begin with `#`",),
        "$": ("an amount of money follows its number: `2 $/h`",),
    }.get(char, ())
