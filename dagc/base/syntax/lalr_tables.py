"""LALR tables of the grammar: shipped ready-made, rebuilt when they do not match. `python -m dagc.base.syntax.lalr_tables`
writes the shipped file."""

from __future__ import annotations

import hashlib
import pickle
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from ..packaged import folder as packaged
from .clean import PACKAGE, grammar_text, key_of


@cache
def load() -> Any:
    """The lark parser, from the shipped tables; with another lark than theirs from the grammar, once per process."""
    text = grammar_text()
    shipped = packaged(PACKAGE) / "moe.tables"
    parser = unpack(shipped.read_bytes(), table_key(text)) if shipped.is_file() else None
    return build(text) if parser is None else parser


def table_key(text: str) -> bytes:
    """Tables fit one grammar and one lark."""
    import lark

    return hashlib.sha256(f"{lark.__version__}\n{text}".encode()).digest()


def options() -> dict[str, Any]:
    from .lexing import BracketFilter

    return {
        "parser": "lalr",
        "lexer": "basic",
        "postlex": BracketFilter(),
        "propagate_positions": True,
        "maybe_placeholders": True,
    }


def build(text: str, *, strict: bool = False) -> Any:
    """Build the tables. strict: any conflict in the grammar is an error (needs `interegular`)."""
    from lark import Lark

    return Lark(text, strict=strict, **options())


def pack(parser: Any, key: bytes) -> bytes:
    buffer = BytesIO()
    data, memo = parser.memo_serialize(_saved_types())
    pickle.dump({"data": data, "memo": memo}, buffer, protocol=5)
    return key + buffer.getvalue()


def unpack(blob: bytes, key: bytes) -> Any | None:
    """The parser, or None when the tables are of another grammar or lark, or damaged."""
    if blob[: len(key)] != key:
        return None
    from lark import Lark

    chosen = options()
    try:
        saved = pickle.loads(blob[len(key) :])
        saved["data"]["options"].update(chosen)
        return Lark.__new__(Lark)._load(saved, postlex=chosen["postlex"])
    except Exception:  # whatever pickle makes of a half-written file: the tables are built again
        return None


def _saved_types() -> list[type]:
    from lark.grammar import Rule
    from lark.lexer import TerminalDef

    return [TerminalDef, Rule]


def as_source(parser: Any, text: str) -> str:
    """The tables as a module of Python, for `shift_reduce`."""
    table = parser.parser.parser._parse_table
    rules = list(parser.rules)
    number = {rule: k for k, rule in enumerate(rules)}
    states = list(table.states)
    assert states == list(range(len(states)))
    scanner = parser.parser.lexer.lexer.scanner
    kinds = scanner.terminals
    callbacks = parser.parser.lexer.lexer.callback
    keywords = {
        name: {t.pattern.value: t.name for t in sorted(own.scanner.terminals, key=lambda t: str(t.name))}
        for name, own in sorted(callbacks.items())
    }
    lines = [f"KEY = {key_of(text)}"]
    lines.append(f"LEXER = {'|'.join(f'(?P<{t.name}>{t.pattern.to_regexp()})' for t in kinds)!r}")
    lines.append(f"KEYWORDS = {keywords!r}")
    lines.append(f"IGNORED = {{{', '.join(map(repr, sorted(parser.parser.lexer.lexer.ignore_types)))}}}")
    kept = {s.name for rule in rules for s in rule.expansion if s.is_term and _keeps(s)}
    lines.append(f"KEPT = {{{', '.join(map(repr, sorted(kept)))}}}")
    lines.append(f"START, END = {table.start_states['start']}, {table.end_states['start']}")
    lines += ["RULES = (", *(f"    {_rule(rule)!r}," for rule in rules), ")", "STATES: tuple[dict[str, int], ...] = ("]
    for state in states:
        own = {
            name: argument if not hasattr(argument, "expansion") else ~number[argument]
            for name, (_, argument) in sorted(table.states[state].items())
        }
        lines.append(f"    {own!r},")
    return "\n".join([f'"""{_ABOUT}"""', "", "# fmt: off", *lines, ")", ""])


_ABOUT = "The tables of grammar/moe.lark. Written by `python -m dagc.base.syntax.lalr_tables`."


def _keeps(symbol: Any) -> bool:
    return not (symbol.is_term and symbol.filter_out)


def _rule(rule: Any) -> tuple[Any, ...]:
    """(name, name of the tree, parts, whether one part needs no tree, (part, inlined, places left empty before it) of those
    that are kept or None for all as they are, places left empty behind them), as lark's ParseTreeBuilder has it."""
    empty = [0] * (len(rule.expansion) + 1)
    if rule.options.empty_indices:
        empty = [len(ones) for ones in "".join(str(int(e)) for e in rule.options.empty_indices).split("0")]
    include, nones = [], 0
    for k, symbol in enumerate(rule.expansion):
        nones += empty[k]
        if _keeps(symbol):
            include.append((k, not symbol.is_term and symbol.name.startswith("_"), nones))
            nones = 0
    plain = include == [(k, False, 0) for k in range(len(rule.expansion))]
    return (
        str(rule.origin.name),
        str(rule.alias or rule.origin.name),
        len(rule.expansion),
        bool(rule.options.expand1 and not rule.alias),
        None if plain else tuple(include),
        nones + empty[-1],
    )


def main() -> None:
    """Writes both anew only where they are of another grammar: lark numbers states as it likes."""
    text = grammar_text()
    target = Path(str(packaged(PACKAGE) / "moe.tables"))
    parser = unpack(target.read_bytes(), table_key(text))
    if parser is None:
        parser = build(text)
        target.write_bytes(pack(parser, table_key(text)))
    module = Path(__file__).with_name("moe_tables.py")
    module.write_text(as_source(parser, text), encoding="utf-8")
    print(f"{target.name}, {target.stat().st_size} bytes; {module.name}, {module.stat().st_size} bytes")


if __name__ == "__main__":
    main()
