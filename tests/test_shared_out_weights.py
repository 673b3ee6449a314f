"""ZeRO 3: weights that ranks share out, gathered for each use. What is moved, held and waited for, by closed forms; and proofs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from conftest import spec_text
from tiers import left_out, spread
from training_steps import Step, differences, library_text, sharded_run, small_step, step_of, whole_run

import dagc
from dagc.base.diagnostics import SpecError
from dagc.cost.training.cell_costs import CellCost
from dagc.cost.training.layers_in_turn import in_turn, stage_cost
from dagc.execute.failure import ExecutionError
from dagc.execute.prove_training import prove_training
from dagc.execute.training import TrainingMachine
from dagc.ir.graph import Graph
from dagc.ir.op import FORWARD, UPDATE, Op
from dagc.ir.ops.attributes.training import FetchAttrs
from dagc.ir.segment import Segment
from dagc.ir.verify.verify import verify
from dagc.ir.verify.violation import VerifyError
from dagc.pipeline.train import training_step
from dagc.plan.step_totals import step_collectives
from dagc.plan.trained import TrainingResult
from dagc.view.draw.figures.training_memory import keys
from dagc.view.facts.training_words import update_text

LLAMA, PARAMETERS = "llama-3.1-8b", 8_030_261_248
"""Its parameters are counted in https://huggingface.co/meta-llama/Llama-3.1-8B."""
TABLE = 128_256 * 4096
"""Those of its embedding, whose gradient reads none."""


@cache
def trained(model: str, phase: str, tokens: int = 256) -> TrainingResult:
    text = library_text(model, "train", phase).replace("prompt = 256 tok", f"prompt = {tokens} tok")
    return training_step(step_of(text).unit)


def wire_B(result: TrainingResult, *kinds: str, cell: str = "") -> float:
    """On the wire of a rank in a step."""
    found = (one for one in step_collectives(result, 0) if one.cell == cell or not cell)
    return sum(one.total.wire_B for one in found if one.total.kind in kinds)


def test_a_table_is_not_gathered_for_its_gradient() -> None:
    """The rows that an id reads are all that its gradient is of: one gather of the table a micro-batch, ahead."""
    first = trained(LLAMA, "gpus = 0..7, dp = 8, zero = 3, microbatches = 2").graph.embedding
    gathers = [op for op in first.ops if op.is_collective and op.kind == "all_gather"]
    assert [op.cell for op in gathers] == [""]
    (grad,) = [op for op in first.ops if op.kind == "lookup_grad"]
    assert len(grad.inputs) == 2


# -- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "d", "batches"),
    [
        left_out(("dp = 4", 4, 1)),
        ("dp = 4, microbatches = 4", 4, 4),
        ("dp = 2, sp = 2, sp_method = ring", 4, 1),
        ("dp = 16", 16, 1),
    ],
)
@pytest.mark.parametrize("recompute", ["", ", recompute = full"])
def test_each_micro_batch_gathers_weights_twice_and_scatters_gradients_once(
    layout: str, d: int, batches: int, recompute: str
) -> None:
    """Whatever is done anew: the backward pass has gathered for that."""
    result = trained(LLAMA, f"gpus = 0..{d - 1}, {layout}, zero = 3{recompute}")
    once = 2 * PARAMETERS * (d - 1) / d
    assert wire_B(result, "all_gather") == pytest.approx(batches * once * (2 - TABLE / PARAMETERS), rel=1e-12)
    assert wire_B(result, "reduce_scatter", cell="weight") == pytest.approx(batches * once, rel=1e-12)
    assert wire_B(result, "all_reduce") == 0


def test_one_micro_batch_moves_half_as_much_again_as_with_whole_weights() -> None:
    """arXiv 1910.02054, section 7: 3 times the parameters against 2 times; of the embedding's 2 times."""
    two, three = (trained(LLAMA, f"gpus = 0..7, dp = 8, gradient_dtype = bf16, zero = {stage}") for stage in (2, 3))
    moves = ("all_gather", "reduce_scatter", "all_reduce")
    assert wire_B(three, *moves) / wire_B(two, *moves) == pytest.approx(1.5 - TABLE / (2 * PARAMETERS), rel=1e-12)
    assert wire_B(two, *moves) == pytest.approx(2 * 2 * PARAMETERS * 7 / 8, rel=1e-12)


