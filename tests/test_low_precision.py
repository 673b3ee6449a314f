"""Training with products in 8 or 4 bits: words, ops that quantise, what moves and is kept, times, and a proof."""

from __future__ import annotations

from functools import cache

import pytest
from tiers import spread
from training_steps import differences, sharded_run, small_step, whole_run

import dagc
from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.dtypes import DTYPE_BYTES
from dagc.base.frozen import replace
from dagc.base.low_precision import RECIPES, copies
from dagc.base.source import Source
from dagc.calib import gemm, load
from dagc.calib.training_constants import kernels, step_error
from dagc.cost.training.kept_activations import kept_bytes
from dagc.cost.training.weight_moves import gathered_bytes
from dagc.export.engines.megatron_training import training_files
from dagc.ir.graph import Graph
from dagc.ir.op import BACKWARD, FORWARD, UPDATE, Op
from dagc.ir.ops.attributes.training import StoreAttrs
from dagc.ir.segment import Segment
from dagc.lang.load import load as load_spec
from dagc.lang.printer.print_spec import print_spec
from dagc.pipeline.lower import lower
from dagc.plan.trained import TrainingResult
from dagc.spec.unit import Unit
from dagc.view.facts.training_words import error_text, kernels_text, products_text

SPEC = """moe 1
hardware from "HARDWARE" { gpus = 8 }
model from "MODEL" { layers = 2 }
workload { sequences = 16, prompt = 4096 tok }
phase train { kind = train, gpus = 0..7, WORDS }
"""
LAYERS = {"llama-3.1-8b": "layers = 2", "mixtral-8x7b": "layers = 2", "deepseek-v3": "layers = 2, dense_first = 1"}
TOKENS, HIDDEN, FFN = 4096, 4096, 14336
LLAMA, MOE, DEEPSEEK = "llama-3.1-8b", "mixtral-8x7b", "deepseek-v3"
DENSE = "dp = 8, microbatches = 2, zero = 1, matmul_dtype = "


def text(words: str, hardware: str = "b200-sxm", model: str = LLAMA) -> str:
    return (
        SPEC.replace("HARDWARE", hardware)
        .replace("MODEL", model)
        .replace("layers = 2", LAYERS[model])
        .replace("WORDS", words)
    )


@cache
def step(words: str, hardware: str = "b200-sxm", model: str = LLAMA) -> TrainingResult:
    return dagc.compile_text(text(words, hardware, model)).trainings["train"]


def layer(result: TrainingResult) -> Segment:
    return result.graph.body[0]


def quantising(segment: Segment) -> list[Op]:
    return [op for op in segment.ops if op.kind == "quantise"]


def lowered(spec: str) -> Graph:
    """As far as gradients go."""
    unit = Unit((found := load_spec(Source("a.moe", spec), Collector())), found.trainings[0])
    return next(graph for name, graph in lower(unit) if name == "backward")


