"""Entry points: the example plugin, installed into a folder of its own, and plugins that are broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import in_process
import pytest
from conftest import ROOT, spec_text
from in_process import in_another

from dagc.api import Plan, compile_text
from dagc.base import entry_points
from dagc.cli import main
from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass, PassError
from dagc.lang import library

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


def test_the_example_plugin_works_installed(site: Path, tmp_path: Path) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(SPEC)
    done, wrong = in_another(
        site,
        ["compile", str(spec), "--emit", "collectives-csv", "-o", str(tmp_path / "out")],
        ["compile", str(spec), "--emit", "collectives-csw"],
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "p.prefill.collectives.csv").read_text().splitlines()
    assert lines[0] == "kind,axes,ranks,calls,payload_B,time_s"
    assert any(line.startswith("all_to_all,ep,4,16,") for line in lines[1:])
    assert wrong.returncode == 2 and "did you mean `collectives-csv`?" in wrong.stderr


def test_the_example_pass_works_installed(site: Path, tmp_path: Path) -> None:
    """The vocabulary stays whole: no collective in embedding and head, more memory, and the proof still holds."""
    spec, plain, out = tmp_path / "p.moe", tmp_path / "plain.moe", tmp_path / "out"
    plain.write_text(spec_text(phase="gpus = 0..7, ep = 2, tp = 4"))
    spec.write_text(spec_text(phase="gpus = 0..7, ep = 2, tp = 4, passes = [whole_vocab]"))
    *done, proof, after, before, read = in_another(
        site,
        ["compile", str(plain), "--json"],
        ["compile", str(spec), "--json"],
        ["compile", str(spec), "--emit", "json", "-o", str(out)],
        ["verify", str(spec)],
        *(["ir", str(spec), "--after", level] for level in ("whole_vocab", "tp", "spec")),
    )
    assert [one.returncode for one in done] == [0, 0, 0], done[-1].stderr
    found = [json.loads(one.stdout)["phases"]["prefill"] for one in done[:2]]
    counts = [sum(c["count"] for c in f["collectives"] if c["kind"] == "all_reduce") for f in found]
    assert counts[0] > counts[1] > 0
    weights = [f["memory"]["weights_B"] for f in found]
    tables = 2 * 512 * 64 * 4
    assert weights[1] - weights[0] == tables * 3 / 4
    assert proof.returncode == 0, proof.stdout + proof.stderr
    assert "vocab/tp" in before.stdout and "vocab/tp" not in after.stdout
    assert "passes = [whole_vocab]" in read.stdout
    again = in_process.dagc("compile", str(out / "p.prefill.graph.json"), "--json")  # needs no plugin
    assert json.loads(again.stdout)["phases"]["prefill"]["ttft_s"] == found[1]["ttft_s"]


def raising(one: GraphPass, graph: Graph) -> Graph:
    raise ZeroDivisionError("oh")


def stopping(one: GraphPass, graph: Graph) -> Graph:
    raise PassError("no way on")


def breaking(one: GraphPass, graph: Graph) -> Graph:
    """Splits a loop that does not divide."""
    return graph.map_ops(
        lambda s, op: op.annotate("hidden", ("ep", "tp")) if op.kind == "contract" else op, graph.level
    )


def changing(**fields: object) -> Callable[[GraphPass, Graph], Graph]:
    return lambda one, graph: replace(graph, **fields)  # type: ignore[arg-type]


def without_first(one: GraphPass, graph: Graph) -> Graph:
    return replace(graph, segments=graph.segments[1:])


def made(after: str | None, run: object, name: str = "mine", levels: tuple[str, ...] = ()) -> object:
    """A pass as a plugin would define it."""
    body = {"name": name, "after": after, "levels": levels, "run": run}
    return dataclass(frozen=True)(type("Mine", (GraphPass,), body))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (made("tp", raising), "failed on `prefill`: ZeroDivisionError: oh"),
        (made("tp", lambda one, graph: None), "failed on `prefill`: TypeError: gives NoneType, not a graph"),
        (made("tp", breaking), "breaks the graph of `prefill`: "),
        (made("expand", changing(microbatches=7)), "changes `microbatches` of the graph"),
        (made("expand", changing(phase="other")), "changes `phase` of the graph"),
        (made("pp", changing(stages=())), "changes `stages` of the graph"),
        (made("expand", without_first), "changes the layers"),
        (made("tp", None), "failed on `prefill`: TypeError: 'NoneType' object is not callable"),
        (made("place", raising), "and `after`, one of expand, backward, quantise, recompute, tp, sp"),
        (made(None, raising), 'needs the constants `name`, "mine", and `after`'),
        (made("tp", raising, name="yours"), 'needs the constants `name`, "mine", and `after`'),
        (raising, "is not a frozen dataclass of `dagc.ir.graph_pass.GraphPass`"),
        (type("Plain", (), {"name": "mine", "after": "tp"}), "is not a frozen dataclass"),
        (dataclass(type("Soft", (GraphPass,), {"name": "mine", "after": "tp"})), "is not a frozen dataclass"),
    ],
)
def test_a_broken_pass_is_named(
    value: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(value, tmp_path, monkeypatch, capsys)
    assert "error[E17]: plugin `mine`" in err and said in err


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (made("tp", stopping), "no way on"),
        (
            made("tp", raising, levels=("sharded",)),
            "the pass `mine` takes a graph at level sharded, this one is at annotated",
        ),
    ],
)
def test_a_pass_of_a_plugin_may_refuse_a_phase(
    value: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(value, tmp_path, monkeypatch, capsys)
    assert f"error[E03]: {said}" in err and "p.moe:14" in err


def refused(value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The diagnostics of a phase that asks for a pass."""
    module = ModuleType("broken_pass")
    module.__dict__["Mine"] = value
    monkeypatch.setitem(sys.modules, "broken_pass", module)
    entry("mine", "broken_pass:Mine", entry_points.PASSES, monkeypatch)
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase="gpus = 0..7, ep = 4, tp = 2, passes = [mine]"))
    assert main(["check", str(spec)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[mind]", "no plugin has a pass `mind`"),
        ("[tp]", "no plugin has a pass `tp`"),
        ("[mine, mine]", "`passes` is a list of names, each of them once"),
        ("[3]", "`passes` is a list of names, each of them once"),
    ],
)
def test_passes_that_no_plugin_has(
    value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry("mine", "nowhere", entry_points.PASSES, monkeypatch)
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase=f"gpus = 0..7, ep = 4, tp = 2, passes = {value}"))
    assert main(["check", str(spec)]) == 2
    err = capsys.readouterr().err
    assert said in err and "p.moe:15:39" in err


