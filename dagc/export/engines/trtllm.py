"""TensorRT-LLM: all ranks of a stage are its `tensor_parallel_size`; attention is tensor parallel or data parallel over all
of them, experts divide them into tensor (outer) x expert (inner) parts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from math import ceil

from .launch import DTYPES, GATHERED, ServerDraft, comments, devices, memory_share


def write(draft: ServerDraft) -> Mapping[str, str]:
    one, strategy = draft.layout, draft.layout.strategy
    d = one.degree
    ranks = d["dp"] * d["tp"]
    draft.refuse(
        d["dp"] > 1 and d["tp"] > 1,
        f"attention dp {d['dp']} x tp {d['tp']}: attention is data parallel over all ranks of a stage, or tensor parallel",
    )
    if one.moe:
        draft.refuse(
            d["edp"] > 1, f"there are {d['edp']} copies of the experts (edp): ep x tp must be all {ranks} ranks"
        )
    if not draft.refused:
        draft.ordered(("pp", "dp", "sp", "tp"), ("pp", "edp", "etp", "ep"))
    draft.refuse(strategy.sequence_parallel, "sequence_parallel has no setting")
    draft.refuse(one.dcp > 1, f"dcp = {one.dcp} has no setting")
    draft.refuse(strategy.overlap != "none", "overlap = two_batch has no setting")
    draft.lack(bool(strategy.redundant), "redundant experts: how many slots each rank gets was not checked")
    if one.moe and one.exchanges:
        draft.refuse(d["dp"] == 1, "the plan exchanges tokens between tp ranks, which all have them")
        draft.advise(d["dp"] == 1, GATHERED)
        draft.notes.append("whether tokens are exchanged or gathered is chosen by the engine for the machine")
    settings(draft, ranks)
    return {"yaml": yaml(draft), "sh": launch(draft)}


def settings(draft: ServerDraft, ranks: int) -> None:
    one, model = draft.layout, draft.layout.spec.model
    d = one.degree
    draft.set("tp", ranks)
    draft.set("pp", d["pp"])
    if one.moe:
        draft.set("ep", d["ep"])
        draft.set("etp", d["etp"])
    draft.set("attention_dp", d["dp"] > 1)
    if len(set(one.layers)) > 1:
        draft.set("layers", list(one.layers))
    draft.set("per_node", len(one.nodes[0]))
    draft.set("dtype", DTYPES.get(model.dtype, "auto"))
    draft.refuse(model.kv_dtype not in (model.dtype, "fp8"), f"a KV cache in {model.kv_dtype}")
    share = memory_share(draft)
    free = {} if share is None else {"free_gpu_memory_fraction": share}
    draft.set("kv", {"dtype": "fp8" if model.kv_dtype == "fp8" else "auto", **free})
    if not one.graphs:
        draft.set("no_graphs", None)
    if one.sequences("decode"):
        draft.set("sequences", ceil(one.sequences("decode") / d["dp"]))
    if one.batch_tokens:
        draft.set("tokens", one.batch_tokens)
    draft.set("context", one.context)


def yaml(draft: ServerDraft) -> str:
    """JSON values are YAML."""
    return "\n".join([*comments(draft), *(f"{k}: {json.dumps(v)}" for k, v in draft.config.items())]) + "\n"


def launch(draft: ServerDraft) -> str:
    """One process per GPU, started by MPI or Slurm."""
    one = draft.layout
    serve = f'trtllm-serve {shlex.quote(draft.model)} --config "${{0%.sh}}.yaml"'
    if len(one.nodes) > 1:
        tasks = f"-N {len(one.nodes)} --ntasks-per-node={len(one.nodes[0])}"
        serve = f"srun {tasks} --mpi=pmix trtllm-llmapi-launch {serve}"
    return "\n".join(["#!/usr/bin/env bash", *comments(draft), *devices(one), serve]) + "\n"
