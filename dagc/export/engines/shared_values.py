"""What of a plan an option of an engine is. Several engines share these; what one alone needs is in its module."""

from __future__ import annotations

from math import ceil

from ...spec.engines import SCHEDULING, by_card
from ...spec.serve import Serve
from .draft import DTYPES, ServerDraft, Value
from .memory import memory_share
from .words import Listen, Own, Port, Told


def degree(axis: str) -> Value:
    """A degree that is not written where it is one."""

    def value(draft: ServerDraft) -> object:
        return draft.layout.degree[axis] if draft.layout.degree[axis] > 1 else None

    return value


def switch(holds: Value) -> Value:
    """On where something has a value."""
    return lambda draft: True if holds(draft) else None


def whole_experts(draft: ServerDraft) -> object:
    """Whether there is expert parallelism: each rank has whole experts."""
    one = draft.layout
    return True if one.moe and one.degree["ep"] > 1 else None


def redundant(draft: ServerDraft) -> object:
    return draft.layout.strategy.redundant or None


def placed_by_load(draft: ServerDraft) -> object:
    """Whether experts are where their loads put them, with spare copies or without."""
    return True if draft.layout.strategy.redundant or draft.layout.strategy.placing != "linear" else None


def rebalanced_every(draft: ServerDraft) -> object:
    """Steps between two placements of the experts; None where the plan does not say."""
    plan = draft.layout.strategy.rebalance
    return None if plan is None else plan.every


def two_batch(draft: ServerDraft) -> object:
    return True if draft.layout.strategy.overlap == "two_batch" else None


def stage_layers(draft: ServerDraft) -> object:
    """Layers of each stage, where an engine would cut them otherwise."""
    layers = draft.layout.layers
    return ",".join(map(str, layers)) if len(set(layers)) > 1 else None


def dtype(draft: ServerDraft) -> object:
    return DTYPES.get(draft.layout.spec.model.dtype, "auto")


def cache_dtype(draft: ServerDraft) -> object:
    kv = draft.layout.spec.model.kv_dtype
    return kv if kv in ("fp8", "nvfp4") else "auto"


def remote_code(draft: ServerDraft) -> object:
    """Checkpoints that bring code of their own do not load without leave to run it."""
    if draft.layout.spec.model.name not in draft.facts.words.get("remote_code", ()):
        return None
    draft.note("the checkpoint brings Python code of its own, which this option lets run: use one that you trust")
    return True


def context(draft: ServerDraft) -> object:
    return draft.layout.context


def no_graphs(draft: ServerDraft) -> object:
    return None if draft.layout.graphs else True


def graph_sequences(draft: ServerDraft) -> object:
    """Sequences of the largest decode step of a rank, all of which the plan runs as graphs."""
    one = draft.layout
    return ceil(one.sequences("decode") / one.degree["dp"]) or None if one.graphs else None


def graph_tokens(draft: ServerDraft) -> object:
    """The same in tokens: drafted ones are part of the step."""
    return draft.layout.decode_tokens or None if draft.layout.graphs else None


def rank_sequences(draft: ServerDraft) -> object:
    """Sequences of a rank at once: in decode, or of prompts where the server only takes these in."""
    one = draft.layout
    said = serving_that_says(draft, "slots")
    if said is not None:
        return said.slots
    return ceil((one.sequences("decode") or one.sequences("prefill")) / one.degree["dp"]) or None


def all_sequences(draft: ServerDraft) -> object:
    """Of all ranks together."""
    each = rank_sequences(draft)
    own = draft.layout.sequences("decode") or draft.layout.sequences("prefill")
    return (
        each * draft.layout.degree["dp"] if isinstance(each, int) and serving_that_says(draft, "slots") else own or None
    )


def step_tokens(draft: ServerDraft) -> int:
    """Tokens of prompts that a rank takes in at once, 0 where the server takes in none: what a serving of the plan says; those of the plan's
    pass where the server does nothing else, or where the plan has mixed steps; else a chunk, or a prompt, or what the
    engine does by itself."""
    one = draft.layout
    said = serving_that_says(draft, "batch_tokens")
    if said is not None:
        return said.batch_tokens
    if not one.batch_tokens:
        return 0
    phases = [p for p in one.phases if p.takes_prompts]
    if any(p.is_packed for p in phases) or one.kinds == {"prefill"}:
        return one.batch_tokens
    chunk = max(p.chunk if p.passes > 1 else 0 for p in phases)
    prompt = max(p.new_tokens for p in phases)
    usual = by_card(SCHEDULING[draft.engine].chunk or SCHEDULING[draft.engine].batch_tokens, one.spec.hardware)
    tokens = min(one.batch_tokens, chunk or max(prompt, usual))
    if tokens < one.batch_tokens:
        draft.note(
            f"the plan's pass takes in {one.batch_tokens:,} tokens of prompts on a rank at once: a server that decodes beside takes {tokens:,}"
        )
    return tokens


