"""`--watch`, with real processes and real changes of files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, spec_text

from dagc.cli import main

PATIENCE_S = 60.0


class Watching:
    """`dagc ... --watch` in a folder; its output, on a terminal or not, as it comes."""

    def __init__(self, folder: Path, *words: str, terminal: bool = False) -> None:
        import pty

        self.said = b""
        self.ours, theirs = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dagc", *words, "--watch"], cwd=folder, stdout=theirs, stderr=theirs,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job starts without it
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(self.ours, False)

    def until(self, text: bytes) -> bytes:
        """What was said since the last call, up to its next end of a run that has the text."""
        end = time.monotonic() + PATIENCE_S
        while True:
            at = self.said.find(b"Ctrl-C ends it\n" if b"\r\n" not in self.said else b"Ctrl-C ends it\r\n")
            if at >= 0:
                whole, self.said = self.said[: at + 16], self.said[at + 16 :]
                if text in whole:
                    return whole
                continue
            assert time.monotonic() < end and self.process.poll() is None, self.said.decode()
            try:
                self.said += os.read(self.ours, 65536)
            except BlockingIOError:
                time.sleep(0.02)

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=PATIENCE_S)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Any]:
    """The command of a spec whose model is in a file that it imports."""
    hardware, _, rest = spec_text(phase="gpus = 0..1, tp = 2").partition("model small")
    (tmp_path / "part.moe").write_text("moe 1\nlet wide = 32\n")
    text = f'moe 1\nimport "part.moe"\n{hardware.removeprefix("moe 1")}model small{rest}'.replace(
        "hidden = 32", "hidden = wide"
    )
    (tmp_path / "plan.moe").write_text(text)
    started: list[Watching] = []

    def start(*words: str, terminal: bool = False) -> Watching:
        started.append(Watching(tmp_path, *words, terminal=terminal))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        os.close(one.ours)


def test_changes_of_a_spec_and_of_what_it_imports(watching: Any, tmp_path: Path) -> None:
    run = watching("check", "plan.moe")
    assert b"\x1b" not in run.until(b"plan.moe: passed") and run.process.poll() is None
    spec, part = tmp_path / "plan.moe", tmp_path / "part.moe"
    part.write_text("moe 1\nlet wide = = 32\n")  # an error, in the file that is imported
    assert b"part.moe:2" in run.until(b"error[")
    part.unlink()
    run.until(b"cannot read")
    (tmp_path / "new").write_text("moe 1\nlet wide = 64\n")
    (tmp_path / "new").rename(part)  # as editors write
    run.until(b"plan.moe: passed")
    text = spec.read_text()
    spec.rename(tmp_path / "elsewhere.moe")
    run.until(b"No such file")
    spec.write_text(text.replace("tp = 2", "tp = 3"))
    run.until(b"error[E03]")
    spec.write_text(text + 'require "never" prefill.ttft <= 0.001 us\n')
    run.until(b"never")
    assert run.end() == 130


def test_a_terminal_is_cleared_and_files_are_written_again(watching: Any, tmp_path: Path) -> None:
    run = watching("report", "plan.moe", "-o", "plan.md", terminal=True)
    assert b"\x1b[2J" in run.until(b"wrote plan.md")
    first = (tmp_path / "plan.md").read_text()
    (tmp_path / "part.moe").write_text("moe 1\nlet wide = 128\n")
    run.until(b"wrote plan.md")
    assert (tmp_path / "plan.md").read_text() != first
    assert run.end() == 130


def test_standard_input_is_not_watched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "-", "--watch"]) == 2
    assert "standard input cannot be watched" in capsys.readouterr().err
