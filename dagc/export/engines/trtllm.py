"""TensorRT-LLM: all ranks of a stage are its `tensor_parallel_size`; attention is tensor parallel or data parallel over all
of them, experts divide them into tensor (outer) x expert (inner) parts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from ...spec.serve import Serve
from . import shared_values as values
from .draft import NOTHING, Check, ServerDraft, Value, fill, judge
from .rules import COMMON
from .script import broken, comments, preamble
from .words import Beside, Told


def write(draft: ServerDraft) -> Mapping[str, str]:
    judge(draft, CHECKS)
    broken_rules = {one.rule.name for one in draft.refused}
    if not broken_rules & {"attention_whole", "copies_of_experts", "sequence_split"}:
        draft.ordered(("pp", "dp", "sp", "tp"), ("pp", "edp", "etp", "ep"))
    fill(draft, VALUES)
    return {"yaml": yaml(draft), "sh": launch(draft)}


def yaml(draft: ServerDraft) -> str:
    """JSON values are YAML."""
    return "\n".join([*comments(draft), *(f"{k}: {json.dumps(v)}" for k, v in draft.config.items())]) + "\n"


def launch(draft: ServerDraft) -> str:
    """One process per GPU, started by MPI or Slurm."""
    one = draft.layout
    program, model, config, path, *where = command(draft)
    serve = f"{program} {shlex.quote(model)} {config} {path}{broken(where)}"
    if len(one.nodes) > 1:
        tasks = f"-N {len(one.nodes)} --ntasks-per-node={len(one.nodes[0])}"
        serve = f"srun {tasks} --mpi=pmix trtllm-llmapi-launch {serve}"
    return "\n".join(["#!/usr/bin/env bash", *comments(draft), *preamble(draft, by_node=False), serve]) + "\n"


def command(draft: ServerDraft) -> list[str]:
    """The server; over several nodes each of its ranks is started with it."""
    config = Told('"${0%.sh}.yaml"', Beside("yaml"))
    where = [draft.name("host"), values.HOST, draft.name("port"), values.own_port(draft, "http")]
    return ["trtllm-serve", draft.model, draft.name("config"), config, *where]


def vendor(draft: ServerDraft) -> str:
    hardware = draft.layout.spec.hardware
    return f"`{hardware.name}` are GPUs of AMD" if hardware.vendor == "amd" else ""


def attention_whole(draft: ServerDraft) -> str:
    d = draft.layout.degree
    if d["dp"] == 1 or d["tp"] == 1:
        return ""
    return f"attention dp {d['dp']} x tp {d['tp']}: attention is data parallel over all ranks of a stage, or tensor parallel"


def dcp(draft: ServerDraft) -> str:
    return f"dcp = {draft.layout.dcp} has no setting" if draft.layout.dcp > 1 else ""


def two_batch(draft: ServerDraft) -> str:
    return "overlap = two_batch has no setting" if draft.layout.strategy.overlap != "none" else ""


def slots_divide(draft: ServerDraft) -> str:
    count, ep = slots(draft), draft.layout.degree["ep"]
    return (
        f"{count} experts with their copies do not divide by ep {ep}" if isinstance(count, int) and count % ep else ""
    )


def sequence_parallel(draft: ServerDraft) -> str:
    return "sequence_parallel has no setting" if draft.layout.strategy.sequence_parallel else ""


CHECKS: dict[str, Check] = {
    **COMMON,
    "vendor": vendor,
    "attention_whole": attention_whole,
    "dcp": dcp,
    "two_batch": two_batch,
    "slots_divide": slots_divide,
    "sequence_parallel": sequence_parallel,
}


def expert_degree(axis: str) -> Value:
    return lambda draft: draft.layout.degree[axis] if draft.layout.moe else None


def balance(draft: ServerDraft) -> Serve | None:
    """A serving of these phases whose prompts wait for one another; without ranks that have sequences of their own there is nobody to wait for."""
    said = values.serving_that_says(draft, "balance")
    return said if said is not None and said.balance and draft.layout.degree["dp"] > 1 else None


def slots(draft: ServerDraft) -> object:
    one = draft.layout
    by_load = one.moe and values.placed_by_load(draft)
    return one.spec.model.count("experts.count") + one.strategy.redundant if by_load else None


def moe_backend(draft: ServerDraft) -> object:
    """Copies of experts follow the load in these kernels alone; others are chosen for the machine."""
    if slots(draft) is not None:
        return "WIDEEP"
    if draft.layout.moe and draft.layout.exchanges:
        draft.note("whether tokens are exchanged or gathered is chosen by the engine for the machine")
    return None


def chunked(draft: ServerDraft) -> object:
    """Prompts longer than a step are refused unless they may be cut."""
    tokens, chunk = values.step_tokens(draft), values.chunk(draft)
    if not tokens:
        return None
    if chunk and chunk < tokens:
        draft.note(f"chunk = {chunk} tok: the engine cuts prompts where a step of {tokens:,} tokens is full")
    return True if chunk or tokens < draft.layout.spec.workload.prompt else None


def draft_config(draft: ServerDraft) -> object:
    count = values.drafted(draft)
    return {"decoding_type": "MTP", "num_nextn_predict_layers": count} if count else None


def is_prefill(draft: ServerDraft) -> bool:
    return draft.split and all(p.takes_prompts for p in draft.layout.phases)


VALUES: dict[str, Value] = {
    **values.SHARED,
    "stage_ranks": lambda draft: draft.layout.degree["dp"] * draft.layout.degree["tp"],
    "pp": lambda draft: draft.layout.degree["pp"],
    "ep": expert_degree("ep"),
    "etp": expert_degree("etp"),
    "divided_attention": lambda draft: draft.layout.degree["dp"] > 1,
    "balanced": lambda draft: True if balance(draft) else None,
    "balance_steps": lambda draft: said.balance if (said := balance(draft)) else None,
    "gather_steps": lambda draft: said.gather if (said := balance(draft)) else None,
    "layers": lambda draft: list(draft.layout.layers) if len(set(draft.layout.layers)) > 1 else None,
    "per_node": lambda draft: len(draft.layout.nodes[0]),
    "prefix": values.prefix_cache,
    "moe_backend": moe_backend,
    "slots": slots,
    "updates": lambda draft: 1 if slots(draft) is not None else None,
    "no_graphs": lambda draft: NOTHING if values.no_graphs(draft) else None,
    "graphs_padded": lambda draft: True if values.graph_sequences(draft) else None,
    "chunked": chunked,
    "draft": draft_config,
    "transfer": lambda draft: "DEFAULT" if draft.split else None,
    "transfer_tokens": lambda draft: draft.layout.spec.workload.prompt if draft.split else None,
    "no_overlap": lambda draft: True if is_prefill(draft) else None,
}
"""By the names that trtllm.json has for them."""
