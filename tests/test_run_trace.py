"""`dagc run --trace`: a profiler's trace of each rank that names ops of the plan, and the measured beside the planned timeline."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import subprocess
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked_ranks
import jsonschema
import pytest
from conftest import ROOT, spec_text

import dagc
from dagc.cli import main
from dagc.execute.marks import METADATA, Mark, mark_of
from dagc.execute.prove import twin_of_phase

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install -e '.[torch]'"
)
SCHEMA = json.loads((ROOT / "dagc/observe/compare.schema.json").read_text())
SCHEMA = {"$defs": SCHEMA["$defs"], **SCHEMA["$defs"]["collectives"]}
PLAN = spec_text(phase="gpus = 0..1, pp = 2, microbatches = 2")
CPU = (
    spec_text(phase="gpus = 0..1, ep = 2", workload="sequences = 4, prompt = 32 tok, output = 16 tok")
    .replace("gpus = 64,", "gpus = 2, kind = cpu,")
    .replace("compute = 400 TFLOP/s", "compute = 50 GFLOP/s")
    .replace("hbm = 1.8 TB/s", "hbm = 10 GB/s")
)


def run(spec: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        forked_ranks.python(forked_ranks.PROFILER),
        "-m",
        "dagc",
        "run",
        str(spec),
        "--repeat",
        "1",
        "--timeout",
        "120",
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)


def dagc_compare(*argv: str) -> SimpleNamespace:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["compare", *argv])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


@pytest.mark.parametrize(
    "mark", [Mark("decode"), Mark("decode", 3, "sparse.12", "gqa.y.all_reduce"), Mark("p", 0, "", "send")]
)
def test_a_mark_reads_back(mark: Mark) -> None:
    assert mark_of(mark.text) == mark


@pytest.mark.parametrize(
    "text", ["", "dagc", "dagc:", "aten::mm", "dagc:decode:x:send", "dagc:decode:1:", "gloo:send", "dagc:p:²:send"]
)
def test_other_names_are_no_marks(text: str) -> None:
    assert mark_of(text) is None


@needs_torch
def test_every_op_of_every_rank_is_in_its_trace(tmp_path: Path) -> None:
    spec, folder = tmp_path / "p.moe", tmp_path / "traces"
    spec.write_text(PLAN)
    done = run(spec, "--trace", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["holds"] is True and "timeline" not in json.loads(done.stdout)
    assert "profiler_start" not in done.stderr
    names = {f"prefill.rank{r}.json.gz" for r in range(2)} | {"prefill.timeline.pftrace"}
    assert {path.name for path in folder.iterdir()} == names
    graph = twin_of_phase(dagc.compile_text(PLAN), "prefill").placed
    for rank in range(2):
        trace: dict[str, Any] = json.loads(gzip.decompress((folder / f"prefill.rank{rank}.json.gz").read_bytes()))
        about = {"schema": 1, "phase": "prefill", "rank": rank, "dtype": "fp64", "device": "cpu", "twin": True}
        assert trace[METADATA] == about and trace["distributedInfo"]["rank"] == rank
        marks = [mark_of(e["name"]) for e in trace["traceEvents"] if e.get("ph") == "X"]
        found = Counter((m.part, m.layer, m.op) for m in marks if m is not None and m.layer)
        stage = rank
        layers = list(graph.layers)[graph.first_layer(stage) + 1 :][: sum(n for _, n in graph.stages[stage].layers)]
        ops = [(graph.layer_name(s.name, i), op.name) for s, i in layers for op in s.ops]
        assert found == Counter((part, *op) for part in range(2) for op in ops)
        outside = Counter(m.op for m in marks if m is not None and not m.layer and m.op)
        assert outside["send" if stage == 0 else "recv"] == 2
        assert marks.count(Mark("prefill")) == 1
        (begin,) = (e["ts"] for e in trace["traceEvents"] if e.get("name") == Mark("prefill").text)
        waits = [e["ts"] for e in trace["traceEvents"] if e.get("name") == "c10d::barrier"]
        assert min(waits) < begin, "ranks begin the pass together"
    check_timeline(
        (folder / "prefill.timeline.pftrace").read_bytes(), sum(len(segment.ops) for segment, _ in graph.layers)
    )


def compare(tmp_path: Path, spec: Path, folder: Path) -> None:
    """The traces are of the plan: by the command."""
    data = json.loads(dagc_compare(str(spec), str(folder), "--json").stdout)
    jsonschema.validate(data, SCHEMA)
    assert not data["drifts"] and data["planned"] == data["seen"] == data["same"] > 0
    assert data["named"] and not data["compares"] and data["classes"][0]["planned_s"] is None
    one = dagc_compare(str(spec), str(folder / "prefill.rank1.json.gz"))
    assert one.returncode == 0 and "collectives of 1 of 2 ranks in one pass" in one.stdout
    other = tmp_path / "other.moe"
    other.write_text(PLAN.replace("microbatches = 2", "microbatches = 1"))
    found = dagc_compare(str(other), str(folder))
    assert (
        found.returncode == 1 and "collectives are not the plan's" in found.stdout
    )  # the second micro-batch is too many
    other.write_text(spec_text(phase="gpus = 0..3, tp = 4"))
    found = dagc_compare(str(other), str(folder))
    assert found.returncode == 2 and "of a job of 2 ranks" in found.stderr


def check_timeline(data: bytes, ops: int) -> None:
    """Two nodes of processes, measured and planned; every op of the twin's stages is measured once a rank and part."""
    schema = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    trace = schema.Trace()
    trace.ParseFromString(data)
    processes: dict[int, str] = {}
    parents: dict[int, int] = {}
    slices: Counter[str] = Counter()
    last: dict[int, int] = {}
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            about = packet.track_descriptor
            if about.HasField("process"):
                processes[about.uuid] = about.process.process_name
            else:
                parents[about.uuid] = about.parent_uuid
        elif packet.HasField("track_event"):
            event = packet.track_event
            if event.type != schema.TrackEvent.TYPE_COUNTER:
                assert packet.timestamp >= last.get(event.track_uuid, 0)
                last[event.track_uuid] = packet.timestamp
            if event.type == schema.TrackEvent.TYPE_SLICE_BEGIN:
                slices[processes[parents[event.track_uuid]]] += 1
    titles = {"measured on cpu: node 0, pid", "planned, on the spec's GPUs: node 0, pid"}
    assert set(slices) == titles
    # one rank a stage, two parts; and their sends and receives
    assert slices["measured on cpu: node 0, pid"] == 2 * ops + 2 * 2
    assert slices["planned, on the spec's GPUs: node 0, pid"] > 0


