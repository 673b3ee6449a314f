"""Which tokens a rank of a split sequence has, what that means for causal attention, and that zigzag is really run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import compiled, spec_text
from hypothesis import given
from hypothesis import strategies as st
from tiers import all_tests, in_turn

import dagc
from dagc.api import compile_text
from dagc.base.diagnostics import SpecError
from dagc.execute.numpy.ops import visible
from dagc.execute.prove import prove
from dagc.execute.shards import Shards
from dagc.export.json import dumps, graph_object
from dagc.importers.placed import read_plan
from dagc.ir.mesh import Mesh
from dagc.ir.op import Op
from dagc.ir.ops.attention_work import block_pairs, context_shares, query_key_pairs, seen_share
from dagc.ir.ops.attributes.attention import AttendAttrs
from dagc.ir.ops.op_set import rank_share
from dagc.ir.ops.sequence import order, runs
from dagc.ir.segment import Segment
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import print_graph
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError
from dagc.plan.result import PhaseResult


def mesh(ranks: int, inner: int, zigzag: bool) -> Mesh:
    atoms = tuple((name, size) for name, size in (("sp", ranks), ("tp", inner)) if size > 1)
    return Mesh(atoms, {}, {}, zigzag=("sp",) if zigzag and ranks > 1 else ())


def attention(queries: int, before: int, loop: tuple[str, ...], **attrs: int) -> tuple[Segment, Op]:
    op = Op("o", "attend", ("q", "k", "v"), ("seq",), "bf16", attrs=AttendAttrs(**attrs)).annotate("seq", loop)
    sizes = {"seq": float(queries), "context": float(before + queries)}
    return Segment("s", 1, "x", (), "bf16", (op,), "o", (), sizes), op


@given(
    ranks=st.integers(1, 5), inner=st.sampled_from([1, 2, 4]), each=st.integers(1, 4), before=st.integers(0, 9),
    window=st.integers(1, 90), chunk=st.integers(1, 90), zigzag=st.booleans(), split=st.booleans(),
)  # fmt: skip
def test_pairs_of_every_rank_are_those_of_the_mask(
    ranks: int, inner: int, each: int, before: int, window: int, chunk: int, zigzag: bool, split: bool
) -> None:
    """The mask of the positions of a rank, counted; also where another axis cuts the pieces further."""
    where = mesh(ranks, inner, zigzag)
    loop = tuple(a for a, _ in where.atoms if split or a == "sp")
    size = 2 * ranks * inner * each
    segment, op = attention(size, before, loop, window=window, chunk=chunk)
    held = order(size, where).reshape(where.size(loop), -1) + before
    context = np.arange(size + before)
    masks = [visible(own, context, True, window, chunk) for own in held]
    assert block_pairs(segment, op, where).tolist() == [m.sum() for m in masks]
    assert query_key_pairs(segment, op) == sum(m.sum() for m in masks)
    assert seen_share(segment, op, where) >= max(m.any(axis=0).mean() for m in masks) - 1e-12
    found = [np.concatenate([np.arange(a, b) for a, b in block]) for block in runs(size, loop, where)]
    assert all(np.array_equal(np.sort(own) - before, positions) for own, positions in zip(held, found, strict=True))
    share = np.broadcast_to(rank_share(segment, op, where), where.shape)
    assert share.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_the_last_of_n_ranks_has_2n_minus_1_over_n_of_the_mean(ranks: int) -> None:
    segment, op = attention(1024 * ranks, 0, ("sp",))
    share = rank_share(segment, op, mesh(ranks, 1, False))
    assert share.shape == (ranks,) and share.max() == share[-1]
    assert share[-1] == pytest.approx((2 * ranks - 1) / ranks, rel=1e-3)
    assert rank_share(segment, op, mesh(ranks, 1, True)).tolist() == [1.0]


@given(
    ranks=st.integers(1, 6), each=st.integers(1, 12), queries=st.integers(1, 9), window=st.integers(1, 80),
    chunk=st.integers(1, 80),
)  # fmt: skip
def test_a_window_lies_with_the_last_ranks_of_a_split_context(
    ranks: int, each: int, queries: int, window: int, chunk: int
) -> None:
    """Decode: the pairs of the mask whose keys each rank has; without a window all ranks are taken to be equal."""
    where, context = mesh(ranks, 1, False), ranks * each
    queries = min(queries, context)
    segment, op = attention(queries, context - queries, (), window=window, chunk=chunk)
    op = op.annotate("context", tuple(a for a, _ in where.atoms))
    mask = visible(np.arange(context - queries, context), np.arange(context), True, window, chunk)
    shares = context_shares(segment, op, where)
    if min(window, chunk) < context:
        assert shares == pytest.approx(mask.reshape(queries, ranks, each).sum(axis=(0, 2)) / mask.sum())
    else:
        assert shares == pytest.approx(np.full(ranks, 1 / ranks))


def test_a_window_is_read_by_one_rank_of_a_split_context() -> None:
    """A window of 1024 of 32768 tokens over eight ranks: one rank has all of it, so splitting saves nothing."""
    model = "layers = 2, hidden = 1024, vocab = 512, dtype = bf16\nattention { heads = 8, kv_heads = 8, head_dim = 128, window = 1024 }\nmlp { hidden = 1024 }"
    work = "sequences = 256, prompt = 16384 tok, output = 16384 tok"
    # Measured kernels: the residual of a fit also sees the length of the context, by some percent.
    for hardware, tolerance in (("", 0.05), ("h100-sxm", 0.15)):
        times = []
        for sp in (1, 8):
            text = spec_text(kind="decode", phase=f"gpus = 0..{sp - 1}, sp = {sp}", model=model, workload=work)
            if hardware:
                start = text.index("hardware")
                text = text[:start] + f'hardware from "{hardware}" {{ gpus = 64 }}\n' + text[text.index("model") :]
            times.append(float(dagc.compile_text(text).phases["decode"].costs.ops["dense", "gqa.o"].time_s.max()))
        assert times[1] == pytest.approx(times[0], rel=tolerance)


# -- priced --------------------------------------------------------------------------------------

LONG = "sequences = 1, prompt = 131072 tok"


def prefill(phase: str, hardware: str = "") -> PhaseResult:
    text = spec_text(phase=phase, workload=LONG)
    if hardware:
        start = text.index("hardware")
        text = text[:start] + f'hardware from "{hardware}" {{ gpus = 64 }}\n' + text[text.index("model") :]
    return dagc.compile_text(text).phases["prefill"]


@pytest.mark.parametrize("hardware", ["", "h100-sxm"])
@pytest.mark.parametrize("method", ["allgather", "ring"])
def test_attention_is_timed_on_the_slowest_rank(method: str, hardware: str) -> None:
    """In order, four ranks take 7/4 of the mean, which is what each takes in zigzag."""
    whole, plain, even = (prefill(f"gpus = 0..3, {p}, sp_method = {method}", hardware) for p in ("tp = 4", "sp = 4", "sp = 4, sp_layout = zigzag"))  # fmt: skip
    one, first, second = (r.costs.ops["sparse", "gqa.o"].time_s for r in (whole, plain, even))
    assert first.shape != second.shape and second.size == 1  # zigzag is the same on all ranks: nothing gets longer
    assert float(first.max() / first.mean()) == pytest.approx(7 / 4, rel=0.02)
    assert float(first.mean()) == pytest.approx(float(second.max()), rel=0.02)
    assert float(one.max()) == pytest.approx(float(second.max()), rel=0.1)
    assert plain.time_s > 1.5 * even.time_s
    assert plain.costs.ops["sparse", "gqa.o"].flops == even.costs.ops["sparse", "gqa.o"].flops


def test_the_report_says_how_uneven_attention_is() -> None:
    text = spec_text(phase="gpus = 0..3, sp = 4, sp_layout = contiguous", workload=LONG)
    plain, even = (compile_text(t) for t in (text, text.replace("contiguous", "zigzag")))
    for shown in (plain.report(), plain.markdown(), plain.html()):
        assert "1.75 times the mean" in " ".join(shown.split())
    assert "zigzag evens it" in plain.report() and "times the mean" not in even.report()
    none = compile_text(text.replace("contiguous", "zigzag, sp_method = ulysses"))
    assert "times the mean" not in none.report()
    assert [d.code for d in none.diagnostics if "changes nothing" in d.message] == ["W06"]


def test_exchanged_heads_are_even() -> None:
    for layout in ("contiguous", "zigzag"):
        result = prefill(f"gpus = 0..3, sp = 4, sp_method = ulysses, sp_layout = {layout}")
        assert all(cost.time_s.size == 1 for cost in result.costs.ops.values())


def test_symmetric_plans_stay_collapsed() -> None:
    for name in ("plan_b", "deepseek_v3_h800") if all_tests() else ("deepseek_v3_h800",):
        for result in compiled(name).phases.values():
            if result.graph.the_mesh.degrees.get("sp", 1) == 1:
                attends = [c for (_, op), c in result.costs.ops.items() if op.endswith(".o")]
                assert attends and all(c.time_s.size == 1 for c in attends)


# -- run -----------------------------------------------------------------------------------------

ZIGZAG = "gpus = 0..3, sp = 2, tp = 2, sp_layout = zigzag"


WINDOW = """layers = 2, hidden = 64, vocab = 512, dtype = fp32
attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8, window = 7 }
experts { count = 8, top_k = 2, hidden = 32 }"""


@pytest.mark.parametrize(
    ("case", "method"),
    in_turn([
        ("gpus = 0..7, sp = 4, tp = 2", ""),
        ("gpus = 0..7, sp = 2, tp = 2, ep = 2, sequence_parallel = true", WINDOW),
        ("gpus = 0..15, pp = 2, sp = 2, tp = 2, dp = 2, microbatches = 2, overlap = two_batch", WINDOW),
        ("gpus = 0..7\nattention { sp = 2, tp = 2, dp = 2 }\nexperts { ep = 8 }", ""),
    ], ["allgather", "ring", "ulysses"]),
)  # fmt: skip
def test_zigzag_computes_what_the_model_does(case: tuple[str, str], method: str) -> None:
    phase, model = case
    first, *rest = phase.split("\n", 1)
    if method == "ulysses" and "sp = 4" in phase:
        first = first.replace("tp = 2", "dp = 2")
    text = spec_text(
        phase="\n".join((f"{first}, sp_layout = zigzag, sp_method = {method}", *rest)),
        workload="sequences = 8, prompt = 32 tok",
        model=model,
    )
    plan = compile_text(text)
    assert plan.phases["prefill"].graph.the_mesh.zigzag
    found = prove(plan, "prefill")
    assert found.holds, found


def test_a_layout_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """Zigzag over an axis that is not there or into pieces that do not divide; a plan that says another layout."""
    plan = compile_text(spec_text(phase=ZIGZAG))
    text = print_graph(plan.phases["prefill"].graph)
    with pytest.raises(VerifyError, match="not an axis of the mesh"):
        verify(parse_graph(text.replace("zigzag [sp]", "zigzag [dq]")))
    with pytest.raises(VerifyError, match="pieces of zigzag"):
        verify(parse_graph(text.replace("seq=256", "seq=258").replace("context=256", "context=258")))
    data = graph_object(plan, "prefill")
    data["ir"] = [line.replace(" zigzag [sp]", "") for line in data["ir"]]
    file = tmp_path / "graph.json"
    file.write_bytes(dumps(data))
    with pytest.raises(SpecError) as found:
        read_plan(file)
    assert "sp_layout" in str(found.value.diagnostics[0].because)


def test_the_proof_deals_the_tokens_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds; it does not when the mask and the rotation take the tokens for contiguous ones."""
    plan = compile_text(spec_text(phase=ZIGZAG, workload="sequences = 2, prompt = 16 tok"))
    assert prove(plan, "prefill").holds
    plain = Shards.positions

    def in_order(self: Shards, segment: Segment, axes: tuple[str, ...], rank: dict[str, int], dim: str) -> object:
        size = int(segment.sizes[dim])
        return np.arange(size)[self.part(size, axes, rank)]

    monkeypatch.setattr(Shards, "positions", in_order)
    assert not prove(plan, "prefill").holds
    monkeypatch.setattr(Shards, "positions", plain)
    assert prove(plan, "prefill").holds


def test_what_does_not_divide_names_the_nearest_that_do() -> None:
    with pytest.raises(SpecError) as found:
        compile_text(spec_text(phase="gpus = 0..3, sp = 4, sp_layout = zigzag", workload="sequences = 2, prompt = 1003 tok"))  # fmt: skip
    (item,) = found.value.diagnostics
    assert item.code == "E03" and "1000 or 1008" in " ".join(item.help)
    with pytest.raises(SpecError, match="belongs to a prefill phase"):
        compile_text(spec_text(kind="decode", phase="gpus = 0..3, sp = 4, sp_layout = zigzag"))
