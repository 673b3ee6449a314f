"""What a training phase may say, what it may not, and what each command answers of a spec that only trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT
from tiers import left_out

import dagc
from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.source import Source
from dagc.cli import main
from dagc.export.engines import ENGINES
from dagc.export.registry import EMIT, EXPORTERS
from dagc.lang.load import load
from dagc.lang.open_spec import load_open
from dagc.lang.printer.print_spec import print_spec
from dagc.lang.sections.training import ELSEWHERE, OWN
from dagc.spec.spec import Spec

Capture = pytest.CaptureFixture[str]

SPEC = """moe 1
hardware from "h100-sxm" { gpus = 16 }
model from "mixtral-8x7b" { layers = 8 }
workload { sequences = 64, prompt = 1024 tok }
phase pretrain {
  kind = train
  gpus = 0..15, pp = 2, microbatches = 8
  attention { dp = 4, tp = 2 }
  experts { ep = 8 }
  WORDS
}
"""
DECODE = "phase decode { gpus = 0..15, tp = 8, dp = 2, WORDS }\n"


def spec(words: str = "", **changes: str) -> str:
    text = SPEC.replace("WORDS", words)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def errors_of(text: str) -> list[Diagnostic]:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text)
    return [d for d in caught.value.diagnostics if d.severity == "error"]


def read(text: str) -> Spec:
    return load(Source("plan.moe", text), Collector())


# -- words -----------------------------------------------------------------------------------------

WRITTEN = {
    "schedule": "zb_h1", "virtual": "2", "recompute": "full", "optimizer": "sgd", "zero": "1", "gradient_dtype": "bf16",
    "master_dtype": "none", "moment_dtype": "bf16", "grad_overlap": "full", "exchange_overlap": "full", "reshard_after_forward": "false", "prefix": "64 tok", "chunk": "64 tok", "draft": "2",
    "acceptance": "0.5", "tree": "[2, 1]", "chunk_by": "work", "chunk_overlap": "full", "exit": "[at(layers = 1, share = 10%)]",  "draft_model": '"llama-3.1-8b"', "drafter": "mtp", "kv_dtype": "fp8", "window_cache": "whole", "kv_block": "64 tok", "kv_cache": "{ keep = 4 tok }", "fuse": "none", "rebalance": "{ loads = [[[1, 1]], [[1, 1]], [[1, 1]], [[1, 1]]], window = 1, every = 1 }",
    "memory_fraction": "90%", "memory": "{ tokens = 64 tok }", "engine": "vllm", "quantise": "separate",
    "expert_activations": "bf16", "host": "1 ms", "launch": "1 us", "redundant": "8", "mtp_loss": "0.1",
    "aux_loss": "0.01", "aux_loss_over": "sequence", "z_loss": "1e-3", "dropout": "10%", "offload": "50%",
    "matmul_dtype": "fp8", "quantised_weights": "true", "fp8_scaling": "delayed",
}  # fmt: skip


def written(name: str) -> str:
    return f"{name} {WRITTEN[name]}" if WRITTEN[name].startswith("{") else f"{name} = {WRITTEN[name]}"


@pytest.mark.parametrize("name", OWN)
def test_a_word_of_training_is_refused_in_inference(name: str) -> None:
    (found,) = errors_of(spec().replace("phase pretrain", DECODE.replace("WORDS", written(name)) + "phase pretrain"))
    assert found.code == "E12" and found.message == f"`{name}` belongs to a training phase"
    assert found.span is not None and found.span.text == WRITTEN[name] and found.help == ("write `kind = train`",)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_word_of_inference_is_refused_in_training(name: str) -> None:
    (found,) = errors_of(spec(written(name)))
    assert found.code == "E12"
    assert found.message == f"`{name}` does not belong to a training phase" and found.help == (ELSEWHERE[name],)
    assert found.span is not None and found.span.text in (WRITTEN[name], name)


def test_every_word_is_tried() -> None:
    assert set(WRITTEN) == {*OWN, *ELSEWHERE}


@pytest.mark.parametrize(
    ("words", "code", "said", "at"),
    [
        ("overlap = two_batch", "E12", "`overlap = two_batch` is not there for a training phase", "two_batch"),
        ("dcp = 2", "E12", "`dcp` belongs to a decode phase", "2"),
        ("decode = 4", "E12", "`decode` belongs to a mixed phase", "4"),
        ("zero = 4", "E09", "`zero` must be at least 0 and at most 3", "4"),
        (
            "zero = 2, reshard_after_forward = false",
            "E12",
            "`reshard_after_forward = false` belongs to `zero = 3`: with `zero = 2` no weight is gathered",
            "false",
        ),
        ("optimizer = lion", "E02", "`optimizer` cannot be `lion`", "lion"),
        (
            "weight_dtype = fp8",
            "E12",
            "`weight_dtype = fp8` says how weights are served, not what a step computes in",
            "fp8",
        ),
        (
            "dispatch_dtype = fp8",
            "E12",
            "tokens are quantised once, for products: they travel in fp8 and are read in bf16",
            "fp8",
        ),
        ("recompute = 5", "E08", "`recompute` takes names", "5"),
        ("recompute = [moe, nope]", "E03", "no layer has a block or op `nope` to recompute", "[moe, nope]"),
        ("context = 512 tok", "E03", "the context of a train phase is its prompt", "512 tok"),
    ],
)
def test_what_a_training_phase_cannot_say(words: str, code: str, said: str, at: str) -> None:
    (found,) = errors_of(spec(words))
    assert (found.code, found.message) == (code, said)
    assert found.span is not None and found.span.text == at


def test_settings_of_an_optimizer_are_told_to_change_nothing() -> None:
    (found,) = errors_of(spec("optimizer = adamw { lr = 1e-4 }"))
    assert found.code == "E18" and "neither time nor memory" in found.help[0]


def test_weights_of_the_model_in_fp8_are_refused() -> None:
    """DeepSeek-V3's preset has them: what to write is said."""
    (found,) = errors_of(spec(**{'"mixtral-8x7b" { layers = 8 }': '"deepseek-v3" { layers = 8, dense_first = 1 }'}))
    assert found.code == "E12" and found.help == ("write `matmul_dtype = bf16`, or `matmul_dtype = fp8_block`",)


