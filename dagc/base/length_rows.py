"""Lengths of prompts and outputs in files: pairs, and how often each comes.

Text of comma-separated values with a header: `prompt_tokens`, `output_tokens` (also `input_tokens` and the names that Azure's traces have), and
`share` or `count`; without the latter every row counts once, so that a trace of any form has its own lengths. Or a JSON object a line with
`input_length` and `output_length`, as Mooncake publishes its traces. Lines that begin with `#` are comments.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .foreign_lines import TraceError, columns, number, whole

PROMPT = ("prompt_tokens", "input_tokens", "contexttokens", "input_length")
OUTPUT = ("output_tokens", "generatedtokens", "output_length")
SHARE = ("share", "count")
MOST_TOKENS = 10**9
MOST_SHARE = 1e18

Row = tuple[int, int, int, float]
"""Line, tokens of a prompt and of its output, and its share."""


def length_rows(
    rows: Iterable[tuple[int, bytes]], path: Path, *, outputs: bool = True, most: int = MOST_TOKENS
) -> Iterator[Row]:
    """In the order of the file, of its numbered lines; outputs are 0 where they are not asked for. Raises TraceError."""
    own = (row for row in rows if not row[1].startswith(b"#"))
    first = next(own, None)
    if first is None:
        raise TraceError(path, 0, "it is empty")
    if first[1].startswith(b"{"):
        yield _object(*first, path, outputs, most)
        yield from (_object(*row, path, outputs, most) for row in own)
        return
    names = columns(first[1])
    known = (PROMPT, OUTPUT) if outputs else (PROMPT,)
    at = [_column(names, one, path, first[0], outputs) for one in known]
    share = next((names.index(name) for name in SHARE if name in names), None)
    for line, text in own:
        words = text.split(b",")
        if len(words) != len(names):
            raise TraceError(path, line, f"it has {len(words)} values, the header {len(names)}")
        weight = 1.0 if share is None else number(words[share], names[share], path, line)
        if weight > MOST_SHARE:
            raise TraceError(path, line, f"`{names[share or 0]}` is more than {MOST_SHARE:g}")
        prompt, output = (*(whole(words[k], names[k], most, path, line) for k in at), 0)[:2]
        yield line, prompt, output, weight


def _column(names: list[str], known: tuple[str, ...], path: Path, line: int, outputs: bool) -> int:
    found = next((names.index(name) for name in known if name in names), None)
    if found is None:
        both = f"{PROMPT[0]}, {OUTPUT[0]}" if outputs else PROMPT[0]
        help_ = f"a file of lengths has the columns {both}, and {SHARE[0]} or {SHARE[1]}"
        raise TraceError(path, line, f"there is no column `{known[0]}`", help_)
    return found


class Real(str):
    """A number of a JSON text that is not whole, as it is written."""

    __slots__ = ()


def _constant(name: str) -> float:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_float=Real, parse_constant=_constant)


def json_object(text: bytes, path: Path, line: int) -> dict[str, Any]:
    """A line of numbers that are as they are written: whole, or `Real`. Raises TraceError."""
    try:
        found = _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        raise TraceError(path, line, "it is not a JSON object of finite numbers") from None
    if not isinstance(found, dict):
        raise TraceError(path, line, "it is not a JSON object")
    return found


def tokens_of(found: dict[str, Any], name: str, most: int, path: Path, line: int, help: str = "") -> int:
    """Raises TraceError."""
    value = found.get(name)
    if type(value) is int and 0 < value <= most:
        return value
    return whole(written(found, name, path, line, help), name, most, path, line)


def written(found: dict[str, Any], name: str, path: Path, line: int, help: str = "") -> bytes:
    """The text of a number. Raises TraceError."""
    if name not in found:
        raise TraceError(path, line, f"there is no `{name}`", help)
    value = found[name]
    if isinstance(value, Real) or type(value) is int:
        return str(value).encode()
    raise TraceError(path, line, f"`{name}` is not a number")


def _object(line: int, text: bytes, path: Path, outputs: bool, most: int) -> Row:
    found = json_object(text, path, line)
    names = ("input_length", "output_length")[: 1 + outputs]
    prompt, output = (*(tokens_of(found, name, most, path, line) for name in names), 0)[:2]
    return line, prompt, output, 1.0
