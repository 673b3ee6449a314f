"""A command in this process, told apart from one of its own by nothing that it prints: it takes a twentieth of the time.

As a script it runs those that it reads, one after the other, for whoever needs a process that finds other packages."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

from dagc.cli import main

ROOT = Path(__file__).resolve().parent.parent


def dagc(*words: str, folder: Path | None = None) -> CompletedProcess[str]:
    """Exit code, output and errors of `dagc WORDS` in a folder."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    with chdir(folder or os.getcwd()), redirect_stdout(out), redirect_stderr(err):
        code = main([*words])
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return CompletedProcess(["dagc", *words], code, *texts)


def in_another(site: Path, *commands: Sequence[str]) -> list[CompletedProcess[str]]:
    """Commands in one process that finds the packages of a folder."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        input=json.dumps(commands), capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(site)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [CompletedProcess([*words], *found) for words, found in zip(commands, json.loads(done.stdout), strict=True)]


if __name__ == "__main__":
    ran = [dagc(*words) for words in json.load(sys.stdin)]
    json.dump([(one.returncode, one.stdout, one.stderr) for one in ran], sys.stdout)
