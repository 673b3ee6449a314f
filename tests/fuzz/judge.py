"""Runs a case in a forked process with limits, and says what is wrong with how it ended."""

from __future__ import annotations

import gc
import os
import re
import resource
import select
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cases import Case, case

SECONDS = 20
"""Of a CPU; the wall may take some times as long on a busy machine."""
PATIENCE = 6
BYTES = 1_000_000_000
OUTPUT = 200_000_000
"""Bytes of a file that a case may write."""
STEERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ALLOWED = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a case ended: `fault` is empty where all is well."""

    number: int
    kind: str
    command: str
    code: int
    fault: str
    seconds: float
    peak_B: int


@dataclass(slots=True)
class Report:
    cases: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0
    slowest: float = 0.0
    largest_B: int = 0

    def add(self, ended: Ended) -> None:
        self.cases += 1
        self.seconds += ended.seconds
        self.codes[ended.code] += 1
        self.kinds[ended.kind] += 1
        self.slowest, self.largest_B = max(self.slowest, ended.seconds), max(self.largest_B, ended.peak_B)
        if ended.fault:
            self.faults.setdefault(ended.fault, []).append(ended.number)

    def text(self) -> str:
        codes = ", ".join(f"{count} with {code}" for code, count in sorted(self.codes.items()))
        bad = sum(map(len, self.faults.values()))
        rows = [
            f"{self.cases} cases ended: {codes or 'none'}",
            f"{self.seconds:.0f} s of CPU, slowest {self.slowest:.1f} s, largest {self.largest_B / 1e6:.0f} MB; {bad} failed",
        ]
        for fault, numbers in sorted(self.faults.items(), key=lambda kv: -len(kv[1])):
            rows.append(f"  {len(numbers)} x {fault} (cases {', '.join(map(str, numbers[:8]))})")
        return "\n".join(rows)


def prepare() -> None:
    """What every command imports, once: forks share it."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["DAGC_DEBUG"] = ""
    os.environ.pop("DAGC_DEBUG")
    import dagc
    from dagc import cli
    from dagc.base import render
    from dagc.base.syntax import format
    from dagc.calib import load
    from dagc.execute import prove
    from dagc.lang import library
    from dagc.plan import require
    from dagc.view.report import markdown
    from dagc.view.report import terminal as report

    from .seeds import SMALL, seeds, words

    imported = (cli, report, load, markdown, format, library, render, require, prove)
    assert imported and seeds() and words() and library.stock()
    dagc.compile_text(SMALL).report()
    gc.collect()
    gc.freeze()  # pages of what is there already stay shared


def judge(one: Case, place: Path) -> Ended:
    """Run a case in `place`, a folder that nothing else is in."""
    folder = place / "in" / "side" / "case"
    folder.parent.mkdir(parents=True)
    one.write(folder)
    code, usage, killed = _forked(one, folder, place)
    said = (place / "said").read_text("utf-8", "replace")
    fault = _fault(code, killed, said, usage)
    beside = sorted(p.name for around in (place, place / "in", folder.parent) for p in around.iterdir())
    if not fault and beside != sorted(("in", "said", "side", "case")):
        fault = "a file was written outside"
    if code == 3 and not killed:
        fault = f"exit 3: {_traceback(one, folder, place)}"
    seconds = usage.ru_utime + usage.ru_stime
    return Ended(one.number, one.kind, " ".join(one.command), code, fault, seconds, usage.ru_maxrss * 1024)


def _fault(code: int, killed: bool, said: str, usage: Any) -> str:
    if killed:
        return f"still running after {SECONDS * PATIENCE} s"
    if code < 0:
        return (
            f"over {SECONDS} s of CPU"
            if -code in (signal.SIGXCPU, signal.SIGKILL)
            else f"signal {signal.Signals(-code).name}"
        )
    if code not in ALLOWED and code != 3:
        return f"exit {code}"
    if usage.ru_maxrss * 1024 > BYTES:
        return f"over {BYTES / 1e9:.0f} GB"
    if "Traceback (most recent" in said or "internal error" in said:
        return "a traceback or an internal error is told"
    if found := STEERS.search(said):
        return f"a control character (U+{ord(found[0]):04X}) is printed"
    if found := re.search(r"\b\w+Warning: .{,100}", said):
        return f"a warning of Python: {found[0]}"
    if code == 2 and not said.strip():
        return "exit 2 without a word"
    return ""


def _forked(one: Case, folder: Path, place: Path, debug: bool = False) -> tuple[int, Any, bool]:
    """(exit code or minus the signal, usage, whether it had to be killed)."""
    pid = os.fork()
    if not pid:
        _child(one, folder, place, debug)
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    killed = not poll.poll(1000 * SECONDS * PATIENCE)
    if killed:
        os.kill(pid, signal.SIGKILL)
    os.close(handle)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage, killed


def _child(one: Case, folder: Path, place: Path, debug: bool) -> None:
    code = 3
    try:
        os.chdir(folder)
        said = os.open(place / "said", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + BYTES, now + BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 2))
        resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT, OUTPUT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if debug:
            os.environ["DAGC_DEBUG"] = "1"
        from dagc.cli import main

        code = main(list(one.command))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
        code = 3
    finally:
        os._exit(code)


def _traceback(one: Case, folder: Path, place: Path) -> str:
    """Where an internal error comes from: the case once more, with the traceback told."""
    shutil.rmtree(folder)
    one.write(folder)
    _forked(one, folder, place, debug=True)
    rows = (place / "said").read_text("utf-8", "replace").rstrip().splitlines()
    places = [m for row in rows if (m := re.search(r'File "[^"]*/([^/"]+/[^/"]+)", line (\d+), in (\S+)', row))]
    at = f"{places[-1][1]}:{places[-1][2]} {places[-1][3]}" if places else "nowhere"
    return f"{rows[-1][:100] if rows else ''} at {at}"


def run(numbers: Iterable[int], seed: int, place: Path, keep: Path | None = None) -> Iterator[Ended]:
    """Judge cases one by one; those that fail are kept."""
    for number in numbers:
        one = case(number, seed)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        ended = judge(one, place)
        if ended.fault and keep is not None:
            target = keep / f"{seed}-{number}"
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for name, data in one.files.items():
                (target / name).write_bytes(data)
            (target / "command").write_text(f"dagc {' '.join(map(repr, one.command))}\n{ended.fault}\n")
        yield ended
    shutil.rmtree(place, ignore_errors=True)