def test_without_it_its_names_are_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(SPEC)
    assert main(["compile", str(spec)]) == 2
    err = capsys.readouterr().err
    assert "lab-box" in err and "pocket-moe" in err


def entry(name: str, value: str, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints([EntryPoint(name, value, group)])
    monkeypatch.setattr(entry_points, "entry_points", lambda group: points.select(group=group))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nowhere.at:all", "cannot be loaded: ModuleNotFoundError"),
        ("json:loads", "failed on `prefill`: TypeError"),
        ("test_plugins:not_bytes", "does not return a mapping from file suffixes to bytes"),
        ("test_plugins:outside", "does not return a mapping from file suffixes to bytes"),
        ("test_plugins:breaks_the_line", "does not return a mapping from file suffixes to bytes"),
        ("test_plugins:nothing", "does not return a mapping from file suffixes to bytes"),
        ("test_plugins:leaves", "failed on `prefill`: SystemExit"),
    ],
)
def test_a_broken_exporter_is_named(
    value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry("mine", value, entry_points.EXPORTERS, monkeypatch)
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text())
    assert main(["compile", str(spec), "--emit", "mine", "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "error[E17]: plugin `mine`" in err and said in err and not (tmp_path / "out").exists()


def not_bytes(plan: object, phase: str) -> dict[str, str]:
    return {"txt": "text"}


def outside(plan: object, phase: str) -> dict[str, bytes]:
    return {"../x": b""}


def leaves(plan: object, phase: str) -> dict[str, bytes]:
    sys.exit(0)


def breaks_the_line(plan: object, phase: str) -> dict[str, bytes]:
    return {"a\nb": b""}


def nothing(plan: object, phase: str) -> dict[str, bytes]:
    return {"a\0b": b""}


def overwrites(plan: object, phase: str) -> dict[str, bytes]:
    return {"graph.json": b"{}"}


def in_its_own_words(plan: Plan, phase: str) -> dict[str, bytes]:
    return {"md": plan.markdown().encode(), "csv": str(len(plan.rows("ops"))).encode()}


def test_an_exporter_is_given_the_public_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the record below it: a plugin may ask for whatever `dagc.Plan` documents."""
    entry("mine", "test_plugins:in_its_own_words", entry_points.EXPORTERS, monkeypatch)
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text())
    assert main(["compile", str(spec), "--emit", "mine", "-o", str(tmp_path / "out")]) == 0
    plan = compile_text(spec_text())
    assert (tmp_path / "out" / "p.prefill.md").read_text() == plan.markdown()
    assert int((tmp_path / "out" / "p.prefill.csv").read_text()) == len(plan.rows("ops"))


def test_an_exporter_does_not_write_over_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry("mine", "test_plugins:overwrites", entry_points.EXPORTERS, monkeypatch)
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text())
    assert main(["compile", str(spec), "--emit", "json,mine", "-o", str(tmp_path / "out")]) == 2
    assert "`mine` would write over" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_broken_library_hides_nothing_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = EntryPoints(
        [
            EntryPoint("broken", "nowhere", entry_points.LIBRARY),
            EntryPoint("whole", "library_of_a_test", entry_points.LIBRARY),
        ]
    )
    monkeypatch.setattr(entry_points, "entry_points", lambda group: points.select(group=group))
    package = tmp_path / "library_of_a_test"
    (package / "hardware").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shipped = library.preset("hardware", "h100-sxm")
    assert shipped is not None
    (package / "hardware" / "test-box.moe").write_text(shipped.text)
    monkeypatch.syspath_prepend(tmp_path)
    assert library.preset("hardware", "test-box") is not None and "test-box" in library.names("hardware")
    spec = tmp_path / "p.moe"
    spec.write_text(SPEC.replace("lab-box", "test-bax"))
    assert main(["check", str(spec)]) == 2
    err = capsys.readouterr().err
    assert 'did you mean "test-box"?' in err and "plugin `broken` cannot be loaded: ModuleNotFoundError" in err
