"""Entry points: the example plugin, installed into a folder of its own, and plugins that are broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from conftest import ROOT, spec_text

from dagc import plugins
from dagc.cli import main
from dagc.lang import library
from dagc.lang.diagnostics import SpecError

SPEC = """moe 1
hardware from "lab-box" {}
model from "pocket-moe" {}
workload { sequences = 8, prompt = 128 tok }
phase prefill { gpus = 0..3, ep = 4 }
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the example installed; skipped where pip cannot build it."""
    target = tmp_path_factory.mktemp("site")
    source = target / "source"
    shutil.copytree(ROOT / "examples" / "plugin", source)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target / "lib"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip("pip cannot build packages here: no setuptools")
    assert done.returncode == 0, done.stderr
    yield target / "lib"


def dagc(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-m", "dagc", *args], capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )


def test_the_example_plugin_works_installed(site: Path, tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(SPEC)
    done = dagc(site, "compile", str(spec), "--emit", "collectives-csv", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "p.prefill.collectives.csv").read_text().splitlines()
    assert lines[0] == "kind,axes,ranks,calls,payload_B,time_s"
    assert any(line.startswith("all_to_all,ep,4,16,") for line in lines[1:])
    wrong = dagc(site, "compile", str(spec), "--emit", "collectives-csw")
    assert wrong.returncode == 2 and "did you mean `collectives-csv`?" in wrong.stderr


def test_without_it_its_names_are_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(SPEC)
    assert main(["compile", str(spec)]) == 2
    err = capsys.readouterr().err
    assert "lab-box" in err and "pocket-moe" in err


def entry(name: str, value: str, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints([EntryPoint(name, value, group)])
    monkeypatch.setattr(plugins, "entry_points", lambda group: points.select(group=group))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nowhere.at:all", "cannot be loaded: ModuleNotFoundError"),
        ("json:loads", "failed on `prefill`: TypeError"),
        ("test_plugins:not_bytes", "does not give a mapping from file suffixes to bytes"),
        ("test_plugins:outside", "does not give a mapping from file suffixes to bytes"),
    ],
)
def test_a_broken_exporter_is_named(
    value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry("mine", value, plugins.EXPORTERS, monkeypatch)
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text())
    assert main(["compile", str(spec), "--emit", "mine", "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "error[E05]: plugin `mine`" in err and said in err and not (tmp_path / "out").exists()


def not_bytes(plan: object, phase: str) -> dict[str, str]:
    return {"txt": "text"}


def outside(plan: object, phase: str) -> dict[str, bytes]:
    return {"../x": b""}


def test_a_broken_library_is_named_and_shipped_presets_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    entry("mine", "nowhere", plugins.LIBRARY, monkeypatch)
    assert library.preset("hardware", "h100-sxm") is not None
    with pytest.raises(SpecError, match="plugin `mine` cannot be loaded"):
        library.preset("hardware", "lab-box")
