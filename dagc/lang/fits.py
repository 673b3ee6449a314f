"""Does a phase's strategy fit? Products against GPUs (`gpu_products.py`), and everything that must divide."""

from __future__ import annotations

from math import gcd, lcm

from ..base.diagnostics import Collector, Label
from ..base.pipeline_schedules import SCHEDULES
from ..spec.factors import unequal
from ..spec.model import Model
from ..spec.phase import Phase
from ..spec.strategy import Strategy
from ..spec.workload import Workload
from .block_checks import dims_of
from .body import Body
from .gpu_products import GpuProducts, nearest

IDLE = 0.1
"""Share of a batch's places that may be empty before it is reported."""


MOST_BALANCED = 1024
"""Layers of a stack that is cut into balanced stages: each run of them is looked at."""


class StrategyFit:
    """The shape checks of one phase: products against GPUs, and everything that must divide."""

    def __init__(self, phase: Phase, body: Body, model: Model, workload: Workload, out: Collector) -> None:
        self.phase, self.body, self.model, self.workload, self.out = phase, body, model, workload, out
        self.s = phase.strategy
        self.folded = self.s.attention is not None
        self.apart = self.s.apart is not None

    def check(self) -> None:
        if not GpuProducts(self.phase, self.body, self.model, self.out).fit():
            return
        self._layers()
        self._experts()
        self._tensor()
        self._batch()
        self._sequence()
        self._branches()
        self._shard()

    def degree(self, side: str, axis: str) -> int:
        fold = self.s.attention if side == "attention" else self.s.experts
        return dict(fold.degrees).get(axis, 1) if fold is not None else int(getattr(self.s, axis))

    def need(self, what: str, size: int, by: str, degree: int, *attrs: str) -> None:
        """`size` must divide by `degree`."""
        if size % degree == 0:
            return
        verb = "do" if what.endswith("s") else "does"
        message = f"{what} {size} {verb} not divide by {by} {degree}"
        also = self.why({"heads": "attention", "expert width": "experts"}.get(what, ""), f"{what} {size}")
        self.out.add("E03", message, self.body.first_of(*attrs), also=also, help=_divisors(size, by, degree))

    def why(self, part: str, text: str) -> list[Label]:
        """A label at a part of the model, where the same file has it."""
        span = self.model.spans.get(part)
        return [Label(span, text)] if span is not None and span.source == self.body.span.source else []

    def need_tokens(self, tokens: int, by: str, degree: int, *attrs: str) -> None:
        """A number of tokens must divide by `degree`: the nearest that do."""
        if tokens % degree:
            what = "prompt tokens" if self.phase.takes_prompts else "context tokens"
            message = f"{tokens} {what} do not divide by {by} {degree}"
            self.out.add("E03", message, self.body.first_of(*attrs), help=(f"{nearest(tokens, degree)} tokens do",))

    def _layers(self) -> None:
        layers, s = self.model.layers, self.s
        if s.layers_per_stage is not None:
            chunks = _chunks(self.phase)
            if sum(s.layers_per_stage) != layers or len(s.layers_per_stage) not in (s.pp, s.pp * chunks):
                total = " + ".join(map(str, s.layers_per_stage))
                self.out.add(
                    "E03", f"`layers_per_stage` must be {s.pp * chunks} numbers that add up to {layers}", self.body.first_of("layers_per_stage"),
                    because=(f"{total} = {sum(s.layers_per_stage)} over {len(s.layers_per_stage)} stages",),
                    help=_even_cut(layers, s.pp * chunks),
                )  # fmt: skip
        elif s.balanced:
            chunks = s.pp * _chunks(self.phase)
            if not chunks <= layers or layers > MOST_BALANCED:
                many = f"pp {s.pp} stages need" if chunks == s.pp else f"{chunks} chunks of layers need"
                self.out.add(
                    "E03", f"{many} a layer each, of {layers}" if chunks > layers
                    else f"{layers} layers are more than {MOST_BALANCED}, which are balanced at most", self.body.first_of("pp", "stages"),
                )  # fmt: skip
        elif layers % s.pp:
            chunks = s.pp * _chunks(self.phase)
            balanced = "`stages = balanced` cuts them so that the busiest takes the least time"
            helps = (balanced, unequal(layers, chunks))
            self.out.add(
                "E03", f"{layers} layers cannot be divided by pp {s.pp} stages", self.body.first_of("pp"),
                also=self.why("layers", f"{layers} layers") or self.why("stack", f"{layers} layers"),
                help=helps if layers >= chunks else ("use fewer stages",),
            )  # fmt: skip

    def _routing(self, experts: int) -> None:
        """As many shares as experts, in every layer."""
        routing = self.workload.routing if self.phase.routing is None else self.phase.routing
        also = self.why("experts", f"{experts} experts")
        shares = len(routing.histogram)
        if shares not in (0, experts):
            message = f"the routing histogram has {shares} shares, the model {experts} experts"
            self.out.add("E03", message, self.workload.span, also=also)
        for layer, where in zip(routing.layers, routing.where, strict=True):
            if len(layer) != experts:
                message = f"the loads, {where}: it has loads of {len(layer)} experts, the model has {experts}"
                self.out.add("E05", message, routing.span, also=also)
                return

    def _experts(self) -> None:
        m, s = self.model, self.s
        number = m.count("experts.count", 0)
        if not number:
            if s.redundant:
                self.out.add("E03", "`redundant` needs routed experts", self.body.first_of("redundant"))
            if self.folded and self.degree("experts", "ep") > 1:
                self.out.add("E03", "`ep` needs routed experts", self.body.first_of("experts"))
            return
        self._routing(number)
        ep = self.degree("experts", "ep")
        if (number + s.redundant) % ep:
            spare = -(number + s.redundant) % ep + s.redundant
            self.out.add(
                "E03", f"{number} experts + {s.redundant} redundant do not divide over ep {ep}", self.body.first_of("ep", "experts"),
                also=self.why("experts", f"{number} experts"),
                help=(f"redundant = {spare} fills every rank",),
            )  # fmt: skip
        trace = self.phase.experts.trace
        if trace is not None and len(trace.windows[0][0]) != number:
            message = f"the trace has loads of {len(trace.windows[0][0])} experts, the model has {number}"
            self.out.add("E05", message, self.body.first_of("experts"), also=self.why("experts", f"{number} experts"))
        resident = self.phase.experts.resident
        if resident % ep:
            self.out.add(
                "E03", f"{resident} experts that GPUs hold do not divide over ep {ep}", self.body.first_of("experts"),
                help=(f"resident = {max(ep, resident // ep * ep)} gives each rank as many",),
            )  # fmt: skip
        if s.redundant > number * (ep - 1):
            self.out.add(
                "E03",
                f"{s.redundant} redundant copies of {number} experts do not fit on {ep} ranks without doubles",
                self.body.first_of("redundant"),
            )
        self.need("expert width", m.count("experts.hidden"), "tp", self.degree("experts", "tp"), "experts", "tp")

    def _tensor(self) -> None:
        tp = self.degree("attention", "tp")
        m = self.model
        heads = m.count("attention.heads", 0)
        if heads:
            self.need("heads", heads, "tp", tp, "tp", "attention")
            kv = m.count("attention.kv_heads", heads)
            if kv % tp and tp % kv:
                message = f"kv_heads {kv} and tp {tp}: neither divides the other"
                also = self.why("attention", f"kv_heads {kv}")
                self.out.add("E03", message, self.body.first_of("tp", "attention"), also=also)
            self._context_parallel(tp, cached_heads(m))
        width = m.count("mlp.hidden", tp)
        if any("mlp" in layer.blocks for layer in m.stack) and width % tp:
            left = "split over fewer ranks or not at all" if gcd(width, tp) > 1 else "whole on every rank"
            self.out.add(
                "W06", f"the mlp width {width} does not divide by tp {tp}: it is {left}", self.body.first_of("tp", "attention"),
                also=self.why("mlp", f"width {width}"), because=("engines refuse to load such a split",),
                help=_divisors(width, "tp", tp),
            )  # fmt: skip

    def _context_parallel(self, tp: int, kv: int) -> None:
        """dcp shares what ranks of tp would keep copies of. `kv`: heads of keys and values in the cache."""
        copies = tp // gcd(tp, kv)
        if copies % self.s.dcp == 0:
            return
        dcp, heads = self.s.dcp, kv > 1
        self.out.add(
            "E03", "no ranks of tp keep the same keys and values, which dcp would split" if copies == 1
            else f"dcp {dcp} does not divide the {copies} ranks of tp that keep the same keys and values" if heads
            else f"dcp {dcp} does not divide tp {tp}", self.body.first_of("dcp"),
            because=(f"tp {tp} over kv_heads {kv}",) if heads else (),
            help=_divisors(copies, "dcp", dcp) if copies > 1 else ("leave out `dcp`",),
        )  # fmt: skip

    def _batch(self) -> None:
        """Any number of sequences will do; ranks that are idle for lack of them are worth a warning."""
        s, batching = self.s, self.phase.batching
        lanes = s.lanes
        parts = s.rounds * lanes * batching.ranks
        empty = max(batching.places, batching.ranks) - batching.sequences
        few = batching.microbatches * batching.lanes < s.rounds * lanes
        if empty <= IDLE * batching.places and not few:
            return
        terms = [
            ("microbatches", s.microbatches),
            ("replicas", s.replicas),
            ("dp", self.degree("attention", "dp")),
        ]
        terms += [] if self.folded else [("ep", s.ep)]
        terms += [("lanes", lanes)] if not self.apart else []
        shown = " x ".join(f"{n} {v}" for n, v in terms if v > 1)
        because = [f"{shown} = {parts} parts; the fullest has {_sequences(batching.each)}"]
        if few:
            because.append(
                f"they fill {batching.microbatches * batching.lanes if self.apart else batching.microbatches} of {s.microbatches} micro-batches"
                if s.microbatches > 1
                else "they fill one lane of the two"
            )
        near = nearest(batching.sequences, parts)
        self.out.add(
            "W06", f"{_sequences(batching.sequences)} leave{'s' if batching.sequences == 1 else ''} {empty} of {batching.places} places of `{self.phase.name}` empty"
            if empty else f"{_sequences(batching.sequences)} are too few for every part of `{self.phase.name}`",
            self.body.first_of("sequences", "microbatches", "dp", "attention", "ep"), because=because,
            help=(f"every rank is priced like the busiest; {near} sequences fill all of them",),
        )  # fmt: skip

    def _parts(self) -> None:
        """What a packed step cannot do, and what its parts need."""
        what = "a mixed step" if self.phase.lengths is None else "packed prompts"
        if self.degree("attention", "sp") > 1:
            self.out.add(
                "E03", f"{what} and sp > 1 cannot be combined", self.body.first_of("sp", "attention"),
                because=("sp splits the context of sequences in decode, and the tokens of prompts",),
                help=("split heads and batch (tp, dp) instead of the sequence",),
            )  # fmt: skip
        if self.s.dcp > 1:
            self.out.add(
                "E03", f"{what} and dcp {self.s.dcp} cannot be combined", self.body.first_of("dcp"),
                because=("its prompts attend to the keys and values of all ranks",),
            )  # fmt: skip
        if self.s.sequence_parallel:
            self.out.add(
                "E03", f"{what} and `sequence_parallel` cannot be combined", self.body.first_of("sequence_parallel"),
                because=("its number of tokens differs from step to step, so that ranks of tp do not divide it",),
            )  # fmt: skip
        for part in self.phase.parts:
            if part.tokens > part.context:
                message = f"{part.tokens} new tokens exceed a context of {part.context}"
                self.out.add("E03", message, self.body.first_of("draft", "context"))

    def _sequence(self) -> None:
        if self.phase.parts:
            self._parts()
            return
        sp, tp = self.degree("attention", "sp"), self.degree("attention", "tp")
        tokens = self.phase.tokens
        parts, by = (sp * self.s.dcp, "sp x dcp" if self.s.dcp > 1 else "sp") if self.phase.generates else (1, "")
        if not 1 <= tokens <= self.phase.seen // parts:
            self._too_few(parts, by)
        if self.phase.generates:
            self.need_tokens(self.phase.seen, by, parts, "dcp", "sp", "kv_cache", "context")
            return
        if tokens < self.phase.context and sp > 1:
            what, without = ("a prompt in chunks", "chunk") if self.phase.passes > 1 else ("a cached prefix", "prefix")
            self.out.add(
                "E03", f"{what} and sp > 1 cannot be combined", self.body.first_of(without),
                because=("the ranks of sp would have the earlier tokens in another order than the new ones",),
                help=(f"leave out `{without}`, or split heads and batch (tp, dp) instead of the sequence",),
            )  # fmt: skip
        if self.phase.lengths is None and self.phase.context != self.workload.prompt:
            self.out.add(
                "E03", f"the context of a {self.phase.kind} phase is its prompt", self.body.first_of("context")
            )
        pieces = _pieces(self.s, sp)
        self.need_tokens(tokens, "sp" if pieces == sp else "2 sp (zigzag)", pieces, "sp", "attention")
        if self.s.sequence_parallel:
            self.need_tokens(tokens, "sp x tp", sp * tp, "sequence_parallel")
        if self.s.sp_method == "ulysses" and sp > 1:
            if self.s.sp_layout == "zigzag":
                self.out.add(
                    "W06", "`sp_layout = zigzag` changes nothing: ulysses exchanges heads, and is even already",
                    self.body.first_of("sp_layout"),
                )  # fmt: skip
            kv = self.model.count("attention.kv_heads", self.model.count("attention.heads", 0))
            group = self.model.count("attention.group", 1)
            if kv % (tp * sp) and (group % sp or kv % tp):
                self.out.add(
                    "E03", f"ulysses exchanges heads: kv_heads {kv} do not divide over tp {tp} x sp {sp}", self.body.first_of("sp_method"),
                    help=("use sp_method = allgather or ring",),
                )  # fmt: skip

    def _branches(self) -> None:
        """Drafted tokens of several branches lie on one rank: those of a part of the context would belong to some of them."""
        if not self.phase.tree:
            return
        for word, degree in (("sp", self.degree("attention", "sp")), ("dcp", self.s.dcp)):
            if degree > 1:
                help_ = (f"write `{word} = 1`, or a chain: `draft = {len(self.phase.tree)}`",)
                why = ("every branch would have its own last tokens on the last rank",)
                self.out.add(
                    "E03",
                    f"`tree` and {word} {degree} cannot be combined",
                    self.body.first_of("tree"),
                    because=why,
                    help=help_,
                )

    def _too_few(self, parts: int, by: str) -> None:
        """A prefix as long as the prompt, or more drafted tokens than the last rank of the context has."""
        tokens, context = self.phase.new_tokens, self.phase.seen
        if self.phase.takes_prompts and tokens < 1:
            prompt = self.workload.prompt
            message = f"a prefix of {prompt - tokens} tokens leaves no new tokens of a prompt of {prompt}"
            help_ = (f"prefix = {prompt - 1} tok at most",) if prompt > 1 else ()
            self.out.add("E03", message, self.body.first_of("prefix"), help=help_)
            return
        message = f"{tokens} new tokens exceed a context of {context}" + (f" over {by} {parts}" if parts > 1 else "")
        self.out.add("E03", message, self.body.first_of("draft" if self.phase.speculative else "context", "context"))

    def _shard(self) -> None:
        """A rule on a dimension that no block has would do nothing."""
        if not self.s.shard:
            return
        known = {d for block in self.model.blocks.values() for d in dims_of(block)}
        rules = self.body.sub("shard", self.out)
        for dim, _ in self.s.shard:
            if rules is not None and dim in SPLIT_BY:
                at = rules.assigns[dim].name_span
                self.out.add("E03", f"`{dim}` is split by {SPLIT_BY[dim]}, not by a rule of `shard`", at)
                continue
            if rules is not None and dim not in known:
                near = self.out.near(dim, known)
                self.out.add(
                    "E02",
                    f"no block of this model has a dimension `{dim}`",
                    rules.assigns[dim].name_span,
                    help=(f"did you mean `{near}`?",) if near else (),
                )