def test_what_is_kept_is_gathered_once_and_takes_all_layers() -> None:
    """Then one micro-batch moves what it does with whole weights."""
    phase = "gpus = 0..7, dp = 8, gradient_dtype = bf16, zero = 3"
    anew, kept = trained(LLAMA, phase), trained(LLAMA, f"{phase}, reshard_after_forward = false")
    once = 2 * PARAMETERS * 7 / 8
    assert wire_B(kept, "all_gather") == pytest.approx(once, rel=1e-12)
    assert wire_B(kept, "reduce_scatter") == wire_B(anew, "reduce_scatter") == pytest.approx(once, rel=1e-12)
    assert kept.worst.gathered_B == pytest.approx(2 * PARAMETERS)
    held = kept.worst.peak_B - kept.worst.gathered_B
    assert held == pytest.approx(anew.worst.peak_B - anew.worst.gathered_B)
    assert kept.time_s < anew.time_s
    again = trained(LLAMA, f"{phase}, reshard_after_forward = false, recompute = full")
    assert wire_B(again, "all_gather") == pytest.approx(once, rel=1e-12)
    piped = trained(LLAMA, "gpus = 0..3, pp = 2, dp = 2, microbatches = 4, zero = 3, reshard_after_forward = false")
    assert [need.gathered_B for need in piped.memory] == pytest.approx([need.weights_B * 2 for need in piped.memory])


def test_a_token_uses_as_many_parameters() -> None:
    text = library_text("mixtral-8x7b", "train", "gpus = 0..7, dp = 4, ep = 2, zero = %d")
    two, three = (dagc.compile_text(text % stage).params for stage in (2, 3))
    assert two == three and two[1] < 0.3 * two[0]


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "dtype", "size"),
    spread([(4, "fp32", 4), (4, "bf16", 2), (8, "fp32", 4), (8, "bf16", 2)], {(4, "fp32", 4), (8, "bf16", 2)}),
)
def test_a_gpu_holds_its_part_and_the_weights_of_one_layer(dtype: str, size: int, d: int) -> None:
    """2 bytes of weights, those of gradients and 12 of AdamW for each parameter, all over d; and what is gathered."""
    phase = f"gpus = 0..{d - 1}, dp = {d}, gradient_dtype = {dtype}, zero = "
    result, before = trained(LLAMA, phase + "3"), trained(LLAMA, phase + "2")
    held = result.worst
    assert held.weights_B == pytest.approx(2 * PARAMETERS / d)
    assert held.gradients_B == pytest.approx(size * PARAMETERS / d)
    assert held.optimizer_B == pytest.approx(12 * PARAMETERS / d)
    assert held.gathered_B == pytest.approx(2 * (128_256 * 4096 + 4096))  # the head with its norm, the largest
    assert before.worst.weights_B == pytest.approx(2 * PARAMETERS) and before.worst.gathered_B == 0
    for part in ("activations_B", "working_B", "gradients_B", "optimizer_B"):
        assert getattr(held, part) == pytest.approx(getattr(before.worst, part)), part


def test_two_layers_are_gathered_where_one_is_ahead() -> None:
    layer = 2 * (4096 * (4096 * 2 + 1024 * 2) + 3 * 4096 * 14336 + 2 * 4096)
    head = 2 * (128_256 * 4096 + 4096)
    result = trained(LLAMA, "gpus = 0..7, dp = 8, zero = 3, grad_overlap = full")
    assert result.worst.gathered_B == pytest.approx(layer + head)
    middle = trained(LLAMA, "gpus = 0..7, pp = 4, dp = 2, microbatches = 4, zero = 3, grad_overlap = full")
    assert [need.gathered_B for need in middle.memory[1:3]] == pytest.approx([2 * layer, 2 * layer])


def test_cells_that_run_at_once_have_copies_of_their_own() -> None:
    phase = "gpus = 0..7, pp = 2, dp = 4, microbatches = 8, zero = 3, schedule = "
    one, two = (trained(LLAMA, phase + schedule) for schedule in ("zb_v", "dualpipe_v"))
    assert [need.gathered_B for need in two.memory] == [2 * need.gathered_B for need in one.memory]
    assert "of one layer of each cell at a time" in update_text(two)
    kept = trained(LLAMA, f"{phase}dualpipe_v, reshard_after_forward = false")
    assert [need.gathered_B for need in kept.memory] == pytest.approx([4 * need.weights_B for need in kept.memory])


