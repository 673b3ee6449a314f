"""grammar/tree_sitter/grammar.js as a parser, without tree-sitter's generator: its JSON form becomes a grammar of lark's own (LALR,
contextual lexer), which looks at a text as tree-sitter does. A keyword counts where the state takes one, except reserved words."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from conftest import ROOT
from node_modules import node

FOLDER = ROOT / "grammar" / "tree_sitter"
START = "source_file"

Node = tuple[str, Any]
"""Name and children of a visible node; one that is a token has its text."""


@cache
def grammar_json() -> dict[str, Any]:
    made: dict[str, Any] = node(FOLDER / "test" / "grammar_json.mjs")
    return made


@dataclass
class Converted:
    """`names`: terminal -> name of its node, "" of those without one; `aliases`: (rule, symbol in it) -> name of the node there."""

    json: dict[str, Any]
    terminals: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    aliases: dict[tuple[str, str], str] = field(default_factory=dict)
    rule: str = ""

    def text(self) -> str:
        rules = {n: r for n, r in self.json["rules"].items() if not _lexical(r)}
        lines = []
        for self.rule, content in rules.items():
            lines.append(f"r_{self.rule}: {self.expansion(content)}")
        ignored = []
        for i, extra in enumerate(self.json["extras"]):
            pattern = extra if extra["type"] == "PATTERN" else self.json["rules"][extra["name"]]
            self.terminals[f"EXTRA_{i}"] = f"/{pattern['value']}/"
            ignored.append(f"%ignore EXTRA_{i}")
        lines += [f"{name}: {pattern}" for name, pattern in self.terminals.items()]
        return "\n".join(lines + ignored)

    def expansion(self, rule: dict[str, Any]) -> str:
        kind = rule["type"]
        if kind in ("SEQ", "CHOICE"):
            members = [self.expansion(m) for m in rule["members"]]
            return f"({(' ' if kind == 'SEQ' else ' | ').join(members)})"
        if kind in ("REPEAT", "REPEAT1"):
            return f"({self.expansion(rule['content'])}){'*' if kind == 'REPEAT' else '+'}"
        if kind == "ALIAS":
            made = self.expansion(rule["content"])
            known = self.aliases.setdefault((self.rule, made), rule["value"])
            assert known == rule["value"] and re.fullmatch(r"\w+", made), (self.rule, made)
            return made
        return {
            "BLANK": lambda: "",
            "STRING": lambda: self.terminal("", f'"{rule["value"]}"'.replace("\n", "\\n")),
            "PATTERN": lambda: self.terminal("", f"/{rule['value']}/"),
            "IMMEDIATE_TOKEN": lambda: self.terminal("", f"/(?<![ \\t\\r\\f]){rule['content']['value']}/"),
            "RESERVED": lambda: self.symbol(rule["content"]["name"], rule["context_name"]),
            "SYMBOL": lambda: self.symbol(rule["name"], "global"),
        }[kind]()

    def symbol(self, name: str, reserved: str) -> str:
        rule = self.json["rules"][name]
        if not _lexical(rule):
            return f"r_{name}"
        pattern = rule["value"]
        if name == self.json["word"]:
            words = "|".join(word["value"] for word in self.json["reserved"][reserved])
            pattern = rf"(?!(?:{words})(?![A-Za-z0-9_])){pattern}"
        return self.terminal("" if name.startswith("_") else name, f"/{pattern}/")

    def terminal(self, name: str, pattern: str) -> str:
        for known, its in self.terminals.items():
            if its == pattern:
                return known
        made = f"T{len(self.terminals)}"
        self.terminals[made] = pattern
        self.names[made] = name
        return made


def _lexical(rule: dict[str, Any]) -> bool:
    return bool(rule["type"] == "PATTERN")


@cache
def parser() -> tuple[Any, Converted]:
    from lark import Lark

    converted = Converted(grammar_json())
    return Lark(
        converted.text(), start=f"r_{START}", parser="lalr", lexer="contextual", keep_all_tokens=True
    ), converted


def parse(text: str) -> Node:
    """The visible nodes of a text. Raises lark's errors where tree-sitter would have an ERROR node."""
    made, converted = parser()
    return START, tuple(_visible(made.parse(text, on_error=lambda error: _word_after_all(error, converted)), converted))


def _word_after_all(error: Any, converted: Converted) -> bool:
    """States of LALR are merged more than tree-sitter's: a keyword that a merged state takes may be a plain word where it is."""
    from lark import Token, UnexpectedToken

    word = next(name for name, its in converted.names.items() if its == converted.json["word"])
    if (
        not isinstance(error, UnexpectedToken)
        or error.token.type == word
        or word not in error.interactive_parser.accepts()
    ):
        return False
    if not re.fullmatch(converted.terminals[word].strip("/"), error.token):
        return False
    error.interactive_parser.feed_token(Token.new_borrow_pos(word, str(error.token), error.token))
    return True


def _visible(tree: Any, converted: Converted) -> list[Node]:
    rule = tree.data.removeprefix("r_")
    nodes: list[Node] = []
    for child in tree.children:
        symbol = child.data if hasattr(child, "data") else child.type
        alias = converted.aliases.get((rule, symbol))
        if hasattr(child, "data"):
            inner = _visible(child, converted)
            name = alias or ("" if child.data.startswith("r__") else child.data.removeprefix("r_"))
            nodes += [(name, tuple(inner))] if name else inner
        elif name := alias or converted.names[symbol]:
            nodes.append((name, str(child)))
    return nodes
