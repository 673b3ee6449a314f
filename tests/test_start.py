"""What a verdict imports: modules, not seconds."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import spec_text

from dagc import cli
from dagc.cli import columns as terminal
from dagc.cli import main
from dagc.cli.parser import parse_arguments
from dagc.cli.plain_words import plain_arguments
from dagc.cost.normal_quantile import normal_quantiles
from dagc.serving.verdict import _median

NEEDLESS = (
    "argparse", "gettext", "lark", "dataclasses", "statistics", "decimal", "fractions", "shutil", "tempfile", "lzma", "importlib.util", "importlib.resources",
    "importlib.metadata", "numpy.ma", "numpy.typing", "string", "networkx", "graphviz", "yaml", "orjson",
    "dagc.api", "dagc.base.syntax.recovery", "dagc.base.syntax.lalr_tables", "dagc.cli.help_pages",
)  # fmt: skip


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """By the verdict on a plan, in a process without what the installation of this checkout imports at start."""
    spec = tmp_path_factory.mktemp("start") / "plan.moe"
    spec.write_text(spec_text())
    code = "import sys; from dagc.cli import main; code = main(['check', sys.argv[1]]); print(code, *sys.modules)"
    path = os.pathsep.join(part for part in sys.path if os.path.isdir(part))
    command = [sys.executable, "-S", "-c", code, str(spec)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    found = done.stdout.splitlines()[-1].split()
    assert found[0] == "0"
    return set(found[1:])


def test_a_verdict_imports_nothing_that_it_does_not_need(imported: set[str]) -> None:
    assert "numpy" in imported and "dagc.pipeline.compile" in imported
    assert sorted(imported & set(NEEDLESS)) == []


class Full(io.StringIO):
    """Of a disk that is."""

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("command", "waits", "ends"),
    [
        ("check", "", True),
        ("explain", "", False),
        ("check", "atexit", False),
        ("check", "profile", False),
        ("check", "trace", False),
        ("check", "thread", False),
        ("check", "closed", False),
    ],
)
def test_a_process_ends_with_its_verdict(monkeypatch: pytest.MonkeyPatch, command: str, waits: str, ends: bool) -> None:
    """Unless somebody waits for its end, or what it printed cannot be written."""
    ended: list[int] = []
    monkeypatch.setattr(sys, "argv", ["dagc", command])
    monkeypatch.setattr(cli, "main", lambda: 1)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr("atexit._ncallbacks", lambda: int(waits == "atexit"))
    monkeypatch.setattr(sys, "gettrace", lambda: print if waits == "trace" else None)
    monkeypatch.setattr(sys, "getprofile", lambda: print if waits == "profile" else None)
    monkeypatch.setattr("threading.active_count", lambda: 1 + (waits == "thread"))
    if waits == "closed":
        monkeypatch.setattr(sys, "stdout", Full())
    assert cli.script() == 1 and ended == [1] * ends


def test_the_command_prints_and_says_how_it_ended(tmp_path: Path) -> None:
    spec = tmp_path / "plan.moe"
    spec.write_text(spec_text(extra='require "no" prefill.gpus == 7\n'))
    code = "import sys; from dagc.cli import script; sys.exit(script())"
    done = subprocess.run([sys.executable, "-c", code, "check", str(spec)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout.endswith("FAILED: 1 of 1 requirement fails\n")
    assert "requirement `no` does not hold" in done.stderr


def test_quantiles_are_those_of_the_standard_library() -> None:
    from statistics import NormalDist

    rng = np.random.default_rng(1)
    chances = [*rng.random(2000), *10.0 ** -rng.uniform(0, 300, 500), *(1 - 10.0 ** -rng.uniform(0, 15, 500))]
    inside = np.array([float(p) for p in chances if 0 < p < 1])
    assert normal_quantiles(inside) == pytest.approx([NormalDist().inv_cdf(float(p)) for p in inside], rel=1e-13)
    assert normal_quantiles(np.array([[0.0, 1.0], [0.5, 0.0]])).tolist() == [[-np.inf, np.inf], [0.0, -np.inf]]


def test_medians_are_those_of_numpy() -> None:
    rng = np.random.default_rng(2)
    for count in (1, 2, 3, 10, 101):
        values = rng.random(count)
        assert _median(values) == float(np.median(values))


@pytest.mark.parametrize("said", ["", "0", "-3", "many", "133"])
def test_columns_are_those_of_the_standard_library(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from shutil import get_terminal_size

    monkeypatch.setenv("COLUMNS", said)
    assert terminal.columns() == get_terminal_size().columns


def test_only_a_process_that_ends_gives_up_finding_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gc.freeze` is for the command, not for whoever calls `main`."""
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    assert main(["list", "dtypes"]) == 0 and not frozen
    monkeypatch.setattr(sys, "argv", ["dagc", "list", "dtypes"])
    assert main() == 0 and frozen


@pytest.mark.parametrize(("said", "then"), [(None, "1"), ("3", "3")])
def test_a_command_multiplies_matrices_with_one_thread(
    said: str | None, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the environment says otherwise; whoever calls `main` with words of their own keeps theirs."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", said or "")
    if said is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    assert main(["list", "dtypes"]) == 0 and os.environ.get("OPENBLAS_NUM_THREADS") == said
    monkeypatch.setattr(sys, "argv", ["dagc", "list", "dtypes"])
    assert main() == 0 and os.environ["OPENBLAS_NUM_THREADS"] == then


@pytest.mark.parametrize(
    "words",
    ["check a.moe", "check a.moe check -", "check b/a.moe a.moe", "check", "check -q a.moe", "compile a.moe", ""],
)
def test_plain_words_are_what_the_parser_makes_of_them(words: str) -> None:
    argv = words.split(" ") if words else []
    plain, parsed = plain_arguments(argv), parse_arguments(argv)
    known = len(argv) > 1 and argv[0] == "check" and not any(word.startswith("-") for word in argv)
    assert (plain is not None) == known
    if plain is not None:
        assert not isinstance(parsed, int) and vars(plain) == vars(parsed)
    assert plain_arguments(["check", ""]) is None
