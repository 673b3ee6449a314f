"""The fuzzer's short run, always the same cases, and what it must notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from conftest import ROOT, examples
from tiers import spread

from tests.fuzz import cases, mutate, seeds

CASES = examples(100)


def test_short_run() -> None:
    """No case of the first few ends in an internal error, runs long, grows large, or prints what steers a terminal."""
    command = [sys.executable, "-m", "tests.fuzz", "--cases", str(CASES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CASES} cases ended" in done.stdout


def test_cases_are_always_the_same_and_of_every_kind() -> None:
    made = [cases.case(i, 1) for i in range(200)]
    assert made[:50] == [cases.case(i, 1) for i in range(50)]
    assert made[:50] != [cases.case(i, 2) for i in range(50)]
    assert {c.kind for c in made} == set(cases.KINDS)


def test_mutations_change_and_end() -> None:
    random = Random(0)
    text = seeds.SMALL
    assert sum(mutate.spec(text, seeds.OWN, random) != text for _ in range(50)) > 45
    for how in (mutate.bytewise, mutate.jsonwise):
        assert len({how(seeds.graphs()["prefill"], random) for _ in range(10)}) > 7


FAULTS = {
    "raise ValueError('x')": "exit 3: ValueError: x",
    "while True: pass": "of CPU",
    "bytearray(2 * 10**9)": "exit 3: MemoryError",
    "import time; time.sleep(1000)": "still running",
    "print(chr(27))": "control character (U+001B)",
    "open('../../outside', 'w').close()": "written outside",
    "import warnings; warnings.warn('x', RuntimeWarning)": "a warning of Python",
    "return 2": "without a word",
    "return 7": "exit 7",
    "import os; os.kill(os.getpid(), 11)": "signal SIGSEGV",
}


@pytest.mark.parametrize("body", spread(FAULTS, lambda body: body != "while True: pass"))
def test_faults_are_noticed(body: str, tmp_path: Path) -> None:
    """A command that does one of these is distinguished from one that ends well."""
    script = f"""
import sys
from pathlib import Path
import dagc.cli
from tests.fuzz import cases, judge
def main(argv):
    {body}
    print("fine")
    return 0
dagc.cli.main = main
judge.SECONDS, judge.PATIENCE = 1, {2 if "sleep" in body else 60}
print(judge.judge(cases.Case(0, "spec", ("check",), {{"spec.moe": b""}}), Path({str(tmp_path / "place")!r})).fault)
"""
    (tmp_path / "place").mkdir()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert FAULTS[body] in done.stdout, done.stdout + done.stderr


def test_a_case_that_ends_well_has_no_fault(tmp_path: Path) -> None:
    """In a process of its own: a case is forked, and begins with the memory of whoever forks it."""
    script = f"""
from pathlib import Path
from tests.fuzz import cases, judge, seeds
one = cases.Case(0, "spec", ("check", "spec.moe"), {{"spec.moe": seeds.SMALL.encode()}})
ended = judge.judge(one, Path({str(tmp_path)!r}))
print(repr((ended.fault, ended.code, ended.seconds > 0, ended.peak_B > 1e6)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == [repr(("", 0, True, True))], done.stdout + done.stderr
