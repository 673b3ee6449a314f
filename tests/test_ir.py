"""The IR: every level prints and reads back equal, golden text, verification that really catches errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import compiled, examples, few_examples, spec_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.source import Source
from dagc.ir.graph import Graph
from dagc.ir.mesh import GpuMap
from dagc.ir.op import Op
from dagc.ir.ops.attributes.attention import AttendAttrs
from dagc.ir.ops.attributes.moves import MoveAttrs
from dagc.ir.segment import Segment
from dagc.ir.sharding import Sharding
from dagc.ir.text.read import parse_graph
from dagc.ir.text.scan import TextError
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import VerifyError, verify
from dagc.lang.load import load
from dagc.lang.printer.print_spec import print_spec
from dagc.pipeline.lower import lower
from dagc.spec.unit import Unit

GOLDEN = Path(__file__).parent / "golden"


@few_examples
def test_the_spec_reads_back_equal(example: Plan) -> None:
    again = load(Source("printed", print_spec(example.spec)), Collector())
    for field in ("hardware", "model", "workload", "phases", "requirements", "constants"):
        expected = getattr(example.spec, field)
        if field == "phases":  # the ids that compile found are no words of the spec
            expected = tuple(replace(p, strategy=replace(p.strategy, ids=())) for p in expected)
        assert getattr(again, field) == expected


@pytest.mark.parametrize("after", ["expand", "place"])
def test_golden_ir(after: str, pytestconfig: pytest.Config) -> None:
    """One layer of grouped-query attention and experts. `pytest --update-golden` writes the texts anew."""
    text = spec_text(phase="gpus = 0..15, pp = 2, ep = 2, sp = 2, tp = 2")
    spec = load(Source("x", text), Collector())
    found = next(print_graph(g) for name, g in lower(Unit(spec, spec.phases[0])) if name == after)
    target = GOLDEN / f"{after}.ir"
    if pytestconfig.getoption("--update-golden"):
        target.write_text(found)
    assert found == target.read_text()


def test_the_text_says_where_ranks_are() -> None:
    """GPU ids in rank order and GPUs per node, before stages are placed and after."""
    text = spec_text(phase="gpus = 8..15, pp = 2, ep = 2, tp = 2, order = [tp, pp, dp, ep, sp]")
    spec = load(Source("x", text.replace("per_node = 8", "per_node = 4")), Collector())
    graphs = dict(lower(Unit(spec, spec.phases[0])))
    line = print_graph(graphs["reshard"]).splitlines()[1]
    assert line.endswith(" per_node=4 gpus 8..9, 12..13, 10..11, 14..15")
    assert print_graph(graphs["place"]).splitlines()[1].endswith(" stages=2 per_node=4")
    for graph in graphs.values():
        assert parse_graph(print_graph(graph)) == graph
    with pytest.raises(TextError, match="per_node, but no GPU ids"):
        parse_graph(print_graph(graphs["reshard"]).replace(" gpus 8..9, 12..13, 10..11, 14..15", ""))
    wrong = replace(graphs["tp"].the_mesh, gpus=GpuMap((8, 12, 9, 13, 10, 14, 11, 11), 4))
    with pytest.raises(VerifyError, match="a GPU has two ranks"):
        verify(replace(graphs["tp"], mesh=wrong))
    moved = replace(graphs["place"].the_mesh, gpus=GpuMap(tuple(range(8)), 4))
    with pytest.raises(VerifyError, match="other GPUs than the mesh"):
        verify(replace(graphs["place"], mesh=moved))


def test_text_errors_name_the_line() -> None:
    text = print_graph(compiled("plan_a").phases["decode"].graph)
    with pytest.raises(TextError, match="line 2"):
        parse_graph(text.replace("mesh [", "mash [", 1))
    with pytest.raises(TextError):
        parse_graph("")


WRONG = {
    "an attribute that is not one": ("top_k=2", "top_k=2, top_q=3", "route has no attribute top_q"),
    "an attribute twice": ("top_k=2", "top_k=2, top_k=2", "top_k is given twice"),
    "an attribute that is missing": ("top_k=2", "score=sigmoid", "route needs attribute top_k"),
    "a flag that is a number": ("top_k=2", "top_k=2, normalize=3", "normalize = 3 is not true or false"),
    "an unknown word": ("top_k=2", "top_k=2, score=softmx", "is not one of softmax"),
    "a count that is no whole number": ("top_k=2", "top_k=2.5", "top_k = 2.5 is not a whole number"),
    "a factor of an op that takes none": ("top_k=2", "factor=2.0, top_k=2", "route has no attribute factor"),
    "an infinite number": ("top_k=2", "top_k=2, scale=inf", "scale = inf is not a number"),
    "a dtype of a result": ("]\n  %gqa.k", "] int46\n  %gqa.k", "unknown dtype int46"),
    "a dtype of a weight": ("]\n  @moe", "] fp33\n  @moe", "unknown dtype fp33"),
    "a scope": ("] experts", "] fp32 expert", "unknown scope expert"),
}


@pytest.mark.parametrize("name", WRONG)
def test_attributes_and_dtypes_are_checked(name: str) -> None:
    good, bad, message = WRONG[name]
    text = print_graph(placed())
    assert good in text
    broken = text.replace(good, bad, 1)
    line = 1 + broken[: broken.index(bad)].count("\n")
    while broken.splitlines()[line - 1].startswith("    "):  # it continues the one before
        line -= 1
    with pytest.raises(TextError, match=f"^line {line}: .*{message}"):
        parse_graph(broken)


def test_the_verifier_knows_attributes_and_dtypes() -> None:
    graph = placed()
    segment = graph.segments[1]
    op = next(op for op in segment.ops if op.kind == "attend")
    for wrong, message in (
        (replace(op, attrs=MoveAttrs()), "attributes: found MoveAttrs, wanted AttendAttrs"),
        (replace(op, attrs=AttendAttrs(scale=-1.0)), "scale = -1.0 is not a number above 0"),
        (replace(op, attrs=AttendAttrs(window=2.5)), "window = 2.5 is not a whole number"),  # type: ignore[arg-type]
        (replace(op, dtype="int46"), "unknown dtype int46"),
    ):
        with pytest.raises(VerifyError, match=message):
            verify(with_op(graph, segment, wrong))


def with_op(graph: Graph, segment: Segment, op: Op) -> Graph:
    ops = tuple(op if o.name == op.name else o for o in segment.ops)
    segments = tuple(replace(s, ops=ops) if s is segment else s for s in graph.segments)
    return replace(graph, segments=segments)


def placed(phase: str = "gpus = 0..15, ep = 4, sp = 2, tp = 2") -> Graph:
    return dagc.compile_text(spec_text(phase=phase)).phases["prefill"].graph


def mutants() -> list[tuple[str, Graph]]:
    """A graph with one thing broken each."""
    graph = placed()
    index = next(i for i, s in enumerate(graph.segments) if s.name == "sparse")
    segment = graph.segments[index]
    out = []

    def with_ops(name: str, ops: list) -> None:  # type: ignore[type-arg]
        segments = list(graph.segments)
        segments[index] = replace(segment, ops=tuple(ops))
        out.append((name, replace(graph, segments=tuple(segments))))

    for i, op in enumerate(segment.ops):
        if not op.is_collective:
            continue
        rest = [
            replace(o, inputs=tuple(op.inputs[0] if n == op.name else n for n in o.inputs))
            for o in segment.ops
            if o is not op
        ]
        with_ops(f"without {op.name}", rest)
        other = next(a for a, _ in graph.the_mesh.atoms if a not in op.axes)
        changed = list(segment.ops)
        changed[i] = replace(op, axes=(other,))
        with_ops(f"{op.name} over {other}", changed)
    swapped = list(segment.ops)
    swapped[0], swapped[1] = swapped[1], swapped[0]
    with_ops("use before definition", swapped)
    elsewhere = replace(graph.segment("sparse"), entry=Sharding(((), (), ())))
    moved = tuple(elsewhere if s.name == "sparse" else s for s in graph.segments)
    out.append(("another entry layout", replace(graph, segments=moved)))
    two = placed("gpus = 0..15, pp = 2, ep = 4, tp = 2")
    out.append(("a lost send", replace(two, sends=())))
    out.append(("a lost layer", replace(graph, stages=(replace(graph.stages[0], layers=graph.stages[0].layers[:-1]),))))
    return out


@pytest.mark.parametrize(("name", "graph"), mutants(), ids=lambda v: v if isinstance(v, str) else "")
def test_the_verifier_catches(name: str, graph: Graph) -> None:
    with pytest.raises(VerifyError):
        verify(graph)


DIVISORS = st.sampled_from([1, 2, 4])


@st.composite
def plans(draw: st.DrawFn) -> str:
    """A random small model under a random strategy; not all are legal."""
    pp, dp, ep, sp, tp = (draw(DIVISORS) for _ in range(5))
    kind = draw(st.sampled_from(["prefill", "decode"]))
    heads = draw(st.sampled_from([4, 8]))
    kv = draw(st.sampled_from([1, 2, 4]))
    micro = draw(st.sampled_from([1, 2, 4]))
    attention = draw(
        st.sampled_from(
            [
                f"attention {{ kind = gqa, heads = {heads}, kv_heads = {kv}, head_dim = 8 }}",
                f"attention {{ kind = mla, heads = {heads}, q_latent = 24, kv_latent = 16, nope_dim = 8, rope_dim = 4, v_dim = 8 }}",
            ]
        )
    )
    shared = draw(st.sampled_from([0, 1, 2]))
    model = (
        f"layers = 4, dense_first = {draw(st.sampled_from([0, 1]))}, hidden = 32, vocab = 64, dtype = fp32\n{attention}\n"
        f"mlp {{ hidden = 64 }}\nexperts {{ count = 8, top_k = {draw(st.sampled_from([1, 2, 8]))}, hidden = 16, shared = {shared} }}"
    )
    routing = draw(st.sampled_from(["uniform", "zipf(0.8)"]))
    options = (
        f"microbatches = {micro}, sp_method = {draw(st.sampled_from(['allgather', 'ring', 'ulysses']))}, "
        f"sequence_parallel = {draw(st.sampled_from(['true', 'false']))}, overlap = {draw(st.sampled_from(['none', 'two_batch']))}, "
        f"redundant = {draw(st.sampled_from([0, 0, 4, 8]))}"
    )
    if draw(st.booleans()):
        stage = dp * sp * tp
        etp = draw(DIVISORS)
        phase = f"gpus = 0..{pp * stage - 1}, pp = {pp}, {options}\nattention {{ dp = {dp}, sp = {sp}, tp = {tp} }}\nexperts {{ ep = {ep}, tp = {etp} }}"
    else:
        phase = (
            f"gpus = 0..{pp * dp * ep * sp * tp - 1}, pp = {pp}, dp = {dp}, ep = {ep}, sp = {sp}, tp = {tp}, {options}"
        )
    work = f"sequences = 128, prompt = 64 tok, output = 64 tok, routing = {routing}"
    return spec_text(gpus=2048, kind=kind, phase=phase, model=model, workload=work)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans())
def test_any_plan_compiles_or_is_refused(text: str) -> None:
    """A legal plan passes the verifier after every pass (it runs inside); an illegal one gets a diagnostic."""
    try:
        plan = dagc.compile_text(text)
    except SpecError as error:
        assert all(d.code.startswith(("E", "W")) for d in error.diagnostics)
        return
    (result,) = plan.phases.values()
    graph = result.graph
    for segment in graph.segments:
        for op in segment.ops:
            if op.is_collective:
                assert graph.the_mesh.size(op.axes) > 1
    assert parse_graph(print_graph(graph)) == graph
    assert result.time_s > 0 and result.floor.period_s <= result.time_s * (1 + 1e-9)


def test_kinds_of_layers_may_alternate() -> None:
    """A layer that occurs in several places is one segment; order, stages and proof follow the stack."""
    import dagc
    from dagc.execute.prove import prove

    model = (
        "hidden = 64, vocab = 512, dtype = bf16, stack = [embed, dense, sparse, dense, sparse, lm_head]\n"
        "attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\n"
        "mlp { hidden = 128 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
    )
    text = spec_text(
        model=model,
        phase="gpus = 0..7, ep = 2, tp = 2, pp = 2",
        workload="sequences = 8, prompt = 16 tok, output = 1 tok",
    )
    plan = dagc.compile_text(text)
    graph = plan.phases["prefill"].graph
    assert [s.layers for s in graph.stages] == [
        (("embed", 1), ("dense", 1), ("sparse", 1)),
        (("dense", 1), ("sparse", 1), ("lm_head", 1)),
    ]
    assert {s.name: s.repeat for s in graph.segments} == {"embed": 1, "dense": 2, "sparse": 2, "lm_head": 1}
    assert prove(plan, "prefill").holds


@pytest.mark.parametrize(
    "old, new",
    [
        ("attend(%gqa.o_q, %gqa.o_k_2, %gqa.o_v", "attend(%gqa.o_q, %gqa.o_k_2, %gqa.o_v, pairs=2"),
        ("attend(%gqa.o_q, %gqa.o_k_2, %gqa.o_v", "attend(%gqa.o_q, %gqa.o_k_2, %gqa.o_v, chunk=-1"),
        ("choice] int64", "choice] bf16"),
        ("@gqa.Wq : [hidden, kv_heads/tp, group, head_dim]", "@gqa.Wq : [hidden, kv_heads/tp, group, head_dim] int64"),
        ("batch=8,", "batch=0,"),
        ("context=72,", "context=-72,"),
    ],
)  # fmt: skip
def test_text_of_what_cannot_be(old: str, new: str) -> None:
    """Operands that are not there, choices and weights of the wrong kind of number, sizes below one."""
    model = 'hardware from "h100-sxm" { gpus = 8 }\nmodel from "mixtral-8x7b" { }\n'
    plan = dagc.compile_text(
        f"moe 1\n{model}workload {{ sequences = 8, prompt = 64 tok, output = 8 tok }}\nphase decode {{ gpus = 0..7, tp = 8 }}"
    )
    text = print_graph(plan.phases["decode"].graph)
    verify(parse_graph(text))
    assert old in text
    with pytest.raises((VerifyError, TextError)):
        verify(parse_graph(text.replace(old, new, 1)))


OLDER_MERGE = """graph decode decode sharded microbatches=1 lanes=1
mesh stages=1 atoms [sp=2] axes [sp=2:sp] degrees [pp=1]
stage 0 { layer x 1 }
segment layer x 1 (%x: =[batch, seq, heads, dim] fp32) {
  sizes [batch=2, seq=1, context=4, heads=2, dim=4]
  %k = cache(%x) : =[batch, context/sp, heads, dim] fp32 dense in a loops {context/sp}
  %o = attend(%x, %k, %k) : =[batch, seq, heads, dim] partial(softmax sp) fp32 dense in a loops {context/sp}
  %m = all_reduce(%o) over sp : =[batch, seq, heads] fp32 dense in a attrs {of="row_max", reduce="max"}
  %s = all_reduce(%o, %m) over sp : =[batch, seq, heads] fp32 dense in a attrs {of="row_sum", reduce="sum"}
  %y = all_reduce(%o, %s) over sp : =[batch, seq, heads, dim] fp32 dense in a attrs {reduce="softmax"}
  return %y
}
"""


def test_older_text_of_a_merge_is_read_with_all_results() -> None:
    """Files say one result per op where they are older than further results."""
    graph = parse_graph(OLDER_MERGE)
    verify(graph)
    ops = graph.segments[0].by_name
    assert [v.name for v in ops["o"].results] == ["o", "o.max", "o.sum"]
    assert (ops["m"].inputs, ops["s"].inputs, ops["y"].inputs) == (
        ("o.max",),
        ("o.sum", "o.max", "m"),
        ("o", "s.share"),
    )
    assert parse_graph(print_graph(graph)) == graph


@pytest.mark.parametrize("of", ["attend", "softmax_merge", "argmax"])
def test_a_result_that_an_op_does_not_have_is_a_fault(of: str) -> None:
    text = spec_text(kind="decode", phase="gpus = 0..3, sp = 2, tp = 2")
    graph = dagc.compile_text(text).phases["decode"].graph
    verify(graph)
    segment, op = next((s, o) for s in graph.segments for o in s.ops if o.kind == of and o.more)
    last = op.more[-1]
    for more in (op.more[:-1], (*op.more, replace(last, name="other")), (*op.more[:-1], replace(last, dtype="bf16"))):
        ops = tuple(replace(o, more=more) if o is op else o for o in segment.ops)
        segments = tuple(replace(s, ops=ops) if s is segment else s for s in graph.segments)
        with pytest.raises(VerifyError):
            verify(replace(graph, segments=segments))