# -- schedules that cannot run -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "changes", "said", "help"),
    [
        ("schedule = interleaved", {}, "interleaved has 1 chunk per GPU", "virtual = 2, or schedule = one_f_one_b"),
        ("virtual = 2", {}, "one_f_one_b has 2 chunks per GPU", ""),
        ("schedule = interleaved, virtual = 3", {}, "8 layers do not divide over 6 virtual stages", "chunks that divide them: 2, 4"),
        (
            "schedule = interleaved, virtual = 2", {"microbatches = 8": "microbatches = 1"},
            "interleaved of 2 stages has 1 micro-batch", "microbatches = 2",
        ),
        ("schedule = dualpipe", {"microbatches = 8": "microbatches = 2"}, "dualpipe of 2 stages has 2 micro-batches", "microbatches = 4 or more"),
        ("schedule = dualpipe", {"pp = 2": "pp = 1", "dp = 4": "dp = 8", "ep = 8": "ep = 8, tp = 2"}, "dualpipe has 1 stage", "pp = 2"),
        ("schedule = dualpipe, layers_per_stage = [2, 2, 2, 2]", {}, "`layers_per_stage` must be 2 numbers that add up to 8", ""),
        ("schedule = zb_v, layers_per_stage = [3, 5]", {}, "`layers_per_stage` must be 4 numbers, one for each chunk of layers", "leave it out"),
    ],
)  # fmt: skip
def test_schedules_that_cannot_run(words: str, changes: dict[str, str], said: str, help: str) -> None:
    (found,) = errors_of(spec(words, **changes))
    assert (found.code, found.message) == ("E03", said)
    assert found.span is not None and any(line.startswith(help) for line in found.help or ("",))


@pytest.mark.parametrize(
    ("words", "layers", "cut"),
    [
        ("schedule = one_f_one_b", 9, [5, 4]),
        ("schedule = zb_v", 9, [3, 2, 2, 2]),
        left_out(("schedule = zb_v", 10, [3, 3, 2, 2])),
        left_out(("schedule = zb_v, layers_per_stage = [5, 4]", 9, [3, 2, 2, 2])),
        ("schedule = interleaved, virtual = 3", 10, [2, 2, 2, 2, 1, 1]),
        left_out(("schedule = dualpipe", 9, [5, 4])),
        ("schedule = dualpipe_v", 10, [3, 3, 2, 2]),
    ],
)
def test_the_cut_that_is_told_where_layers_do_not_divide_compiles(words: str, layers: int, cut: list[int]) -> None:
    """One number for each chunk that the schedule has; each copy of DualPipe has the whole model."""
    changes = {"layers = 8": f"layers = {layers}"}
    (found,) = errors_of(spec(words, **changes))
    assert found.code == "E03" and f"layers_per_stage = {cut} makes them uneven" in found.help
    plan = dagc.compile_text(spec(f"{words.split(', layers')[0]}, layers_per_stage = {cut}", **changes))
    (step,) = plan.trainings.values()
    assert [sum(n for _, n in stage.layers) for stage in step.stages] == [cut[0] + 1, *cut[1:-1], cut[-1] + 1]


