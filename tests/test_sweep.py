"""Sweeps: the same rows in the same order wherever they run; a lost worker's points are done again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask_workers
import pytest
from conftest import ROOT, spec_text
from faulty_points import dies, dies_once, ended_once, sleeps
from tiers import exhaustive

import dagc
import dagc.optimize.clusters
from dagc.cli import main
from dagc.optimize.clusters import TRIES
from dagc.optimize.point import Task
from dagc.optimize.points import evaluate, points, process_pool, sweep, sweep_on
from dagc.view.report.terminal_text import in_blocks

TEXT = spec_text(
    phase="gpus = 0..7, tp = wide, ep = 8 / wide", extra="param wide = 2 in [1, 2, 4]\nparam unused = 1 in [1, 3]"
)

SERVED = spec_text(
    phase="gpus = 0..7, ep = 8",
    workload="sequences = batch, prompt = 256 tok, output = 16 tok",
    extra="phase decode { gpus = 0..7, ep = 8 }\nparam batch = 64 in [16, 32, 64, 128]",
)


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "s.moe"
    path.write_text(SERVED)
    return str(path)


def tasks(folder: Path | None = None) -> list[Task]:
    """`folder` travels in the base directory, for workers that must leave a trace."""
    combinations = points({"wide": ["1", "2", "3", "4"], "unused": ["1", "3"]})
    return [Task(TEXT, "s.moe", None if folder is None else str(folder), tuple(p.items())) for p in combinations]


def url_of(cluster: Any) -> str:
    """As `--on` takes it."""
    return f"dask://{cluster.scheduler_address.removeprefix('tcp://')}"


def test_rows_are_what_compile_says_in_order() -> None:
    rows = list(sweep(tasks(), workers=2))
    assert [r.settings for r in rows] == [dict(t.settings) for t in tasks()]
    for row in rows:
        if row.settings["wide"] == "3":
            assert not row.passed and any(e.startswith("E14") for e in row.errors)
            continue
        plan = dagc.compile_text(TEXT, settings=row.settings)
        assert row.metrics["prefill.ttft"] == plan.phases["prefill"].time_s
        assert row.passed == plan.passed


def test_points_of_a_lost_worker_are_done_again(tmp_path: Path) -> None:
    assert list(sweep(tasks(tmp_path), workers=2, run=dies_once)) == list(map(evaluate, tasks(tmp_path)))
    assert (tmp_path / "died").exists()


def test_who_stops_early_leaves_no_thread_of_the_pool_behind() -> None:
    """One that still ends while Python exits prints a traceback now and then."""
    before = set(threading.enumerate())
    for count in (1, 4):
        with pytest.raises(KeyboardInterrupt), process_pool(2) as pool:
            assert pool.submit(abs, -count).result() == count
            assert set(threading.enumerate()) - before
            raise KeyboardInterrupt
        assert set(threading.enumerate()) <= before


def test_a_point_that_kills_its_workers_is_given_up() -> None:
    rows = list(sweep(tasks(), workers=1, run=dies))
    lost = next(r for r in rows if r.settings == {"wide": "2", "unused": "3"})
    assert lost.errors == (f"lost with its worker {TRIES} times",)
    assert [r for r in rows if r != lost] == [evaluate(t) for t in tasks() if dict(t.settings) != lost.settings]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Of two processes, which are started again when they end."""
    with dask_workers.cluster(2) as own:
        yield own


def test_a_dask_cluster_that_loses_a_worker_gives_the_same_rows(tmp_path: Path, cluster: Any) -> None:
    rows = list(sweep_on(url_of(cluster), tasks(tmp_path), run=dies_once))
    assert rows == list(map(evaluate, tasks(tmp_path))) and (tmp_path / "died").exists()


def test_a_dask_cluster_gives_up_a_point_that_kills_its_workers(cluster: Any) -> None:
    rows = list(sweep_on(url_of(cluster), tasks(), run=dies))
    given_up = (f"lost with its worker {TRIES} times",)
    assert {"wide": "2", "unused": "3"} in [r.settings for r in rows if r.errors == given_up]
    assert all(r == evaluate(t) for t, r in zip(tasks(), rows, strict=True) if r.errors != given_up)


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed", reason="Dask is an extra: pip install -e '.[dask]'")
    monkeypatch.setattr("dagc.optimize.clusters.CONNECT_S", 1.0)
    spec = str(ROOT / "examples" / "mixtral_8xh100.moe")
    assert main(["sweep", spec, "--over", "batch=16", "--on", "dask://127.0.0.1:1"]) == 2
    assert "no scheduler answers at 127.0.0.1:1" in capsys.readouterr().err


