"""Weights from a checkpoint file: which tensor a weight of the model is, and which part of it.

A place is text: the tensor's name and its dimensions, `...q_proj.weight (heads head_dim) hidden`. `(a b)` is a flattened
pair; `ffn[0/2]` the first of two equal blocks of an axis; `ffn[0%2]` every second entry; `v[n+v]` the part `v` of an
axis that holds parts n and v; `(a b)[a*b+c@0]` part 0 of parts a*b and c; `1` an axis of one; ` +1` at
the end: the file has the weight less one. `{layer}` is the layer's
index, `{expert}` stacks one tensor for each expert.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from ..ir.graph import Graph, Segment, Weight
from ..spec import Model
from .kernels import Floats

_TOKEN = re.compile(r"[()]|\[[^\]]*\]|[A-Za-z_][A-Za-z0-9_.]*|[0-9]+")


class CheckpointError(ValueError):
    """The file does not hold the model's weights; the message names the tensor."""


@dataclass(frozen=True, slots=True)
class Part:
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
            return self.size(sizes) * int(re.split("[/%]", self.of)[1])
        return sum(self._pieces(sizes)[1])

    def _pieces(self, sizes: Mapping[str, int]) -> tuple[list[str], list[int]]:
        texts = [piece.strip() for piece in self.of.split("@")[0].split("+")]
        return texts, [prod(_size(d.strip(), sizes) for d in text.split("*")) for text in texts]

    def slice(self, sizes: Mapping[str, int]) -> slice:
        """Which entries of the axis these are."""
        own = self.size(sizes)
        if not self.of:
            return slice(None)
        if "/" in self.of:
            first = int(self.of.split("/")[0]) * own
            return slice(first, first + own)
        if "%" in self.of:
            first, step = map(int, self.of.split("%"))
            return slice(first, None, step)
        texts, lengths = self._pieces(sizes)
        index = int(self.of.split("@")[1]) if "@" in self.of else texts.index("*".join(self.dims))
        return slice(sum(lengths[:index]), sum(lengths[: index + 1]))


def _size(dim: str, sizes: Mapping[str, int]) -> int:
    return int(dim) if dim.isdigit() else sizes[dim]


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor's name and, axis by axis, the parts it is made of (outer part: the whole axis)."""

    name: str
    axes: tuple[tuple[Part, tuple[Part, ...]], ...]
    plus: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Place:
        name, _, rest = text.strip().partition(" ")
        rest, sign, plus = rest.partition(" +")
        tokens = _TOKEN.findall(rest)
        axes: list[tuple[Part, tuple[Part, ...]]] = []
        while tokens:
            if tokens[0] == "(":
                end = _closing(tokens)
                inner, tokens = _parts(tokens[1:end]), tokens[end + 1 :]
            else:
                count = 2 if len(tokens) > 1 and tokens[1].startswith("[") else 1
                inner, tokens = _parts(tokens[:count]), tokens[count:]
                axes.append((Part(inner[0].dims), inner))
                continue
            of = tokens.pop(0)[1:-1] if tokens and tokens[0].startswith("[") else ""
            axes.append((Part(tuple(d for p in inner for d in p.dims), of), inner))
        return cls(name, tuple(axes), float(plus) if sign else 0.0)

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(d for _, parts in self.axes for p in parts for d in p.dims if not d.isdigit())

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Of the tensor in the file."""
        return tuple(
            whole.extent(sizes) if whole.of else prod(p.extent(sizes) for p in parts) for whole, parts in self.axes
        )

    def read(self, tensor: Floats, sizes: Mapping[str, int], dims: tuple[str, ...]) -> Floats:
        """The weight, its dimensions in the order asked for."""
        tensor = tensor[tuple(whole.slice(sizes) for whole, _ in self.axes)]
        parts = [p for _, inner in self.axes for p in inner]
        tensor = tensor.reshape([p.extent(sizes) for p in parts])[tuple(p.slice(sizes) for p in parts)]
        have = self.dims
        tensor = tensor.reshape([sizes[d] for d in have])
        return np.ascontiguousarray(tensor.transpose([have.index(d) for d in dims]), dtype=np.float64) + self.plus


def _closing(tokens: list[str]) -> int:
    """Where the bracket that stands first is closed."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token == "(") - (token == ")")
        if depth == 0:
            return i
    raise ValueError("a bracket is not closed")


