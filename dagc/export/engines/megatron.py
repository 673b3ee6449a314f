"""Megatron Core: attention and experts fold the ranks of a stage independently. The model's own arguments and the
checkpoint are left to the user's script."""

from __future__ import annotations

from collections.abc import Mapping

from .draft import ServerDraft, judge
from .rules import COMMON
from .script import script
from .words import Shell


def write(draft: ServerDraft) -> Mapping[str, str]:
    one, strategy = draft.layout, draft.layout.strategy
    d, model = one.degree, one.spec.model
    judge(draft, COMMON)
    if draft.layout.degree["sp"] == 1:
        draft.ordered(("pp", "dp", "sp", "tp"), ("pp", "edp", "ep", "etp"))
    draft.refuse(bool(strategy.redundant), "redundant experts have no argument")
    draft.refuse(
        not strategy.redundant and strategy.placing != "linear",
        f"expert_placement = {strategy.placing} has no argument",
    )
    draft.refuse(one.dcp > 1, f"dcp = {one.dcp} has no argument")
    draft.refuse(strategy.overlap != "none", "overlap = two_batch has no argument for a forward pass")
    draft.refuse(model.kv_dtype != model.dtype, f"a KV cache in {model.kv_dtype}")
    draft.refuse(model.dtype not in ("bf16", "fp16"), f"dtype {model.dtype}")
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
    command = ["torchrun", f"--nproc-per-node={len(one.nodes[0])}"]
    if len(one.nodes) > 1:
        command += [f"--nnodes={len(one.nodes)}", Shell('--node-rank="$NODE"'), Shell('--master-addr="$HEAD"')]
        command += [Shell('--master-port="${PORT:-29500}"')]
    return {"sh": script(draft, [*command, Shell('"${SCRIPT:?}"'), *draft.flags, Shell('"$@"')])}
