"""The tree of a text without a syntax error, read without lark and without what explains errors."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from ..diagnostics import Collector
from ..packaged import folder
from ..source import Source, Span
from . import ast
from .build import Builder

PACKAGE = "dagc.grammar"


Extents = tuple[tuple[int, int], ...]
"""Where each statement of a file begins and ends; the span of some is of their name alone."""


def clean_file(source: Source, out: Collector) -> tuple[ast.File, Extents] | None:
    """None for any other text, and where the tables are of another grammar."""
    found = statements_in(source, 0, len(source.text), out)
    return None if found is None else (ast.File(Span(source, 0, len(source.text)), found[0]), found[1])


def statements_in(source: Source, start: int, end: int, out: Collector) -> tuple[tuple[Any, ...], Extents] | None:
    """The statements in some lines of a text, if these are whole ones."""
    from . import moe_tables
    from .shift_reduce import tree

    if key_of(grammar_text()) != moe_tables.KEY:
        return None
    with collector_paused():
        made = tree(ended(source.text[start:end]), moe_tables)
        if made is None:
            return None
        nodes = [node for node in made.children if node is not None]
        builder = Builder(source, out, start)
        extents = tuple((start + (node.start_pos or 0), start + (node.end_pos or 0)) for node in nodes)
        return tuple([builder.statement(node) for node in nodes]), extents


def ended(text: str) -> str:
    """With a newline at its end."""
    return text if text.endswith("\n") else text + "\n"


@cache
def grammar_text() -> str:
    return (folder(PACKAGE) / "moe.lark").read_text(encoding="utf-8")


def key_of(text: str) -> int:
    """Tells one grammar from its next version."""
    from binascii import crc32

    return crc32(text.encode())


@contextmanager
def collector_paused() -> Iterator[None]:
    """Building thousands of small nodes triggers the cyclic collector for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