def test_a_server_that_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and never says a word of the protocol."""
    pytest.importorskip("distributed", reason="Dask is an extra: pip install -e '.[dask]'")
    monkeypatch.setattr("dagc.optimize.clusters.CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(dagc.optimize.clusters.ClusterError):
        list(sweep_on(f"dask://127.0.0.1:{server.getsockname()[1]}", tasks()))


def test_a_ray_cluster_that_loses_a_worker_gives_the_same_rows(tmp_path: Path) -> None:
    """A head with two CPUs of its own; a point that ends its worker process is done again."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install -e '.[ray]'")
    command = [sys.executable, "-m", "ray.scripts.scripts"]
    with socket.socket() as free, socket.socket() as other:
        free.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, client = free.getsockname()[1], other.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "RAY_TMPDIR": "/tmp/dagc_ray", "RAY_AUTH_MODE": "disabled"}
    options = ["--head", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--include-dashboard=false"]
    options += [f"--port={port}", f"--ray-client-server-port={client}", "--disable-usage-stats"]
    done = subprocess.run(
        [*command, "start", *options], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        pytest.skip(f"no Ray cluster can be started here: {done.stderr[-200:]}")
    try:
        rows = list(sweep_on(f"ray://127.0.0.1:{client}", tasks(tmp_path), run=dies_once))
        lost = list(sweep_on(f"ray://127.0.0.1:{client}", tasks(), run=dies))
    except dagc.optimize.clusters.ClusterError as error:
        if "Initialization failure from server" not in str(error):
            raise
        pytest.skip(f"Ray's own server does not start here: {str(error)[-200:]}")
    finally:
        subprocess.run([*command, "stop", "--force"], env=env, capture_output=True, timeout=120, check=False)
    assert rows == list(map(evaluate, tasks(tmp_path))) and (tmp_path / "died").exists()
    given_up = (f"lost with its worker {TRIES} times",)
    assert [r.settings for r in lost if r.errors == given_up] == [{"wide": "2", "unused": "3"}]


@exhaustive
def test_a_worker_that_is_told_to_end_is_a_lost_one(tmp_path: Path) -> None:
    """Also where the process that waits for it handles that signal, as a command does."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("the parent's"))
    try:
        assert list(sweep(tasks(tmp_path), workers=2, run=ended_once)) == list(map(evaluate, tasks(tmp_path)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "died").exists()


def test_a_sweep_that_is_left_ends_its_workers() -> None:
    def late(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(sweep(tasks(), workers=2, run=sleeps))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 60


def test_a_fault_in_one_point_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("too much")

    monkeypatch.setattr("dagc.optimize.points._kept", None)  # what is kept of earlier points asks no compiler
    monkeypatch.setattr("dagc.pipeline.compile.compile_spec", broken)
    row = evaluate(tasks()[0])
    assert row.errors == ("internal error: MemoryError: too much",) and not row.passed


def test_no_more_processes_than_points(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ProcessPoolExecutor

    asked: list[int | None] = []

    class Pool(ProcessPoolExecutor):
        def __init__(self, workers: int | None = None, **options: object) -> None:
            asked.append(workers)
            super().__init__(1)

    monkeypatch.setattr("dagc.optimize.points.ProcessPoolExecutor", Pool)
    assert len(list(sweep(tasks()[:2], workers=3000))) == 2 and asked == [2]


def test_at_most_four_processes_for_a_cpu() -> None:
    """Of as many as somebody asks for: a fork of each at once takes the machine."""
    import os

    from dagc.optimize.points import processes

    assert processes(1) == 1 and processes(10**8) == 4 * (os.cpu_count() or 1)


def test_phases_of_a_sweep(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", spec, "--over", "batch=16", "--phase", "decode", "--format", "json", "--workers", "1"]) in (
        0,
        1,
    )
    (row,) = json.loads(capsys.readouterr().out)
    assert not row["errors"] and not any(name.startswith("prefill.") for name in row["metrics"])
    assert main(["sweep", spec, "--over", "batch=16", "--phase", "nope", "--workers", "1"]) == 2
    assert main(["sweep", spec, "--over", "nope=1", "--workers", "1"]) == 2


def test_the_command(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", spec, "--over", "batch=16,32", "--format", "json", "--workers", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["settings"]["batch"] for r in rows] == ["16", "32"]
    assert rows[0]["metrics"]["decode.tpot"] < rows[1]["metrics"]["decode.tpot"]
    assert main(["sweep", spec, "--workers", "1", "--format", "csv", "--metric", "decode.tpot"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "batch,decode.tpot [s],verdict" and len(lines) == 5  # the domain of `batch`


def test_the_table_has_units_and_says_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "s.moe"
    spec.write_text(
        spec_text(
            extra='param room = 64 GB in [32 GB, 64 GB]\nrequire "first token" prefill.ttft <= 1 ns\nrequire "fits" prefill.memory.fraction <= 90%'
        ).replace("memory = 64 GB", "memory = room")
    )
    assert main(["sweep", str(spec), "--workers", "1"]) == 1
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["room", "prefill.ttft", "prefill.throughput_per_gpu"] and [
        line.split()[:2] for line in lines
    ] == [["32", "GB"], ["64", "GB"]]
    for line in lines:
        assert re.search(r" [\d.]+ us .* tok/s .*% +fail: first token: [\d.]+ us, not <= 1 ns$", line), line
    assert main(["sweep", str(spec), "--workers", "1", "--format", "json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert all(len(row["failed"]) == 1 and row["failed"][0].startswith("first token: ") for row in rows)


def test_columns_that_do_not_fit_go_below_each_with_the_params() -> None:
    rows = [
        ("batch", "ttft", "tpot", "verdict"),
        ("16", "353.9 ms", "6.4 ms", "pass"),
        ("128", "2.4 s", "9.6 ms", "FAIL"),
    ]
    wide = in_blocks(rows, 1, 80)
    assert wide == [
        "batch  ttft      tpot    verdict",
        "16     353.9 ms  6.4 ms  pass",
        "128    2.4 s     9.6 ms  FAIL",
    ]
    narrow = in_blocks(rows, 1, 24)
    assert narrow == [
        "batch  ttft      tpot", "16     353.9 ms  6.4 ms", "128    2.4 s     9.6 ms", "",
        "batch  verdict", "16     pass", "128    FAIL",
    ]  # fmt: skip
    assert len(in_blocks(rows, 1, 1)) == 3 * 4 - 1  # a column is not cut


def test_unknown_names_of_a_sweep_are_told_once_and_with_help(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", spec, "--over", "tp=1,2", "--workers", "1"]) == 2
    shown = capsys.readouterr()
    assert not shown.out and "declare it in the spec: `param tp = ...`" in shown.err
    assert main(["sweep", spec, "--over", "batch=16", "--metric", "tpot", "--workers", "1"]) == 2
    shown = capsys.readouterr().err
    assert "did you mean `decode.tpot`?" in shown and "dagc list metrics" in shown


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--over", "batch"], "is not of the form"),
        (["--over", "batch=16", "--on", "spark://x:1"], "is no address of a cluster"),
        (["--over", "batch=16", "--on", "dask://x"], "is no address of a cluster"),
        (["--over", "batch=16", "--on", "dask://x:1/../"], "is no address of a cluster"),
        (["--over", "batch=16", "--over", "batch=32"], "`--over batch` is given twice"),
        (["--over", "batch=16", "--metric", "decode.tpott"], "did you mean `decode.tpot`?"),
        (["--over", "batch=" + ",".join("1" * 1001), "--over", "x=" + ",".join("1" * 1001)], "more than 1,000,000"),
        (["--set", "batch=16"], "nothing to sweep over"),
    ],
)
def test_wrong_sweeps_are_refused(
    extra: list[str], message: str, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", spec, *extra]) == 2
    assert message in capsys.readouterr().err
