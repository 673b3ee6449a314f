"""The tree of a text that differs in some lines from one that was read: the statements before and behind these are as they were, at places
that may have moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from ..diagnostics import Collector
from ..frozen import fields_of
from ..source import Source, Span
from . import ast
from .clean import Extents, statements_in

Known = tuple[ast.File, Extents]


def edited(source: Source, known: Known, harmless: Callable[[str], bool]) -> Known | None:
    """`known`: the tree of another text, of which nothing was told; `harmless`: whether a text may be read. None where nothing is shared, or lines
    that differ are no statements for themselves."""
    file, extents = known
    old, new = file.span.source.text, source.text
    before = _common(old, new)
    behind = _common(old[before:][::-1], new[before:][::-1])
    cuts = list(_cuts(old, extents))
    first, start = max((cut for cut in cuts if cut[1] <= before), default=(0, 0))
    last, end = min((cut for cut in cuts if cut[1] > len(old) - behind), default=(len(extents), len(old)))
    by = len(new) - len(old)
    if last - first == len(extents) or not harmless(new[start : end + by]):
        return None
    out = Collector()
    found = statements_in(source, start, end + by, out)
    if found is None or out.items:
        return None
    statements, own = found
    head, tail = _moved(file.statements[:first], source, 0), _moved(file.statements[last:], source, by)
    places = (*extents[:first], *own, *((a + by, b + by) for a, b in extents[last:]))
    return ast.File(Span(source, 0, len(new)), (*head, *statements, *tail)), places


def _common(a: str, b: str) -> int:
    """Characters at their beginnings that are the same."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _cuts(text: str, extents: Extents) -> Iterator[tuple[int, int]]:
    """(how many statements are before it, beginning of a line) where a text falls into two."""
    ended = 0
    for k, (start, end) in enumerate(extents):
        line = text.rfind("\n", ended, start) + 1
        if line > ended:
            yield k, line
        ended = end
    line = text.find("\n", ended) + 1
    if line:
        yield len(extents), line


def _moved(value: Any, source: Source, by: int) -> Any:
    """The same at another place of another text."""
    kind = type(value)
    if kind is Span:
        return Span(source, value.start + by, value.end + by)
    if kind is tuple:
        return tuple([each if type(each) in _PLAIN else _moved(each, source, by) for each in value])
    if kind is ast.Binary:
        return _moved_chain(value, source, by)
    fields = _FIELDS.get(kind)
    if fields is None:
        if not issubclass(kind, ast.Node):
            return value
        fields = _FIELDS[kind] = attrgetter(*fields_of(kind))
    found = fields(value)
    return kind(*[each if type(each) in _PLAIN else _moved(each, source, by) for each in found])


def _moved_chain(value: ast.Binary, source: Source, by: int) -> ast.Expr:
    """Sums of any length, whose left sides nest, must not exhaust the stack."""
    chain: list[ast.Binary] = []
    left: ast.Expr = value
    while isinstance(left, ast.Binary):
        chain.append(left)
        left = left.left
    left = _moved(left, source, by)
    for one in reversed(chain):
        left = ast.Binary(_moved(one.span, source, by), one.op, left, _moved(one.right, source, by))
    return left


_PLAIN = frozenset((str, float, int, bool, type(None)))
_FIELDS: dict[type, Callable[[Any], tuple[Any, ...]]] = {}