def test_what_is_gathered_is_said_and_drawn() -> None:
    two, three, kept = (
        trained(LLAMA, f"gpus = 0..7, dp = 8, {words}")
        for words in ("zero = 2", "zero = 3", "zero = 3, reshard_after_forward = false")
    )
    assert [("p5", "gathered weights") in keys(result) for result in (two, three, kept)] == [False, True, True]
    assert "weights gathered for use, of one layer at a time (1.05 GB at most)" in update_text(three)
    assert "and kept until their gradients are there (16.1 GB at most)" in update_text(kept)
    assert "gathered" not in update_text(two)


def test_experts_are_shared_out_over_their_copies() -> None:
    """With eight experts over four ranks, pairs of the eight have the same; and so they do where those are ranks of tp."""
    for attention in ("dp = 8", "dp = 2, tp = 4", "tp = 8"):
        phase = f"gpus = 0..7, zero = %d\nattention {{ {attention} }}\nexperts {{ ep = 4 }}\n"
        for stage, sharers in ((2, 1), (3, 2)):
            graph = trained("mixtral-8x7b", phase % stage).graph
            (sparse,) = graph.body
            for name in ("@moe.Wg", "@moe.Wu", "@moe.Wd"):
                layout = sparse.weight[name].sharding
                assert layout is not None
                assert graph.the_mesh.size(tuple(a for axes in layout.dims for a in axes)) == 4 * sharers, (
                    attention,
                    name,
                )


def test_where_no_rank_has_the_same_nothing_is_gathered() -> None:
    for phase in ("gpus = [0]", "gpus = 0..1, tp = 2"):
        two, three = (trained(LLAMA, f"{phase}, zero = {stage}") for stage in (2, 3))
        assert three.time_s == two.time_s and three.worst == two.worst
        assert not any(segment.copies for segment in three.graph.segments)
        assert "no two ranks have the same weights" in update_text(three) and "no two ranks" not in update_text(two)


# -- time ------------------------------------------------------------------------------------------


def cell(own_s: float, gather_s: float = 0.0, scatter_s: float = 0.0, shared_s: float = 0.0) -> CellCost:
    return CellCost(
        gather_s + own_s + scatter_s, gather_s + scatter_s, gather_s + scatter_s, own_s, own_s, gather_s, scatter_s,
        shared_s,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("c", "g", "r"), [(4.0, 1.0, 2.0), (2.0, 3.0, 0.0), (2.0, 3.0, 1.0), (5.0, 2.0, 4.0), (1.0, 0.0, 3.0)]
)
@pytest.mark.parametrize("n", [2, 3, 40])
def test_equal_layers_wait_where_they_compute_too_little(c: float, g: float, r: float, n: int) -> None:
    """The first gather and the last reduction have nothing to run under; between them a layer takes what is longer."""
    found = stage_cost([cell(c, g, r)] * n, overlap=True)
    assert found.time_s == pytest.approx(g + max(c, g) + (n - 2) * max(c, g + r) + max(c, r) + r)
    assert found.exposed_s == pytest.approx(found.time_s - n * c)
    alone = stage_cost([cell(c, g)] * n, overlap=False)
    assert (alone.time_s, alone.exposed_s) == (pytest.approx(n * (g + c)), pytest.approx(n * g))


@pytest.mark.parametrize(("c", "g", "m"), [(4.0, 1.0, 2.0), (4.0, 3.0, 2.0), (2.0, 3.0, 2.0), (3.0, 2.0, 0.0)])
def test_links_are_shared_with_the_layers_own_collectives(c: float, g: float, m: float) -> None:
    """One after the other they take as long as both; what is left of it hides."""
    for n in (2, 40):
        found = stage_cost([cell(c, g, shared_s=m)] * n, overlap=True)
        assert found.time_s == pytest.approx(g + (n - 1) * max(c, g + m) + c)


def test_only_collectives_on_the_same_links_hold_gathers_up() -> None:
    """Within a node those of tp, whose links gathers from other nodes do not wait for."""
    for gpus, layout in ((16, "dp = 2, tp = 8"), (8, "dp = 2, tp = 4")):
        result = trained(
            LLAMA, f"gpus = 0..{gpus - 1}, {layout}, zero = 3, grad_overlap = full, sequence_parallel = true"
        )
        (dense,) = result.graph.body
        cost = result.cells[dense.name, "forward"]
        own = [op for op in dense.ops if op.is_collective and op.cell == FORWARD and op.name not in dense.copies]
        moved_s = sum(float(result.costs.ops[dense.name, op.name].time_s.max()) for op in own)
        assert moved_s > 0 and cost.shared_s == pytest.approx(moved_s if gpus == 8 else 0.0)
        assert cost.time_s == pytest.approx(max(cost.own_s, cost.gather_s + cost.shared_s))


