"""Classes of ops: what each op of a compiled phase counts as, so that sums compare with those of other tools."""

from __future__ import annotations

from collections import defaultdict

from dagc.ir.graph import Graph
from dagc.ir.op import Op
from dagc.ir.segment import Segment
from dagc.plan.result import PhaseResult

EMBEDDING, ADD_NORM, QKV, ATTENTION, PROJ = "embedding", "add_norm", "qkv_gemm", "attention", "proj_gemm"
ROUTER, MOE, SHARED, MLP, LOGITS, P2P = "router", "moe", "shared", "mlp", "logits", "p2p"
BEFORE, AFTER, ENDS = "comm_before_experts", "comm_after_experts", "comm_of_ends"
LAYER_CLASSES = (ADD_NORM, QKV, ATTENTION, PROJ, BEFORE, ROUTER, MOE, SHARED, MLP, AFTER)
ALL = (EMBEDDING, *LAYER_CLASSES, LOGITS, ENDS, P2P)


def class_seconds(result: PhaseResult) -> dict[str, float]:
    """Seconds of one pass by class, over every layer of every stage (streams that overlap are both counted)."""
    graph = result.graph
    total: dict[str, float] = defaultdict(float)
    passes = graph.microbatches * graph.lanes
    for index, segment in enumerate(graph.segments):
        for op, name in zip(segment.ops, _classes(graph, index, segment), strict=True):
            total[name] += float(result.costs.ops[segment.name, op.name].time_s.max()) * segment.repeat * passes
    total[P2P] = result.costs.transfer.time_s * (graph.the_mesh.stages - 1) * passes
    return dict(total)


def _classes(graph: Graph, index: int, segment: Segment) -> list[str]:
    if index == 0:
        return [ENDS if op.is_collective else EMBEDDING for op in segment.ops]
    if index == len(graph.segments) - 1:
        return [ENDS if op.is_collective else LOGITS for op in segment.ops]
    return _layer_classes(segment)


def _layer_classes(segment: Segment) -> list[str]:
    """The layer in program order: attention's block (the one that attends), then the feed-forward's."""
    attending = next((op.block for op in segment.ops if op.kind == "attend"), "")
    sparse = any(op.kind == "route" for op in segment.ops)
    attended = experts_done = False
    found = []
    for op in segment.ops:
        if op.is_collective:
            found.append(AFTER if experts_done else BEFORE)
            continue
        if op.block == attending:
            found.append(_attention_class(op, attended))
            attended |= op.kind == "attend"
        else:
            found.append(_feed_forward_class(segment, op, sparse))
            # A dense feed-forward's last GEMM counts as the experts; shared experts come first and do not count.
            experts_done |= op.kind == "contract" and (op.scope == "experts" if sparse else "hidden" in op.dims)
    return found


def _is_norm_or_residual(op: Op) -> bool:
    return "hidden" in op.dims and op.kind in ("rms_norm", "layer_norm", "add", "scale", "multiply", "row_square_sum")


def _attention_class(op: Op, attended: bool) -> str:
    if op.kind == "contract":
        return PROJ if attended else QKV
    return ADD_NORM if _is_norm_or_residual(op) else ATTENTION


def _feed_forward_class(segment: Segment, op: Op, sparse: bool) -> str:
    if op.scope == "experts" or op.kind in ("dispatch", "combine"):
        return MOE
    if op.kind == "route" or (op.kind == "contract" and "expert" in op.dims):
        return ROUTER
    if _is_norm_or_residual(op):
        return ADD_NORM
    return SHARED if sparse else MLP


def reference_class(name: str) -> tuple[str, ...]:
    """Our classes that correspond to another tool's op, by the last words of its name (phase prefix dropped)."""
    plain = name.split("_", 1)[1]
    table = {
        "embedding": (EMBEDDING,),
        "embedding_ar": (ENDS,),
        "add_norm_1": (ADD_NORM,),
        "add_norm_2": (ADD_NORM,),
        "qkv_gemm": (QKV,),
        "attention": (ATTENTION,),
        "proj_gemm": (PROJ,),
        "mla_block": (QKV, ATTENTION, PROJ),
        "router_gemm": (ROUTER,),
        "moe_pre_dispatch": (BEFORE,),
        "moe": (MOE,),
        "moe_overlap": (MOE, SHARED, ROUTER),
        "moe_post_dispatch": (AFTER,),
        "logits_gemm": (LOGITS,),
        "p2p": (P2P,),
    }
    if plain in table:
        return table[plain]
    if plain.startswith("shared"):
        return (SHARED,)
    if plain.startswith("ar_1"):
        return (BEFORE,)
    if plain.startswith("ar_2"):
        return (AFTER,)
    return (MLP,) if "ffn" in plain or "act" in plain else (plain,)
