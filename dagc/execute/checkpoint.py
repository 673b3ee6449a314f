"""Weights from a checkpoint file: its tensors, and the weights of a model in them."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import NDArray
from ..base.files import Unreadable, open_regular
from ..ir.graph import Graph
from ..ir.op import Weight
from ..ir.routed_dims import dim_like
from ..ir.segment import Segment
from ..spec.model import Model
from ..spec.tensor_place import TensorPlace
from .values import Floats

Arrays = Mapping[str, NDArray[Any]]


class CheckpointError(ValueError):
    """The file lacks weights of the model; the message names the tensor."""


def read_place(place: TensorPlace, tensor: NDArray[Any], sizes: Mapping[str, int], dims: tuple[str, ...]) -> Floats:
    """The weight, its dimensions in the order asked for."""
    tensor = tensor[tuple(whole.slice(sizes) for whole, _ in place.axes)]
    parts = [p for _, inner in place.axes for p in inner]
    tensor = tensor.reshape([p.extent(sizes) for p in parts])[tuple(p.slice(sizes) for p in parts)]
    have = place.dims
    tensor = tensor.reshape([sizes[d] for d in have])
    return np.ascontiguousarray(tensor.transpose([have.index(d) for d in dims]), dtype=np.float64) + place.plus


def read_arrays(path: Path) -> Arrays:
    """The arrays of an `.npz` file, by name. Raises ValueError with what is wrong with it."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as parts:
            members = parts.infolist()
            size = path.stat().st_size
            if sum(m.file_size for m in members) > max(MOST_SPREAD * size, MOST_SMALL_BYTES):
                raise ValueError(f"its members are more than {MOST_SPREAD} times as large as it is")
            return {m.filename.removesuffix(".npy"): _array(parts, m) for m in members}
    except Unreadable as error:
        raise ValueError(f"cannot read `{path}`: {error}") from None
    except OSError as error:
        raise ValueError(f"cannot read `{path}`: {error.strerror or error}") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        ValueError,
    ) as error:
        raise ValueError(f"cannot read `{path}`: it is not an .npz file of plain arrays ({error})") from None


MOST_SPREAD = 200
"""How much larger than the file its members may be: weights hardly shrink, and zeros without end do."""
MOST_SMALL_BYTES = 64_000_000


def _array(parts: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """A member's array. Its header is compared with the member's size before anything is made of it."""
    name = member.filename.removesuffix(".npy")
    with parts.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"`{name}` is of version {version}")
        try:
            shape, columns_first, dtype = read(file)
        except Exception as error:  # NumPy reads it as Python text, and fails as that does
            raise ValueError(f"the header of `{name}`: {type(error).__name__}") from None
        if dtype.kind not in "iuf":
            raise ValueError(f"`{name}` is not an array of real numbers")
        wanted = math.prod(shape) * dtype.itemsize
        if any(n < 0 for n in shape) or not 0 <= wanted <= member.file_size:
            raise ValueError(f"`{name}` has shape {_short(shape)}, and {member.file_size} bytes")
        data = file.read(wanted)
        if len(data) < wanted or file.read(1):
            raise ValueError(f"`{name}` has shape {_short(shape)}, and another number of bytes")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).transpose() if columns_first else array.reshape(shape)


def _short(shape: tuple[int, ...]) -> str:
    text = str(list(shape))
    return text if len(text) <= 40 else f"{text[:40]}..."


@dataclass(slots=True)
class Checkpoint:
    """The tensors of a file, by name. `used` collects the names that weights were read from."""

    model: Model
    tensors: Arrays
    path: str = "the checkpoint"
    used: set[str] = field(default_factory=set)
    places: dict[str, TensorPlace] = field(default_factory=dict)
    """Of each text that says one: the layers share them."""
    known: dict[tuple[object, ...], Floats] = field(default_factory=dict)
    """Weights that were read: the model alone and its ranks are given the same ones."""

    @classmethod
    def open(cls, model: Model, path: Path) -> Checkpoint:
        """An `.npz` file."""
        try:
            return cls(model, read_arrays(path), path.name)
        except ValueError as error:
            raise CheckpointError(str(error)) from None

    def __call__(self, segment: Segment, layer: int, weight: Weight) -> Floats:
        """A weight of a layer, whole."""
        key = segment.name, layer, weight.name, weight.dims, *(segment.sizes.get(d) for d in weight.dims)
        if key not in self.known:
            self.known[key] = self._whole(segment, layer, weight)
        return self.known[key]

    def _whole(self, segment: Segment, layer: int, weight: Weight) -> Floats:
        sizes = {d: int(n) for d, n in segment.sizes.items() if ":" not in d and n == int(n)}
        sizes |= {"{layer}": layer, "{layers}": self.model.layers}
        places = self._places(segment, weight)
        for place in places:
            if "{expert}" in place.name:
                experts = dim_like(weight.dims, "expert")
                if experts is None:
                    raise CheckpointError(f"`{place.name}` counts experts, weight `{weight.name[1:]}` has none")
                names = [place.name.format(layer=layer, expert=e) for e in range(sizes[experts])]
                if names[0] in self.tensors:
                    inner = tuple(d for d in weight.dims if d != experts)
                    stacked = [self._read(place, name, sizes, inner, weight) for name in names]
                    return np.stack(stacked, axis=weight.dims.index(experts))
            elif place.name.format(layer=layer) in self.tensors:
                return self._read(place, place.name.format(layer=layer), sizes, weight.dims, weight)
        tried = " or ".join(f"`{p.name.format(layer=layer, expert=0)}`" for p in places)
        raise CheckpointError(f"{self.path} has no tensor {tried}, which weight `{weight.name[1:]}` needs")

    def _places(self, segment: Segment, weight: Weight) -> list[TensorPlace]:
        scope, _, name = weight.name[1:].partition(".")
        block = next((op.block for op in segment.ops if weight.name in op.inputs), scope)
        texts = self.model.checkpoint.get(scope, {}).get(name) or self.model.checkpoint.get(block, {}).get(name)
        if texts is None:
            raise CheckpointError(
                f'nothing says where weight `{weight.name[1:]}` is: `checkpoint {block} {{ {name} = "..." }}`'
            )
        for text in texts:
            if text not in self.places:
                self.places[text] = TensorPlace.parse(text)
        return [self.places[text] for text in texts]

    def _read(
        self, place: TensorPlace, name: str, sizes: Mapping[str, int], dims: tuple[str, ...], weight: Weight
    ) -> Floats:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self.path} has no tensor `{name}`, which weight `{weight.name[1:]}` needs")
        self.used.add(name)
        if sorted(place.dims) != sorted(dims):
            raise CheckpointError(
                f"`{name}` is described with dimensions {list(place.dims)}, weight `{weight.name[1:]}` has {list(dims)}"
            )
        unknown = next((d for d in place.names if d not in sizes), None)
        if unknown is not None:
            raise CheckpointError(f"`{name}` is described with `{unknown}`, which is not a dimension of this layer")
        wanted = place.shape(sizes)
        if tensor.shape != wanted:
            raise CheckpointError(f"tensor `{name}` of {self.path} has shape {list(tensor.shape)}, not {list(wanted)}")
        return read_place(place, tensor, sizes, dims)

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
