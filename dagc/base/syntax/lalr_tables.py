"""LALR tables of the grammar: shipped ready-made, rebuilt when they do not match. `python -m dagc.base.syntax.lalr_tables`
writes the shipped file."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from contextlib import suppress
from functools import cache
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

PACKAGE = "dagc.grammar"


def grammar_text() -> str:
    return (resources.files(PACKAGE) / "moe.lark").read_text(encoding="utf-8")


@cache
def load() -> Any:
    """The lark parser, from the shipped tables, the user's cache, or (once) from the grammar."""
    text = grammar_text()
    key = table_key(text)
    shipped = resources.files(PACKAGE) / "moe.tables"
    if shipped.is_file() and (parser := unpack(shipped.read_bytes(), key)) is not None:
        return parser
    cached = cache_file()
    try:
        if (parser := unpack(cached.read_bytes(), key)) is not None:
            return parser
    except OSError:
        pass  # no cache yet, or not ours to read
    parser = build(text)
    with suppress(OSError):  # a read-only home costs time, nothing else
        _write(cached, pack(parser, key))
    return parser


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


def cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "dagc" / "moe.tables"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(name, path)


def main() -> None:
    text = grammar_text()
    target = Path(str(resources.files(PACKAGE) / "moe.tables"))
    target.write_bytes(pack(build(text), table_key(text)))
    print(f"wrote {target.name}, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
