"""Input from elsewhere: what a spec may read, what its names may do, and how much work a small text may make."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, spec_text
from tiers import in_turn, spread

import dagc
from dagc.base import diagnostics
from dagc.base.diagnostics import MAX_STEPS, Collector, SpecError
from dagc.base.files import Reach, Unreadable, read_bytes, read_named
from dagc.base.harmless import control_in
from dagc.base.source import Source
from dagc.cli import main
from dagc.cli.printing import Harmless

pytestmark = pytest.mark.usefixtures("shared_servings")

Capture = pytest.CaptureFixture[str]
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def refused(path: Path, capsys: Capture, code: str = r"E\d+", *flags: str) -> str:
    """What `check` says of a spec that is wrong."""
    assert main(["check", str(path), *flags]) == 2
    said = capsys.readouterr()
    assert re.search(rf"error\[{code}\]", said.err) and not STEERS.search(said.out + said.err)
    return said.err


def written(folder: Path, text: str, name: str = "plan.moe") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/../../../evil", "../evil", "a/b", "..", ".", "", "-o", "a b", "a:b", "a" * 65, "::x"]
)
def test_the_name_of_a_phase_is_no_path(name: str, tmp_path: Path, capsys: Capture) -> None:
    path = written(
        tmp_path / "a" / "b",
        spec_text().replace("phase decode", f'phase "{name}"').replace("phase prefill", f'phase "{name}"'),
    )
    assert f'"{name}"' in path.read_text()
    before = sorted(tmp_path.rglob("*"))
    assert main(["compile", str(path), "--emit", "json", "-o", str(tmp_path / "a" / "b" / "out")]) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert "error[E" in capsys.readouterr().err


@pytest.mark.parametrize("steers", ["\x1b[31m", "\x1b]0;t\x07", "\x9b31m", "\r", "\x7f", "\u202e", "\u2066"])
@pytest.mark.parametrize("place", ["model small", "hardware pool", "# comment"])
def test_a_spec_holds_no_control_characters(steers: str, place: str, tmp_path: Path, capsys: Capture) -> None:
    text = spec_text() + 'require "label" model.params > 0\n'
    word = place.split()[0]
    text = text.replace(place, f'{word} "a{steers}b"') if word != "#" else f"{text}# a{steers}b\n"
    path = tmp_path / "plan.moe"
    path.write_bytes(text.encode())
    assert "control character" in refused(path, capsys, "E01")


def test_names_of_files_are_printed_harmlessly(tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path, spec_text(), "a\x1b]0;t\x07\u202e\nb.moe")
    assert main(["compile", str(path), "--emit", "json,md,html,dot", "-o", str(tmp_path / "out")]) in (0, 1)
    said = capsys.readouterr()
    assert not STEERS.search(said.out + said.err)
    for made in (tmp_path / "out").rglob("*"):
        assert not STEERS.search(made.name) and "\n" not in made.name
        assert not STEERS.search(made.read_text())
    for kind in ("json", "sarif", "github", "concise"):
        main(["check", str(path), "--format", kind])
        assert not STEERS.search(capsys.readouterr().out)


def test_no_line_is_a_command_to_ci(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("::error::no.moe", "##[group]x.moe", "##vso[task.complete]x.moe"):
        written(tmp_path, spec_text(), name)
        assert main(["check", name]) in (0, 1)
        written(tmp_path, "moe 1\nlet a = b\n", name)
        assert main(["check", name]) == 2
        said = capsys.readouterr()
        for line in (said.out + said.err).splitlines():
            assert not line.lstrip().startswith("::") and "##[" not in line and "##vso[" not in line
    assert main(["check", "::error::no.moe", "--format", "github"]) == 2
    assert all(line.startswith(("::error file=", "::error title=")) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    "parts", [["::x"], ["  ", "::x"], [":", ":x"], ["", ":", "", ":", "x"], ["a\n::x"], ["a\n", " :", ":x"]]
)
def test_a_line_in_parts_is_no_command(parts: list[str]) -> None:
    kept = io.StringIO()
    stream = Harmless(kept)
    for part in parts:
        stream.write(part)
    assert not any(line.lstrip().startswith("::") for line in kept.getvalue().splitlines())
    assert kept.getvalue().count("x") == 1


def test_what_is_harmless_is_printed_as_it_is() -> None:
    kept = io.StringIO()
    text = "a :: b\n ::: plan.moe:3:1\n  x: y\n\n é 模型\t|\r\nend"
    Harmless(kept).write(text)
    assert kept.getvalue() == text


# -- files -----------------------------------------------------------------------------------------

READS = {
    "import": 'import "{}"',
    "preset": 'model from "{}"',
    "config": 'model from "{}.json"',
    "histogram": 'workload {{ sequences = 8, prompt = 64 tok, routing = histogram("{}") }}',
    "calibration": 'hardware from "h100-sxm" {{ gpus = 8, calibration = "{}.json" }}',
}


def reading(form: str, name: str) -> str:
    return "moe 1\n" + READS[form].format(name) + "\n"


@pytest.mark.parametrize("form", READS)
def test_pipes_devices_folders_and_loops_are_refused(form: str, tmp_path: Path, capsys: Capture) -> None:
    for suffix in ("", ".json", ".moe"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
        (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
        (tmp_path / f"folder{suffix}").mkdir()
    for name in ("pipe", "loop", "zero", "folder", "/dev/zero", "missing", "a" * 300):
        own = name if form != "preset" else f"{name}.moe"
        refused(written(tmp_path, reading(form, own)), capsys)


@pytest.mark.parametrize("form", READS)
def test_files_outside_the_project_are_not_read(form: str, tmp_path: Path, capsys: Capture) -> None:
    """Neither by a path nor by a link, and none of their words is shown; a folder can be allowed."""
    suffix = {"preset": ".moe", "config": ".json", "calibration": ".json"}.get(form, "")
    outside = written(tmp_path / "outside", "s3cr3t w0rd\n", f"f{suffix}")
    project = tmp_path / "project"
    project.mkdir()
    (project / f"link{suffix}").symlink_to(outside)
    (project / "folder").symlink_to(outside.parent)
    bare = suffix.removesuffix(".json")
    for name in (f"../outside/f{bare}", str(outside).removesuffix(".json"), f"link{bare}", f"folder/f{bare}"):
        path = written(project, reading(form, name))
        said = refused(path, capsys, "E05")
        assert "--allow-import" in said and "s3cr3t" not in said
        again = refused(path, capsys, r"E\d+", "--allow-import", str(outside.parent))
        assert "--allow-import" not in again
    missing = refused(written(project, reading(form, f"../outside/missing{bare}")), capsys, "E05")
    assert "outside the project" in missing  # whether a file is there is not told either


@pytest.mark.parametrize("form", ["file", "folder", "loop"])
def test_what_is_written_stays_in_the_project(form: str, tmp_path: Path, capsys: Capture) -> None:
    """Links may have come with the project, as specs do."""
    project = tmp_path / "project"
    path = written(project, spec_text())
    (project / "pyproject.toml").touch()
    outside = written(tmp_path / "elsewhere", "as it was", "page.html")
    link = project / ("pages" if form == "folder" else "page.html")
    link.symlink_to({"file": outside, "folder": outside.parent, "loop": link}[form])
    target = link / "page.html" if form == "folder" else link
    assert main(["report", str(path), "-o", str(target)]) == 2
    said = capsys.readouterr().err
    assert "error[E05]: cannot write" in said and (form == "loop" or str(outside) in said)
    assert outside.read_text() == "as it was" and [p.name for p in outside.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(("name", "words"), in_turn(["a" * 300, "a/" * 3000, "\N{GRINNING FACE}" * 100], [
        ["compile", "PLAN", "--emit", "json", "-o"], ["export", "PLAN", "--to", "vllm", "-o"], ["report", "PLAN", "-o"],
        ["show", "PLAN", "-o"], ["import"], ["check"], ["explain"], ["list"], ["diff", "PLAN"], ["verify", "PLAN", "--weights"],
    ]))  # fmt: skip
def test_names_that_no_file_can_have(words: list[str], name: str, tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path, spec_text())
    assert main([*(str(path) if w == "PLAN" else w for w in words), name]) == 2
    assert "error[E" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["\N{GRINNING FACE}" * 9, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 128, "...", "-", "\u4e2d\u6587", "?"]
)
@pytest.mark.parametrize("kind", ["hardware", "model"])
def test_a_preset_of_any_letters_is_unknown(kind: str, name: str, tmp_path: Path, capsys: Capture) -> None:
    text = f'moe 1\n{kind} from "{name}" {{ }}\n'
    assert f"unknown {kind} preset" in refused(written(tmp_path, text), capsys, "E02")


def test_a_link_within_the_project_is_written_through(tmp_path: Path) -> None:
    path = written(tmp_path, spec_text())
    (tmp_path / "pyproject.toml").touch()
    real = written(tmp_path / "pages", "", "page.html")
    (tmp_path / "page.html").symlink_to(real)
    assert main(["report", str(path), "-o", str(tmp_path / "page.html")]) in (0, 1)
    assert (tmp_path / "page.html").is_symlink() and real.stat().st_size > 0


def test_an_imported_config_that_is_a_link(tmp_path: Path, capsys: Capture) -> None:
    """Out of the project it leads nowhere, but for the cache of downloads, which keeps files in `blobs`."""
    config = '{"model_type": "s3cr3t"}'
    outside = written(tmp_path, config, "config.json")
    (tmp_path / "project").mkdir()
    link = tmp_path / "project" / "config.json"
    link.symlink_to(outside)
    assert main(["import", str(link)]) == 2
    said = capsys.readouterr().err
    assert "outside the project" in said and "s3cr3t" not in said
    assert main(["import", str(link), "--allow-import", str(tmp_path)]) == 2
    assert "`s3cr3t` is not in the library" in capsys.readouterr().err
    blob = written(tmp_path / "cache" / "blobs", config, "0a1b")
    cached = tmp_path / "cache" / "snapshots" / "main" / "config.json"
    cached.parent.mkdir(parents=True)
    cached.symlink_to(blob)
    assert main(["import", str(cached)]) == 2
    assert "`s3cr3t` is not in the library" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["hf_quant_config.json", "nowhere.json"])
def test_a_second_file_that_leads_nowhere_is_told(to: str, tmp_path: Path, capsys: Capture) -> None:
    """What it says of the precision is not known: it is not taken for absent."""
    config = (ROOT / "tests" / "data" / "hf_configs" / "qwen3-8b.json").read_text()
    written(tmp_path, config, "config.json")
    (tmp_path / "hf_quant_config.json").symlink_to(to)
    assert main(["import", str(tmp_path / "config.json")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_a_project_ends_at_its_top_folder(tmp_path: Path) -> None:
    folder = tmp_path / "project" / "a" / "b"
    shared = written(tmp_path / "project", "moe 1\nlet shared = 1\n", "shared.moe")
    path = written(folder, spec_text().replace("moe 1\n", 'moe 1\nimport "../../shared.moe"\n', 1))
    with pytest.raises(SpecError, match="outside the project"):
        dagc.compile(path)
    assert dagc.compile(path, allow_import=[shared.parent]).phases
    (tmp_path / "project" / "pyproject.toml").touch()
    assert dagc.compile(path).phases
    (folder / ".git").mkdir()  # the nearest one counts
    with pytest.raises(SpecError, match="outside the project"):
        dagc.compile(path)


def test_a_spec_that_is_a_link_out_of_the_project(tmp_path: Path, capsys: Capture) -> None:
    outside = written(tmp_path / "outside", "s3cr3t w0rd\n")
    link = tmp_path / "project" / "plan.moe"
    link.parent.mkdir()
    link.symlink_to(outside)
    for command in ("check", "compile", "fmt", "ir", "verify", "sweep"):
        assert main([command, str(link)]) == 2
        said = capsys.readouterr()
        assert "--allow-import" in said.err and "s3cr3t" not in said.out + said.err
    assert main(["check", str(link), "--allow-import", str(outside.parent)]) == 2
    assert "s3cr3t" in capsys.readouterr().err


def test_every_command_that_reads_a_source_takes_the_flag() -> None:
    from dagc.cli.parser import build_parser

    commands = next(a for a in build_parser()._actions if a.dest == "command").choices
    for name, parser in commands.items():  # type: ignore[union-attr]
        parser.fill()
        reads = name == "lsp" or any(
            a.dest in ("spec", "specs", "a", "config", "file", "document") for a in parser._actions
        )
        assert reads == any(a.dest == "allow_import" for a in parser._actions), name


def test_a_pipe_of_the_shell_is_read() -> None:
    command = f"{sys.executable} -m dagc check <(cat examples/three_link_levels.moe)"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_read_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, 100) == b"x" * 100
    for bad in (path, tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(Unreadable):
            read_bytes(bad, 99)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="a pipe"):
        read_named(str(tmp_path / "pipe"), 100)
    with pytest.raises(Unreadable):
        Reach.of(path).find("a\0b")


@pytest.mark.parametrize("words", ["nan", "inf", "1e400", "-1", "0 0", "1 x", "", "1e300 1e300"])
def test_histograms_are_finite(words: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "h.txt").write_text(words)
    text = re.sub(r"workload \{", 'workload { routing = histogram("h.txt"), ', spec_text())
    refused(written(tmp_path, text), capsys)


# -- work ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "most"),
    spread(
        [
            ("attention { scale = each(10_000, has([0..999_999], index)) }", 4_000_000),
            ("layers = length([0..999_999, 0..999_999])", 4_000_000),
            ("layers = length([" + ", ".join(["[0..9_999]"] * 60) + "])", 400_000),
            ("layers = " + "max(" * 40 + "1" + ", length([0..99_999]))" * 40, 400_000),
        ],
        lambda case: case[1] < 4_000_000,
    ),
)
def test_small_texts_make_little_work(
    body: str, most: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at the bounds of steps and of items, two at a tenth of the steps, of as much less work."""
    assert most <= diagnostics.MAX_STEPS == 4_000_000
    monkeypatch.setattr(diagnostics, "MAX_STEPS", most)
    refused(written(tmp_path, f'moe 1\nmodel from "mixtral-8x7b" {{ {body} }}\n'), capsys, "E09")