def test_weights_of_two_layers_are_there_at_most() -> None:
    draw = np.random.default_rng(4)
    for _ in range(50):
        each = [draw.uniform(0.0, 3.0, 4) for _ in range(draw.integers(1, 9))]
        cells = [cell(*map(float, own[:3]), shared_s=float(own[3] / 3 * own[0])) for own in each]
        times = in_turn(cells, overlap=True)
        for k, (at, cost) in enumerate(zip(times, cells, strict=True)):
            assert at.start_s >= at.gather_s + cost.gather_s and at.scatter_s >= at.end_s
            if k:
                before = times[k - 1]
                assert at.gather_s >= before.start_s and at.start_s >= before.end_s
            if k > 1:
                assert at.gather_s >= times[k - 2].end_s  # its weights are gone
        moves = sorted(
            (begin, begin + cost_s)
            for at, cost in zip(times, cells, strict=True)
            for begin, cost_s in ((at.gather_s, cost.gather_s), (at.scatter_s, cost.scatter_s))
        )
        assert all(one[1] <= other[0] + 1e-12 for one, other in pairwise(moves))


def test_gathers_hide_where_layers_compute_for_longer() -> None:
    """A long sequence hides all but the first gather of a pass, and the last reduction."""
    phase = "gpus = 0..7, dp = 8, zero = 3, grad_overlap = "
    none, full = (trained(LLAMA, phase + overlap, tokens=8192) for overlap in ("none", "full"))
    assert none.flops == full.flops and none.exposed > 3 * full.exposed
    costs, embed = full.cells, full.graph.embedding.name
    first_s = costs[embed, "forward"].gather_s
    last_s = costs[embed, "backward"].scatter_s
    assert full.exposed_s >= first_s + last_s
    forward_s = full.staged[0, "forward"].time_s
    own_s = sum(costs[s.name, "forward"].own_s * s.repeat for s in full.graph.segments)
    assert (
        first_s + own_s
        <= forward_s
        <= sum(costs[s.name, "forward"].gather_s * s.repeat for s in full.graph.segments) + own_s
    )


@pytest.mark.parametrize("model", spread([LLAMA, "mixtral-8x7b", "gpt-oss-20b"], {"mixtral-8x7b"}))
def test_kernels_are_those_of_whole_weights(model: str) -> None:
    """Copies are weights to whoever prices products, biases and gains."""
    two, three = (trained(model, f"gpus = 0..7, dp = 8, recompute = full, zero = {stage}") for stage in (2, 3))
    computed = 0
    for segment in two.graph.segments:
        for op in segment.ops:
            if not op.is_collective and op.cell != UPDATE:
                one, other = (result.costs.ops[segment.name, op.name] for result in (two, three))
                assert one.time_s.max() == pytest.approx(other.time_s.max()), op.name
                assert (one.family, one.flops, one.bytes) == (other.family, other.flops, other.bytes), op.name
                computed += 1
    assert computed > 90


def test_fsdp_of_a_large_model_takes_as_long_as_was_measured() -> None:
    """Llama 3 70B on 64 A100 with everything recomputed, a sequence of 8192 tokens on each: 331 tok/s per GPU
    (pytorch/torchtitan, docs/performance.md, October 2024)."""
    text = """moe 1
hardware from "a100-80gb-sxm" { gpus = 64 }
model from "llama-3.1-70b" { }
workload { sequences = 64, prompt = 8192 tok }
phase step { kind = train, gpus = 0..63, dp = 64, zero = 3, grad_overlap = full, recompute = full }
"""
    result = training_step(step_of(text).unit)
    assert result.fits and result.exposed < 0.01
    assert result.throughput_tok_s / 64 == pytest.approx(331, rel=0.15)


# -- proof -----------------------------------------------------------------------------------------

