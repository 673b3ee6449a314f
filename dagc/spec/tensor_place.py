"""Where a checkpoint file has a weight: which tensor, and which part of it.

A place is text: the tensor's name and its dimensions, `...q_proj.weight (heads head_dim) hidden`. `(a b)` is a flattened
pair; `ffn[0/2]` the first of two equal blocks of an axis; `ffn[0%2]` every second entry; `v[n+v]` the part `v` of an
axis that contains parts n and v; `(a b)[a*b+c@0]` part 0 of parts a*b and c; `1` an axis of one; `v[{layer}/{layers}]`
the layer's own of as many equal blocks as there are layers; ` +1` at the end: the file has the weight less one. `{layer}` is the layer's index,
`{expert}` stacks one tensor for each expert.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from ..base.frozen import record

_TOKEN = re.compile(r"[()]|\[[^\]]*\]|[A-Za-z_][A-Za-z0-9_.]*|[0-9]+")
_DIM = r" *[A-Za-z0-9_.]+ *"
_SUM = rf"{_DIM}(?:[*+]{_DIM})*"


class PlaceError(ValueError):
    """The text is not a place."""


@record
class TensorPart:
    """Dims of an axis, or of a piece of it. `of`: the slice spec between brackets."""

    dims: tuple[str, ...]
    of: str = ""

    def size(self, sizes: Mapping[str, int]) -> int:
        return prod(_size(d, sizes) for d in self.dims)

    def extent(self, sizes: Mapping[str, int]) -> int:
        """Length in the file."""
        if not self.of:
            return self.size(sizes)
        if "/" in self.of or "%" in self.of:
            return self.size(sizes) * _number(re.split("[/%]", self.of)[1], sizes)
        return sum(self._pieces(sizes)[1])

    @property
    def others(self) -> tuple[str, ...]:
        """What the slice names."""
        if "/" in self.of or "%" in self.of:
            return ()
        return tuple(re.findall(r"[A-Za-z_][A-Za-z0-9_.]*|[0-9]+", self.of.split("@")[0]))

    def _pieces(self, sizes: Mapping[str, int]) -> tuple[list[str], list[int]]:
        texts = self.of.split("@")[0].replace(" ", "").split("+")
        return texts, [prod(_size(d, sizes) for d in text.split("*")) for text in texts]

    def slice(self, sizes: Mapping[str, int]) -> slice:
        """Which entries of the axis these are."""
        own = self.size(sizes)
        if not self.of:
            return slice(None)
        if "/" in self.of:
            first = _number(self.of.split("/")[0], sizes) * own
            return slice(first, first + own)
        if "%" in self.of:
            first, step = map(int, self.of.split("%"))
            return slice(first, None, step)
        texts, lengths = self._pieces(sizes)
        index = int(self.of.split("@")[1]) if "@" in self.of else texts.index("*".join(self.dims))
        return slice(sum(lengths[:index]), sum(lengths[: index + 1]))


OWN = "{layer}/{layers}"
"""The slice of the layer's own."""


def _number(text: str, sizes: Mapping[str, int]) -> int:
    return sizes[text] if text.startswith("{") else int(text)


def _size(dim: str, sizes: Mapping[str, int]) -> int:
    return int(dim) if dim.isdigit() else sizes[dim]


