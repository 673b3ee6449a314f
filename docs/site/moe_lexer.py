"""Colours of `.moe` in the site."""

from __future__ import annotations

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import Comment, Generic, Keyword, Name, Number, Operator, Punctuation, String, Text

from dagc.base.sections import SECTIONS
from dagc.base.syntax.errors import WORDS as RESERVED
from dagc.base.units import UNITS

WORDS = ("from", "in", "to", "place")
BEGINNINGS = sorted({name for path in SECTIONS for name in path.split(".")} | {*RESERVED} - {*WORDS, "true", "false"})
"""Words that a section or a statement begins with."""
UNIT = "|".join(sorted((u.replace("$", r"\$") for u in UNITS), key=len, reverse=True))


class MoeLexer(RegexLexer):
    name = "moe"
    aliases = ("moe",)
    tokens = {  # noqa: RUF012
        "root": [
            (r"#.*", Comment),
            (r'"[^"\n]*"', String),
            (rf"\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?(?: ?(?:{UNIT})(?![\w/]))?", Number),
            (words(BEGINNINGS, suffix=r"\b(?=\s+[\w\"{]|\s*\{)"), Keyword),
            (words(WORDS, prefix=r"\b", suffix=r"\b"), Keyword),
            (r"[A-Za-z_]\w*(?=\s*=[^=])", Name.Attribute),
            (r"[A-Za-z_]\w*", Name),
            (r"\.\.|[<>=~]=?|[-+*/]", Operator),
            (r"[{}()\[\],.:]", Punctuation),
            (r"\s+|.", Text),
        ]
    }


class SessionLexer(RegexLexer):
    """Commands after `$ ` and what they print. In a root's session `# ` begins a command, too; here it is a comment of a script."""

    name = "session"
    aliases = ("console",)
    tokens = {  # noqa: RUF012
        "root": [
            (r"^(\$ )(.*)", bygroups(Generic.Prompt, Text)),
            (r".+|\n", Generic.Output),
        ]
    }
