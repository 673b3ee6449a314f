"""What the options of a server leave open, in words for its script."""

from __future__ import annotations

from ...base.units import TIME, show
from ...spec.spec import Spec
from .draft import ServerDraft
from .shared_values import serving_that_says


def left_open(draft: ServerDraft) -> None:
    """What a phase asks of a server that is about time only and has no option here."""
    one, work, strategy = draft.layout, draft.layout.spec.workload, draft.layout.strategy
    if strategy.microbatches > 1:
        draft.note(f"microbatches = {strategy.microbatches}: the engine forms its own batches as requests come")
    if strategy.expert_placement is not None:
        draft.note(f"expert_placement = {strategy.expert_placement}: the engine places experts by its own rule")
    if strategy.rebalance is not None:
        whose = (
            "by the loads that it sees"
            if draft.has("eplb_interval") or draft.has("eplb_config")
            else "when it does so by itself"
        )
        draft.note(f"rebalance {{ every = {strategy.rebalance.every} }}: the engine places experts anew {whose}")
    if strategy.redundant:
        draft.note("redundant experts are placed by the load that the engine sees, not by the plan's routing")
    elif strategy.placing != "linear":
        draft.note(f"expert_placement = {strategy.placing}: the engine places experts by the load that it sees")
    draft.note(
        f"the plan counts {one.spec.model.precision.partition(' weights')[0]} weights: use a checkpoint in these dtypes"
    )
    serve = serving_that_says(draft, "balance")
    if serve is not None and serve.balance and not draft.has("balance"):
        draft.note(
            f"balance = {serve.balance} of `{serve.name}`: whether prompts wait for those of other ranks is the engine's"
        )
    routed = serving_that_says(draft, "route")
    if routed is not None and routed.route not in draft.facts.words.get("route", {}):
        draft.note(f"route = {routed.route} of `{routed.name}`: its router shares requests out by a rule of its own")
    own = {p.name for p in one.phases}
    for other in one.spec.phases:
        if other.name not in own and one.serves(other):
            draft.note(f"`{other.name}`, on the same GPUs, runs in this layout too, not in its own")
    for phase in one.phases:
        prefix = work.prompt - phase.new_tokens if phase.takes_prompts and not phase.parts else 0
        drafts = phase.speculative and phase.drafter == "none" and draft.has("draft")
        said = {
            "the plan's times are without its drafter: `drafter = mtp` counts the model's MTP layers": bool(drafts),
            f"chunk = {phase.tokens} tok: the engine cuts prompts by its own token budget": phase.passes > 1
            and not draft.has("chunk"),
            "which prompts and sequences in decode share a step follows from the requests": bool(phase.parts)
            and phase.lengths is None,
            f"prefix = {prefix} tok: whether a prefix is cached follows from the requests": prefix > 0,
            "how long prompts are follows from the requests, and which share a step": phase.lengths is not None,
            "packing = padded: the engine packs prompts": phase.lengths is not None
            and phase.lengths.packing == "padded",
            f"dispatch_dtype = {phase.dispatch_dtype}: the engine chooses what tokens travel in": bool(
                phase.dispatch_dtype
            ),
            f"exchange = {phase.exchange}: the engine chooses the kernels": phase.exchange is not None
            and not (draft.exchange and one.exchanges),
            f"fuse = [{', '.join(phase.fuse or ())}]: the engine chooses its kernels": phase.fuse is not None,
            f"quantise = {phase.quantise}: the engine chooses which kernels quantise": phase.quantise != "fused",
            f"expert_activations = {phase.expert_activations}: the engine chooses its kernels of MXFP4 experts": bool(
                phase.expert_activations
            ),
            f"engine = {phase.engine}: times are those of its communication kernels": phase.engine != draft.engine,
            f"host = {show(phase.host_s, TIME)} is an input of the estimate": phase.host_s > 0,
            f"launch = {show(phase.launches.layer_s, TIME)} is an input of the estimate": "launch" in phase.spans,
            "window_cache = whole: the engine decides what its cache keeps behind a window": phase.window_cache
            != "freed",
            "memory { } of the plan is an input of its estimate": "memory" in phase.spans,
            f"kv_block = {phase.kv_block} tok: the engine chooses the blocks of its cache": phase.kv_block != 16,
            "cuda_graph = false: the server captures graphs unless all its phases do without": not phase.cuda_graph
            and (one.graphs or not draft.has("no_graphs")),
        }
        for words, holds in said.items():
            if holds:
                draft.note(words)


def own_dtypes(draft: ServerDraft, spec: Spec) -> None:
    """Where phases have dtypes of their own: the checkpoint of this server, and caches that other servers store otherwise."""
    one = draft.layout
    said = one.phases[0].precision
    if said is not None and said.weight_dtype is not None:
        draft.note(f"weight_dtype = {said.weight_dtype}: this server needs a checkpoint in {said.weight_dtype}")
    for other in spec.phases:
        dtype = spec.of(other).model.kv_dtype
        if not one.serves(other) and dtype != one.spec.model.kv_dtype:
            draft.note(
                f"caches are {one.spec.model.kv_dtype} here and {dtype} in `{other.name}`: whether it converts them on the way is not checked"
            )