PROVED = {
    "dp, pipeline": (LLAMA, "gpus = 0..7, pp = 2, dp = 4, microbatches = 2, schedule = zb_h1, grad_overlap = full"),
    "dp, tp, sp": (LLAMA, "gpus = 0..7, dp = 2, tp = 2, sp = 2, sequence_parallel = true"),
    "experts and their copies": (
        "qwen3-30b-a3b", "gpus = 0..7, recompute = full\nattention { dp = 4, tp = 2 }\nexperts { ep = 2, tp = 2 }\n",
    ),
    "latent attention, sparse": ("deepseek-v3.2", "gpus = 0..7\nattention { dp = 4, sp = 2 }\nexperts { ep = 4 }\n"),
    "biases and sinks": ("gpt-oss-20b", "gpus = 0..3, dp = 2, tp = 2"),
    "kept copies": ("mixtral-8x7b", "gpus = 0..3, dp = 2, ep = 2, recompute = [moe], reshard_after_forward = false"),
    "linear attention": ("qwen3-next-80b-a3b", "gpus = 0..3, dp = 2, tp = 2"),
    "copies of experts over tp": ("mixtral-8x7b", "gpus = 0..7, optimizer = sgd\nattention { tp = 8 }\nexperts { ep = 4 }\n"),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    spread(
        PROVED,
        lambda name: name not in ("biases and sinks", "dp, pipeline", "linear attention", "latent attention, sparse"),
    ),
)
def test_a_step_with_shared_out_weights_is_proved(name: str) -> None:
    """Loss, gradients and new weights of the whole model; bytes and FLOPs as they are costed."""
    model, phase = PROVED[name]
    step = step_of(library_text(model, "train", phase.replace("gpus =", "zero = 3, gpus =", 1)))
    result = training_step(step.unit)
    proof = prove_training(result, step.unit)
    assert proof.holds, proof
    assert any(segment.copies for segment in result.graph.segments)


SMALL = (
    "layers = 1, hidden = 8, vocab = 16, dtype = fp32\nattention { kind = gqa, heads = 4, kv_heads = 2, head_dim = 4 }\n"
    "experts { count = 4, top_k = 2, hidden = 8 }"
)


@cache
def small() -> tuple[Step, TrainingMachine]:
    phase = "gpus = 0..3, zero = 3\nattention { dp = 2, tp = 2 }\nexperts { ep = 2 }"
    step = small_step(phase, SMALL, "sequences = 4, prompt = 4 tok, output = 1 tok")
    return step, whole_run(step)


def found_by(segment: Segment, ops: tuple[Op, ...]) -> str:
    """Who finds what is wrong with a layer: the verifier, or the comparison with the model."""
    step, whole = small()
    broken = replace(segment, ops=ops)
    graph: Graph = replace(step.placed, segments=tuple(broken if s is segment else s for s in step.placed.segments))
    try:
        verify(graph)
        errors = differences(whole, sharded_run(step, graph))
    except VerifyError:
        return "verifier"
    except ExecutionError:
        return "comparison"
    return "comparison" if max(errors.values()) > 1e-9 else ""


def test_what_is_wrong_with_a_gather_is_found() -> None:
    """Left out, over other ranks, or of another weight that looks alike, forward and back."""
    step, _ = small()
    (sparse,) = step.placed.body
    assert not found_by(sparse, sparse.ops)
    tried: dict[str, int] = {}
    for k, op in enumerate(sparse.ops):
        if op.name not in sparse.copies:
            continue
        if isinstance(op.attrs, FetchAttrs):
            weight = sparse.weight[op.inputs[0]]
            alike = [
                w.name for w in sparse.weights
                if w is not weight and (w.dims, w.sharding, w.scope) == (weight.dims, weight.sharding, weight.scope)
            ]  # fmt: skip
            changed = [(*sparse.ops[:k], replace(op, inputs=(other,)), *sparse.ops[k + 1 :]) for other in alike]
        else:
            gone = tuple(
                replace(one, inputs=tuple(op.inputs[0] if n == op.name else n for n in one.inputs))
                for one in sparse.ops
            )
            other = replace(op, axes=("tp",) if op.axes != ("tp",) else ("dp",))
            changed = [
                tuple(one for one in gone if one.name != op.name),
                (*sparse.ops[:k], other, *sparse.ops[k + 1 :]),
            ]
        for ops in changed:
            by = found_by(sparse, ops)
            assert by, op.name
            tried[by] = tried.get(by, 0) + 1
    assert tried.keys() == {"verifier", "comparison"} and sum(tried.values()) > 20, tried


# -- what cannot be shared out ----------------------------------------------------------------------