def _parts(tokens: list[str]) -> tuple[Part, ...]:
    parts: list[Part] = []
    while tokens:
        token = tokens.pop(0)
        if token.startswith("["):
            parts[-1] = Part(parts[-1].dims, token[1:-1])
        elif token == "(":
            end = tokens.index(")")
            parts.append(Part(tuple(tokens[:end])))
            tokens = tokens[end + 1 :]
        else:
            parts.append(Part((token,)))
    return tuple(parts)


@dataclass(slots=True)
class Checkpoint:
    """The tensors of a file, by name. `used` collects the names that weights were read from."""

    model: Model
    tensors: Mapping[str, Floats]
    path: str = "the checkpoint"
    used: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, model: Model, path: Path) -> Checkpoint:
        """An `.npz` file."""
        try:
            with np.load(path) as data:
                return cls(model, {name: data[name] for name in data.files}, path.name)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read `{path}`: {error}") from None

    def __call__(self, segment: Segment, layer: int, weight: Weight) -> Floats:
        """A weight of a layer, whole."""
        sizes = {d: int(n) for d, n in segment.sizes.items() if ":" not in d and n == int(n)}
        places = self._places(segment, weight)
        for place in places:
            if "{expert}" in place.name:
                names = [place.name.format(layer=layer, expert=e) for e in range(sizes["expert"])]
                if names[0] in self.tensors:
                    inner = tuple(d for d in weight.dims if d != "expert")
                    stacked = [self._read(place, name, sizes, inner, weight) for name in names]
                    return np.stack(stacked, axis=weight.dims.index("expert"))
            elif place.name.format(layer=layer) in self.tensors:
                return self._read(place, place.name.format(layer=layer), sizes, weight.dims, weight)
        tried = " or ".join(f"`{p.name.format(layer=layer, expert=0)}`" for p in places)
        raise CheckpointError(f"{self.path} has no tensor {tried}, which weight `{weight.name[1:]}` needs")

    def _places(self, segment: Segment, weight: Weight) -> list[Place]:
        scope, _, name = weight.name[1:].partition(".")
        block = next((op.block for op in segment.ops if weight.name in op.inputs), scope)
        texts = self.model.checkpoint.get(block, {}).get(name)
        if texts is None:
            raise CheckpointError(
                f'nothing says where weight `{weight.name[1:]}` is: `checkpoint {block} {{ {name} = "..." }}`'
            )
        return [Place.parse(text) for text in texts]

    def _read(self, place: Place, name: str, sizes: Mapping[str, int], dims: tuple[str, ...], weight: Weight) -> Floats:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self.path} has no tensor `{name}`, which weight `{weight.name[1:]}` needs")
        self.used.add(name)
        if sorted(place.dims) != sorted(dims):
            raise CheckpointError(
                f"`{name}` is described with dimensions {list(place.dims)}, weight `{weight.name[1:]}` has {list(dims)}"
            )
        wanted = place.shape(sizes)
        if tensor.shape != wanted:
            raise CheckpointError(f"tensor `{name}` of {self.path} has shape {list(tensor.shape)}, not {list(wanted)}")
        return place.read(tensor, sizes, dims)

    def check(self, graph: Graph) -> None:
        """Every weight of the graph is there and rightly shaped, and no tensor is left over."""
        for segment, layer in graph.layers:
            for weight in segment.weights:
                self(segment, layer, weight)
        extra = sorted(set(self.tensors) - self.used)
        if extra:
            shown = ", ".join(f"`{name}`" for name in extra[:5]) + (
                f" and {len(extra) - 5} more" if len(extra) > 5 else ""
            )
            raise CheckpointError(f"{self.path} has tensors that the model does not use: {shown}")
