"""The tree of a text without a syntax error, read without lark and without what explains errors."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from ..diagnostics import Collector
from ..packaged import folder
from ..source import Source
from . import ast
from .build import Builder

PACKAGE = "dagc.grammar"


def clean_file(source: Source, out: Collector) -> ast.File | None:
    """None for any other text, and where the tables are of another grammar."""
    from . import moe_tables
    from .shift_reduce import tree

    if key_of(grammar_text()) != moe_tables.KEY:
        return None
    with collector_paused():
        made = tree(ended(source.text), moe_tables)
        return None if made is None else Builder(source, out).file(made)


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