@pytest.mark.parametrize(
    ("schedule", "help"),
    [
        ("zb_h1", "write `schedule = one_f_one_b` or `interleaved`, or leave it out"),
        ("dualpipe", "leave it out: its forward and backward cells overlap already"),
    ],
)
def test_cells_overlap_where_a_schedule_can_have_them_so(schedule: str, help: str) -> None:
    (found,) = errors_of(spec(f"schedule = {schedule}, exchange_overlap = full"))
    assert (found.code, found.help) == ("E12", (help,))
    assert found.message == f"`exchange_overlap = full` does not go with `schedule = {schedule}`"


# -- memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"gpus = 16 }": "gpus = 16, memory = 20 GB }"},
        left_out({"gpus = 16 }": "gpus = 16, memory = 17 GB }"}),
        left_out({"gpus = 16 }": "gpus = 16, memory = 20 GB }", "1024 tok": "4096 tok"}),
        left_out(
            {
                "gpus = 16 }": "gpus = 16, memory = 38 GB }",
                "1024 tok": "16384 tok",
                "microbatches = 8": "microbatches = 16",
                "= one_f_one_b": "= gpipe",
            }
        ),
    ],
)
def test_what_is_said_to_fit_fits(changes: dict[str, str]) -> None:
    text, written = spec("schedule = one_f_one_b", **changes), changes.get("= one_f_one_b", "= one_f_one_b")
    plan = dagc.compile_text(text)
    (found,) = (d for d in plan.diagnostics if d.code == "E04")
    worst = plan.trainings["pretrain"].worst
    kinds = ("weights", "gradients", "optimizer", "activations", "gathered", "working", "buffers", "reserve")
    assert sum(getattr(worst, f"{kind}_B") for kind in kinds) == pytest.approx(worst.peak_B)
    assert not plan.fits and [part.split()[0] for part in found.because[0].split(" + ")] == [
        kind for kind in kinds if getattr(worst, f"{kind}_B")
    ]
    assert found.help
    for line in found.help:
        words = line.partition(":")[0].split("`")[1::2]
        changed = text
        for word in words:
            name = word.split()[0]
            changed = (
                changed.replace("microbatches = 8", word)
                if name == "microbatches"
                else changed.replace(f"schedule {written}", f"schedule {written}, {word}")
            )
        assert words and dagc.compile_text(changed).fits, line
        assert ("offload" in line) == (written != "= one_f_one_b"), "hosts are asked where nothing else will do"


def test_a_step_that_does_not_fit_is_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "plan.moe"
    path.write_text(spec("schedule = one_f_one_b", **{"gpus = 16 }": "gpus = 16, memory = 20 GB }"}))
    assert main(["compile", str(path), "-q"]) == 1


def test_what_nothing_makes_fit_is_told_so() -> None:
    plan = dagc.compile_text(spec("tp = 1", **{"layers = 8": "layers = 80"}))
    (found,) = (d for d in plan.diagnostics if d.code == "E04")
    assert found.help == (
        "no `zero`, `recompute`, `microbatches` or `offload` makes it fit: more `pp` or `tp`, or shorter sequences",
    )


def test_micro_batches_without_a_sequence_are_none() -> None:
    """64 sequences of four data-parallel ranks fill 16 micro-batches, however many are asked for."""
    filled, asked = (
        dagc.compile_text(spec(**{"microbatches = 8": f"microbatches = {count}"})).trainings["pretrain"]
        for count in (16, 64)
    )
    assert asked.steps.schedule.microbatches == asked.graph.microbatches == 16
    assert (asked.time_s, asked.worst) == (filled.time_s, filled.worst)


# -- text ---------------------------------------------------------------------------------------------

SAID = (
    "",
    "schedule = interleaved, virtual = 2, zero = 2, grad_overlap = full",
    "zero = 3, reshard_after_forward = false",
    'exchange = deepep_ht, exchange_overlap = full, recompute = ["moe.a", rms_norm]',
    "recompute = [moe, gqa], optimizer = sgd, gradient_dtype = bf16, master_dtype = none, moment_dtype = bf16",
    "aux_loss = 0.01, aux_loss_over = sequence, z_loss = 0.001, dropout = 0.1, offload = 0.5",
    "recompute = full, routing = zipf(0.5), dispatch_dtype = bf16, weight_dtype = bf16, cuda_graph = false, sequence_parallel = true",
)


@pytest.mark.parametrize("words", SAID)
def test_what_is_printed_reads_back(words: str) -> None:
    one = read(spec(words) + DECODE.replace(", WORDS", ""))
    text = print_spec(one)
    again = read(text)
    assert again == one and again.trainings == one.trainings != ()


