"""A model: its attributes, its stack of layers and the blocks that they are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..base.dtypes import find
from ..base.frozen import field, record, replace
from ..base.source import Span
from ..base.syntax.ast import BlockDef
from ..base.units import Quantity
from .residual_streams import STREAM, Streams

AttrValue = Quantity | str | bool


@record
class Precision:
    """Dtypes that a phase has in place of the model's; None: the model's. `products`: `weight_dtype` is of products in layers alone, embedding and head are as
    activations."""

    weight_dtype: str | None = None
    kv_dtype: str | None = None
    attention_dtype: str | None = None
    products: bool = False


@record
class Layer:
    """A run of `repeat` equal layers, each a sequence of block names. Runs of the same name have the same layers."""

    name: str
    repeat: int
    blocks: tuple[str, ...]


@record
class Model:
    """`attributes` are flat dotted names (`hidden`, `attention.heads`, `experts.top_k`), counts as Quantity.

    `blocks` maps (block name, phase kind or None) to its definition, for every block the stack uses.
    `weight_dtypes` maps a block name, or `experts` for routed experts, to the dtype of its weights; absent:
    `weight_dtype`.
    `checkpoint` maps a block and its weight to where a checkpoint file has it (see `dagc.spec.tensor_place`).
    `params_stated` is the `params =` fact of the spec, a number to check and never to use.
    """

    name: str
    dtype: str
    weight_dtype: str
    kv_dtype: str
    attention_dtype: str
    weight_dtypes: Mapping[str, str]
    attributes: Mapping[str, AttrValue]
    stack: tuple[Layer, ...]
    blocks: Mapping[tuple[str, str | None], BlockDef] = field(repr=False)
    params_stated: float | None = None
    checkpoint: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict, repr=False)
    spans: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)
    span: Span | None = field(default=None, compare=False, repr=False)

    def count(self, name: str, default: int | None = None) -> int:
        """An integer attribute by dotted name; KeyError when absent and no default."""
        value = self.attributes.get(name)
        if isinstance(value, Quantity):
            return int(value.value)
        if default is None:
            raise KeyError(name)
        return default

    @property
    def streams(self) -> Streams | None:
        """Where there are several residual streams."""
        return Streams.of(self.attributes)

    @property
    def residual(self) -> tuple[str, ...]:
        """Dimensions of what layers hand on."""
        return ("batch", "seq", "hidden") if self.streams is None else ("batch", "seq", STREAM, "hidden")

    @property
    def tables(self) -> frozenset[str]:
        """Blocks of embedding and head."""
        return frozenset(block for layer in (self.stack[0], self.stack[-1]) for block in layer.blocks)

    def stored_as(self, given: Precision) -> Model:
        """With other dtypes. Those of weights replace those of all parts, but for what `stays`."""
        weight = given.weight_dtype or self.weight_dtype
        kv, attention = given.kv_dtype or self.kv_dtype, given.attention_dtype or self.attention_dtype
        parts = self.weight_dtypes
        if given.weight_dtype is not None:
            parts = {p: dtype for p, dtype in parts.items() if stays(p, dtype, weight, self.dtype, self.tables)}
        if given.products:
            wide = {p: dtype for p, dtype in parts.items() if wider(dtype, self.dtype)}
            parts = dict.fromkeys(sorted(self.tables), self.dtype) | wide
        if (weight, kv, attention, parts) == (
            self.weight_dtype,
            self.kv_dtype,
            self.attention_dtype,
            self.weight_dtypes,
        ):
            return self
        return replace(self, weight_dtype=weight, kv_dtype=kv, attention_dtype=attention, weight_dtypes=parts)

    @property
    def precision(self) -> str:
        """Dtypes in words: `bf16`, or `fp8_block weights (bf16: embed, lm_head), bf16 activations`."""
        parts: dict[str, list[str]] = {}
        for part, dtype in self.weight_dtypes.items():
            if dtype != self.weight_dtype:
                parts.setdefault(dtype, []).append(part)
        if not parts and self.weight_dtype == self.dtype == self.kv_dtype:
            return self.dtype
        apart = "; ".join(f"{dtype}: {', '.join(names)}" for dtype, names in parts.items())
        cache = f", {self.kv_dtype} KV cache" if self.kv_dtype != self.dtype else ""
        return f"{self.weight_dtype} weights{f' ({apart})' if apart else ''}, {self.dtype} activations{cache}"

    @property
    def kinds(self) -> dict[str, Layer]:
        """Each kind of layer once, in order of first use; `repeat` counts all of its kind."""
        repeats: dict[str, int] = {}
        for layer in self.stack:
            repeats[layer.name] = repeats.get(layer.name, 0) + layer.repeat
        first = {layer.name: layer for layer in reversed(self.stack)}
        return {name: replace(first[name], repeat=repeat) for name, repeat in repeats.items()}

    @property
    def capacity(self) -> float:
        """What an expert takes at most, in times the mean; 0: all."""
        found = self.attributes.get("experts.capacity")
        return found.value if isinstance(found, Quantity) else 0.0

    @property
    def layers(self) -> int:
        """Transformer layers: every stack entry but the first and the last (embedding and head)."""
        return sum(layer.repeat for layer in self.stack[1:-1])


def stays(part: str, kept: str, asked: str, activations: str, tables: Collection[str]) -> bool:
    """Whether a part keeps its dtype where all weights are asked for in another: what a model has in more bits than its activations (the
    weights that mix residual streams), and an embedding and a head in 16 bits or more, which no quantisation takes."""
    return wider(kept, activations) or (part in tables and left_out(kept, asked))


def wider(kept: str, activations: str) -> bool:
    """Whether one dtype has more bits than another."""
    one, other = find(kept), find(activations)
    return one is not None and other is not None and one.bits > other.bits


def left_out(part: str, asked: str) -> bool:
    """Whether a table or head of one dtype is left out by a quantisation to another."""
    kept, wanted = find(part), find(asked)
    return kept is not None and wanted is not None and wanted.quantised and not kept.quantised
