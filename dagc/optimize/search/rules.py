"""rules: which plans are legal, as masks over the columns of a grid: what `compile` refuses about degrees, before anything is read.

Each says what `dagc.lang.fits` and the mesh say of one plan at a time (tests compare them, plan by plan). What no rule here knows
is refused when the plan is read or lowered, and counted there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ...base.axes import AXES, DATA, EXPERT, EXPERT_TENSOR, SEQUENCE, STAGES, TENSOR
from ...base.frozen import record
from ...lang.fits import cached_heads
from ...spec.hardware import Hardware
from ...spec.phase import Phase
from ...spec.spec import Spec
from .space import Flags, Ints, Rows, Rule, Test, Word
from .step_rules import step_rules, step_words

Asked = tuple[tuple[str, ...], Test]
"""The names that a test asks, and the test."""
GPUS, HARDWARE = "gpus", "hardware"
FOLDED = {
    "attention.dp": DATA, "attention.sp": SEQUENCE, "attention.tp": TENSOR, "experts.ep": EXPERT, "experts.tp": EXPERT_TENSOR,
}  # fmt: skip
"""What rules call the degrees of a folded strategy."""
PARTS = ("decode", "prompt_tokens")
"""Choices that change what a mixed step consists of."""


@record
class Facts:
    """What rules know of a phase and its model beside its choices. `new`: tokens of a sequence that all passes take in."""

    phase: Phase
    spec: Spec
    new: int

    @property
    def pools(self) -> Mapping[str, Hardware]:
        """Those that the phase may run on, as far as rules know."""
        return self.spec.pools

    @property
    def folded(self) -> bool:
        return self.phase.strategy.attention is not None

    def count(self, name: str, default: int = 0) -> int:
        return self.spec.model.count(name, default)


def fixed(facts: Facts) -> dict[str, Word]:
    """What rules may ask of a phase, as it says it: the values of everything that is not open."""
    phase = facts.phase
    s = phase.strategy
    out: dict[str, Word] = {
        STAGES: s.pp, "replicas": s.replicas, "microbatches": s.microbatches, "redundant": s.redundant, "dispatch": s.dispatch,
        "sp_method": s.sp_method, "overlap": s.overlap, "sequence_parallel": s.sequence_parallel, GPUS: len(phase.gpus),
        "sequences": phase.sequences, "expert_placement": s.placing, "chunk": phase.tokens, "draft": phase.speculative, "sp_layout": s.sp_layout,
        "exchange": phase.exchange or "", HARDWARE: phase.hardware, "dcp": s.dcp,
        "stages": "balanced" if s.balanced else "even",
    }  # fmt: skip
    if phase.training is not None:
        out |= step_words(phase.training)
    if s.attention is None or s.experts is None:
        return out | {axis: getattr(s, axis) for axis in AXES} | {EXPERT_TENSOR: s.tp}
    inner = {AXES[axis].among_experts: n for axis, n in s.experts.degrees}
    return out | dict(s.attention.degrees) | inner


def names(facts: Facts) -> dict[str, str]:
    """What rules call a choice -> its path."""
    if facts.folded:
        return {name: path for path, name in FOLDED.items()}
    return {EXPERT_TENSOR: TENSOR}


def rules(facts: Facts, open_: Collection[str]) -> tuple[Rule, ...]:
    """In the order in which a plan is refused. `open_`: paths of what is open."""
    own = (*_pool(facts), *products(facts.folded), *_model(facts), *_sequence(facts), *_kernels(facts, open_))
    return own if facts.phase.training is None else (
        *own, *step_rules(
            facts.phase.training, facts.spec.model.layers, facts.phase.strategy.layers_per_stage, lambda rows: batching(rows, facts)[2]
        ),
    )  # fmt: skip


def _pool(facts: Facts) -> tuple[Rule, ...]:
    """GPUs against those of the pool, where there are several."""
    if not facts.spec.others:
        return ()

    def fits(rows: Rows) -> Flags:
        most = np.zeros((), dtype=np.int64)
        for name, own in facts.pools.items():
            most = most + np.where(rows.is_(HARDWARE, name), own.gpus, 0)
        return rows.number(GPUS) <= most

    return (Rule("pool", "the pool has so many GPUs", (((HARDWARE, GPUS), fits),)),)


def products(folded: bool) -> tuple[Rule, ...]:
    """Degrees against GPUs."""

    if not folded:
        every = ("replicas", *(a for a in AXES))
        tests = [_divides(every[: k + 1]) for k in range(1, len(every))]
        return (Rule("gpus", "the degrees multiply to the number of GPUs", (*tests, _fills(every))),)
    outer = (STAGES, "replicas")
    attention = (*outer, DATA, SEQUENCE, TENSOR)
    experts = (*outer, EXPERT, EXPERT_TENSOR)
    return (
        Rule("stages", "pp x replicas divides the GPUs", (_divides(outer[:1]), _divides(outer))),
        Rule(
            "attention",
            "dp x sp x tp of attention fill the GPUs of a stage",
            (_divides(attention[:3]), _divides(attention[:4]), _fills(attention)),
        ),
        Rule(
            "experts", "ep x tp of the experts divide the GPUs of a stage", (_divides(experts[:3]), _divides(experts))
        ),
    )


def _divides(parts: Sequence[str]) -> Asked:
    return (GPUS, *parts), lambda r: r.number(GPUS) % _times(r, parts) == 0


def _fills(parts: Sequence[str]) -> Asked:
    return (GPUS, *parts), lambda r: _times(r, parts) == r.number(GPUS)


def _times(rows: Rows, parts: Sequence[str]) -> Ints:
    out = np.asarray(1, dtype=np.int64)
    for name in parts:
        out = out * rows.number(name)
    return out


def _model(facts: Facts) -> tuple[Rule, ...]:
    """Degrees against the model."""
    s, model = facts.phase.strategy, facts.spec.model
    layers, found = model.layers, []
    if s.layers_per_stage is not None and facts.phase.training is None:
        fits = len(s.layers_per_stage) if sum(s.layers_per_stage) == layers else 0
        found.append(Rule("layers", f"`layers_per_stage` has a number for each of pp stages, {layers} in all", (
            ((STAGES,), lambda r: r.number(STAGES) == fits),
        )))  # fmt: skip
    elif s.layers_per_stage is None:
        found.append(Rule("layers", f"pp divides the {layers} layers, or balanced stages have one each", (
            ((STAGES, "stages"), lambda r: (layers % r.number(STAGES) == 0)
             | (r.is_("stages", "balanced") & (r.number(STAGES) <= layers))),
        )))  # fmt: skip
    experts, width = facts.count("experts.count"), facts.count("experts.hidden", 1)
    if experts:
        found.append(Rule("expert count", f"ep divides the {experts} experts with their spare copies", (
            ((EXPERT, "redundant"), lambda r: (experts + r.number("redundant")) % r.number(EXPERT) == 0),
        )))  # fmt: skip
        found.append(Rule("spare copies", "no rank has two copies of an expert", (
            ((EXPERT, "redundant"), lambda r: r.number("redundant") <= experts * (r.number(EXPERT) - 1)),
        )))  # fmt: skip
        found.append(Rule("expert width", f"tp of the experts divides their width {width}", (
            ((EXPERT_TENSOR,), lambda r: width % r.number(EXPERT_TENSOR) == 0),
        )))  # fmt: skip
        resident = facts.phase.experts.resident
        if resident:
            found.append(Rule("resident experts", f"ep divides the {resident} experts that GPUs hold, and no half of a batch waits for the other's", (
                ((EXPERT,), lambda r: resident % r.number(EXPERT) == 0),
                (("overlap",), lambda r: r.is_("overlap", "none")),
            )))  # fmt: skip
    else:
        found.append(Rule("no experts", "a model without routed experts has none to copy or to split", (
            (("redundant",), lambda r: r.number("redundant") == 0),
            *([((EXPERT,), lambda r: r.number(EXPERT) == 1)] if facts.folded else []),
        )))  # fmt: skip
    heads = facts.count("attention.heads")
    kv = facts.count("attention.kv_heads", heads)
    if heads:
        found.append(
            Rule("heads", f"tp divides the {heads} heads", (((TENSOR,), lambda r: heads % r.number(TENSOR) == 0),))
        )
        found.append(Rule("kv_heads", f"one of tp and the {kv} kv_heads divides the other", (
            ((TENSOR,), lambda r: (kv % r.number(TENSOR) == 0) | (r.number(TENSOR) % kv == 0)),
        )))  # fmt: skip
    if heads:
        cached = cached_heads(model)
        found.append(Rule("dcp", "dcp divides the ranks of tp that keep the same keys and values", (
            ((TENSOR, "dcp"), lambda r: r.number(TENSOR) // np.gcd(r.number(TENSOR), cached) % r.number("dcp") == 0),
        )))  # fmt: skip
    if facts.folded:
        asked = ("replicas", DATA, SEQUENCE, TENSOR, EXPERT, EXPERT_TENSOR)
        found.append(
            Rule("nesting", "the groups of attention and experts nest", ((asked, lambda r: _nested(r, facts)),))
        )
    return tuple(found)


def _nested(rows: Rows, facts: Facts) -> Flags:
    """Where the group boundaries of both sides divide each other, as `dagc.ir.mesh.refine` asks."""
    order = facts.phase.strategy.order
    shape = (len(rows),)
    edges = []
    for side in ((DATA, SEQUENCE, TENSOR), (EXPERT, EXPERT_TENSOR)):
        inner = np.ones(shape, dtype=np.int64)
        place = {AXES[a].among_experts if EXPERT in side else a: order.index(a) for a in AXES if a != STAGES}
        for name in sorted(side, key=lambda name: -place[name]):
            inner = inner * rows.number(name)
            edges.append(inner)
    whole = np.broadcast_to(_times(rows, (DATA, SEQUENCE, TENSOR)), shape)
    bounds = np.sort(np.stack([*edges, whole, whole * rows.number("replicas")]), axis=0)
    nested: Flags = (bounds[1:] % bounds[:-1] == 0).all(axis=0)
    return nested


def _sequence(facts: Facts) -> tuple[Rule, ...]:
    """Degrees against tokens."""
    phase = facts.phase
    context, new = phase.seen, facts.new
    if phase.parts:
        return (
            Rule("mixed step", "a mixed step has no sp, no dcp and no `sequence_parallel`", (
                ((SEQUENCE,), lambda r: r.number(SEQUENCE) == 1),
                (("dcp",), lambda r: r.number("dcp") == 1),
                (("sequence_parallel",), lambda r: ~r.is_("sequence_parallel", True)),
            )),
        )  # fmt: skip
    if phase.generates:
        return (
            Rule("context", f"sp x dcp divides the context of {context} tokens", (
                ((SEQUENCE,), lambda r: context % r.number(SEQUENCE) == 0),
                ((SEQUENCE, "dcp"), lambda r: context % (r.number(SEQUENCE) * r.number("dcp")) == 0),
                ((SEQUENCE, "dcp", "draft"), lambda r: context // (r.number(SEQUENCE) * r.number("dcp")) > r.number("draft")),
            )),
        )  # fmt: skip

    def tokens(rows: Rows) -> Ints:
        """Of a sequence in one pass."""
        own: Ints = np.minimum(rows.number("chunk"), new)
        return own

    kv = facts.count("attention.kv_heads", facts.count("attention.heads"))
    group = facts.count("attention.group", 1)

    def pieces(rows: Rows) -> Ints:
        sp = rows.number(SEQUENCE)
        return np.where(rows.is_("sp_layout", "zigzag") & (sp > 1), 2 * sp, sp)

    def exchanged(rows: Rows) -> Flags:
        sp, tp = rows.number(SEQUENCE), rows.number(TENSOR)
        heads: Flags = (kv % (tp * sp) == 0) | ((group % sp == 0) & (kv % tp == 0))
        found: Flags = ~rows.is_("sp_method", "ulysses") | (sp == 1) | heads
        return found

    return (
        Rule("dcp in decode", "dcp splits the context of a decode step alone", (
            (("dcp",), lambda r: r.number("dcp") == 1),
        ), "E12"),
        Rule("whole prompts", "sp splits whole prompts, none in chunks or with a cached prefix", (
            (("chunk", SEQUENCE), lambda r: (tokens(r) >= context) | (r.number(SEQUENCE) == 1)),
        )),
        Rule("prompt", f"sp divides the {new} tokens of a prompt", (
            (("chunk", SEQUENCE, "sp_layout"), lambda r: tokens(r) % pieces(r) == 0),
        )),
        Rule("sequence_parallel", "sp x tp divides the tokens whose residual stream it splits", (
            (("chunk", SEQUENCE, TENSOR, "sequence_parallel"), lambda r: ~r.is_("sequence_parallel", True)
             | (tokens(r) % (r.number(SEQUENCE) * r.number(TENSOR)) == 0)),
        )),
        Rule("ulysses", f"ulysses exchanges heads: tp x sp divides the {kv} kv_heads, or sp their groups", (
            ((SEQUENCE, TENSOR, "sp_method"), exchanged),
        )),
    )  # fmt: skip


def _kernels(facts: Facts, open_: Collection[str]) -> tuple[Rule, ...]:
    if facts.phase.exchange is None and "exchange" not in open_:
        return ()
    return (
        Rule("exchange", "kernels that `exchange` names are of `dispatch = all_to_all`", (
            (("dispatch",), lambda r: ~r.is_("dispatch", "allgather")),
        ), "E12"),
    )  # fmt: skip


def batching(rows: Rows, facts: Facts) -> tuple[Ints, Ints, Ints]:
    """Sequences of each part, lanes and micro-batches of every plan, as `dagc.spec.batching` fills them."""
    ranks = rows.number("replicas") * rows.number(DATA) * (1 if facts.folded else rows.number(EXPERT))
    lanes = np.where(rows.is_("overlap", "two_batch"), 2, 1)
    found = [_filled(part.sequences, rows.number("microbatches"), lanes, ranks) for part in facts.phase.parts]
    if not found:
        return _filled(rows.number("sequences"), rows.number("microbatches"), lanes, ranks)
    each, own, micro = (np.maximum.reduce(np.broadcast_arrays(*[one[k] for one in found])) for k in range(3))
    return each, own, micro


def _filled(sequences: Ints | int, microbatches: Ints, lanes: Ints, ranks: Ints) -> tuple[Ints, Ints, Ints]:
    each = -(-sequences // (microbatches * lanes * ranks))
    parts = -(-sequences // (each * ranks))
    lanes = np.minimum(lanes, parts)
    return each, lanes, -(-parts // lanes)


def key(rows: Rows, facts: Facts) -> list[Ints] | None:
    """Columns in which plans differ that are not one and the same: what has no effect is left out. None: nothing is known of it."""
    paths = {domain.path for domain in rows.domains}
    if paths & {*PARTS}:
        return None
    count, prompts = len(rows), facts.phase.takes_prompts
    effect = {
        "sp_method": (rows.number(SEQUENCE) > 1) & (not facts.phase.generates),
        "sp_layout": (rows.number(SEQUENCE) > 1) & (not facts.phase.generates),
        "sequence_parallel": (rows.number(TENSOR) > 1) & prompts,
        "dispatch": rows.number(EXPERT) > 1,
        "expert_placement": rows.number(EXPERT) > 1,
        "stages": rows.number(STAGES) > 1,
    }
    each, lanes, micro = batching(rows, facts)
    out = [each, lanes, micro]
    for place, domain in zip(rows.places, rows.domains, strict=True):
        if domain.path not in ("microbatches", "overlap"):
            matters = effect.get(domain.path)
            out.append(place if matters is None else np.where(np.broadcast_to(matters, (count,)), place, -1))
    return out
