"""vLLM: attention is tensor parallel inside a data-parallel rank; experts take all ranks of both, either whole experts
on each (expert parallel) or a part of every expert on each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil

from .launch import DTYPES, GATHERED, HEAD, NODE, ServerDraft, Shell, context_parallel, memory_share, script


def write(draft: ServerDraft) -> Mapping[str, str]:
    one, strategy = draft.layout, draft.layout.strategy
    d = one.degree
    ranks = d["dp"] * d["tp"]
    whole = d["ep"] == ranks and d["etp"] == 1
    if one.moe:
        draft.refuse(
            not whole and not (d["ep"] == 1 and d["etp"] == ranks),
            f"experts ep {d['ep']} x tp {d['etp']} over {ranks} ranks (edp {d['edp']}): expert parallelism is all or "
            f"nothing, ep {ranks} with tp 1 or ep 1 with tp {ranks}",
        )
    if not draft.refused:
        draft.ordered(("dp", "pp", "sp", "tp"))
        axis = "ep" if whole else "etp"
        draft.refuse(one.moe and not one.follows(axis, ("dp", "tp")), f"{axis} of a rank is dp x {d['tp']} + tp there")
    draft.refuse(strategy.sequence_parallel, "sequence_parallel: sequence parallel norms have no flag")
    flags(draft, whole)
    return {"sh": script(draft, command(draft))}


def flags(draft: ServerDraft, whole: bool) -> None:
    one, strategy = draft.layout, draft.layout.strategy
    d, model = one.degree, one.spec.model
    for key in ("pp", "tp", "dp"):
        if d[key] > 1:
            draft.flag(key, d[key])
    context_parallel(draft, "dcp")
    if one.moe and whole and d["ep"] > 1:
        draft.flag("ep")
        exchange(draft)
    draft.refuse(bool(strategy.redundant) and not (one.moe and whole and d["ep"] > 1), "redundant experts need ep")
    if strategy.redundant:
        draft.flag("eplb")
        draft.flag("eplb_config", json.dumps({"num_redundant_experts": strategy.redundant}))
    if strategy.overlap == "two_batch":
        draft.refuse(d["dp"] == 1 or not one.exchanges, "overlap = two_batch needs dp and an exchange of tokens")
        draft.flag("two_batch")
        draft.flag("two_batch_prefill", 2)  # a token for each batch: fewer are refused
        draft.flag("two_batch_decode", 2)
    if len(set(one.layers)) > 1:
        draft.environment["VLLM_PP_LAYER_PARTITION"] = ",".join(map(str, one.layers))
    draft.flag("dtype", DTYPES.get(model.dtype, "auto"))
    latent = model.count("attention.kv_latent", 0) > 0
    other = model.kv_dtype not in (model.dtype, "fp8")
    (draft.lack if model.kv_dtype == "nvfp4" and not latent else draft.refuse)(other, f"a KV cache in {model.kv_dtype}")
    draft.flag("kv_dtype", "fp8" if model.kv_dtype == "fp8" else "auto")
    draft.flag("context", one.context)
    if (share := memory_share(draft)) is not None:
        draft.flag("memory", f"{share:g}")
    if not one.graphs:
        draft.flag("no_graphs")
    if one.sequences("decode"):
        draft.flag("sequences", ceil(one.sequences("decode") / d["dp"]))
    if one.batch_tokens:
        draft.flag("tokens", one.batch_tokens)
    if draft.split:
        draft.flag("transfer", json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"}))


def exchange(draft: ServerDraft) -> None:
    """How tokens come to their experts. Without dp the ranks all have them: each computes its own experts, and they add up."""
    one = draft.layout
    if one.degree["dp"] == 1:
        draft.refuse(one.exchanges, "the plan exchanges tokens between tp ranks, which all have them here")
        draft.advise(one.exchanges, GATHERED)
    elif not one.exchanges:
        draft.flag("exchange", "allgather_reducescatter")
    else:
        only_decode = one.kinds == {"decode"}
        usual = "deepep_low_latency" if only_decode else "deepep_high_throughput"
        draft.flag("exchange", draft.exchange or usual)
        if (draft.exchange or usual) != "deepep_low_latency" and "decode" in one.kinds and one.graphs:
            draft.notes.append("vLLM captures no CUDA graphs with this exchange; the times of decode steps assume them")


def command(draft: ServerDraft) -> list[str]:
    """The server, on each of its nodes; all but the first run without a front end."""
    one = draft.layout
    d, nodes = one.degree, draft.layout.nodes
    start = ["vllm", "serve", draft.model, *draft.flags]
    if len(nodes) == 1:
        return start
    others = Shell(f'$([ "$NODE" = 0 ] || echo {draft.name("headless")})')
    each, held = d["pp"] * d["tp"], len(nodes[0])
    draft.refuse(
        held % each > 0 and each % held > 0,
        f"a data-parallel rank of {each} GPUs neither fills nodes of {held} nor divides them",
    )
    # Which ranks a node runs follows from its number; a start rank on node 0 would ask for a server on every node.
    where = [draft.name("nodes"), str(len(nodes)), draft.name("node"), NODE, draft.name("master"), HEAD]
    return [*start, *where, others]
