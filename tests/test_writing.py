"""Written all or none: whatever is in the way, ends the process or fills the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from tiers import left_out

import dagc
from dagc.cli import main
from dagc.cli.writing import write_all

Capture = pytest.CaptureFixture[str]
SPEC = str(ROOT / "examples" / "three_link_levels.moe")
FAILS = str(ROOT / "examples" / "plan_b.moe")


def test_a_directory_in_the_way_leaves_everything_as_it_was(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "three_link_levels.txt").write_text("precious")
    (tmp_path / "three_link_levels.decode.graph.json").mkdir()
    assert main(["compile", SPEC, "--emit", "json", "-o", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"cannot write {tmp_path}/three_link_levels.decode.graph.json: it is a directory" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "three_link_levels.decode.graph.json",
        "three_link_levels.txt",
    ]
    assert (tmp_path / "three_link_levels.txt").read_text() == "precious"


def test_a_folder_that_fails_takes_the_files_with_it(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(dagc.SpecError, match="No space left on device"):
        write_all({tmp_path / "new" / "a.txt": b"whole"}, {tmp_path / "new" / "traces": full})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_by_force_only(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "new").write_text("new")

    target = tmp_path / "traces"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(dagc.SpecError, match="exists already"):
        write_all({tmp_path / "a": b""}, {target: fill})
    assert [p.name for p in tmp_path.iterdir()] == ["traces"] and (target / "old").exists()
    write_all({tmp_path / "a": b""}, {target: fill}, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "traces"]
    assert [p.name for p in target.iterdir()] == ["new"]


def test_a_link_is_followed_and_a_pipe_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_all({tmp_path / "link": b"new"})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(dagc.SpecError, match="is not a regular file"):
        write_all({tmp_path / "a": b"", tmp_path / "pipe": b""})
    assert not (tmp_path / "a").exists() and (tmp_path / "pipe").is_fifo()


def test_scripts_can_be_run(tmp_path: Path) -> None:
    write_all({tmp_path / "a.sh": b"", tmp_path / "a.json": b""})
    assert os.access(tmp_path / "a.sh", os.X_OK) and not (tmp_path / "a.json").stat().st_mode & 0o111


def test_a_process_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM in the middle of a stream that would never end."""
    script = f"""
import sys
from pathlib import Path
import dagc.cli
from dagc.cli.writing import write_all

def endless():
    while True:
        print("going", flush=True)
        yield b"x"

def run(args):
    write_all({{Path({str(tmp_path)!r}) / "out" / "a": endless()}})

import dagc.cli.explain
dagc.cli.explain.run = run
sys.exit(dagc.cli.main(["explain", "E01"]))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == b"going\n"
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        assert process.wait(20) in (0, 143)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    "command",
    [
        ["compile", SPEC],
        left_out((["compile", SPEC, "--json"],)),
        left_out((["check", SPEC],)),
        left_out((["ir", SPEC],)),
    ],
)
def test_a_full_standard_output_is_no_bug_of_ours(command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dagc", *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.endswith("dagc: cannot write the output: No space left on device\n")
    assert "Traceback" not in done.stderr


def test_a_closed_standard_output() -> None:
    done = subprocess.run(
        f"{sys.executable} -m dagc compile {FAILS} >&-", shell=True, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode in (1, 2) and "internal error" not in done.stderr and "Traceback" not in done.stderr


def test_the_ranks_of_a_run_end_with_it(tmp_path: Path) -> None:
    """The parent is ended while its processes wait: they go too."""
    script = f"""
import sys, subprocess
import dagc.cli, dagc.cli.explain
from dagc.execute.torch import processes
def run(args):
    real = subprocess.Popen
    def stand_in(command, **options):
        return real([sys.executable, "-c", "import os,time; open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w'); time.sleep(600)"])
    processes.subprocess.Popen = stand_in
    return processes.spawn(["--version"], 2)
dagc.cli.explain.run = run
sys.exit(dagc.cli.main(["explain", "E01"]))
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as process:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    pids = [int(p.name) for p in tmp_path.iterdir()]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def wait_for(holds: object, seconds: float = 20.0) -> None:
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
