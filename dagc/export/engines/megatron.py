"""Megatron Core: attention and experts fold the ranks of a stage independently. The model's own arguments and the
checkpoint are left to the user's script."""

from __future__ import annotations

from collections.abc import Mapping

from .degrees import EngineDegrees
from .draft import Check, ServerDraft, judge
from .rules import COMMON
from .script import script
from .words import Shell


def write(draft: ServerDraft) -> Mapping[str, str]:
    one, strategy = draft.layout, draft.layout.strategy
    d, model = one.degree, one.spec.model
    judge(draft, CHECKS)
    if draft.layout.degree["sp"] == 1:
        draft.ordered(("pp", "dp", "sp", "tp"), ("pp", "edp", "ep", "etp"))
    if d["tp"] > 1:
        draft.environment["CUDA_DEVICE_MAX_CONNECTIONS"] = "1"  # asked for with tp on GPUs before Blackwell
    draft.flag("tp", d["tp"])
    draft.flag("pp", d["pp"])
    if len(set(one.layers)) > 1:  # without it layers are cut evenly
        draft.flag("layout", "E" + "|".join(f"t*{count}" for count in one.layers) + "L")
    if one.moe:
        draft.flag("ep", d["ep"])
        draft.flag("etp", d["etp"])
        draft.flag("dispatcher", "alltoall" if one.exchanges else "allgather")
    if strategy.sequence_parallel:
        draft.flag("sequence_parallel")
    if model.dtype in ("bf16", "fp16"):
        draft.flag(model.dtype)
    draft.notes.append("the shape of the model and its checkpoint: $SCRIPT and its arguments give them")
    return {"sh": script(draft, [*torchrun(one), Shell('"${SCRIPT:?}"'), *draft.flags, Shell('"$@"')])}


def torchrun(one: EngineDegrees) -> list[str]:
    """What starts a process for each GPU of a node."""
    command = ["torchrun", f"--nproc-per-node={len(one.nodes[0])}"]
    if len(one.nodes) > 1:
        command += [f"--nnodes={len(one.nodes)}", Shell('--node-rank="$NODE"'), Shell('--master-addr="$HEAD"')]
        command += [Shell('--master-port="${PORT:-29500}"')]
    return command


def redundant(draft: ServerDraft) -> str:
    return "redundant experts have no argument" if draft.layout.strategy.redundant else ""


def expert_placement(draft: ServerDraft) -> str:
    strategy = draft.layout.strategy
    other = not strategy.redundant and strategy.placing != "linear"
    return f"expert_placement = {strategy.placing} has no argument" if other else ""


def dcp(draft: ServerDraft) -> str:
    return f"dcp = {draft.layout.dcp} has no argument" if draft.layout.dcp > 1 else ""


def two_batch(draft: ServerDraft) -> str:
    other = draft.layout.strategy.overlap != "none"
    return "overlap = two_batch has no argument for a forward pass" if other else ""


def cache_dtype(draft: ServerDraft) -> str:
    model = draft.layout.spec.model
    return f"a KV cache in {model.kv_dtype}" if model.kv_dtype != model.dtype else ""


def dtype(draft: ServerDraft) -> str:
    found = draft.layout.spec.model.dtype
    return f"dtype {found}" if found not in ("bf16", "fp16") else ""


CHECKS: dict[str, Check] = {
    **COMMON,
    "redundant": redundant,
    "expert_placement": expert_placement,
    "dcp": dcp,
    "two_batch": two_batch,
    "cache_dtype": cache_dtype,
    "dtype": dtype,
}
