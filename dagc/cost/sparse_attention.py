"""sparse_attention: measured time of a whole block of sparse latent attention in a decode step.

The block is one kernel here: what is between its normed input and its output projection, as the tables timed it. A block that
lacks an op of it, gathers anything between ranks, or is of other widths keeps what its products and the roofline cost.
"""

from __future__ import annotations

from ..base import dtypes
from ..base.frozen import record
from ..calib import sparse_mla_decode
from ..ir.op import Op
from ..ir.ops.attention_operands import attend_operands
from ..ir.ops.attributes.attention import AttendAttrs
from ..ir.ops.kind import Fuse
from ..ir.ops.op_set import OPS
from .attention import KV_VARIANT
from .measured import Match, Measured, estimate_s
from .products import GEMM_VARIANT

BLOCK_DTYPE = GEMM_VARIANT | {"fp8": "fp8_block"}
WIDTHS = sparse_mla_decode.LATENT, sparse_mla_decode.ROPE, sparse_mla_decode.INDEX, sparse_mla_decode.CHOSEN


@record
class SparseBlock:
    """`choice` and `attend` with all `ops` of their block; `last`: the output projection."""

    choice: Op
    attend: Op
    ops: tuple[Op, ...]
    last: Op
    hidden: float
    q_latent: float
    nope: float
    value: float


def match(found: Match) -> None:
    for op in found.shapes.of_kind("attend"):
        part = found.phase.part(op.scope)
        attrs = op.of(AttendAttrs)
        if attrs.chosen and attrs.kernel == "flash" and not part.takes_prompts:
            block = _block(found, op)
            if block is not None:
                _decode(found, block)


def _decode(found: Match, block: SparseBlock) -> None:
    family, shapes, op = sparse_mla_decode.FAMILY, found.shapes, block.attend
    dtype = BLOCK_DTYPE.get(dtypes.dtype(found.segment.dtype_of(block.last.inputs[1])).kernel, "")
    kv = KV_VARIANT.get(shapes.kv_dtype(attend_operands(op)[1][0]), "")
    # A cache of the other dtype is nearer than another engine.
    caches = [kv, *(other for other in ("bf16", "fp8") if other != kv)]
    entry = found.find(family, tuple(sparse_mla_decode.key(dtype, each) for each in caches)) if kv else None
    if entry is None:
        return
    heads = shapes.size(op, [d for d in op.dims[:-1] if d not in ("batch", "seq")])
    rows, context = shapes.size(op, ("batch", "seq")), found.segment.size("context", op.scope)
    index_heads = found.segment.size(found.segment.dims_of(block.choice.inputs[0])[-2])
    sizes = block.hidden, block.q_latent, block.nope, block.value, index_heads
    time_s = estimate_s(family, entry, rows, context, heads, *sizes).reshape(1)
    outside = entry.outside(batch_size=rows, kv_len=context)
    working = [each for each in block.ops if each.kind in ("contract", "select", "attend")]
    found.share(working, Measured.of(time_s, family.name, entry, outside))
    for each in block.ops:
        found.ride(each, Fuse.SPARSE)


def _block(found: Match, op: Op) -> SparseBlock | None:
    """The block of an attention to chosen tokens, if all of it is on one rank and as wide as what was timed."""
    segment = found.segment
    queries, keys, _ = attend_operands(op)
    choice = next((segment.by_name[name] for name in op.inputs if _kind(found, name) == "select"), None)
    if choice is None or len(choice.inputs) != 3 or len(queries) != 2 or found.mesh.size(op.loop("context")) != 1:
        return None
    latent, rope = (segment.size(segment.dims_of(name)[-1]) for name in keys)
    chosen = op.of(AttendAttrs).chosen
    if (latent, rope, segment.size(segment.dims_of(choice.inputs[1])[-1]), chosen) != WIDTHS:
        return None
    weighing = _projection(found, choice.inputs[2])
    indexing = _projection(found, choice.inputs[0])
    absorbing = _projection(found, queries[0])
    behind = _behind(found, op)
    if weighing is None or indexing is None or absorbing is None or len(behind) != 2:
        return None
    source = weighing.inputs[0]
    ops = (*_between(found, source, op), *behind)
    if any(each.is_collective or each.scope != op.scope for each in ops):
        return None
    (nope,) = set(segment.dims_of(absorbing.inputs[0])) - set(absorbing.dims)
    return SparseBlock(
        choice, op, ops, behind[1], segment.size(segment.dims_of(source)[-1]),
        segment.size(segment.dims_of(indexing.inputs[0])[-1]), segment.size(nope), segment.size(behind[0].dims[-1]),
    )  # fmt: skip


def _kind(found: Match, name: str) -> str:
    return found.segment.by_name[name].kind if name in found.segment.by_name else ""


def _projects(op: Op) -> bool:
    return OPS[op.kind].product and len(op.inputs) == 2 and op.inputs[1].startswith("@")


def _projection(found: Match, name: str) -> Op | None:
    """The product with a weight that a value comes from."""
    while name in found.segment.by_name:
        op = found.segment.by_name[name]
        if _projects(op):
            return op
        name = op.inputs[0]
    return None


def _between(found: Match, source: str, op: Op) -> list[Op]:
    """An op and all that is computed for it from a value on, in program order."""
    wanted, chain = {op.name}, []
    for each in reversed(found.segment.ops):
        if each.name in wanted and each.name != source:
            chain.append(each)
            wanted.update(
                found.segment.by_name[n].name for n in each.inputs if n in found.segment.by_name and n != source
            )
    return chain[::-1]


def _behind(found: Match, op: Op) -> list[Op]:
    """Two products with weights that follow, the one of the other; fewer where something else reads a result."""
    chain: list[Op] = []
    while len(chain) < 2:
        readers = list(found.segment.users((chain or [op])[-1].name))
        if len(readers) != 1 or not _projects(readers[0]):
            break
        chain.append(readers[0])
    return chain