@record
class TensorPlace:
    """A tensor's name and, axis by axis, the parts it is made of (outer part: the whole axis)."""

    name: str
    axes: tuple[tuple[TensorPart, tuple[TensorPart, ...]], ...]
    plus: float = 0.0

    @classmethod
    def parse(cls, text: str) -> TensorPlace:
        """Raises PlaceError."""
        name, _, rest = text.strip().partition(" ")
        _check_name(name)
        rest, plus = re.subn(r" \+1$", "", rest)
        stray = _TOKEN.sub("", rest).split()
        if stray:
            raise PlaceError(f"`{stray[0]}` is neither a dimension nor a part of one")
        tokens = _TOKEN.findall(rest)
        axes: list[tuple[TensorPart, tuple[TensorPart, ...]]] = []
        while tokens:
            if tokens[0] == "(":
                end = _closing(tokens)
                inner, tokens = _parts(tokens[1:end]), tokens[end + 1 :]
                whole = TensorPart(tuple(d for p in inner for d in p.dims))
                if tokens and tokens[0].startswith("["):
                    whole = _part(whole.dims, tokens.pop(0)[1:-1])
                axes.append((whole, inner))
            else:
                count = 2 if len(tokens) > 1 and tokens[1].startswith("[") else 1
                inner, tokens = _parts(tokens[:count]), tokens[count:]
                axes.append((TensorPart(inner[0].dims), inner))
        place = cls(name, tuple(axes), float(plus))
        twice = [d for d in place.dims if place.dims.count(d) > 1]
        if twice or not axes:
            raise PlaceError(f"`{twice[0]}` occurs there twice" if twice else "the tensor's dimensions are missing")
        return place

    @property
    def names(self) -> tuple[str, ...]:
        """Every dimension, those of slices too."""
        every = [d for whole, parts in self.axes for p in (whole, *parts) for d in (*p.dims, *p.others)]
        return tuple(dict.fromkeys(d for d in every if not d.isdigit()))

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(d for _, parts in self.axes for p in parts for d in p.dims if not d.isdigit())

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Of the tensor in the file."""
        return tuple(
            whole.extent(sizes) if whole.of else prod(p.extent(sizes) for p in parts) for whole, parts in self.axes
        )


def _closing(tokens: list[str]) -> int:
    """Where the first bracket is closed."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token == "(") - (token == ")")
        if depth == 0:
            return i
    raise PlaceError("`(` without `)`")


def _parts(tokens: list[str]) -> tuple[TensorPart, ...]:
    """Of one axis: dimensions, flattened ones in brackets of their own, each with its slice."""
    parts: list[TensorPart] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token == "(" and ")" in rest[1:]:
            inner, rest = rest[: rest.index(")")], rest[rest.index(")") + 1 :]
            if not rest or not rest[0].startswith("["):
                raise PlaceError("`(` inside another without a slice")
            parts.append(TensorPart(tuple(d for p in _parts(inner) for d in p.dims)))
            continue
        if token.startswith("[") and parts and not parts[-1].of:
            parts[-1] = _part(parts[-1].dims, token[1:-1])
        elif token[0] in "[()" or token == "0":
            raise PlaceError(f"`{token}` does not follow a dimension")
        else:
            parts.append(TensorPart((token,)))
    if not parts:
        raise PlaceError("`()` has no dimension")
    return tuple(parts)


def _part(dims: tuple[str, ...], of: str) -> TensorPart:
    """Raises PlaceError when the text is not a slice, or not one of these dims."""
    fraction = re.fullmatch(r"(\d{1,6})[/%](\d{1,6})", of)
    pieces = re.fullmatch(rf"({_SUM})(?:@(\d{{1,6}}))?", of)
    if fraction and int(fraction[1]) >= int(fraction[2]):
        raise PlaceError(f"`[{of}]`: there is no part {fraction[1]} of {fraction[2]}; parts count from 0")
    if pieces:
        texts = pieces[1].replace(" ", "").split("+")
        if int(pieces[2] or 0) >= len(texts) or (pieces[2] is None and "*".join(dims) not in texts):
            raise PlaceError(f"`[{of}]` has no such part")
    if not fraction and not pieces and of != OWN:
        raise PlaceError(f"`[{of}]` is not a slice")
    return TensorPart(dims, of)


def _check_name(name: str) -> None:
    """A tensor's name: `{layer}` and `{expert}` are replaced by their index."""
    from string import Formatter

    try:
        fields = [part[1:] for part in Formatter().parse(name) if part[1] is not None]
    except ValueError as error:
        raise PlaceError(f"the tensor's name `{name}`: {error}") from None
    other = next((f for f, spec, conversion in fields if f not in ("layer", "expert") or spec or conversion), None)
    if other is not None or not name:
        raise PlaceError(
            f"`{{{other}}}` is neither `{{layer}}` nor `{{expert}}`" if name else "a tensor's name is missing"
        )
