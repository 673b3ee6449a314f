"""SGLang: all ranks of a stage are its `tp`; attention divides them into dp x tp, experts into ep x tp."""

from __future__ import annotations

from collections.abc import Mapping

from ...lang.fits import cached_heads
from .launch import DTYPES, GATHERED, NODE, ServerDraft, Shell, context_parallel, memory_share, script


def write(draft: ServerDraft) -> Mapping[str, str]:
    one, strategy = draft.layout, draft.layout.strategy
    d = one.degree
    draft.refuse(
        one.moe and d["edp"] > 1,
        f"there are {d['edp']} copies of the experts (edp): ep x tp must be all {d['dp'] * d['tp']} ranks",
    )
    if not draft.refused:
        draft.ordered(("pp", "dp", "sp", "tp"), ("pp", "edp", "ep", "etp"))
    draft.refuse(strategy.sequence_parallel, "sequence_parallel is for a few models only")
    draft.lack(len(set(one.layers)) > 1, f"stages of {', '.join(map(str, one.layers))} layers: they are cut evenly")
    flags(draft)
    command = ["python3", "-m", "sglang.launch_server", draft.name("model"), draft.model, *draft.flags]
    if len(one.nodes) > 1:
        command += [draft.name("nodes"), str(len(one.nodes)), draft.name("node"), NODE]
        command += [draft.name("master"), Shell('"$HEAD:20000"')]
    return {"sh": script(draft, command)}


def flags(draft: ServerDraft) -> None:
    one, strategy = draft.layout, draft.layout.strategy
    d, model = one.degree, one.spec.model
    ranks = d["dp"] * d["sp"] * d["tp"]
    if d["pp"] > 1:
        draft.flag("pp", d["pp"])
    draft.flag("tp", ranks)
    if d["dp"] > 1:
        attention_dp(draft)
    # docs/advanced_features/dcp: "stripes a request's MLA KV cache".
    draft.refuse(
        one.dcp > 1 and cached_heads(model) > 1, f"dcp = {one.dcp}: it is documented of latent attention alone"
    )
    context_parallel(draft, "dcp")
    if one.moe and d["ep"] > 1:
        draft.flag("ep", d["ep"])
        exchange(draft, ranks)
    if strategy.redundant:
        draft.flag("redundant", strategy.redundant)
        draft.flag("eplb")
    if strategy.overlap == "two_batch":
        draft.refuse(not one.exchanges, "overlap = two_batch needs an exchange of tokens")
        draft.flag("two_batch")
    draft.flag("dtype", DTYPES.get(model.dtype, "auto"))
    draft.refuse(model.kv_dtype not in (model.dtype, "fp8"), f"a KV cache in {model.kv_dtype}")
    draft.flag("kv_dtype", "fp8_e4m3" if model.kv_dtype == "fp8" else "auto")
    draft.flag("context", one.context)
    if (share := memory_share(draft)) is not None:
        draft.flag("memory", f"{share:g}")
    if not one.graphs:
        draft.flag("no_graphs")
    if one.sequences("decode"):
        draft.flag("sequences", one.sequences("decode"))
    if draft.split:
        draft.flag("phase", one.phases[0].kind)


def attention_dp(draft: ServerDraft) -> None:
    """Dense weights follow attention in the plan; here they would be cut over all ranks unless told otherwise."""
    d = draft.layout.degree
    draft.flag("attention_dp", d["dp"])
    draft.flag("lm_head")
    blocks = {block for layer in draft.layout.spec.model.stack for block in layer.blocks}
    if "mlp" in blocks:
        if d["tp"] > 1:
            draft.flag("dense_tp")
        else:
            draft.flag("dense_tp_size", 1)


def exchange(draft: ServerDraft, ranks: int) -> None:
    one = draft.layout
    if not one.exchanges:
        draft.flag("exchange", "none")
        return
    d = one.degree
    draft.refuse(d["ep"] != ranks, f"tokens are exchanged over ep {d['ep']}: DeepEP spans all {ranks} ranks")
    draft.refuse(d["dp"] == 1, "the plan exchanges tokens between tp ranks, which all have them")
    draft.advise(d["dp"] == 1, GATHERED)
    draft.flag("exchange", "deepep")
    kinds = one.kinds
    mode = {"prefill": "normal", "decode": "low_latency"}
    draft.flag("exchange_mode", draft.exchange or (mode[next(iter(kinds))] if len(kinds) == 1 else "auto"))
    if one.spec.model.count("experts.shared", 0) and d["tp"] > 1:
        draft.flag("shared_tp")