def test_ir_of_a_training_phase_is_text_that_passes_take(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "plan.moe"
    path.write_text(spec("recompute = [moe], zero = 1"))

    def printed(*words: str) -> str:
        assert main(list(words)) == 0
        return capsys.readouterr().out

    (tmp_path / "model.ir").write_text(printed("ir", str(path), "--after", "expand"))
    passes = printed("ir", str(path), "--pipeline").strip()
    assert passes.startswith("backward,recompute{ops=moe},")
    assert printed("opt", str(tmp_path / "model.ir"), "--passes", passes) == printed("ir", str(path))
    backward = printed("ir", str(path), "--after", "backward", "--phase", "pretrain")
    assert printed("opt", str(tmp_path / "model.ir"), "--passes", "backward") == backward


# -- commands -----------------------------------------------------------------------------------------

ALONE = [
    "fit", "preflight", "measure --device cpu", "survive --lose gpu:1", "compare FOLDER", "compare --metrics FOLDER/m.json",
    *(f"export --to {engine} -o FOLDER/out" for engine in ENGINES if engine != "megatron"),  # which trains
]  # fmt: skip


@pytest.mark.parametrize("words", ALONE)
def test_commands_of_inference_say_so(words: str, capsys: Capture, tmp_path: Path) -> None:
    """Of a spec that only trains, and of a phase that trains beside one that does not; nothing is written."""
    command, *rest = words.replace("FOLDER", str(tmp_path)).split()
    path = tmp_path / "plan.moe"
    (tmp_path / "m.json").write_text("{}")
    for text, more in ((spec(), []), (spec() + DECODE.replace(", WORDS", ""), ["--phase", "pretrain"])):
        if more and command == "survive":
            continue  # it takes no phase
        path.write_text(text)
        assert main([command, str(path), *rest, *more]) == 2
        told = capsys.readouterr()
        assert (
            "phase `pretrain` trains: " in told.err and "for inference alone" in told.err and "internal" not in told.err
        )
    assert {p.name for p in tmp_path.iterdir()} == {"plan.moe", "m.json"}


@pytest.mark.parametrize("words", ["serve", "search", "sweep", "pick"])
def test_commands_that_need_more_than_a_phase_say_what(words: str, capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "plan.moe"
    path.write_text(spec())
    assert main([words, str(path)]) == 2
    assert capsys.readouterr().err.startswith("error[E14]: ")


def test_a_choice_of_a_training_phase_needs_a_search(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "plan.moe"
    path.write_text(spec(**{"microbatches = 8": "microbatches = any"}))
    assert main(["compile", str(path)]) == 2
    assert "E19" in capsys.readouterr().err


def test_a_search_beside_a_training_phase_leaves_it_alone() -> None:
    both = spec() + "phase decode { gpus = 0..15, tp = 8, dp = 2, microbatches = any(1, 2) }\n"
    opened = load_open(Source("plan.moe", both), Collector())
    closed = opened.closed({}, Collector())
    assert closed is not None and [p.name for p in closed.phases] == ["decode"]
    assert [p.name for p in closed.trainings] == ["pretrain"]


@pytest.mark.parametrize("kind", sorted({one.name for one in EXPORTERS if EMIT in one.offered} - {"png", "pdf"}))
def test_every_exporter_writes_a_training_phase_or_says_that_it_cannot(
    kind: str, capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "plan.moe"
    path.write_text(spec())
    out = tmp_path / "out"
    code = main(["compile", str(path), "--emit", kind, "-o", str(out)])
    told = capsys.readouterr()
    assert "internal" not in told.err
    if code == 2:
        assert "is for inference alone" in told.err and not out.exists()
    else:
        assert code == 0 and any(p.stat().st_size for p in out.rglob("*") if p.suffix != ".txt")


def test_metrics_of_training_phases(capsys: Capture) -> None:
    plan = dagc.compile_text(
        spec("zero = 1") + "require pretrain.mfu > 0\nrequire pretrain.memory.peak <= hardware.memory\n"
    )
    assert plan.passed
    (found,) = errors_of(spec() + "require pretrain.ttft < 1 s\n")
    assert found.code == "E14" or found.code.startswith("E")
    assert "ttft" in found.message
    assert main(["list", "metrics", "TRAIN"]) == 0
    assert "step_time" in capsys.readouterr().out


def test_the_examples_are_specs_that_pass() -> None:
    for name in ("mixtral_pretrain", "llama_70b_fsdp"):
        assert dagc.compile(ROOT / "examples" / f"{name}.moe").passed