def refused(words: str, hardware: str = "b200-sxm", model: str = LLAMA) -> Diagnostic:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text(words, hardware, model))
    (found,) = (d for d in caught.value.diagnostics if d.severity == "error")
    return found


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hardware", "code", "at", "help"),
    [
        ("dp = 8, matmul_dtype = fp8", "a100-80gb-sxm", "E03", "fp8", "write `matmul_dtype = bf16`"),
        ("dp = 8, matmul_dtype = mxfp8", "h100-sxm", "E03", "mxfp8", "write `matmul_dtype = fp8`, or `fp8_block`"),
        ("dp = 8, matmul_dtype = nvfp4", "h200-sxm", "E03", "nvfp4", "write `matmul_dtype = fp8`, or `fp8_block`"),
        ("dp = 8, matmul_dtype = int8", "b200-sxm", "E02", "int8", ""),
        ("dp = 8, quantised_weights = true", "b200-sxm", "E12", "true", "write `matmul_dtype = fp8`, or leave it out"),
        ("dp = 8, matmul_dtype = bf16, quantised_weights = true", "b200-sxm", "E12", "true", "write `matmul_dtype = fp8`, or leave it out"),
        ("dp = 8, matmul_dtype = fp8, weight_dtype = bf16", "b200-sxm", "E12", "bf16", "leave `weight_dtype` out"),
        ("dp = 8, matmul_dtype = fp8, attention_dtype = fp8", "b200-sxm", "E18", "fp8", "write `attention_dtype = bf16`, as engines train by default"),
        ("dp = 8, matmul_dtype = mxfp8, dispatch_dtype = fp8", "b200-sxm", "E12", "fp8", "write `dispatch_dtype = mxfp8`, or leave it out"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(words: str, hardware: str, code: str, at: str, help: str) -> None:
    found = refused(words, hardware)
    assert found.code == code and found.span is not None and found.span.text == at
    assert not help or found.help[0] == help


def test_parts_of_ranks_are_whole_blocks() -> None:
    """11,136 columns are 43.5 blocks of 32 on each of eight ranks, and 87 of 16."""
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(
            text("tp = 8, matmul_dtype = mxfp8").replace("layers = 2", "layers = 2, mlp { hidden = 11136 }")
        )
    (found,) = caught.value.diagnostics
    assert found.code == "E03" and found.message == "`matmul_dtype = mxfp8` does not take all products of `train`"
    assert found.because[0] == "ffn 11136 / 8 of mlp.Wg is not a multiple of 32"
    assert found.help == ("tp = 4, 2, 1 gives ranks whole ones", "`matmul_dtype = fp8` needs multiples of 16 alone")


def test_weights_that_are_served_quantised_train_as_the_phase_says() -> None:
    """DeepSeek-V3's preset has them in fp8_block: the word of the phase counts, embedding and head are whole."""
    whole, low = (lowered(text(f"dp = 8, matmul_dtype = {dtype}", model=DEEPSEEK)) for dtype in ("bf16", "fp8_block"))
    assert {w.dtype for s in whole.segments for w in s.weights} == {"bf16"}
    assert {w.dtype for s in (low.embedding, low.head) for w in s.weights} == {"bf16"}
    assert {w.dtype for s in low.body for w in s.weights} == {"bf16", "fp8_block"}


@pytest.mark.parametrize(
    "words",
    [
        "matmul_dtype = mxfp8, quantised_weights = true",
        "matmul_dtype = bf16",
        "matmul_dtype = fp8, dispatch_dtype = fp8",
        "matmul_dtype = fp8, fp8_scaling = delayed",
    ],
)
def test_what_is_printed_is_read_again(words: str) -> None:
    spec = load_spec(Source("a.moe", text(f"dp = 8, {words}", model=MOE)), Collector())
    printed = print_spec(spec)
    assert words.partition(",")[0] in printed or words == "matmul_dtype = bf16"  # what the model's weights are
    assert load_spec(Source("b.moe", printed), Collector()) == spec


# -- the graph -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", RECIPES)
def test_all_three_products_of_a_weight_read_what_was_quantised(dtype: str) -> None:
    """The product, the gradient of its input and that of its weight; routers, attention, embedding and head as without."""
    result = step(f"dp = 8, zero = 1, matmul_dtype = {dtype}", model=MOE)
    segment = layer(result)
    weights = {w.name for w in segment.weights if w.dtype == dtype}
    assert weights == {f"@{name}" for name in ("gqa.Wq", "gqa.Wk", "gqa.Wv", "gqa.Wo", "moe.Wg", "moe.Wu", "moe.Wd")}
    read = [op for op in segment.ops if op.kind == "contract" and any(segment.dtype_of(n) == dtype for n in op.inputs)]
    assert len(read) == 3 * len(weights)
    assert all({segment.dtype_of(n) for n in op.inputs} == {dtype} for op in read)
    made = quantising(segment)
    values = [op.inputs[0] for op in made]
    assert len(values) == len(set(values)) == len(made)  # each once, whoever reads it
    assert sum(op.cell == "update" for op in made) == len(weights)
    assert not [op for s in (result.graph.embedding, result.graph.head) for op in quantising(s)]
    assert all(segment.dtype_of(op.name) == "bf16" for op in segment.ops if op.kind == "attend")


def test_without_the_word_nothing_is_quantised() -> None:
    assert not any(quantising(s) for s in step("dp = 8, zero = 1").graph.segments)
    assert not any(quantising(s) for s in step("dp = 8, zero = 1, matmul_dtype = bf16").graph.segments)


def moved(result: TrainingResult) -> dict[str, str]:
    """What new weights of the layer are gathered in, by weight."""
    segment = layer(result)
    found = {}
    for op in segment.ops:
        if isinstance(op.attrs, StoreAttrs):
            source: Op | None = op
            while source is not None and source.kind != "adamw":
                source = segment.by_name.get(source.inputs[0])
                if source is not None and source.kind == "all_gather":
                    found[op.attrs.weight] = source.dtype
    return found


@pytest.mark.parametrize(("dtype", "stored", "travels"), [
    ("fp8", True, "fp8"), ("fp8", False, "bf16"), ("fp8_block", True, "fp8_block"), ("mxfp8", True, "bf16"), ("mxfp8", False, "bf16"),
])  # fmt: skip
def test_new_weights_travel_quantised_where_they_are_stored_so(dtype: str, stored: bool, travels: str) -> None:
    """Those of mxfp8 in the buffer of the gradients, in 16 bits (--reuse-grad-buf-for-mxfp8-param-ag)."""
    result = step(f"{DENSE}{dtype}, quantised_weights = {str(stored).lower()}")
    found = moved(result)
    assert {found[name] for name in ("gqa.Wq", "mlp.Wd")} == {travels} and found["gqa.h_gain"] == "bf16"


def test_shared_out_weights_are_gathered_as_they_are_stored() -> None:
    segment = layer(step("dp = 8, zero = 3, matmul_dtype = fp8, quantised_weights = true"))
    gathered = {name: segment.dtype_of(name) for name in segment.copies if name.endswith(("all_gather", "all_gather2"))}
    assert {dtype for name, dtype in gathered.items() if "gain" not in name} == {"fp8"} and len(gathered) >= 14


def test_weights_that_are_gathered_whole_are_quantised_in_each_cell() -> None:
    """As torchao's float8 does without its float8 all-gather: for the product ahead, and for the gradient of the input; ranks store 16 bits."""
    result = step("dp = 8, zero = 3, matmul_dtype = fp8")
    segment = layer(result)
    assert {w.dtype for w in segment.weights} == {"bf16"}
    assert {
        segment.dtype_of(op.inputs[0]) for op in segment.ops if op.kind == "all_gather" and op.name in segment.copies
    } == {"bf16"}
    own = [op for op in quantising(segment) if op.inputs[0] in segment.copies]
    assert [sum(op.cell == cell for op in own) for cell in (FORWARD, BACKWARD, UPDATE)] == [7, 7, 0]
    low = step("dp = 8, zero = 3, matmul_dtype = fp8, quantised_weights = true")
    ((whole,), (less,)) = result.memory, low.memory
    numbers = HIDDEN * (4096 + 2 * 1024) + 4096 * HIDDEN + 3 * HIDDEN * FFN
    more = gathered_bytes(segment, result.graph) - gathered_bytes(layer(low), low.graph)
    assert more == pytest.approx(2 * numbers, rel=1e-6) and whole.weights_B > less.weights_B
    assert result.cells["dense", "forward"].gather_s > 1.5 * low.cells["dense", "forward"].gather_s


def test_a_split_sequence_is_gathered_quantised() -> None:
    """Transformer Engine's quantised all-gather: of inputs ahead, and of gradients and inputs on the way back."""
    segment = layer(step("tp = 8, sequence_parallel = true, matmul_dtype = fp8"))
    calls = [op for op in segment.ops if op.kind == "all_gather" and op.cell != "update"]
    assert len(calls) >= 4 and {op.dtype for op in calls} == {"fp8"}
    assert {op.dtype for op in segment.ops if op.kind == "reduce_scatter" and op.cell != "update"} == {"bf16"}


def test_tokens_travel_as_products_read_them() -> None:
    """There and, on the way back, gradients there: half the bytes but for what comes back (DeepSeek-V3, arXiv 2412.19437, section 3.3.3)."""
    words = "dp = 8, microbatches = 2, matmul_dtype = fp8{}\nexperts { ep = 8 }"
    words = words.replace("dp = 8", "attention { dp = 8 }")
    whole, sent = (layer(step(words.replace("{}", more, 1), model=MOE)) for more in ("", ", dispatch_dtype = fp8"))
    for segment, dtypes in ((whole, {"bf16"}), (sent, {"fp8", "bf16"})):
        calls = [op for op in segment.ops if op.kind == "all_to_all" and op.dims[-1] == "hidden"]
        assert len(calls) == 4 and {op.dtype for op in calls} == dtypes
    assert len(quantising(whole)) == len(quantising(sent))


# -- the proof -------------------------------------------------------------------------------------

SMALL = {
    "tensor parallel": "gpus = 0..7, sequence_parallel = true, microbatches = 2, zero = 1\nattention { dp = 2, tp = 4 }\nexperts { ep = 4, tp = 2 }\nmatmul_dtype = fp8, quantised_weights = true, dispatch_dtype = fp8",
    "done anew, weights kept": "gpus = 0..3, pp = 2, dp = 2, microbatches = 4, recompute = full, zero = 2, schedule = zb_h1, matmul_dtype = mxfp8",
    "shared out whole": "gpus = 0..3, attention { dp = 4 }, experts { ep = 2 }, zero = 3, recompute = [moe], matmul_dtype = fp8",
    "shared out": "gpus = 0..3, dp = 4, zero = 3, matmul_dtype = fp8_block, quantised_weights = true",
}  # fmt: skip


@pytest.mark.parametrize("phase", spread(SMALL.values(), {SMALL["tensor parallel"], SMALL["shared out"]}), ids=SMALL)
def test_every_gradient_and_new_weight_is_that_of_one_rank(phase: str) -> None:
    """Numbers are of 64 bits: what quantises changes nothing, so a value that is quantised before it is whole, twice or not at all would."""
    step = small_step(phase)
    assert any(op.kind == "quantise" for s in step.placed.segments for op in s.ops)
    found = differences(whole_run(step), sharded_run(step))
    assert len(found) > 20 and max(found.values()) < 1e-9


# -- times and memory --------------------------------------------------------------------------------


def time_s(result: TrainingResult, op: str) -> float:
    return float(result.costs.ops[layer(result).name, op].time_s.max())


@pytest.mark.parametrize(("hardware", "dtype", "table"), [
    ("h100-sxm", "fp8", "fp8"), ("h100-sxm", "fp8_block", "fp8_block"), ("b200-sxm", "mxfp8", "fp8"), ("b200-sxm", "nvfp4", "nvfp4"),
])  # fmt: skip
def test_products_are_those_of_their_table_without_what_quantises(hardware: str, dtype: str, table: str) -> None:
    """Which is an op of its own."""
    result = step(f"{DENSE}{dtype}", hardware)
    entry = load(result.calibration).find(gemm.FAMILY, table, "trtllm")
    plain = load(result.calibration).find(gemm.FAMILY, "bf16", "trtllm")
    assert entry is not None and plain is not None
    launch_s = min(entry.constants.launch_s, plain.constants.launch_s)
    alone = replace(entry, constants=replace(entry.constants, launch_s=launch_s, quantise_Bps=0.0))
    core_s = float(gemm.FAMILY.estimate_s(alone, TOKENS, 2 * FFN, HIDDEN)) - launch_s
    found = time_s(result, "mlp.g") + time_s(result, "mlp.u")
    assert found == pytest.approx(launch_s + core_s / kernels("", low=True).sustained, rel=1e-4)


@pytest.mark.parametrize(("hardware", "dtype", "moved", "launches"), [
    ("h100-sxm", "fp8", 2 * 2 + 2 * 1.0, 2), ("b200-sxm", "fp8", 2 * 2 + 1.0, 2), ("b200-sxm", "mxfp8", 2 + 2 * 33 / 32, 1),
    ("b200-sxm", "nvfp4", 2 * 2 + 2 * 9 / 16, 2), ("h100-sxm", "fp8_block", 2 + 2 * (1 + 4 / 128**2), 1),
])  # fmt: skip
def test_what_quantises_reads_and_writes(hardware: str, dtype: str, moved: float, launches: int) -> None:
    """Bytes a number: read twice where the largest comes first; written by rows and by columns, once where the GPU reads both (TE: performance considerations)."""
    plan = dagc.compile_text(text(f"{DENSE}{dtype}", hardware))
    own, result = plan.spec.hardware, plan.trainings["train"]
    found = time_s(result, "gqa.h.quantised")
    assert found == pytest.approx(TOKENS * HIDDEN * moved / (own.hbm_Bps * own.mbu) + launches * own.launch_s, rel=1e-9)


@pytest.mark.parametrize(("hardware", "dtype", "stored", "each"), [
    ("h100-sxm", "fp8", False, 2 + 2), ("h100-sxm", "fp8", True, 2), ("b200-sxm", "fp8", False, 2 + 1), ("b200-sxm", "fp8", True, 1),
    ("b200-sxm", "mxfp8", True, 2 * 33 / 32), ("b200-sxm", "nvfp4", False, 2 + 2 * 9 / 16),
])  # fmt: skip
def test_weights_are_stored_with_their_copies(hardware: str, dtype: str, stored: bool, each: float) -> None:
    """Bytes a parameter of products: 2 MB of a matrix of 1,024 x 1,024 and 1 MB of its copy by rows, as Transformer Engine's documents count, and that by columns."""
    (found,) = step(f"{DENSE}{dtype}, quantised_weights = {str(stored).lower()}", hardware).memory
    (whole,) = step("dp = 8, microbatches = 2, zero = 1", hardware).memory
    products = 2 * (HIDDEN * (4096 + 2 * 1024) + 4096 * HIDDEN + 3 * HIDDEN * FFN)
    assert found.weights_B - whole.weights_B == pytest.approx(products * (each - 2), rel=1e-6)
    assert found.gradients_B == whole.gradients_B and found.optimizer_B == whole.optimizer_B


def test_delayed_scaling_reads_once() -> None:
    """Its scale is there before (--fp8-recipe delayed): no pass for the largest number, else the same step."""
    now, before = (step(f"{DENSE}fp8{more}", "h100-sxm") for more in ("", ", fp8_scaling = delayed"))
    read_s = TOKENS * HIDDEN * 2 / (0.8 * 3.35e12)
    assert time_s(now, "gqa.h.quantised") - time_s(before, "gqa.h.quantised") > read_s
    assert time_s(now, "gqa.q") == time_s(before, "gqa.q") and now.memory == before.memory
    assert "scales of steps before" in products_text(before.training)
    found = refused("dp = 8, matmul_dtype = mxfp8, fp8_scaling = delayed")
    assert found.code == "E12" and found.span is not None and found.span.text == "delayed"


def test_moments_may_have_8_bits() -> None:
    """4 bytes of the optimizer's weights and two of one byte, shared out over eight ranks, of all parameters."""
    (low,), (whole,) = (step(f"{DENSE}fp8{more}").memory for more in (", moment_dtype = fp8", ""))
    assert low.optimizer_B == pytest.approx(whole.optimizer_B * (4 + 2) / (4 + 8), rel=1e-9)


def test_inputs_of_products_are_kept_quantised() -> None:
    """1 MB of an input of 1,024 x 1,024 in place of 2 (Transformer Engine: memory usage), where nothing else keeps it whole."""
    low, whole = (step(words) for words in (f"{DENSE}fp8", "dp = 8, microbatches = 2, zero = 1"))
    kept, before = (kept_bytes(layer(r), r.graph, 1.0) for r in (low, whole))
    numbers = TOKENS * HIDDEN
    assert (
        kept["gqa.h.quantised"] == numbers and "gqa.h" not in kept and before.get("gqa.h", 2 * numbers) == 2 * numbers
    )
    assert kept["mlp.a.quantised"] == TOKENS * FFN
    assert (
        kept["gqa.o"] == 2 * numbers and kept["gqa.o.quantised"] == numbers
    )  # attention's own gradient reads it whole


@pytest.mark.parametrize("dtype", RECIPES)
def test_steps_take_less_time_than_whole_ones(dtype: str) -> None:
    assert step(f"{DENSE}{dtype}").floor_s < step("dp = 8, microbatches = 2, zero = 1").floor_s


def test_copies_are_one_where_units_read_rows_and_columns() -> None:
    hopper, blackwell = {"bf16": 1.0, "fp8": 2.0}, {"bf16": 1.0, "fp8": 2.0, "nvfp4": 4.0}
    assert [copies(name, hopper) for name in ("fp8", "fp8_block")] == [2, 2]
    assert [copies(name, blackwell) for name in RECIPES] == [1, 2, 2, 2]
    assert DTYPE_BYTES["mxfp8"] == 33 / 32 and DTYPE_BYTES["nvfp4"] == 9 / 16


# -- what is said ------------------------------------------------------------------------------------


def test_the_report_says_what_products_compute_in() -> None:
    result = step(f"{DENSE}mxfp8, quantised_weights = true")
    assert products_text(result.training) == (
        "products: mxfp8, forward and back; embedding, head, routers and attention are whole; weights are stored so, and gathered whole"
    )
    assert products_text(step("dp = 8").training) == ""
    assert "in 8 and 4 bits" in kernels_text(result)
    known = step_error("b200_sxm", low=True)
    assert known is not None and error_text(result).startswith(
        f"of {known.cases} measured steps in 8 and 4 bits on this GPU"
    )
    other = error_text(step(f"{DENSE}fp8", "h200-sxm"))
    assert other.startswith("no such step on this GPU was measured; of 108 on others")


def test_a_gpu_without_such_products_says_whose_it_takes() -> None:
    spec = text(f"{DENSE}nvfp4", "b200-sxm").replace("gpus = 8 }", 'gpus = 8, calibration = "h100_sxm" }')
    result = dagc.compile_text(spec).trainings["train"]
    assert kernels_text(result).endswith("; nobody timed products in nvfp4 on it: they cost the roofline")


@pytest.mark.parametrize(("dtype", "stored", "said"), [
    ("fp8", "true", ("--fp8-format hybrid", "--fp8-recipe tensorwise", "--fp8-param-gather")),
    ("fp8_block", "false", ("--fp8-format e4m3", "--fp8-recipe blockwise")),
    ("mxfp8", "true", ("--fp8-format e4m3", "--fp8-recipe mxfp8", "--fp8-param-gather", "--reuse-grad-buf-for-mxfp8-param-ag")),
    ("nvfp4", "false", ("--fp4-format e2m1", "--fp4-recipe nvfp4")),
])  # fmt: skip
def test_megatron_is_told(dtype: str, stored: str, said: tuple[str, ...]) -> None:
    """Its own parser reads them: `tools/check_megatron_training.py`."""
    plan = dagc.compile_text(text(f"{DENSE}{dtype}, quantised_weights = {stored}"))
    (data,) = training_files(plan, "train", "plan").values()
    words = " ".join(data.decode().replace("\\\n", " ").split())
    assert all(f" {word} " in words for word in said)
    assert words.count("--fp8") + words.count("--fp4") + words.count("--reuse") == len(said)
