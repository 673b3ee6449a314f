"""`dagc run` of training steps: every schedule and layout in real processes over torch.distributed, against the whole model; faults between
cells are noticed, and a process that does not answer is named."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import forked_ranks
import jsonschema
import pytest
from test_handed_on import SCORED, STEP
from test_training_schedules import FOR_GOLDENS, sizes
from tiers import exhaustive, left_out, spread
from training_steps import small_step, training_text

import dagc
from dagc.base.frozen import replace
from dagc.base.pipeline_schedules import SCHEDULES
from dagc.cli import main
from dagc.cost.schedule.training.cell_orders import Loop, PipelineSchedule
from dagc.cost.schedule.training.schedule_table import make
from dagc.execute.marks import mark_of
from dagc.execute.prove_training import prove_training
from dagc.execute.step_messages import Message, cells, channels, given, holders, taken
from dagc.execute.step_twin import few_microbatches
from dagc.ir.op import UPDATE
from dagc.spec.unit import Unit

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install -e '.[torch]'"
)
SCHEMA = json.loads((resources.files("dagc.export") / "run.schema.json").read_text(encoding="utf-8"))
WORK = "sequences = 32, prompt = 8 tok, output = 4 tok"
STEPS = {
    "gpipe": "gpus = 0..3, pp = 2, dp = 2, microbatches = 2, zero = 2",
    "one_f_one_b": "gpus = 0..3, pp = 2, tp = 2, microbatches = 4, sequence_parallel = true",
    "interleaved": "gpus = 0..3, pp = 2, sp = 2, microbatches = 4, virtual = 2, sp_method = ring, zero = 3",
    "zb_h1": "gpus = 0..3, pp = 2, sp = 2, microbatches = 3, sp_method = ulysses, aux_loss = 0.1, z_loss = 0.01",
    "zb_h2": "gpus = 4..5, pp = 2, microbatches = 4, recompute = full",
    "zb_v": "gpus = 0..1, pp = 2, microbatches = 4",
    "v_half": "gpus = 0..1, pp = 2, microbatches = 4, recompute = [moe], mtp_loss = 0.3",
    "v_min": "gpus = 0..3, pp = 2, sp = 2, microbatches = 4, sp_layout = zigzag, zero = 1, matmul_dtype = fp8, quantised_weights = true",
    "dualpipe": "gpus = 0..3, pp = 4, microbatches = 8",
    "dualpipe_v": "gpus = 0..3, pp = 2, microbatches = 4\nattention { dp = 2 }\nexperts { ep = 2 }\nmatmul_dtype = fp8, dispatch_dtype = fp8",
}
"""Schedule -> a phase: together they have every way to split a step."""
MODELS = {
    "dualpipe": "layers = 8, tied = true",
    "one_f_one_b": "layers = 4, tied = true",
    "v_half": "layers = 4, mtp_layers = 1, tied = true",
}
"""What is said of layers there: a table on both ends of a pipeline, one whose ends meet on a GPU, and a layer that predicts further tokens."""


def text_of(schedule: str) -> str:
    phase = STEPS[schedule]
    text = training_text(f"schedule = {schedule}\n{phase}", workload=WORK)
    return text.replace("layers = 4", MODELS.get(schedule, "layers = 4"))


def test_every_schedule_runs() -> None:
    assert set(STEPS) == set(SCHEDULES)


@needs_torch
@pytest.mark.parametrize("schedule", spread(STEPS, {"dualpipe", "zb_v"}))
def test_processes_make_the_step_that_the_model_makes(schedule: str, tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(text_of(schedule))
    first, last = map(int, re.findall(r"gpus = (\d+)..(\d+)", STEPS[schedule])[0])
    done = forked_ranks.run(spec, 1 + last - first, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA)
    step = found["training"]
    assert found["holds"] is found["same"] is True and step["first"] == "" and step["schedule"] == schedule
    assert 0.0 < step["loss_error"] < 1e-12 and 0.0 < step["gradient_error"] < 1e-11 and step["weight_error"] < 1e-9
    assert step["weights"] >= 22 and 2.0 < step["loss"] < 8.0
    gpus = [(n, first + n) for n in range(1 + last - first)]
    assert [(rank["rank"], rank["gpu"]) for rank in step["ranks"]] == gpus
    assert all(0.0 < rank["waited_s"] < rank["measured_s"] and rank["estimated_s"] is None for rank in step["ranks"])
    calls = {c["name"]: c["calls"] for c in found["classes"]}
    assert calls["send"] == calls["recv"] > 0 and calls["new weights"] > 0
    assert ("copies" in calls) == (schedule == "dualpipe")


@needs_torch
def test_processes_hand_gradients_back_beside_the_residual_stream(tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    phase = "gpus = 0..1, pp = 2, microbatches = 2, virtual = 3, schedule = interleaved"
    spec.write_text(SCORED.format(phases=STEP.format(phase)))
    done = forked_ranks.run(spec, 2, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["holds"] is True and 0.0 < found["training"]["gradient_error"] < 1e-11


@needs_torch
@pytest.mark.parametrize(
    ("phase", "faults", "differs", "first"),
    [
        (
            "gpus = 0..1, dp = 2",
            {"removed": "sparse.0/gqa.Wq.grad.2.all_reduce"},
            "new weights differ",
            "gqa.Wq.stored",
        ),
        ("gpus = 0..1, tp = 2", {"removed": "sparse.0/gqa.h.grad.5.all_reduce"}, "gradients differ", ""),
        left_out(
            ("gpus = 0..1, pp = 2, microbatches = 3", {"step": "other micro-batch"}, "gradients differ", "lm_head.loss")
        ),
        ("gpus = 0..1, pp = 2, microbatches = 3", {"step": "early weights"}, "gradients differ", "lm_head.loss"),
        ("gpus = 0..1, pp = 2, microbatches = 3", {"step": "last gradient alone"}, "gradients differ", "grad"),
        (
            "gpus = 0..1, pp = 2, microbatches = 4, schedule = dualpipe",
            {"step": "copies apart"},
            "gradients differ",
            "grad",
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_a_wrong_step_is_noticed(phase: str, faults: dict[str, Any], differs: str, first: str, tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(training_text(phase))
    done = forked_ranks.run(spec, 2, faults=faults)
    assert done.returncode == 1, done.stdout + done.stderr
    line = done.stdout.splitlines()[0]
    assert differs in line and first in line.partition("first at ")[2]


@needs_torch
@pytest.mark.parametrize(
    ("phase", "delayed", "said"),
    [
        left_out(
            (
                "gpus = 0..1, pp = 2, microbatches = 3",
                ["sparse.0/gqa.o", 0],
                "process 1 in cell F0: the activation of micro-batch 0 for virtual stage 1 did not come from process 0",
            )
        ),
        (
            "gpus = 0..1, dp = 2",
            ["sparse.0/gqa.o", 0],
            "other processes did not come to `embed/embed.We.grad.2.all_reduce`",
        ),
    ],
)
def test_a_process_that_does_not_answer_is_named(phase: str, delayed: list[Any], said: str, tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(training_text(phase))
    start_s = time.monotonic()
    done = forked_ranks.run(spec, 2, "--timeout", "6", faults={"delayed": [*delayed, 300]})
    assert done.returncode == 2 and "error[E16]" in done.stderr and "internal" not in done.stderr
    assert said in done.stderr and ": Timed out waiting 6000ms" in done.stderr
    assert time.monotonic() - start_s < 100


def test_a_process_that_is_stopped_is_killed() -> None:
    from dagc.execute.torch.processes import end

    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
    )
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(2)]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
    running[1].send_signal(signal.SIGSTOP)
    end(running, patience_s=0.1)
    assert [process.returncode for process in running] == [-signal.SIGKILL] * 2
    for process in running:
        assert process.stdout is not None
        process.stdout.close()


# -- what is sent ------------------------------------------------------------------------------------


def passed(schedule: PipelineSchedule, turn: random.Random) -> Counter[Message]:
    """Runs every GPU by the rule, in any order in which they come to it; what was received, a message each time."""
    orders, left = channels(schedule), [list(cells(schedule, gpu)) for gpu in range(schedule.gpus)]
    sent: dict[tuple[int, int], list[Message]] = {channel: [] for channel in orders}
    posted, handed, found = Counter[tuple[int, int]](), set[Message](), Counter[Message]()

    def there(message: Message | None) -> bool:
        if message is None or message.source == message.target:
            return message is None or message in handed
        return message in sent[message.source, message.target]

    while any(left):
        ready = [gpu for gpu, own in enumerate(left) if own and there(taken(schedule, gpu, own[0]))]
        assert ready, f"{schedule.name}: GPUs wait for each other at {[own[:1] for own in left]}"
        gpu = turn.choice(ready)
        cell = left[gpu].pop(0)
        message = taken(schedule, gpu, cell)
        if message is not None:
            found[message] += 1
            if message.source != message.target:
                channel = message.source, message.target
                posted[channel] = max(posted[channel], orders[channel].index(message) + 1)
        after = given(schedule, gpu, cell)
        if after is not None and after.source == after.target:
            handed.add(after)
        elif after is not None:
            sent[after.source, after.target].append(after)
    for channel, order in orders.items():
        assert tuple(sent[channel]) == order and posted[channel] == len(order), "both ends have the same order"
    return found


@pytest.mark.parametrize("name", spread(SCHEDULES, {"interleaved", "one_f_one_b", "zb_v", "dualpipe"}))
def test_every_message_is_sent_and_taken_once(name: str) -> None:
    turn = random.Random(name)
    for gpus, microbatches, chunks in sizes(name):
        schedule = make(name, gpus, microbatches, chunks)
        found = passed(schedule, turn)
        assert set(found.values()) <= {1}
        assert len(found) == sum(2 * (len(r.seats) - 1) * r.count for r in schedule.routes)
        copies = holders(schedule)
        assert len(copies) == schedule.stages
        assert {len(own) for own in copies} == {SCHEDULES[name].copies if gpus > 1 else 1}


def test_a_dimension_under_two_names_has_one_size_in_the_twin() -> None:
    """Of layers that predict further tokens, whose blocks give the width another name."""
    text = training_text("gpus = 0..1, dp = 2, mtp_loss = 0.3").replace("layers = 4", "layers = 4, mtp_layers = 2")
    plan = dagc.compile_text(text)
    (result,) = plan.trainings.values()
    proof = prove_training(result, Unit(plan.spec, plan.spec.trainings[0]))
    assert proof.verdict == "equal" and proof.weights > 20, proof.why


@pytest.mark.parametrize(
    ("swapped", "said"),
    [
        ((0, 1), "GPU 1 runs B0 before F0"),
        ((0, 2), "GPU 1 runs F1 where F0 is due"),
    ],
)
def test_verify_tells_a_wrong_order(swapped: tuple[int, int], said: str) -> None:
    """Of the last GPU, whose order is F0 B0 F1 B1 ..: what differs, before anything runs."""
    plan = dagc.compile_text(training_text("gpus = 0..1, pp = 2, microbatches = 4"))
    (result,) = plan.trainings.values()
    unit = Unit(plan.spec, plan.spec.trainings[0])
    assert prove_training(result, unit).verdict == "equal"
    schedule = result.steps.schedule
    order = list(schedule.written(1))
    order[swapped[0]], order[swapped[1]] = order[swapped[1]], order[swapped[0]]
    wrong = replace(schedule, orders=(schedule.orders[0], (Loop(tuple(order)),)))
    proof = prove_training(replace(result, steps=replace(result.steps, schedule=wrong)), unit)
    assert proof.verdict == "differs" and proof.first == f"the order of cells: {said}"


def test_a_channel_has_messages_of_several_chunks_in_the_order_of_its_sender() -> None:
    """Of two GPUs with two chunks each the last one hands the first activations and gradients; it does so in the order of its cells."""
    schedule = make("interleaved", 2, 2, 2)
    order = channels(schedule)[1, 0]
    assert [(m.microbatch, m.to, m.forward) for m in order] == [
        (0, 2, True), (1, 2, True), (0, 2, False), (1, 2, False), (0, 0, False), (1, 0, False),
    ]  # fmt: skip


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_twin_has_as_few_micro_batches_as_fill_the_pipeline(name: str) -> None:
    gpus, _ = FOR_GOLDENS[name]
    chunks = SCHEDULES[name].chunks or 2
    few = few_microbatches(name, gpus, 64, chunks)
    assert gpus < few <= 2 * gpus + 1 and make(name, gpus, few, chunks).microbatches == few
    assert few_microbatches(name, gpus, few, chunks) == few
    assert few_microbatches("gpipe", 4, 2, 1) == 2


@needs_torch
@exhaustive
def test_a_step_has_a_trace_and_a_timeline(tmp_path: Path) -> None:
    """Every op of every cell of both stages, once a micro-batch, and of an update once."""
    schema = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    spec, folder = tmp_path / "p.moe", tmp_path / "traces"
    spec.write_text(training_text("gpus = 0..1, pp = 2, microbatches = 3, schedule = zb_h1"))
    done = forked_ranks.run(spec, 2, "--trace", str(folder))
    assert done.returncode == 0, done.stderr
    _, head, *rows = done.stdout.splitlines()
    assert head.split() == ["class", "calls", "CPU", "time", "ms"]
    assert [row.split()[:3] for row in rows if row.startswith(("0 ", "1 "))] == [["0", "0", "0"], ["1", "1", "1"]]
    assert "zb_h1, 3 micro-batches; loss " in done.stdout and "estimated" not in done.stdout
    assert {p.name for p in folder.iterdir()} == {*(f"step.rank{n}.json.gz" for n in (0, 1)), "step.timeline.pftrace"}
    graph = small_step("gpus = 0..1, pp = 2, microbatches = 3").placed  # one layer of each kind in a stage
    layers = [name for stage in graph.stages for name in dict.fromkeys(name for name, _ in stage.layers)]
    ops = [(graph.layer_name(name, 0).partition(".")[0], op) for name in layers for op in graph.segment(name).ops]
    wanted = Counter({(name, op.name): 0 for name, op in ops})
    for name, op in ops:
        wanted[name, op.name] += 1 if op.cell == UPDATE else 3
    found: Counter[tuple[str, str]] = Counter()
    for rank in range(2):
        trace = json.loads(gzip.decompress((folder / f"step.rank{rank}.json.gz").read_bytes()))
        marks = [mark_of(e["name"]) for e in trace["traceEvents"] if e.get("ph") == "X"]
        found.update((m.layer.partition(".")[0], m.op) for m in marks if m is not None and m.layer)
        assert Counter(m.op for m in marks if m is not None and m.op and not m.layer) == {"send": 3, "recv": 3}
    assert found == wanted
    trace = schema.Trace()
    trace.ParseFromString((folder / "step.timeline.pftrace").read_bytes())
    begun = [p.track_event for p in trace.packet if p.track_event.type == schema.TrackEvent.TYPE_SLICE_BEGIN]
    processes = {
        p.track_descriptor.process.process_name for p in trace.packet if p.track_descriptor.HasField("process")
    }
    assert {name.partition(":")[0] for name in processes if name} == {"measured on cpu", "planned, on the spec's GPUs"}
    assert len(begun) > sum(wanted.values())


@needs_torch
def test_full_dims_compare_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(
        training_text("gpus = 0..1, pp = 2, microbatches = 4").replace("gpus = 64,", "gpus = 2, kind = cpu,")
    )
    done = forked_ranks.run(spec, 2, "--full-dims")
    assert done.returncode == 0, done.stderr
    first, head, *rows = done.stdout.splitlines()
    assert "fp32; loss " in first and first.endswith("gradients not compared")
    assert head.split() == ["class", "calls", "measured", "ms", "estimated", "ms", "ratio"]
    assert any(row.split()[:3] == ["rank", "GPU", "stage"] and "estimated ms" in row for row in rows)


@needs_torch
def test_small_numbers_are_added_up_in_larger_ones(tmp_path: Path) -> None:
    """In fp16 the square of a gradient is nothing, and AdamW would divide by it."""
    spec = tmp_path / "p.moe"
    spec.write_text(training_text("gpus = 0..1, dp = 2, microbatches = 2, zero = 1"))
    done = forked_ranks.run(spec, 2, "--dtype", "fp16")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fp16; loss and 13 gradients equal" in done.stdout and "new weights too" in done.stdout


@needs_torch
def test_what_cannot_run_is_told_before_processes_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dagc.execute.torch import processes

    monkeypatch.setattr(processes, "spawn", lambda *_: pytest.fail("a process was started"))
    spec = tmp_path / "p.moe"
    spec.write_text(training_text("gpus = 0..1, dp = 2").replace("memory = 64 GB", "memory = 1 MB"))
    assert main(["run", str(spec)]) == 1
    assert "error[E04]: phase `step` does not fit" in capsys.readouterr().err
    assert main(["run", str(spec), "--phase", "steps"]) == 2
    assert "error[E14]: unknown phase `steps`" in capsys.readouterr().err