def budget(draft: ServerDraft) -> object:
    """Tokens of a step of a rank, those in decode among them."""
    tokens, decode = step_tokens(draft), draft.layout.decode_tokens
    if tokens:
        return max(tokens, decode)
    if not draft.split:
        draft.note("no phase takes in prompts: how many of their tokens a step has is the engine's default")
    return decode if draft.split or decode > FEWEST else None


FEWEST = 256
"""Tokens of a step that engines have room for unless they are told (vLLM with the exchange for latency: vllm/config/scheduler.py,
DEFAULT_MAX_NUM_BATCHED_TOKENS_FOR_BATCHED_DP)."""


def chunk(draft: ServerDraft) -> int:
    """Tokens of one prompt in a step, 0: as many as there are."""
    said = serving_that_says(draft, "chunk")
    if said is not None:
        return said.chunk or 0
    return max((p.chunk for p in draft.layout.phases if p.takes_prompts and p.passes > 1), default=0)


def prefix_cache(draft: ServerDraft) -> bool | None:
    """Whether prefixes are to be cached; None: the plan does not say."""
    serve = serving_that_says(draft, "prefix_cache")
    if serve is not None:
        return serve.prefix_cache
    work = draft.layout.spec.workload
    prompts = [p for p in draft.layout.phases if p.takes_prompts and not p.parts]
    if any(work.prompt > p.new_tokens for p in prompts):
        return True
    if prompts:
        draft.note("whether prefixes are cached is the engine's default; the plan counts no hits")
    return None


def drafted(draft: ServerDraft) -> int:
    """Tokens that a step of decode drafts by layers that the model has for it."""
    layers = draft.layout.spec.model.count("mtp_layers", 0)
    return max((p.speculative for p in draft.layout.phases), default=0) if layers else 0


def serving_that_says(draft: ServerDraft, attribute: str) -> Serve | None:
    """A serving of these phases that says so itself."""
    names = {p.name for p in draft.layout.phases}
    serves = draft.layout.spec.serves
    return next((s for s in serves if attribute in s.spans and names & {s.prefill, s.decode, s.mixed}), None)


HOST = Told('"${HOST:-0.0.0.0}"', Listen())
"""Where a server listens: on every interface of its machine, unless the script is told."""
OWN = Told("\"${ADDRESS:-$(hostname -I | cut -d' ' -f1)}\"", Own())
"""Under which address other machines reach this one."""


def host(draft: ServerDraft) -> object:
    return HOST


def port(draft: ServerDraft) -> object:
    return own_port(draft, "http")


def own_port(draft: ServerDraft, what: str) -> Told:
    """Of a server, or what the shell counts for the replica that it runs."""
    one = draft.layout
    if one.copies == 1:
        return Told(str(port_of(draft, what, 0)), Port(what))
    first, step, within = draft.facts.words["ports"][what]
    return Told(f'"$(({first} + {step} * (GPU % {within or one.per_host})))"', Port(what))


def port_of(draft: ServerDraft, what: str, replica: int) -> int:
    """Servers on one host have ports of their own: these count on with the number of the first GPU that a server has, on its
    host, or among so many."""
    one = draft.layout
    first, step, within = draft.facts.words["ports"][what]
    return int(first) + int(step) * (one.replicas[replica][0] % (int(within) or one.per_host))


def port_first(draft: ServerDraft, what: str) -> int:
    """That of a server whose first GPU is the first of its host."""
    return int(draft.facts.words["ports"][what][0])


def dcp(draft: ServerDraft) -> object:
    """A server has it for all of its decode phases."""
    one = draft.layout
    if one.dcp == 1:
        return None
    if any(phase.takes_prompts for phase in one.phases):
        draft.note("the engine splits caches of prompts by dcp as well; the plan's passes over prompts keep them whole")
    return one.dcp


SHARED: dict[str, Value] = {
    "memory": memory_share,
    "dcp": dcp,
    "prefix_on": lambda draft: prefix_cache(draft) or None,
    "prefix_off": lambda draft: True if prefix_cache(draft) is False else None,
    "pp": degree("pp"),
    "attention_tp": degree("tp"),
    "attention_dp": degree("dp"),
    "whole_experts": whole_experts,
    "redundant": redundant,
    "redundant_on": placed_by_load,
    "rebalanced_every": rebalanced_every,
    "two_batch": two_batch,
    "stage_layers": stage_layers,
    "dtype": dtype,
    "remote_code": remote_code,
    "cache_dtype": cache_dtype,
    "context": context,
    "no_graphs": no_graphs,
    "graph_sequences": graph_sequences,
    "graph_tokens": graph_tokens,
    "rank_sequences": rank_sequences,
    "all_sequences": all_sequences,
    "budget": budget,
    "host": host,
    "port": port,
}
