"""Dimensions whose sizes follow from the tokens of a sequence: of tokens that are kept in groups.

`entries.GROUP` has one for every GROUP tokens of the context, the last begun ones among them; `pooled.GROUP` one for every group that a
token of this pass is in (GROUP: the dimension of as many tokens). What a group's op remembers has `PAIR`, and `again.DIM` where a
dimension comes twice. No segment lists their sizes: these change with `seq` and `context`.
"""

from __future__ import annotations

from typing import Any, Protocol

ENTRIES, POOLED = "entries", "pooled"
PAIR, AGAIN = "pair.2", "again"
DERIVED = (ENTRIES, POOLED, AGAIN)


class Sized(Protocol):
    """A segment, or whatever has sizes of dimensions."""

    def size(self, dim: str, scope: str = "dense") -> float: ...


def entries_of(group: str) -> str:
    """The dimension of the groups of a context."""
    return f"{ENTRIES}.{group}"


def pooled_of(group: str) -> str:
    """The dimension of the groups that tokens of this pass are in."""
    return f"{POOLED}.{group}"


def group_of(dim: str) -> str | None:
    """The dimension of the tokens of a group; None of other dimensions than groups."""
    kind, dot, group = dim.partition(".")
    return group if dot and kind in (ENTRIES, POOLED) else None


def is_entries(dim: str) -> bool:
    return dim.startswith(f"{ENTRIES}.")


def entries_dim(dims: tuple[str, ...]) -> str | None:
    """The first dimension of a tensor that counts groups of a context."""
    return next((d for d in dims if is_entries(d)), None)


def counts_tokens(dim: str) -> bool:
    """Whether a dimension grows with the context, token by token or group by group."""
    return dim == "context" or is_entries(dim)


def follows(dim: str) -> bool:
    """Whether the size of a dimension follows from others."""
    kind, dot, of = dim.partition(".")
    return dim == PAIR or (bool(dot) and kind in DERIVED and of.partition(".")[0] not in DERIVED)


def derived(sized: Sized, dim: str, scope: str = "dense") -> Any:
    """The size of a dimension that follows from others. Raises KeyError."""
    if dim == PAIR:
        return 2.0
    if not follows(dim):
        raise KeyError(dim)
    kind, _, of = dim.partition(".")
    if kind == AGAIN:
        return sized.size(of, scope)
    tokens, context = sized.size(of, scope), sized.size("context", scope)
    whole = -(-context // tokens)
    return whole if kind == ENTRIES else whole - (context - sized.size("seq", scope)) // tokens


def cached_dims(dims: tuple[str, ...]) -> tuple[str, ...]:
    """Of a cache of values of this pass: of its tokens, or of groups that they are in."""
    return tuple("context" if d == "seq" else _of_context(d) for d in dims)


def _of_context(dim: str) -> str:
    pooled = pooled_of("")
    return entries_of(dim.removeprefix(pooled)) if dim.startswith(pooled) else dim
