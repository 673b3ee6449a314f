"""Rules that several engines refuse plans by. Which of them an engine has, and by which of its own checks, is in its data file."""

from __future__ import annotations

from ...base.units import Quantity
from ...spec.kv_cache import KvCache
from .draft import Check, ServerDraft


def shard(draft: ServerDraft) -> str:
    return "`shard` rules of the plan have no flag" if draft.layout.strategy.shard else ""


def passes(draft: ServerDraft) -> str:
    return "what a plugin's graph pass changed has no flag" if draft.layout.strategy.passes else ""


def mlp_width(draft: ServerDraft) -> str:
    one = draft.layout
    width, tp = one.spec.model.count("mlp.hidden", 0), one.degree["tp"]
    return f"the mlp width {width} does not divide by tp {tp}, which every engine wants" if width % tp else ""


def unequal_hosts(draft: ServerDraft) -> str:
    counts = {len(node) for node in draft.layout.nodes}
    return f"nodes have unequal numbers of its GPUs: {sorted(counts)}" if len(counts) > 1 else ""


def replicas_alike(draft: ServerDraft) -> str:
    one = draft.layout
    return (
        f"replicas = {one.copies} lie on their GPUs in different ways: one script is for all" if not one.alike else ""
    )


def sequence_split(draft: ServerDraft) -> str:
    one, strategy = draft.layout, draft.layout.strategy
    how = f"sp = {one.degree['sp']} ({strategy.sp_method}, {strategy.sp_layout})"
    return f"{how}: its own context parallelism moves other data than the plan's" if one.degree["sp"] > 1 else ""


def capacity(draft: ServerDraft) -> str:
    found = draft.layout.spec.model.attributes.get("experts.capacity")
    if isinstance(found, Quantity) and found.value:
        return f"experts.capacity = {found.value:g} drops tokens, which the engine does not"
    return ""


def skip(draft: ServerDraft) -> str:
    skips = max((p.experts.skip for p in draft.layout.phases), default=0.0)
    return (
        f"experts {{ skip = {skips:.0%} }} leaves choices out, and no argument of the engine is known that does"
        if skips
        else ""
    )


def resident(draft: ServerDraft) -> str:
    slots = draft.layout.spec.model.count("experts.count", 0)
    some = max(
        (p.experts.resident for p in draft.layout.phases if p.experts.resident < slots + p.strategy.redundant),
        default=0,
    )
    return (
        f"experts {{ resident = {some} }} copies others from host memory as steps need them, and no argument is written that does"
        if some
        else ""
    )


def drafter(draft: ServerDraft) -> str:
    count = max((p.speculative for p in draft.layout.phases), default=0)
    for phase in draft.layout.phases:
        if phase.tree:
            return f"tree = [{', '.join(map(str, phase.tree))}]: no argument is written that has a tree checked"
        if phase.draft_model is not None and "draft_model" in draft.facts.words:
            return ""
        if phase.draft_model is not None:
            return f'draft_model = "{phase.draft_model.name}": another model that drafts is not written'
    if not count or (draft.has("draft") and draft.layout.spec.model.count("mtp_layers", 0)):
        return ""
    why = "needs a drafter, and the model has no `mtp_layers`" if draft.has("draft") else "is not written"
    return f"draft = {count}: speculative decoding {why}"


def exits(draft: ServerDraft) -> str:
    found = next((p.exits for p in draft.layout.phases if p.exits), ())
    where = ", ".join(str(one.layer) for one in found)
    return f"exit behind layer {where}: no argument of the engine is known that ends a sequence there" if found else ""


def copies_of_experts(draft: ServerDraft) -> str:
    d = draft.layout.degree
    if draft.layout.moe and d["edp"] > 1:
        return f"there are {d['edp']} copies of the experts (edp): ep x tp must be all {d['dp'] * d['tp']} ranks"
    return ""


def exchange_inside_tp(draft: ServerDraft) -> str:
    """Without dp all ranks have all tokens: each computes its own experts, and they add up."""
    one = draft.layout
    return (
        "the plan exchanges tokens between tp ranks, which all have them there"
        if one.exchanges and one.degree["dp"] == 1
        else ""
    )


def sequence_parallel(draft: ServerDraft) -> str:
    return (
        "sequence_parallel: sequence parallel norms are not written" if draft.layout.strategy.sequence_parallel else ""
    )


def two_batch_exchange(draft: ServerDraft) -> str:
    one = draft.layout
    lacks = one.strategy.overlap == "two_batch" and not one.exchanges
    return "overlap = two_batch needs an exchange of tokens" if lacks else ""


def dcp_alike(draft: ServerDraft) -> str:
    own = {phase.strategy.dcp for phase in draft.layout.phases if not phase.takes_prompts}
    return f"dcp = {' and '.join(map(str, sorted(own)))}: one server has one" if len(own) > 1 else ""


def dcp_windows(draft: ServerDraft) -> str:
    one = draft.layout
    hidden = one.dcp > 1 and one.windows
    return f"dcp = {one.dcp} where some layers see a part of the context: it was not checked" if hidden else ""


def cache_dtype(draft: ServerDraft) -> str:
    """In nvfp4 where GPUs compute in it, and of whole heads alone."""
    spec = draft.layout.spec
    dtype, latent = spec.model.kv_dtype, spec.model.count("attention.kv_latent", 0) > 0
    if dtype in (spec.model.dtype, "fp8") or (dtype == "nvfp4" and not latent and dtype in spec.hardware.compute_flops):
        return ""
    return f"a KV cache in {dtype}" + (" of latent attention" if latent else f" on `{spec.hardware.name}`")


def kept_cache(draft: ServerDraft) -> str:
    """What engines have like it is for some models alone (sparse attention over a host's tokens), or has no argument here yet."""
    said = next((phase for phase in draft.layout.phases if phase.cache != KvCache()), None)
    return (
        ""
        if said is None
        else f"`kv_cache` of `{said.name}`: no argument is written, and all of the cache would be on the GPU, in one dtype"
    )


def attention_kernel(draft: ServerDraft) -> str:
    said = next((phase for phase in draft.layout.phases if phase.attention_kernel != "flash"), None)
    return (
        ""
        if said is None
        else f"`kernel = {said.attention_kernel}` of `{said.name}`: its attention keeps scores on the chip"
    )


COMMON: dict[str, Check] = {
    "shard": shard,
    "passes": passes,
    "mlp_width": mlp_width,
    "unequal_hosts": unequal_hosts,
    "replicas_alike": replicas_alike,
    "sequence_split": sequence_split,
    "capacity": capacity,
    "skip": skip,
    "resident": resident,
    "drafter": drafter,
    "exits": exits,
    "copies_of_experts": copies_of_experts,
    "exchange_inside_tp": exchange_inside_tp,
    "sequence_parallel": sequence_parallel,
    "two_batch_exchange": two_batch_exchange,
    "dcp_alike": dcp_alike,
    "dcp_windows": dcp_windows,
    "cache_dtype": cache_dtype,
    "kept_cache": kept_cache,
    "attention_kernel": attention_kernel,
}
OF_SIZES = frozenset({"latency_tokens"})
"""Rules that ask how many tokens a step has; all others ask layouts alone."""
