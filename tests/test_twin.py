"""The small twin: the plan's own lowering, and what its sizes keep; the three verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import INFERENCE, spec_text
from proofs.judge import judge
from proofs.plans import MODELS, STRATEGIES
from proofs.plans import spec as library_spec
from tiers import in_turn, spread

import dagc
from dagc.api import Plan
from dagc.cli import main
from dagc.cli.prove import verdict
from dagc.execute import prove as proving
from dagc.execute.dispatcher import OpCall
from dagc.execute.lowered_alike import otherwise
from dagc.execute.machine import RankMachine
from dagc.execute.numpy.ops import visible
from dagc.execute.numpy.rules import NUMPY
from dagc.execute.prove import prove_graph, prove_small, twin_inputs, twin_of_phase
from dagc.execute.twin import NoTwin, Twin
from dagc.ir.graph import Graph
from dagc.ir.op import Op
from dagc.ir.ops.attributes.attention import AttendAttrs
from dagc.ir.ops.attributes.experts import RouteAttrs
from dagc.ir.ops.attributes.moves import MoveAttrs, SliceAttrs
from dagc.ir.segment import Segment
from dagc.ir.sharding import Sharding
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError

WIDE = "layers = 4, hidden = 512, vocab = 4096, dtype = bf16\nattention { heads = 16, kv_heads = 4, head_dim = 32 }"
SPARSE = f"{WIDE}\nexperts {{ count = 64, top_k = 2, hidden = 256 }}"
SHARED_KEYS = "hidden = 512, vocab = 4096, dtype = bf16, stack = [embed, 2 * own, lm_head]\nattention { heads = 16, head_dim = 32 }"
SHARED_KEYS_BLOCK = """block mqa(x) {
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  k[batch, seq, head_dim] = h * Wk[hidden, head_dim]
  v[batch, seq, head_dim] = h * Wv[hidden, head_dim]
  o[batch, seq, heads, head_dim] = attend(rope(q), rope(k), v, causal = true, REACH)
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}
layer own { mqa }"""
WORK = "sequences = 256, prompt = 1024 tok, output = 64 tok"


def compiled(phase: str, kind: str = "prefill", model: str = SPARSE, extra: str = "", workload: str = WORK) -> Plan:
    return dagc.compile_text(spec_text(kind=kind, phase=phase, model=model, workload=workload, extra=extra))


def twin(phase: str, kind: str = "prefill", model: str = SPARSE, extra: str = "") -> tuple[Twin, Graph]:
    plan = compiled(phase, kind, model, extra)
    return twin_of_phase(plan, kind), plan.phases[kind].graph


# -- the plan's own lowering -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "example_name", spread([path.stem for path in INFERENCE], {"custom_attention", "plan_a", "residual_streams"})
)
def test_every_op_of_a_twin_is_the_plans(example: Plan) -> None:
    for name, result in example.phases.items():
        small = twin_of_phase(example, name)
        assert otherwise(result.graph, small.placed) == ""
        assert len(small.placed.segments) == len(result.graph.segments)
        assert small.placed != result.graph


def test_a_vocabulary_that_does_not_divide_is_not_cut_in_the_twin_either(capsys: pytest.CaptureFixture[str]) -> None:
    odd = WIDE.replace("4096", "50257")
    small, plan = twin("gpus = 0..7, tp = 8", model=f"{odd}\nmlp {{ hidden = 1024 }}")
    assert plan.segment("lm_head").sizes["vocab"] == 50257
    assert small.placed.segment("lm_head").sizes["vocab"] % 8
    proof = prove_small(compiled("gpus = 0..7, tp = 8", model=f"{odd}\nmlp {{ hidden = 1024 }}"), "prefill")
    assert proof.verdict == "equal" and proof.collectives == 2


@pytest.mark.parametrize("what", ["kind", "axes", "inputs", "attrs", "order", "dropped"])
def test_a_twin_that_was_lowered_otherwise_is_told(what: str) -> None:
    small, plan = twin("gpus = 0..7, ep = 2, tp = 4")
    segment = small.placed.segment("sparse")
    at = next(i for i, op in enumerate(segment.ops) if op.kind == "all_reduce")
    op, ops = segment.ops[at], list(segment.ops)
    changed = {
        "kind": replace(op, kind="all_gather"),
        "axes": replace(op, axes=op.axes[:-1] or ("ep",)),
        "inputs": replace(op, inputs=(segment.input,)),
        "attrs": replace(op, attrs=MoveAttrs(reduce="max")),
    }
    if what == "order":
        ops[at], ops[at - 1] = ops[at - 1], ops[at]
    elif what == "dropped":
        del ops[at]
    else:
        ops[at] = changed[what]
    segments = tuple(replace(s, ops=tuple(ops)) if s is segment else s for s in small.placed.segments)
    assert otherwise(plan, small.placed) == ""
    assert otherwise(plan, replace(small.placed, segments=segments)).startswith("sparse")


def test_a_twin_of_another_lowering_is_never_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compiled("gpus = 0..7, ep = 2, tp = 4")
    other = twin_of_phase(compiled("gpus = 0..7, ep = 4, tp = 2"), "prefill")
    monkeypatch.setattr(proving, "twin_of_phase", lambda *_: other)
    proof = prove_small(plan, "prefill")
    assert proof.verdict == "not run" and "lowered otherwise" in proof.why


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("at", spread([0, 1]))
def test_library_models_are_proved(strategy: str, at: int) -> None:
    """Two of them under each strategy, the kind of phase alternating; `python -m tests.proofs` takes them all."""
    number = list(STRATEGIES).index(strategy)
    model = MODELS[(number * 4 + at * 17) % len(MODELS)]
    verdict = judge(model, strategy, ("prefill", "decode")[(number + at) % 2])
    assert verdict.word in ("equal", "refused"), (model, verdict)


# -- what the twin keeps ---------------------------------------------------------------------------


def attends(segment: Segment) -> list[Op]:
    return [op for op in segment.ops if op.kind == "attend"]


@pytest.mark.parametrize("kind", ["prefill", "decode"])
@pytest.mark.parametrize("reach", ["window", "chunk"])
def test_windows_and_chunks_mask(kind: str, reach: str) -> None:
    small, _ = twin("gpus = 0..3, tp = 4", kind, SHARED_KEYS, SHARED_KEYS_BLOCK.replace("REACH", f"{reach} = 128"))
    segment = small.placed.segments[1]
    (op,) = attends(segment)
    seq, context = int(segment.sizes["seq"]), int(segment.sizes["context"])
    value = getattr(op.of(AttendAttrs), reach)
    assert 1 <= value < context
    limits = (value, np.inf) if reach == "window" else (np.inf, value)
    positions = np.arange(context - seq, context)
    masked = visible(positions, np.arange(context), True, *limits)
    assert masked.sum() < visible(positions, np.arange(context), True, np.inf, np.inf).sum()


def test_a_window_longer_than_the_context_goes_on_masking_nothing() -> None:
    small, _ = twin("gpus = 0..3, tp = 4", "prefill", SHARED_KEYS, SHARED_KEYS_BLOCK.replace("REACH", "window = 4096"))
    segment = small.placed.segments[1]
    assert attends(segment)[0].of(AttendAttrs).window >= segment.sizes["context"]


@pytest.mark.parametrize(
    "phase", ["gpus = 0..7, ep = 8", "gpus = 0..7\nattention { dp = 4, tp = 2 }\nexperts { ep = 8 }"]
)
@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_several_experts_and_sequences_a_rank_and_more_tokens_than_experts(phase: str, kind: str) -> None:
    small, _ = twin(phase, kind)
    segment, mesh = small.placed.segment("sparse"), small.placed.the_mesh
    assert segment.sizes["experts:expert"] / mesh.size(mesh.of("ep")) >= 2
    batch = mesh.degrees["dp"] * (mesh.degrees["ep"] if "etp" not in mesh.axes else 1)
    assert segment.sizes["batch"] / batch >= 2
    assert segment.sizes["batch"] * segment.sizes["seq"] > segment.sizes["expert"]
    assert segment.sizes["expert"] > segment.sizes["choice"]


def test_experts_get_unequal_numbers_of_rows() -> None:
    found: list[int] = []
    small, _ = twin("gpus = 0..7, ep = 8")
    machine = RankMachine(small.placed, twin_inputs(small), small.placed.the_mesh)

    def watch(segment: Segment, layer: int, op: Op, values: list[object]) -> None:
        if op.kind == "dispatch":
            physical = np.concatenate([value.physical for value in values])  # type: ignore[attr-defined]
            found.extend(int((physical == p).sum()) for p in values[0].held)  # type: ignore[attr-defined]

    machine.watch = watch
    machine.run()
    assert len(set(found)) > 1


def test_spare_experts_groups_and_micro_batches_stay() -> None:
    plan = dagc.compile_text(library_spec("deepseek-v3", "spare experts", "decode"))
    small = twin_of_phase(plan, "decode").placed
    segment = next(s for s in small.segments if "slot" in s.sizes)
    route = next(op for op in segment.ops if op.kind == "route")
    assert segment.sizes["experts:expert"] > segment.sizes["expert"]
    assert route.of(RouteAttrs).groups == 8 and 0 < route.of(RouteAttrs).groups_limit < 8
    many, plan_graph = twin("gpus = 0..7, pp = 2, ep = 2, tp = 2, microbatches = 8")
    assert (plan_graph.microbatches, many.placed.microbatches) == (8, 2)
    assert twin("gpus = 0..3, ep = 2, tp = 2")[0].placed.microbatches == 1


def test_a_stage_keeps_each_kind_of_its_layers_once() -> None:
    model = SPARSE.replace("layers = 4", "layers = 6, dense_first = 2") + "\nmlp { hidden = 512 }"
    small, plan = twin("gpus = 0..3, pp = 2, tp = 2", model=model)
    assert [s.layers for s in plan.stages] == [
        (("embed", 1), ("dense", 2), ("sparse", 1)),
        (("sparse", 3), ("lm_head", 1)),
    ]
    assert [s.layers for s in small.placed.stages] == [
        (("embed", 1), ("dense", 1), ("sparse", 1)),
        (("sparse", 1), ("lm_head", 1)),
    ]


# -- verdicts --------------------------------------------------------------------------------------


def test_a_plan_proves_itself() -> None:
    plan = compiled("gpus = 0..3, ep = 2, tp = 2")
    assert plan.prove("prefill") == prove_small(plan, "prefill") and plan.prove("prefill").verdict == "equal"


@pytest.mark.parametrize("method", ["allgather", "ring"])
def test_a_sequence_dealt_out_in_zigzag_stays_so(method: str) -> None:
    small, _ = twin(f"gpus = 0..7, sp = 4, tp = 2, sp_layout = zigzag, sp_method = {method}")
    assert small.placed.the_mesh.zigzag and small.placed.segments[1].sizes["seq"] % 8 == 0
    assert compiled(f"gpus = 0..7, sp = 4, tp = 2, sp_layout = zigzag, sp_method = {method}").prove("prefill").holds


def test_a_width_that_is_a_third_of_another_has_a_twin() -> None:
    model = "hidden = 96, vocab = 512, dtype = bf16, stack = [embed, 2 * thirds, lm_head]\nattention { heads = 8, kv_heads = 4 }"
    block = """block third(x) {
  let part = hidden / 3
  u[batch, seq, part] = x * Wu[hidden, part]
  y[batch, seq, hidden] = u * Wd[part, hidden]
  return x + y
}
layer thirds { gqa, third }"""
    assert prove_small(compiled("gpus = 0..3, tp = 4", model=model, extra=block), "prefill").verdict == "equal"


def spec_file(tmp_path: Path, phase: str = "gpus = 0..3, ep = 2, tp = 2") -> str:
    path = tmp_path / "s.moe"
    path.write_text(spec_text(phase=phase, model=SPARSE, workload=WORK))
    return str(path)


@pytest.mark.parametrize("reason", ["kernel", "error"])
def test_what_cannot_be_run_is_neither_equal_nor_different(
    reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing kernel, and any exception that is not a finding."""
    if reason == "kernel":
        monkeypatch.delitem(NUMPY, "route")
    else:
        plain = NUMPY["route"]

        def once(call: OpCall, x: Sequence[Any]) -> object:
            if call.shards.ranks != [{}]:
                raise IndexError("out of something")
            return plain(call, x)

        monkeypatch.setitem(NUMPY, "route", once)
    assert main(["verify", spec_file(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "not run" in out and ("no kernel for `route`" in out or "out of something" in out)
    assert "equal" not in out and "differs" not in out


def test_an_error_of_the_comparison_itself_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> list[str]:
        raise KeyError("something")

    monkeypatch.setattr(proving, "wrong_work", missing)
    proof = compiled("gpus = 0..3, ep = 2, tp = 2").prove("prefill")
    assert proof.verdict == "not run" and "something" in proof.why


def test_a_plan_without_a_twin_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Twin:
        raise NoTwin("nothing smaller divides")

    monkeypatch.setattr(proving, "twin_of", refused)
    proof = compiled("gpus = 0..3, ep = 2, tp = 2").prove("prefill")
    assert proof.verdict == "not run" and "nothing smaller divides" in proof.why


def test_a_difference_is_shown_with_the_ir_around_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = NUMPY["combine"]

    def off(call: OpCall, x: Sequence[Any]) -> Any:
        value = plain(call, x)
        return value * 1.5 if call.shards.graph.level == "placed" else value

    monkeypatch.setitem(NUMPY, "combine", off)
    assert main(["verify", spec_file(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "differs on 4 ranks" in out and "first at sparse[0]/moe.y" in out
    marked = [line for line in out.splitlines() if line.strip().startswith(">")]
    assert len(marked) == 1 and "%moe.y = combine(" in marked[0]


def test_bytes_that_differ_are_shown_with_the_ir_around_them() -> None:
    plan = compiled("gpus = 0..3, ep = 2, tp = 2")
    result = plan.phases["prefill"]
    key = next(key for key, cost in result.costs.ops.items() if cost.group is not None)
    ops = {**result.costs.ops, key: replace(result.costs.ops[key], payload_B=1.0)}
    changed = replace(plan, phases={"prefill": replace(result, costs=replace(result.costs, ops=ops))})
    proof = changed.prove("prefill")
    assert proof.verdict == "differs" and proof.bytes_wrong == ("/".join(key),)
    assert next(line for line in proof.lines if line.startswith(">")).startswith(f"> %{key[1]} =")
    assert proof.lines[0].strip() in verdict(proof)


def test_a_value_of_another_shape_or_type_than_declared_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compiled("gpus = 0..3, ep = 2, tp = 2")
    plain = NUMPY["rms_norm"]
    for change, word in ((lambda a: a[:1], "its layout says"), (lambda a: a.astype(np.int64), "is declared")):

        def off(call: OpCall, x: Sequence[Any], change: Callable[[Any], Any] = change) -> Any:
            value = plain(call, x)
            return change(value) if call.shards.graph.level == "placed" else value

        monkeypatch.setitem(NUMPY, "rms_norm", off)
        proof = prove_small(plan, "prefill")
        assert proof.verdict == "differs" and word in proof.first


def test_a_combine_that_cuts_what_no_one_cut_is_no_legal_graph() -> None:
    plan = compiled("gpus = 0..3, ep = 2, tp = 2")
    graph = plan.phases["prefill"].graph
    segment = graph.segment("sparse")
    op = next(o for o in segment.ops if o.kind == "combine")
    assert op.sharding is not None
    cut = replace(op.annotate("hidden", ("tp",)), sharding=op.sharding.with_dim(2, ("tp",)))
    ops = tuple(cut if o is op else o for o in segment.ops)
    segments = tuple(replace(s, ops=ops) if s is segment else s for s in graph.segments)
    broken = replace(graph, segments=segments)
    with pytest.raises(VerifyError):
        verify(broken)


# -- what the compiler can emit can be run -----------------------------------------------------------

BLOCKS = """
block moe_gain(x) {
  let expert = experts.count
  h = rms_norm(x)
  s[batch, seq, expert] = h * Wr[hidden, expert]
  r = route(s, top_k = experts.top_k)
  t[expert, slot, hidden] = dispatch(h, r)
  d[expert, slot, hidden] = We[expert, hidden] * t
  y[batch, seq, hidden] = combine(d, r)
  return x + y
}
block turned(x) {
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  k[seq, batch, head_dim] = h * Wk[hidden, head_dim]
  v[batch, seq, head_dim] = h * Wv[hidden, head_dim]
  o = attend(q, k, v, causal = true)
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}
block lm_logits(x) {
  h = rms_norm(last(x))
  logits[batch, vocab] = h * Wo[hidden, vocab]
  return logits
}
block wide(x) {
  let expert = experts.count
  let ffn = experts.hidden
  let low = 4
  h = rms_norm(x)
  s[batch, seq, expert] = h * Wr[hidden, expert]
  r = route(s, top_k = experts.top_k)
  t[expert, slot, hidden] = dispatch(h, r)
  u[expert, slot, low, ffn] = t * Wu[expert, hidden, low, ffn]
  d[expert, slot, hidden] = silu(u) * Wd[expert, low, ffn, hidden]
  y[batch, seq, hidden] = combine(d, r)
  return x + y
}
layer gains { gqa, moe_gain }
layer turns { turned, mlp }
layer wides { gqa, wide }
"""
SMALL = """hidden = 16, vocab = 32, dtype = bf16, stack = [embed, 2 * LAYER, HEAD]
attention { heads = 8, kv_heads = 4, head_dim = 4 }
mlp { hidden = 16 }
experts { count = 8, top_k = 2, hidden = 8 }"""
EMITTED = {
    "experts without a product": ("gains", "lm_head", "gpus = 0..3, ep = 2, tp = 2"),
    "rows of two widths": ("wides", "lm_head", "gpus = 0..3, ep = 2, tp = 2"),
    "keys with the sequence first": ("turns", "lm_head", "gpus = 0..3, dp = 2, tp = 2"),
    "keys with the sequence first, context split": ("turns", "lm_head", "gpus = 0..3, sp = 2, tp = 2"),
    "a head of logits": ("turns", "lm_logits", "gpus = 0..3, dp = 2, tp = 2"),
    "width of routed rows": ("sparse", "lm_head", "gpus = 0..3, ep = 2, tp = 2, shard { hidden = tp }"),
    "width of routed rows, experts in the same ranks": (
        "sparse",
        "lm_head",
        "gpus = 0..3, shard { hidden = tp }, attention { dp = 2, tp = 2 }, experts { ep = 4 }",
    ),
    "width of routed rows, experts repeated": (
        "sparse",
        "lm_head",
        "gpus = 0..3, shard { hidden = tp }, attention { dp = 2, tp = 2 }, experts { ep = 2 }",
    ),
}


@pytest.mark.parametrize(("name", "kind"), in_turn(EMITTED, ["prefill", "decode"]))
def test_what_the_compiler_emits_is_run_and_equal(name: str, kind: str) -> None:
    layer, head, phase = EMITTED[name]
    model = SMALL.replace("LAYER", layer).replace("HEAD", head)
    plan = compiled(
        phase, kind, model, BLOCKS + "layer sparse { gqa, moe }\n", "sequences = 8, prompt = 8 tok, output = 8 tok"
    )
    for proof in (proving.prove(plan, kind), prove_small(plan, kind)):
        assert proof.verdict == "equal", proof


SLOW = ("450 GB/s, latency = 2 us", "50 GB/s, latency = 6 us")


def slow_links(text: str, node: str, cluster: str) -> str:
    """On slow networks chains of moves are chosen that fast ones never see."""
    found = text.replace(SLOW[0], node).replace(SLOW[1], cluster)
    assert found != text
    return found


def test_rows_of_experts_are_cut_over_an_axis_on_which_tokens_repeat() -> None:
    model = """layers = 4, hidden = 8, vocab = 32, dtype = fp16
attention { kind = gqa, heads = 4, kv_heads = 4, head_dim = 4 }
experts { count = 16, top_k = 2, hidden = 16 }"""
    text = spec_text(
        phase="gpus = 0..31, pp = 2, ep = 4, sp = 2, tp = 2, microbatches = 2",
        model=model,
        workload="sequences = 32, prompt = 16 tok, output = 8 tok",
    )
    plan = dagc.compile_text(slow_links(text, "450 kB/s, latency = 1 ns", "50 kB/s, latency = 3 ns"))
    graph = plan.phases["prefill"].graph
    sparse = graph.segment("sparse")
    kinds = [op.kind for op in sparse.ops if op.name.startswith("moe.t.")]
    assert kinds == ["slice", "all_to_all", "all_gather"], "the width of rows is cut where networks are slow"
    assert proving.prove(plan, "prefill").verdict == prove_small(plan, "prefill").verdict == "equal"

    def cut(op: Op) -> Op:
        """The same chain on the rows themselves: dealt out over tp, whose ranks hold the same tokens."""
        if op.name == "moe.t.slice":
            layout = Sharding(((), ("sp", "ep", "tp"), ()))
            return replace(op, sharding=layout, attrs=SliceAttrs("slot", ("tp",)))
        if op.name == "moe.t.all_to_all":
            return replace(op, sharding=Sharding((("ep", "tp"), ("sp",), ())), axes=("ep", "tp"))
        if op.name == "moe.t.all_gather":
            return replace(op, attrs=MoveAttrs("expert"))
        return op

    segments = tuple(replace(s, ops=tuple(map(cut, s.ops))) if s is sparse else s for s in graph.segments)
    rows = replace(graph, segments=segments)
    verify(rows)
    assert prove_graph(rows, plan.units["prefill"]).verdict == "equal"


def test_argmax_pairs_are_sliced() -> None:
    model = """hidden = 16, vocab = 32, dtype = bf16, stack = [embed, 2 * dense, lm_head]
attention { heads = 8, kv_heads = 4, head_dim = 4 }
mlp { hidden = 16 }"""
    text = spec_text(
        kind="decode",
        phase="gpus = 0..7, sp = 2, tp = 4, draft = 1, acceptance = 0.7",
        model=model,
        workload="sequences = 4, prompt = 8 tok, output = 4 tok",
        extra="layer dense { gqa, mlp }",
    )
    plan = dagc.compile_text(slow_links(text, "450 MB/s, latency = 1 ns", "50 MB/s, latency = 2 ns"))
    head = plan.phases["decode"].graph.segments[-1]
    kinds = {op.name: op.kind for op in head.ops}
    assert any(op.kind == "slice" and kinds[op.inputs[0]] == "argmax" for op in head.ops)
    assert proving.prove(plan, "decode").verdict == prove_small(plan, "decode").verdict == "equal"


POOL = """moe 1
hardware pool {{
  gpus = 64, per_node = 8
  compute = 900 TFLOP/s, mfu = 60%, memory = 100 TB, hbm = 4 TB/s, mbu = 80%
  link node {{ bandwidth = {node}, latency = 2 us }}
  link cluster {{ bandwidth = {cluster}, latency = 6 us }}
}}
model from "{model}" {{}}
workload {{ sequences = 7, prompt = 3072 tok, output = 512 tok }}
phase {kind} {{ {phase} }}
"""


@pytest.mark.parametrize(
    ("moved", "kind", "text"),
    [
        (
            "slice",
            "decode",
            {
                "model": "glm-4.5",
                "node": "450 GB/s",
                "cluster": "50 kB/s",
                "phase": "gpus = 0..15, microbatches = 3, dispatch = allgather, ep = 2, tp = 8",
            },
        ),
        (
            "permute",
            "prefill",
            {
                "model": "qwen3-235b-a22b",
                "node": "450 kB/s",
                "cluster": "50 GB/s",
                "phase": "gpus = 0..15, sequence_parallel = true, attention { dp = 2, tp = 8 }, experts { ep = 4, tp = 4 }",
            },
        ),
    ],
    ids=["choices are cut", "rows that ranks hold in common are sent by any one"],
)
def test_moves_that_slow_links_bring_about(moved: str, kind: str, text: dict[str, str]) -> None:
    plan = dagc.compile_text(POOL.format(kind=kind, **text))
    segment = next(s for s in plan.phases[kind].graph.segments if "slot" in s.sizes)
    dims = {op.dims[-1] if moved == "slice" else op.dims[1] for op in segment.ops if op.kind == moved}
    assert ("choice" if moved == "slice" else "slot") in dims, "the plan no longer has what this test is about"
    assert plan.prove(kind).verdict == "equal"


@pytest.mark.parametrize(("sp", "draft", "attention"), [(4, 2, "mla"), (8, 1, "gqa"), (2, 6, "gqa"), (4, 5, "mla")])
def test_new_tokens_of_a_draft_lie_on_one_rank_of_a_split_context(sp: int, draft: int, attention: str) -> None:
    """As in the plan, where fewer are refused: the last rank takes all of them."""
    sizes = "q_latent = 8, kv_latent = 8, nope_dim = 8, rope_dim = 4, v_dim = 8" if attention == "mla" else ""
    sizes = sizes or "kv_heads = 4, head_dim = 8"
    text = spec_text(
        kind="decode",
        phase=f"gpus = 0..{2 * sp - 1}, sp = {sp}, tp = 2, draft = {draft}, acceptance = 0.7",
        model=f"""layers = 2, hidden = 64, vocab = 512, dtype = bf16
attention {{ kind = {attention}, heads = 8, {sizes} }}
experts {{ count = 8, top_k = 2, hidden = 32 }}""",
        workload="sequences = 4, prompt = 1024 tok, output = 256 tok",
    )
    plan = dagc.compile_text(text)
    proof = plan.prove("decode")
    assert proof.verdict == "equal", proof.why
    sizes_of = twin_of_phase(plan, "decode").placed.segments[1].sizes
    assert sizes_of["seq"] > 1 and sizes_of["context"] % sp == 0 and sizes_of["context"] // sp >= sizes_of["seq"]
