"""A phase of inference: which GPUs, which tokens, which strategy, and what its engine keeps of the memory."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.draft_trees import Chances, expected_tokens, in_turn, reached
from ..base.frozen import field, record, replace
from ..base.phase_kinds import PHASE_KINDS, PhaseKind, part_kind
from ..base.source import Span
from .batching import Batching
from .exits import Exits
from .expert_use import ALL, ExpertUse
from .kv_cache import KvCache
from .model import Model, Precision
from .strategy import Strategy
from .training import Training
from .workload import Routing


@record
class EngineMemory:
    """What an engine fills of a GPU, and what it keeps there in addition to weights and cache. `engine`: whose
    defaults these are, None: none. `fraction` is a share of all of a GPU's memory (`of` all), of it too, but filled
    by weights and cache alone (static), or of what everything else leaves, filled by the cache (free). `tokens`: of
    the largest batch that it profiles, for which it keeps room, and `sequences` of those whose scores over the
    vocabulary it profiles. `padding_B`: what kernels add to weights; None: by `tiles`, (dtype, multiple of the
    residual width, multiple of an expert's), and where `copies`, by quantised weights of products of each head, which
    are stored in 16 bits as well."""

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


@record
class Launches:
    """How long the host takes to launch the kernels of a layer (`layer_s`) in a step that no CUDA graph covers; 0: never longer
    than the GPU takes. Graphs cover steps of decode alone, and those with prompts up to `prompt_tokens` on a rank."""

    layer_s: float = 0.0
    prompt_tokens: int = 0


@record
class Part:
    """Sequences of a mixed step that are alike: `tokens` of each of them in the step, the last of which attends to `context`.
    `scope`: that of their own ops in the graph."""

    scope: str
    sequences: int
    tokens: int
    context: int


@record
class BatchLengths:
    """Prompts of unequal lengths of one batch, as `form` says them. `packing`: padded | packed; `tokens`: new ones of all prompts;
    `longest`, `shortest`: of a prompt, its cached prefix included; `prompts`: where they are packed the new tokens of each, longest first."""

    form: str
    packing: str
    tokens: int
    longest: int
    shortest: int
    prompts: tuple[int, ...] = field(default=(), repr=False)


@record
class Phase:
    """`kind` is prefill or decode; `context` the KV length that its last token attends to (tokens); `tokens` of each
    sequence that one pass takes in: the prompt without its cached prefix, or in decode one and the drafted ones, of
    which the next is accepted with chance `acceptance`, or each with its own of `chances`; drafted as a chain, or as a `tree` of so
    many candidates behind each node by depth. A prompt cut into chunks takes `passes`, the last of which may be
    shorter (`last` tokens; 0: as long as the others); its graph is that of a whole chunk at the end of the prompt.
    `sequences` in the phase's batch. `parts` of a mixed step: the sequences in decode, and the prompts of each length; its
    `tokens` and `context` are those of the first. `window_cache`: whether blocks of `kv_block` tokens of the KV cache are freed when
    they are behind a layer's window or chunk. `training`: of a phase that trains, whose `sequences` one step takes in."""

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
    exchange: str | None = None  # kernels for tokens; None: the engine's in such a phase
    quantise: str = "fused"  # fused | separate
    expert_activations: str | None = None  # of MXFP4 experts: bf16 | mxfp8; None: the engine's choice
    engine: str = "trtllm"
    host_s: float = 0.0
    cuda_graph: bool = True
    window_cache: str = "freed"  # freed | whole
    kv_block: int = 16
    memory: EngineMemory = EngineMemory()
    launches: Launches = Launches()
    routing: Routing | None = None  # None: the workload's
    constants: Mapping[str, float] = field(default_factory=dict)  # names a `place` expression may use
    parts: tuple[Part, ...] = ()
    precision: Precision | None = None  # None: the model's dtypes
    hardware: str = ""  # name of its pool of GPUs; nothing: the only one
    drafter: str = "none"  # none | mtp | model: what drafts the tokens that a step checks; none costs nothing
    chunk: int = field(
        default=0, compare=False
    )  # as written, also where it is longer than the prompt; 0: prompts stay whole
    training: Training | None = None
    experts: ExpertUse = ALL
    tree: tuple[int, ...] = ()
    chances: Chances = ()
    draft_name: str = ""  # of another model that drafts
    draft_model: Model | None = field(default=None, compare=False, repr=False)
    by_work: bool = False  # chunks of equally much work
    cuts: tuple[int, ...] = ()  # tokens of each of them
    chunks_overlap: bool = False  # on the stages
    exits: Exits = ()  # of decode: behind which layers which share of the sequences has its token
    lengths: BatchLengths | None = None  # of prompts that are not equally long
    cache: KvCache = KvCache()  # what it keeps, and where
    attention_kernel: str = "flash"  # flash | unfused
    fuse: tuple[str, ...] | None = (
        None  # blocks that are one kernel each; (): no op rides in another's; None: the engine's kernels
    )
    span: Span | None = field(default=None, compare=False, repr=False)
    spans: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)

    @property
    def seats(self) -> frozenset[tuple[str, int]]:
        """(pool, id) of its GPUs, those that its experts have alone included."""
        apart = self.strategy.apart
        own = [(self.hardware, gpu) for gpu in self.gpus]
        own += [(apart.hardware or self.hardware, gpu) for gpu in apart.gpus] if apart is not None else []
        return frozenset(own)

    @property
    def gpu_count(self) -> int:
        return len(self.gpus) + (0 if self.strategy.apart is None else len(self.strategy.apart.gpus))

    def shares(self, other: Phase) -> bool:
        """Whether some GPU serves both."""
        if self.strategy.apart is None and other.strategy.apart is None:
            return self.hardware == other.hardware and not set(self.gpus).isdisjoint(other.gpus)
        return not self.seats.isdisjoint(other.seats)

    @property
    def new_tokens(self) -> int:
        """Tokens of a sequence that all passes together take in."""
        return sum(self.cuts) or (self.passes - 1) * self.tokens + (self.last or self.tokens)

    def at_context(self, context: int) -> Phase:
        """The phase where sequences are so long when its cache is fullest: a prompt of so many tokens, its cached prefix
        included and cut as written, or sequences in decode. Of a mixed step only those in decode."""
        if self.parts:
            parts = tuple(
                replace(p, context=context) if part_kind(p.scope, self.kind).generates else p for p in self.parts
            )
            return replace(self, parts=parts, context=parts[0].context)
        if self.phase_kind.generates:
            return replace(self, context=context)
        new = context - (self.context - self.new_tokens)
        tokens = min(self.chunk or new, new)
        passes = -(-new // tokens) if new > 0 else 1
        last = new % tokens if passes > 1 else 0
        return replace(self, context=context, tokens=tokens, passes=passes, last=last, cuts=())

    @property
    def seen(self) -> int:
        """Tokens that the last of a pass attends to: its context, or what the cache keeps of it with the new ones."""
        context = max(self.tokens, self.context) if self.takes_prompts else self.context
        return self.cache.seen(self.tokens, context, generates=self.phase_kind.generates)

    @property
    def phase_kind(self) -> PhaseKind:
        return PHASE_KINDS[self.kind]

    @property
    def takes_prompts(self) -> bool:
        return any(part.phase_kind.takes_prompts for part in self.as_parts)

    @property
    def generates(self) -> bool:
        return any(part.phase_kind.generates for part in self.as_parts)

    @property
    def is_packed(self) -> bool:
        """Whether its step has several parts, whose tokens are packed."""
        return len(self.parts) > 1

    @property
    def as_parts(self) -> tuple[Phase, ...]:
        """Each part of a mixed step as a phase of its own kind; a phase that is not mixed is its only part."""
        return tuple(self.part(part.scope) for part in self.parts) or (self,)

    def part(self, scope: str) -> Phase:
        """What ops of a scope are like: of a part of a mixed step, as a phase of its own kind; of other scopes the phase."""
        for part in self.parts:
            if part.scope == scope or not self.is_packed:
                kind = part_kind(part.scope, self.kind).name
                tree = self.tree if part_kind(part.scope, self.kind).generates else ()
                return replace(
                    self,
                    kind=kind,
                    parts=(),
                    context=part.context,
                    tokens=part.tokens,
                    sequences=part.sequences,
                    tree=tree,
                    lengths=None,
                )
        return self

    @property
    def graph_kind(self) -> str:
        """Kind of its graph: a mixed step of one part has that part's."""
        return self.kind if self.is_packed else self.as_parts[0].kind

    @property
    def is_captured(self) -> bool:
        """Whether a CUDA graph covers its step."""
        if not self.cuda_graph or not self.takes_prompts:
            return self.cuda_graph
        room = self.batching
        tokens = sum(part.each * n for part, n in room.parts) if room.parts else room.each * self.tokens
        return tokens <= self.launches.prompt_tokens

    @property
    def exchanges(self) -> str:
        """Kernels for tokens between nodes, and of DeepEP inside one: for throughput where prompts are taken in, for latency
        else, unless the phase names others."""
        usual = "deepep_ht" if self.takes_prompts else "deepep_ll"
        return self.exchange if self.exchange is not None and self.exchange.startswith("deepep") else usual

    @property
    def batching(self) -> Batching:
        """How its sequences fill its ranks."""
        if not self.is_packed:
            return Batching.of(self.sequences, self.strategy)
        return Batching.packed(tuple((part.sequences, part.tokens) for part in self.parts), self.strategy)

    @property
    def taken(self) -> int:
        """Tokens that all passes take in, over all places: those that fill rows up, and of empty places, included."""
        room = self.batching
        if room.parts:
            return sum(own.places * tokens for own, tokens in room.parts)
        return room.places * self.new_tokens

    @property
    def filled(self) -> float:
        """Of these, those of sequences."""
        return self.batching.filled if self.lengths is None else self.lengths.tokens / self.taken

    @property
    def speculative(self) -> int:
        """Drafted tokens that a decode step checks in addition to the one it computes anyway."""
        if self.parts:
            return max(part.speculative for part in self.as_parts)
        return self.tokens - 1 if self.generates else 0

    @property
    def tokens_per_step(self) -> float:
        """Tokens of a sequence that one pass brings: a drafted one counts if it and those before it are accepted. Of a
        mixed step those of a sequence in decode."""
        if not self.generates:
            return float(self.tokens)
        return expected_tokens(self.reached)

    @property
    def draft_tree(self) -> tuple[int, ...]:
        """Candidates behind each node by depth; of a chain one at each."""
        return self.tree or (1,) * self.speculative

    @property
    def reached(self) -> tuple[float, ...]:
        """Chance that at least so many drafted tokens of a sequence are accepted in a step, of each number from 1 on."""
        tree = self.draft_tree
        if not self.by_position:
            return tuple(self.acceptance**i for i in range(1, len(tree) + 1))
        return reached(tree, self.chances or tuple(in_turn(self.acceptance, width) for width in tree))

    def kept(self, count: int) -> float:
        """Chance that at least so many drafted tokens of a sequence are accepted, as far as chances are known: 1 for none."""
        if not count:
            return 1.0
        if not self.by_position:
            return self.acceptance**count
        found = reached(self.tree or (1,) * len(self.chances), self.chances) if self.chances else self.reached
        return found[count - 1] if count <= len(found) else 0.0

    @property
    def by_position(self) -> bool:
        """Whether drafted tokens have chances of their own, by position or by candidate."""
        return bool(self.tree or self.chances)