def cached_heads(model: Model) -> int:
    """Heads of keys and values that ranks of tp share out; one where blocks have none, as latent attention."""
    own = any("kv_heads" in dims_of(block) for block in model.blocks.values())
    return model.count("attention.kv_heads", model.count("attention.heads", 1)) if own else 1


def tokens_divide_by(phase: Phase) -> int:
    """What the tokens of a phase's context must be a multiple of."""
    s = phase.strategy
    sp, tp = (dict(s.attention.degrees).get(a, 1) if s.attention else getattr(s, a) for a in ("sp", "tp"))
    if phase.parts or phase.generates:
        return 1 if phase.parts else sp * s.dcp
    return lcm(_pieces(s, sp), sp * tp if s.sequence_parallel else 1)


def _pieces(s: Strategy, sp: int) -> int:
    """Parts of a prompt that ranks of sp have."""
    return 2 * sp if s.sp_layout == "zigzag" and sp > 1 else sp


SPLIT_BY = {
    "batch": "dp and ep", "seq": "sp", "context": "sp", "expert": "ep", "slot": "the axes of its tokens",
    "choice": "no axis", "chosen": "no axis", "tokens": "no axis",
}  # fmt: skip
"""Dimensions that have axes of their own."""


def _divisors(size: int, by: str, degree: int) -> tuple[str, ...]:
    """The nearest degrees on both sides that divide a size, as help."""
    low = next((d for d in range(degree - 1, 1, -1) if size % d == 0), None)
    high = next((d for d in range(degree + 1, min(size, 2 * degree) + 1) if size % d == 0), None)
    near = " or ".join(str(d) for d in (low, high) if d)
    return (f"{by.split()[0]} = {near} divides it",) if near else ()


def _chunks(phase: Phase) -> int:
    """Of layers on each GPU of a pipeline."""
    training = phase.training
    return 1 if training is None else SCHEDULES[training.schedule].cuts(training.virtual)


def _sequences(count: int) -> str:
    return f"{count} sequence{'' if count == 1 else 's'}"


SHOWN = 16
"""Stages of which a list is written out."""


def _even_cut(layers: int, parts: int) -> tuple[str, ...]:
    """A list that would do."""
    each, more = divmod(layers, parts)
    return (f"`layers_per_stage = {[each + (k < more) for k in range(parts)]}`",) if each and parts <= SHOWN else ()