def test_steps_are_counted_over_the_whole_run() -> None:
    out = Collector()
    from dagc.base.source import Span

    span = Span(Source("x", "x"), 0, 1)
    assert out.step(MAX_STEPS, span) and not out.step(1, span) and not out.step(1, span)
    assert len(out.items) == 1


@pytest.mark.parametrize("count", spread([10, 500, 5000], (10, 500)))
def test_constants_may_stand_for_each_other_in_any_number(count: int) -> None:
    lets = [f"let v{i} = v{i + 1} + 0" for i in range(count)]
    text = spec_text().replace("moe 1\n", "\n".join(["moe 1", *lets, f"let v{count} = 7"]) + "\n", 1)
    assert dagc.compile_text(text).spec.constants["v0"].value == 7.0
    with pytest.raises(SpecError, match="defined in terms of itself"):
        dagc.compile_text(text.replace(f"let v{count} = 7", f"let v{count} = v0"))


def test_imports_in_a_row_end_in_a_diagnostic(tmp_path: Path, capsys: Capture) -> None:
    for i in range(300):
        written(tmp_path, f'moe 1\nimport "i{i + 1}.moe"\n', f"i{i}.moe")
    written(tmp_path, "moe 1\n", "i300.moe")
    assert "deep" in refused(tmp_path / "i0.moe", capsys, "E05")
    assert "deep" not in refused(tmp_path / "i250.moe", capsys)


