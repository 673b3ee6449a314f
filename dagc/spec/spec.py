"""The spec level: typed records, every name resolved, every unit checked, all in SI base units.

Made by `dagc.lang.elaborate`; read by the passes. Spans are kept for diagnostics and never compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..base import dtypes
from ..base.dtypes import DTYPE_BYTES as DTYPE_BYTES
from ..base.source import Span
from ..base.syntax.ast import BlockDef, Comparison, Expr
from ..base.units import Quantity

AttrValue = Quantity | str | bool


@dataclass(frozen=True, slots=True)
class Link:
    """Per GPU and direction."""

    bandwidth_Bps: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Hardware:
    """A pool of equal GPUs. `compute_flops` maps dtype -> peak FLOP/s; key "default" serves the rest."""

    name: str
    gpus: int
    per_node: int
    compute_flops: Mapping[str, float]
    mfu: float
    memory_B: float
    hbm_Bps: float
    mbu: float
    launch_s: float
    reserve_B: float
    node: Link
    cluster: Link
    calibration: str | None = None
    span: Span | None = field(default=None, compare=False, repr=False)

    def peak_flops(self, dtype: str) -> float:
        """Datasheet peak for a dtype, FLOP/s."""
        found = dtypes.find(dtype)
        known = dtype if dtype in self.compute_flops or found is None else found.unit
        return self.compute_flops.get(known, self.compute_flops["default"])


@dataclass(frozen=True, slots=True)
class Layer:
    """A run of `repeat` alike layers, each a sequence of block names. Runs of one name are of one kind."""

    name: str
    repeat: int
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
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
        found: dict[str, Layer] = {}
        for layer in self.stack:
            known = found.get(layer.name)
            found[layer.name] = layer if known is None else replace(layer, repeat=known.repeat + layer.repeat)
        return found

    @property
    def layers(self) -> int:
        """Transformer layers: every stack entry but the first and the last (embedding and head)."""
        return sum(layer.repeat for layer in self.stack[1:-1])


@dataclass(frozen=True, slots=True)
class Routing:
    """How tokens choose experts: kind `uniform`; `zipf` or `power_law` with exponent `s`; or `histogram`, the share of
    the choices that each expert gets."""

    kind: str = "uniform"
    s: float = 0.0
    histogram: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """`sequences` in the whole batch of a phase, each of `prompt` tokens, generating `output` tokens."""

    sequences: int
    prompt: int
    output: int
    routing: Routing = Routing()
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Fold:
    """Degrees of one side of a folded strategy, outermost first: (("dp", 8), ("sp", 1), ("tp", 4))."""

    degrees: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Strategy:
    """Degrees as written. Flat: dp, ep, sp, tp. Folded: `attention` and `experts` are set and override them."""

    pp: int = 1
    dp: int = 1
    ep: int = 1
    sp: int = 1
    tp: int = 1
    replicas: int = 1
    attention: Fold | None = None
    experts: Fold | None = None
    order: tuple[str, ...] = ("pp", "dp", "ep", "sp", "tp")
    place: Expr | None = None
    microbatches: int = 1
    layers_per_stage: tuple[int, ...] | None = None
    sequence_parallel: bool = False
    sp_method: str = "allgather"  # allgather | ring | ulysses
    sp_layout: str = "contiguous"  # contiguous | zigzag
    redundant: int = 0
    dispatch: str = "all_to_all"  # all_to_all | allgather
    overlap: str = "none"  # none | two_batch
    shard: tuple[tuple[str, str], ...] = ()  # extra rules: (dimension, axis name)
    passes: tuple[str, ...] = ()  # of installed plugins


@dataclass(frozen=True, slots=True)
class Batching:
    """How a phase's sequences fill its ranks: `lanes` of each of `microbatches` have room for `each` sequences on each of
    the `ranks` that split the batch. Parts are filled one after the other, so only the last may have empty places."""

    sequences: int
    each: int
    ranks: int
    lanes: int
    microbatches: int

    @staticmethod
    def of(sequences: int, strategy: Strategy) -> Batching:
        """As few parts as the busiest rank's share needs: no micro-batch, and no second lane, without a sequence."""
        attention = strategy.attention
        ranks = dict(attention.degrees).get("dp", 1) if attention is not None else strategy.dp * strategy.ep
        ranks *= strategy.replicas
        lanes = 2 if strategy.overlap == "two_batch" else 1
        each = -(-sequences // (strategy.microbatches * lanes * ranks))
        parts = -(-sequences // (each * ranks))
        lanes = min(lanes, parts)
        return Batching(sequences, each, ranks, lanes, -(-parts // lanes))

    @property
    def part(self) -> int:
        """Places of a lane of a micro-batch, over all ranks."""
        return self.each * self.ranks

    @property
    def places(self) -> int:
        """Sequences for which there is room; those beyond the phase's own are priced like them and hold nothing."""
        return self.part * self.lanes * self.microbatches

    def share(self, groups: int) -> float:
        """Of the places of the busiest of so many equal groups of ranks, those that hold a sequence."""
        in_group = self.part // groups
        return min(in_group, -(-self.sequences // groups)) / in_group


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What an engine fills of a GPU, and what it keeps there beside weights and cache. `engine`: whose defaults these are,
    None: none. `fraction` is a share of all of a GPU's memory (`of` all), of it too, but filled by weights and cache alone
    (static), or of what all else leaves, filled by the cache (free). `tokens`: of the largest batch that it profiles, for
    which it keeps room, and `sequences` of those whose scores over the vocabulary it profiles. `padding_B`: what kernels
    add to weights; None: by `tiles`, (dtype, multiple of the residual width, multiple of an expert's), and where `copies`,
    by quantised weights of products of each head, which are held in 16 bits besides."""

    engine: str | None = None
    fraction: float = 1.0
    of: str = "all"  # all | static | free
    tokens: int = 0
    sequences: int = 0
    graphs_B: float = 0.0
    communication_B: float = 0.0
    padding_B: float | None = None
    tiles: tuple[tuple[str, int, int], ...] = ()
    copies: bool = False


@dataclass(frozen=True, slots=True)
class Phase:
    """`kind` is prefill or decode; `context` the KV length that its last token attends to (tokens); `tokens` of each
    sequence that one pass takes in: the prompt without its cached prefix, or in decode one and the drafted ones, of
    which the next is accepted with chance `acceptance`. A prompt cut into chunks takes `passes`, the last of which may be
    shorter (`last` tokens; 0: as long as the others); its graph is that of a whole chunk at the end of the prompt.
    `sequences` in the phase's batch. `window_cache`: whether blocks of `kv_block` tokens of the KV cache are freed when
    they lie behind a layer's window or chunk."""

    name: str
    kind: str
    gpus: tuple[int, ...]
    context: int
    tokens: int
    sequences: int
    strategy: Strategy
    acceptance: float = 0.0
    passes: int = 1
    last: int = 0
    dispatch_dtype: str | None = None
    quantise: str = "fused"  # fused | separate
    engine: str = "trtllm"
    host_s: float = 0.0
    cuda_graph: bool = True
    window_cache: str = "freed"  # freed | whole
    kv_block: int = 16
    memory: EngineMemory = EngineMemory()
    constants: Mapping[str, float] = field(default_factory=dict)  # names a `place` expression may use
    span: Span | None = field(default=None, compare=False, repr=False)
    spans: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)

    @property
    def new_tokens(self) -> int:
        """Tokens of a sequence that all passes together take in."""
        return (self.passes - 1) * self.tokens + (self.last or self.tokens)

    @property
    def batching(self) -> Batching:
        """How its sequences fill its ranks."""
        return Batching.of(self.sequences, self.strategy)

    @property
    def draft(self) -> int:
        """Drafted tokens that a decode step checks beside the one it computes anyway."""
        return self.tokens - 1 if self.kind == "decode" else 0

    @property
    def tokens_per_step(self) -> float:
        """Tokens of a sequence that one pass brings: a drafted one counts if it and those before it are accepted."""
        if self.kind != "decode":
            return float(self.tokens)
        return sum(self.acceptance**i for i in range(self.tokens))


@dataclass(frozen=True, slots=True)
class Requirement:
    """One `require`: judged by the last pass. `constants` holds the `let`s and params that it may name."""

    label: str
    text: str = field(compare=False)
    test: Comparison
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Spec:
    hardware: Hardware
    model: Model
    workload: Workload
    phases: tuple[Phase, ...]
    requirements: tuple[Requirement, ...]
    constants: Mapping[str, AttrValue]  # params (after --set) and lets
    params: Mapping[str, tuple[AttrValue, ...]]  # param -> its domain, for search

    def phase(self, name: str) -> Phase:
        """Raises StopIteration where there is none of that name."""
        return next(p for p in self.phases if p.name == name)
