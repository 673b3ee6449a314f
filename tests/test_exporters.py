"""The registry of exporters: what its records say is what their functions do, and the commands offer what it has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import ROOT, spec_text

import dagc
from dagc.cli import main
from dagc.export import registry
from dagc.export.registry import EMIT, EXPORTERS, PHASE, PLAN, REPORT, SERVE, SERVING, SHOW, VIEW, Exporter, names

Capture = pytest.CaptureFixture[str]
OF = {PLAN: (), PHASE: ("prefill",), VIEW: ("prefill", "layer"), SERVING: ("chat",)}


@pytest.fixture(scope="module")
def plan() -> dagc.Plan:
    serve = "serve chat { arrivals = poisson(20 req/s), requests = 20 }\nrequire chat.ttft.p99 <= 1 s"
    return dagc.compile_text(spec_text(extra=f"phase decode {{ gpus = 0..7, ep = 4, tp = 2 }}\n{serve}"))


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda e: f"{e.name}-{e.takes}")
def test_a_record_says_what_its_function_makes(exporter: Exporter, plan: dagc.Plan, tmp_path: Path) -> None:
    for package in exporter.needs:
        pytest.importorskip(package)
    try:
        made = exporter.make(
            plan,
            *OF[exporter.takes],
            ranks="folded",
            buys=lambda: dict.fromkeys(plan.phases, ()),
            target=tmp_path / "p.prefill.chakra",
        )
    except dagc.SpecError as error:
        if [d.code for d in error.diagnostics] == ["E16"]:
            pytest.skip("no renderer is installed")
        raise
    wanted = [f"layer.{s}" if exporter.takes == VIEW else s for s in exporter.suffixes]
    assert list(made) == wanted
    for content in made.values():
        if exporter.folder:
            assert callable(content)
            content(tmp_path)
            assert any(tmp_path.iterdir())
        elif isinstance(content, bytes):
            assert content
        else:
            assert isinstance(content, Iterable) and b"".join(content)


def test_no_two_files_have_one_name() -> None:
    found = [(e.takes, suffix) for e in EXPORTERS for suffix in e.suffixes]
    assert len(found) == len(set(found))


def test_a_new_record_is_offered_and_written(
    plan: dagc.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """One entry and one file: `--emit`, its help and its errors, `dagc list`, and a report's ending know it."""
    module = type(sys)("dagc.export.mine")
    module.__dict__["write"] = lambda plan, phase, *, ranks: {"mine.txt": f"{phase} {ranks}".encode()}
    module.__dict__["whole"] = lambda plan: {"own": b"report"}
    monkeypatch.setitem(sys.modules, "dagc.export.mine", module)
    mine = (
        Exporter("minerals", "words", ("mine.txt",), PHASE, "mine:write", ("ranks",)),
        Exporter("own", "a report", ("own",), PLAN, "mine:whole", offered=(REPORT,)),
    )
    monkeypatch.setattr(registry, "EXPORTERS", (*EXPORTERS, *mine))
    spec = tmp_path / "p.moe"
    spec.write_text(spec_text())
    out = tmp_path / "out"
    assert main(["compile", str(spec), "--emit", "minerals", "--ranks", "all", "-o", str(out)]) == 0
    assert (out / "p.prefill.mine.txt").read_text() == "prefill all"
    assert main(["report", str(spec), "-o", str(tmp_path / "r.own")]) == 0
    assert (tmp_path / "r.own").read_bytes() == b"report"
    capsys.readouterr()
    assert main(["compile", str(spec), "--emit", "mineral"]) == 2
    assert "did you mean `minerals`?" in capsys.readouterr().err
    assert main(["compile", "--help"]) == 0 and "minerals" in capsys.readouterr().out
    assert main(["report", "--help"]) == 0 and "own" in capsys.readouterr().out
    assert main(["list", "exporters"]) == 0 and "mine.txt" in capsys.readouterr().out


def test_names_of_the_commands() -> None:
    assert names(EMIT)[:5] == ("dot", "svg", "png", "pdf", "json") and "text" not in names(EMIT)
    assert names(SHOW) == ("dot", "svg", "png", "pdf") and names(REPORT) == ("html", "md", "text")
    assert names(SERVE) == ("csv", "json", "svg", "png", "pdf", "perfetto")


def test_help_imports_no_exporter() -> None:
    heavy = sorted(
        {package for e in EXPORTERS for package in e.needs} | {"numpy", "lark", "dagc.view", "dagc.plan.plan"}
    )
    code = (
        "import sys; from dagc.cli import main; main(['compile', '--help']); "
        f"print(*(m for m in {heavy} if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "chakra" in done.stdout and done.stderr.strip() == ""