@pytest.mark.parametrize("least", ["5e-324", "1e-300", "0.5"])
@pytest.mark.parametrize("name", ["bandwidth = 450 GB/s", "hbm = 1.8 TB/s", "compute = 400 TFLOP/s"])
def test_rates_are_at_least_one_a_second(least: str, name: str) -> None:
    word = name.split()[0]
    text = spec_text()
    found = re.search(rf"{word} = [\d.]+ ([A-Za-z/]+)", text)
    assert found
    unit = "FLOP/s" if word == "compute" else "B/s"
    with pytest.raises(SpecError, match="must be more than 1"):
        dagc.compile_text(text.replace(found[0], f"{word} = {least} {unit}"))


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["2\nlet q = 2", "2 let", "2, 3", "2 }", "", "1 2", "2\n", "a = 2", "2 # x\n3"])
def test_a_setting_is_one_value(text: str, tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path, spec_text().replace("moe 1\n", "moe 1\nparam z = 1\n", 1))
    code = main(["check", str(path), "--set", f"z={text}"])
    said = capsys.readouterr().err
    assert (code, said) == (0, "") if text == "2\n" else (code == 2 and "--set" in said)


def test_formatting_keeps_what_a_file_is(tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path, "moe 1\nlet a=1\n")
    other, link = tmp_path / "other.moe", tmp_path / "link.moe"
    other.hardlink_to(path)
    link.symlink_to(path.name)
    for mode, named in ((0o600, path), (0o640, link), (0o664, other)):
        path.write_text("moe 1\nlet a=1\n")
        path.chmod(mode)
        assert main(["fmt", str(named)]) == 0
        assert path.stat().st_mode & 0o777 == mode
        assert link.is_symlink() and os.path.samefile(path, other)
        assert path.read_text() == "moe 1\nlet a = 1\n"
    capsys.readouterr()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("args", [["--help"], ["--version"], ["check", "--help"], ["explain"], ["explain", "E01"]])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_device_is_told(args: list[str], buffered: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "dagc", *args]
        env = {**os.environ, "PYTHONUNBUFFERED": buffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT, check=False, env=env)
    assert done.returncode == 2 and b"cannot write" in done.stderr