@needs_torch
def test_a_plan_for_a_cpu_is_compared_with_it(tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(CPU)
    done = forked_ranks.run(spec, 2, "--full-dims", "--dtype", "fp64", "--trace", str(tmp_path / "traces"))
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()[1:]
    assert head.split() == ["class", "calls", "measured", "ms", "estimated", "ms", "ratio"]
    matmul = next(row for row in rows if row.startswith("matmul")).split()
    assert float(matmul[2]) > 0 and float(matmul[3]) > 0 and "GPU" not in rows[-1]
    assert "estimates are of fp32 values, fp64 ones ran" in rows[-1]
    found = dagc_compare(str(spec), str(tmp_path / "traces"), "--tolerance", "1e9")
    assert found.returncode == 0 and "planned ms" in found.stdout and "not the plan's" not in found.stdout
    found = dagc_compare(str(spec), str(tmp_path / "traces"), "--tolerance", "0")
    assert found.returncode == 1 and "drift beyond 0% of the plan" in found.stdout


def test_a_cpu_in_a_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = dagc.compile_text(CPU)
    assert plan.spec.hardware.kind == "cpu" and not [d for d in plan.diagnostics if "unusually" in d.message]
    spec = tmp_path / "p.moe"
    spec.write_text(CPU)
    assert main(["export", str(spec), "--to", "vllm", "-o", str(tmp_path / "out")]) == 2
    assert "`pool` is a CPU (`kind = cpu`)" in capsys.readouterr().err and not (tmp_path / "out").exists()
    spec.write_text(CPU.replace("kind = cpu", "kind = tpu"))
    assert main(["check", str(spec)]) == 2 and "gpu" in capsys.readouterr().err


@needs_torch
def test_a_folder_that_cannot_be_is_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(PLAN)
    assert main(["run", str(spec), "--trace", str(spec / "x")]) == 2
    assert "error[E05]" in capsys.readouterr().err