def test_a_matrix_that_ranks_do_not_divide_is_refused_with_degrees_that_do() -> None:
    work = "sequences = 96, prompt = 64 tok, output = 1 tok"
    text = spec_text(kind="step", phase="kind = train\ngpus = 0..5, dp = 6, zero = 3", workload=work)
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text)
    (found,) = (d for d in caught.value.diagnostics if d.severity == "error")
    assert (found.code, found.message) == ("E03", "6 ranks cannot share out the weight embed.We of layer `embed`")
    assert found.span is not None and found.span.text == "3"
    assert found.because == ("its dimensions on a rank do not divide by 6: vocab 512, hidden 64",)
    assert found.help[0] == "dp x sp of 2, 4, 8 divide every matrix"
    for degree in (2, 4, 8):
        fixed = text.replace("0..5, dp = 6", f"0..{degree - 1}, dp = {degree}")
        assert dagc.compile_text(fixed).trainings["step"].worst.gathered_B > 0
    assert dagc.compile_text(text.replace("zero = 3", "zero = 2")).trainings["step"].worst.gathered_B == 0


def test_what_would_fit_with_shared_out_weights_is_told_so() -> None:
    """70 billion parameters on 64 GPUs, each with all of them: two words change, and both were compiled."""
    text = library_text("llama-3.1-70b", "train", "gpus = 0..63, dp = 64").replace(
        "= 16, prompt = 256", "= 64, prompt = 8192"
    )
    plan = dagc.compile_text(text)
    (found,) = (d for d in plan.diagnostics if d.code == "E04")
    assert len(found.help) == 1 and found.help[0].startswith("`zero = 3` and `recompute = full`: ")
    assert dagc.compile_text(text.replace("dp = 64", "dp = 64, zero = 3, recompute = full")).fits


def test_one_call_moves_a_weight_where_one_dimension_divides() -> None:
    """Of Wo [kv_heads, group, head_dim, hidden] neither eight heads over two ranks nor groups of four divide by eight ranks."""
    (sparse,) = trained(
        "mixtral-8x7b", "gpus = 0..15, zero = 3\nattention { dp = 8, tp = 2 }\nexperts { ep = 8 }"
    ).graph.body
    layout = sparse.weight["@gqa.Wo"].sharding
    assert layout is not None and layout.dims[2] and not layout.dims[1] and not layout.dims[3]
    moves = [
        op for op in sparse.ops if sparse.copies.get(op.name) == "@gqa.Wo" and op.cell == FORWARD and op.is_collective
    ]
    assert [op.kind for op in moves] == ["all_gather"]


@pytest.mark.parametrize("stage", spread([1, 2, 3], {3}))
def test_two_dimensions_take_what_one_does_not_divide_by(stage: int) -> None:
    """Hidden 2880 divides by 64 of 128 ranks, eight heads by the other 2: nothing but biases and sinks is on every rank."""
    text = library_text("gpt-oss-20b", "train", f"gpus = 0..127, dp = 128, zero = {stage}")
    step = step_of(text.replace("gpus = 64", "gpus = 128").replace("sequences = 16", "sequences = 128"))
    graph, held = step.placed, training_step(step.unit).worst
    assert dict(graph.the_mesh.atoms)["dp.1"] == 64 and dict(graph.the_mesh.atoms)["dp.0"] == 2
    parameters = 20.91e9  # the model card of openai/gpt-oss-20b
    shared = {"optimizer_B": 12, "gradients_B": 4, "weights_B": 2}
    for (part, each), first in zip(shared.items(), (1, 2, 3), strict=True):
        over = 128 if stage >= first else 1
        assert getattr(held, part) == pytest.approx(each * parameters / over, rel=0.03), part


def test_a_gain_that_ranks_do_not_divide_stays_whole() -> None:
    """It is next to nothing."""
    model = (
        "layers = 1, hidden = 36, vocab = 512, dtype = fp32\nattention { kind = gqa, heads = 8, kv_heads = 8, head_dim = 8 }\n"
        "experts { count = 8, top_k = 2, hidden = 32 }"
    )
    step = small_step("gpus = 0..7, dp = 8, zero = 3", model, "sequences = 16, prompt = 8 tok, output = 1 tok")
    (sparse,) = step.placed.body
    kept = {w.name for w in sparse.weights if w.sharding is not None and not any(w.sharding.dims)}
    assert kept == {"@gqa.h_gain", "@moe.h_gain"}
    assert prove_training(training_step(step.unit), step.unit).holds