def test_the_pattern_is_of_what_steers() -> None:
    assert all(control_in(f"a{c}\nb") for c in "\x00\x1b\r\x7f\x9b\u202e\u2066\u2028")
    assert not any(control_in(c) for c in "\t\n aé模\u00a0")


@pytest.mark.parametrize("shares", ["1, 0, 0, 0, 0, 0, 0, 0", "1e18, 1e-300, 1, 1, 1, 1, 1, 1e-18"])
@pytest.mark.filterwarnings("error")
def test_experts_that_nobody_chooses(shares: str) -> None:
    """Their ranks have nothing to do, and no figure is undefined."""
    text = spec_text(phase="gpus = 0..7, ep = 8")
    plan = dagc.compile_text(text.replace("workload {", f"workload {{ routing = histogram([{shares}]),"))
    (phase,) = plan.phases.values()
    assert 0 < phase.time_s < 1 and all(0 <= step.time_s < 1 for step in phase.schedule.path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("capacity", ["5e-324", "1e-300", "1e-9"])
def test_experts_that_take_next_to_nothing(capacity: str) -> None:
    text = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model from "mixtral-8x7b" { layers = 2, experts { capacity = CAPACITY } }
workload { sequences = 8, prompt = 64 tok, output = 8 tok }
phase prefill { gpus = 0..7, ep = 8 }
"""
    plan = dagc.compile_text(text.replace("CAPACITY", capacity))
    assert 0 < plan.phases["prefill"].time_s < 1


def test_what_would_list_millions_is_refused(tmp_path: Path, capsys: Capture) -> None:
    """Reports, pages and pictures of the whole stay; what has an entry for each op is not begun."""
    count = 1_000_000
    text = spec_text(
        phase=f"gpus = 0..3, pp = 4, microbatches = {count}", workload=f"sequences = {count}, prompt = 8 tok"
    )
    path = written(tmp_path, text.replace("memory = 64 GB", "memory = 1e9 GB"))
    out = str(tmp_path / "out")
    assert main(["compile", str(path), "--emit", "html,md,dot", "-o", out]) == 0
    assert "Not drawn" in (tmp_path / "out" / "plan.html").read_text()
    for kind in ("json", "nodelink", "rustworkx", "graphml", "perfetto", "chakra"):
        capsys.readouterr()
        assert main(["compile", str(path), "--emit", kind, "-o", str(tmp_path / kind)]) == 2
        assert "error[E05]" in capsys.readouterr().err
        assert not [p for p in (tmp_path / kind).rglob("*") if p.is_file()]
    for view in ("timeline", "lanes"):
        assert main(["show", str(path), "--view", view, "-o", str(tmp_path / "p.svg")]) == 2
    for view in ("overview", "layer", "memory", "path"):
        assert main(["show", str(path), "--view", view, "-o", str(tmp_path / "p.svg")]) == 0


@pytest.mark.parametrize(
    "text",
    spread(
        [
            "".join(f"let a{i} = b{i}\n" for i in range(3000)),
            "let a = 1\n" * 3000,
            "".join(f"foo{i} {{ }}\n" for i in range(3000)),
            "".join(f'import "x{i}"\n' for i in range(3000)),
            "".join(f"phase p{i} {{ gpus = 0..7 }}\n" for i in range(3000)),
            "block b(x) {\n" + "y = silu(x)\n" * 3000 + "return y }\n",
            "phase more { kind = decode, gpus = 0..7, pp = 2, tp = 4, layers_per_stage = [0..99_999] }\n",
        ],
        lambda text: not text.startswith(("let a0", "import")),
    ),
)
def test_many_mistakes_are_told_briefly(text: str, tmp_path: Path, capsys: Capture) -> None:
    said = refused(written(tmp_path, f"{spec_text()}{text}"), capsys)
    assert len(said) < 300_000


LIMITS = {
    "phases": "".join(f"phase p{i} {{ kind = decode, gpus = 0..7, tp = 8 }}\n" for i in range(300)),
    "ids": "".join(f"phase p{i} {{ kind = decode, gpus = 0..99_999, dp = 100_000 }}\n" for i in range(12)),
    "kinds": "stack = [embed, " + ", ".join(f"l{i}" for i in range(70)) + ", lm_head]",
    "turns": "stack = [embed, each(4000, if(equal(mod(index, 2), 0), a, b)), lm_head]",
    "stages": "pp = 100_000",
    "experts": "count = 1_000_000",
    "spares": "redundant = 1_000_000",
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_costed_one_by_one_is_bounded(name: str, tmp_path: Path, capsys: Capture) -> None:
    layers = "".join(f"layer {n} {{ gqa, moe }}\n" for n in ("a", "b", *(f"l{i}" for i in range(70))))
    extra, text = LIMITS[name], spec_text(gpus=1_000_000)
    if name in ("phases", "ids"):
        text += extra
    elif name in ("kinds", "turns"):
        text = text.replace("layers = 4", extra) + layers
    elif name == "experts":
        text = text.replace("count = 8", extra)
    else:
        text = text.replace("phase prefill {", f"phase prefill {{ {extra}\n")
    assert re.search("at most|more than", refused(written(tmp_path, text), capsys))
