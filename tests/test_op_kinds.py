"""Every kind of op is one record that is complete, each of its rules refuses what is wrong, and a new kind needs no more."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from conftest import spec_text
from state_specs import GROUPED, state_spec
from test_empty_experts import compiled
from tiers import spread
from training_steps import library_text, step_of

import dagc
from dagc.api import Plan
from dagc.base.dtypes import INDICES
from dagc.ir.graph import Graph
from dagc.ir.op import Op
from dagc.ir.ops.attributes.attrs import Attrs
from dagc.ir.ops.attributes.moves import CollectiveAttrs, MoveAttrs, SliceAttrs
from dagc.ir.ops.elementwise import ACTIVATIONS
from dagc.ir.ops.kind import Misfit, Tokens
from dagc.ir.ops.op_set import OPS, flops
from dagc.ir.segment import Segment
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError
from dagc.lang.expand.functions import FUNCTIONS, Function, each
from dagc.pipeline.observers import verified

LIBRARY = {
    "deepseek-v3.2": ("prefill", "gpus = 0..7, tp = 4, sp = 2"),
    "qwen3-next-80b-a3b": ("prefill", "gpus = 0..3, tp = 2, sp = 2"),
    "gpt-oss-120b": ("prefill", "gpus = 0..7, ep = 4, tp = 2, sequence_parallel = true"),
    "llama-4-maverick-17b-128e": ("prefill", "gpus = 0..15, ep = 16"),
    "phi-3.5-moe": ("prefill", "gpus = 0..1, tp = 2, shard { hidden = tp }"),
}
COMMON_ROWS = (
    spec_text(phase="gpus = 0..7, sequence_parallel = true\nattention { dp = 2, tp = 4 }\nexperts { ep = 2, tp = 4 }")
    .replace("per_node = 8", "per_node = 4")
    .replace("450 GB/s, latency = 2 us", "450 MB/s, latency = 1 ns")
)


ALIKE = {
    **dict.fromkeys(ACTIVATIONS, "silu"),
    **{f"{name}_grad": "silu_grad" for name in ACTIVATIONS},
    "sgd": "adamw",
}
"""Kinds that may stand where another one does."""


@cache
def plans() -> tuple[Plan, ...]:
    texts = [library_text(model, *phase) for model, phase in LIBRARY.items()]
    packed = "gpus = 0..1, tp = 2, decode = 16, prompts = [256 tok]"
    texts.append(library_text("mixtral-8x7b", "mixed", packed))
    texts += [
        spec_text(phase="gpus = 0..3, sp = 2, tp = 2, sp_method = ring"),
        spec_text(kind="decode", phase="gpus = 0..3, sp = 2, tp = 2"),
        spec_text(kind="decode", phase="gpus = 0..7, tp = 8, dcp = 2"),
        spec_text(kind="decode", phase="gpus = 0..1, tp = 2, kv_cache { offload = 50% }"),
        spec_text(
            kind="decode", phase="gpus = 0..1, tp = 2, experts { resident = 4, prefetch = next_layer(hit = 80%) }"
        ),
        spec_text(kind="decode", phase="gpus = 0..1, attention { dp = 2 }\nexperts { gpus = 2..3, ep = 2 }"),
        spec_text(kind="decode", phase="gpus = 0..7, dp = 8, exit = [at(layers = 2, share = 50%)]"),
        COMMON_ROWS,
        state_spec(GROUPED, "gpus = 0..3, tp = 2, sp = 2"),
    ]
    return tuple(map(dagc.compile_text, texts))


@cache
def found() -> dict[str, tuple[Graph, Segment, Op]]:
    """Of every kind an op in a placed graph, of a pass or of a training step."""
    ops: dict[str, tuple[Graph, Segment, Op]] = {}
    placed = [result.graph for plan in plans() for result in plan.phases.values()]
    placed += [step_of(library_text(model, "train", phase)).placed for model, (_, phase) in LIBRARY.items()]
    placed.append(step_of(library_text("phi-3.5-moe", "train", "gpus = 0..1, dp = 2, zero = 3")).placed)
    placed.append(compiled("exchange").phases["decode"].graph)
    placed.append(compiled("phase t { kind = train, gpus = 0..1, dp = 2 }").trainings["t"].graph)
    further = library_text(
        "deepseek-v3", "train", "gpus = 0..3, dp = 4, mtp_loss = 0.1, aux_loss = 0.01, z_loss = 0.001, dropout = 10%"
    )
    placed.append(step_of(further).placed)
    placed.append(step_of(library_text("phi-3.5-moe", "train", "gpus = 0..1, dp = 2, matmul_dtype = fp8")).placed)
    streams = "streams { count = 2, iterations = 3, spread = halves }"
    halves = "\nblock halves(x) {\ns[batch, seq, stream, hidden] = repeat(x)\nreturn s / 2\n}"
    placed.append(step_of(library_text("mixtral-8x7b", "train", "gpus = 0..1, dp = 2", streams) + halves).placed)
    for graph in placed:
        for segment in (*graph.body, graph.embedding, graph.head):  # what others are handed is found amiss there
            for op in segment.ops:
                ops.setdefault(op.kind, (graph, segment, op))
    for name in ALIKE.keys() - ops.keys():
        graph, segment, op = ops[ALIKE[name]]
        ops[name] = (graph, segment, replace(op, kind=name))
    return ops


def with_op(graph: Graph, segment: Segment, op: Op) -> Graph:
    ops = tuple(op if o.name == op.name else o for o in segment.ops)
    segments = tuple(replace(s, ops=ops) if s is segment else s for s in graph.segments)
    return replace(graph, segments=segments)


def refused(kind: str, change: Op, *, by_reader: bool = False) -> str:
    """What the verifier says of the op of a kind, changed; or `by_reader` of that which reads it."""
    graph, segment, _ = found()[kind]
    with pytest.raises(VerifyError) as raised:
        verify(with_op(graph, segment, change))
    readers = [op.name for op in segment.users(change.name)] if by_reader else []
    assert raised.value.op in (change.name, *readers) and raised.value.segment == segment.name
    return raised.value.line


def test_there_is_an_op_of_every_kind() -> None:
    assert set(found()) == set(OPS)
    for kind, (graph, segment, op) in found().items():
        if kind not in ALIKE:
            verify(with_op(graph, segment, op))


some = pytest.mark.parametrize("name", spread(OPS, list(OPS)[::3]))
"""A third of the kinds."""


@pytest.mark.parametrize("name", OPS)
def test_a_record_is_complete(name: str) -> None:
    kind = OPS[name]
    assert kind.name == name and kind.about
    _, segment, op = found()[name]
    assert (flops(segment, op) == 0) == bool(kind.idle), "FLOPs, or why there are none"
    assert (kind.move is not None) == issubclass(kind.attrs, (CollectiveAttrs, SliceAttrs))
    assert kind.runtime_kind in OPS
    assert all(f.attribute.about for f in kind.attrs.fields)
    assert {one.kind for one in kind.row_sums} <= set(OPS)
    assert kind.state is None or kind.tokens is Tokens.IN_ORDER
    assert kind.fused or kind.rides_in or not kind.local or kind.move is not None


@some
def test_operands_are_counted(name: str) -> None:
    _, segment, op = found()[name]
    if op.inputs:
        refused(name, replace(op, inputs=()))
    refused(name, replace(op, inputs=(*op.inputs, *[*op.inputs, segment.input][:1] * 3)))


@some
def test_dims_of_the_result_follow_from_the_operands(name: str) -> None:
    _, segment, op = found()[name]
    extra = next(d for d in segment.sizes if d not in op.dims and ":" not in d)
    refused(name, replace(op, dims=(*op.dims, extra)))
    refused(name, replace(op, dims=(*op.dims[:-1], "nowhere")))
    refused(name, replace(op, dims=(*op.dims, op.dims[0])))


@some
def test_the_dtype_of_the_result_is_the_kinds(name: str) -> None:
    _, _, op = found()[name]
    wrong = "bf16" if op.dtype in INDICES else "int64"
    line = refused(name, replace(op, dtype=wrong))
    assert f"dtype: found {wrong}" in line


@some
def test_attributes_are_the_kinds_record(name: str) -> None:
    _, _, op = found()[name]
    other = MoveAttrs() if type(op.attrs) is Attrs else Attrs()
    wanted = f"attributes: found {type(other).__name__}, wanted {type(op.attrs).__name__}"
    assert wanted in refused(name, replace(op, attrs=other))


@some
def test_the_layout_of_the_result_is_the_kinds(name: str) -> None:
    """Split over an axis that is idle, or by one less."""
    graph, _, op = found()[name]
    assert op.sharding is not None
    idle = [a for a, _ in graph.the_mesh.atoms if a not in op.sharding.used]
    for dim, axes in enumerate(op.sharding.dims):
        for changed in [(*axes, *idle[:1])] * bool(idle) + [axes[:-1]] * bool(axes):
            # Other ranks may get any parts: which they need, their ops say.
            refused(name, replace(op, sharding=op.sharding.with_dim(dim, changed)), by_reader=op.is_across)
    for axis in idle:
        partial = replace(op.sharding, partial=(*op.sharding.partial, axis))
        refused(name, replace(op, sharding=partial))


ROLES: dict[str, tuple[int, str]] = {
    "attend": (0, "queries"),
    "conv": (1, "taps"),
    "pool": (2, "biases"),
    "select": (1, "keys"),
    "delta": (1, "keys"),
    "dispatch": (1, "choice"),
    "combine": (0, "rows"),
    "rms_norm": (1, "gain"),
}
"""An operand of each kind that has several of different roles, and what a message calls it."""


@pytest.mark.parametrize("name", ROLES)
def test_an_operand_of_another_role_is_named(name: str) -> None:
    at, role = ROLES[name]
    _, segment, op = found()[name]
    said: list[str] = []
    used = {segment.dims_of(n) for n in op.inputs}
    for other in (*(w.name for w in segment.weights), *(o.name for o in segment.ops[: segment.ops.index(op)])):
        if segment.dims_of(other) in used or segment.dims_of(other)[-1] == segment.dims_of(op.inputs[at])[-1]:
            continue
        inputs = (*op.inputs[:at], other, *op.inputs[at + 1 :])
        try:
            OPS[name].dims(segment, replace(op, inputs=inputs))
        except Misfit as fault:
            said.append(str(fault))
    assert all("found" in text and "wanted" in text for text in said)
    assert any(role in text for text in said), said


MOVES = [name for name, kind in OPS.items() if kind.is_collective]


@pytest.mark.parametrize("name", MOVES)
def test_a_move_is_over_its_own_group(name: str) -> None:
    graph, _, op = found()[name]
    assert "group" in refused(name, replace(op, axes=()))
    for axis, _ in graph.the_mesh.atoms:
        if axis not in op.axes:
            refused(name, replace(op, axes=(*op.axes, axis)))
            refused(name, replace(op, axes=(axis,)))


@pytest.mark.parametrize("name", [n for n in MOVES if OPS[n].attrs is MoveAttrs])
def test_a_move_states_only_what_it_is(name: str) -> None:
    _, _, op = found()[name]
    attrs = op.of(MoveAttrs)
    for field, value in (("source_dim", op.dims[0]), ("target_dim", op.dims[0]), ("reduce", "max")):
        if getattr(attrs, field) != value:
            refused(name, replace(op, attrs=attrs.but(**{field: value})))


def test_an_unknown_kind_is_refused() -> None:
    _, _, op = found()["silu"]
    assert "kind: found siloo" in refused("silu", replace(op, kind="siloo"))


def test_the_program_around_a_fault_is_shown() -> None:
    """The pass, the op with its types, its neighbours, what was found and wanted, and the statement of the block."""
    plan = next(
        p
        for p in plans()
        if "ring_turn" in {o.kind for r in p.phases.values() for s in r.graph.segments for o in s.ops}
    )
    graph, unit = plan.phases["prefill"].graph, plan.units["prefill"]
    segment = graph.segment("sparse")
    for name in ("gqa.q", "gqa.y.all_reduce"):
        op = segment.by_name[name]
        with pytest.raises(VerifyError) as raised:
            verified(with_op(graph, segment, replace(op, dtype="int64")), "reshard", unit.spans)
        line, *program = str(raised.value).split("\n")
        assert line == f"sparse/%{name}: dtype: found int64, wanted " + (
            "fp32 (after pass `reshard`)"
            if op.is_collective
            else "a dtype of numbers, not of indices (after pass `reshard`)"
        )
        ir, (place, statement) = program[:-2], program[-2:]
        marked = [text for text in ir if text.startswith("  > ")]
        assert len(marked) == 1 and f"%{name} = {op.kind}(" in marked[0] and "->" in marked[0]
        assert 2 <= len(ir) <= 5
        assert place.startswith("  --> ") and ".moe:" in place
        assert f"{name.split('.')[1]}[" in statement and " | " in statement


def test_one_record_makes_an_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its line in the language it is split, moved, priced and verified; what a backend misses is reported by its table."""
    kinds = dict(OPS)
    monkeypatch.setitem(kinds, "square", replace(OPS["silu"], name="square", about="each number times itself"))
    monkeypatch.setitem(OPS, "square", kinds["square"])  # type: ignore[arg-type]
    monkeypatch.setitem(FUNCTIONS, "square", Function({}, each))
    block = (
        "block wide(x) {\n  h = rms_norm(x)\n  u[batch, seq, ffn] = h * Wu[hidden, ffn]\n"
        "  y[batch, seq, hidden] = square(u) * Wd[ffn, hidden]\n  return x + y\n}\nlayer plain { gqa, wide }"
    )
    model = (
        "hidden = 64, vocab = 512, dtype = fp32, stack = [embed, 2 * plain, lm_head]\n"
        "attention { heads = 8, kv_heads = 4, head_dim = 8 }\nmlp { hidden = 128 }"
    )
    text = spec_text(
        model=model,
        extra=block.replace("block wide(x) {", "block wide(x) {\n  let ffn = 128"),
        phase="gpus = 0..3, tp = 4",
    )
    result = dagc.compile_text(text).phases["prefill"]
    op = next(op for op in result.graph.segment("plain").ops if op.kind == "square")
    assert op.loop("ffn") == result.graph.the_mesh.of("tp") and ("plain", op.name) in result.costs.ops
