"""A plan that does not fit: compiled, drawn and written with the verdict first, and helped only by changes that were seen to fit."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from conftest import spec_text
from tiers import in_turn, spread

import dagc
from dagc.base.units import BYTES, show
from dagc.cli import main
from dagc.pipeline.cures import Cures, changes, most_divided, partition

Capture = pytest.CaptureFixture[str]

LARGE = (
    "layers = 5, hidden = 64, vocab = 4096, dtype = fp32\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\n"
    "experts { count = 8, top_k = 2, hidden = 64 }"
)
OVERFLOWS = {
    "stages": (
        "pp = 2, layers_per_stage = [1, 4]",
        "2.3 MB",
        "decode",
        "sequences = 2, prompt = 8 tok, output = 8 tok",
    ),
    "stages unsaid": ("pp = 5", "1.2 MB", "decode", "sequences = 2, prompt = 8 tok, output = 8 tok"),
    "degrees": ("dp = 4", "3 MB", "decode", "sequences = 4, prompt = 8 tok, output = 8 tok"),
    "folded": (
        "attention { dp = 4, tp = 1 }\nexperts { ep = 1 }",
        "4 MB",
        "decode",
        "sequences = 4, prompt = 8 tok, output = 8 tok",
    ),
    "two changes": ("dp = 4", "2 MB", "decode", "sequences = 256, prompt = 64 tok, output = 8 tok"),
    "cache": ("tp = 4", "20 MB", "decode", "sequences = 256, prompt = 256 tok, output = 8 tok"),
    "work": ("tp = 2", "16 MB", "prefill", "sequences = 64, prompt = 256 tok, output = 8 tok"),
}


def overflowing(name: str, more: str = "") -> str:
    """A spec of one phase whose GPUs are too small, its degrees or what replaces them last."""
    strategy, memory, kind, workload = OVERFLOWS[name]
    counts = {"pp = 5": 5, "tp = 2": 2}
    gpus = 2 if "layers_per_stage" in strategy else counts.get(strategy, 4)
    body = more or strategy
    text = spec_text(
        kind=kind,
        phase=body if "gpus" in body else f"gpus = 0..{gpus - 1}\n{body}",
        gpus=64,
        model=LARGE,
        workload=workload,
    )
    return text.replace("memory = 64 GB", f"memory = {memory}")


def written(strategy: str, words: str) -> str:
    """The body of a phase with what a cure says."""
    found: dict[str, str] = {}
    for text in (strategy, words):
        found |= dict(re.findall(r"(\w+) (\{[^}]*\})", text))
        found |= dict(re.findall(r"(\w+) = (\[[^\]]*\]|\d+ tok|[\w.]+)", re.sub(r"\{[^}]*\}", "", text)))
    if "no layers_per_stage" in words:
        found.pop("layers_per_stage")
    return "\n".join(f"{name} {value}" if value[0] == "{" else f"{name} = {value}" for name, value in found.items())


@pytest.mark.parametrize("name", spread(OVERFLOWS, lambda name: name not in ("two changes", "work")))
def test_every_cure_that_is_named_fits(name: str) -> None:
    plan = dagc.compile_text(overflowing(name))
    assert not plan.fits and not plan.passed
    error = plan.diagnostics[0]
    assert error.code == "E04" and error.help
    for words in error.help:
        assert " fits: " in words
        cure, _, size = words.partition(" fits: ")
        cured = dagc.compile_text(overflowing(name, written(OVERFLOWS[name][0], cure)))
        assert cured.fits, words
        assert size == f"{show(max(p.peak_B for p in cured.pools), BYTES)} on the fullest GPU"


def test_where_nothing_fits_that_is_said() -> None:
    (error,) = (d for d in dagc.compile_text(of_memory("60 kB")).diagnostics if d.code == "E04")
    assert len(error.help) == 1 and "would fit: use more GPUs" in error.help[0]


def of_memory(size: str) -> str:
    return spec_text(gpus=8).replace("memory = 64 GB", f"memory = {size}")


def test_of_what_no_layout_makes_fit_smaller_batches_alone_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    attempt = Cures.attempt
    monkeypatch.setattr(Cures, "attempt", lambda cures, change: tried.append(change.rank) or attempt(cures, change))
    (error,) = (d for d in dagc.compile_text(of_memory("1 kB")).diagnostics if d.code == "E04")
    assert error.help == (
        "no other layout or batch takes so much less: use more GPUs, larger ones, or a smaller model or dtype",
    )
    assert set(tried) <= {"sequences"} and len(tried) < 20


@pytest.mark.parametrize("name", spread(["folded", "two changes", "stages"], {"folded", "stages"}))
def test_one_change_divides_what_a_gpu_holds_by_no_more_than_is_thought(name: str) -> None:
    plan = dagc.compile_text(overflowing(name))
    ((phase, result),) = plan.phases.items()
    own = plan.units[phase].phase
    made = [change for change in changes(plan.spec, result, own) if change.rank != "sequences"]
    found = [Cures(plan.spec, plan.phases, plan.units).attempt(change) for change in made]
    least = min(attempt.fraction for attempt in found if attempt is not None)
    assert result.memory.fraction / most_divided(own) < least < result.memory.fraction


@pytest.mark.parametrize(
    "sizes, fixed", [([1, 1, 1, 5], [0, 0]), ([3, 1, 4, 1, 5, 9, 2, 6], [2, 0, 7]), ([1] * 7, [0] * 7)]
)
def test_layers_are_parted_as_evenly_as_can_be(sizes: list[float], fixed: list[float]) -> None:
    """Against every way to part them."""

    def largest(cut: tuple[int, ...]) -> float:
        ends = [sum(cut[:k]) for k in range(len(cut) + 1)]
        return max(f + sum(sizes[a:b]) for f, a, b in zip(fixed, ends, ends[1:], strict=False))

    every = [c for c in product(range(1, len(sizes) + 1), repeat=len(fixed)) if sum(c) == len(sizes)]
    assert largest(tuple(partition(sizes, fixed))) == pytest.approx(min(map(largest, every)))


# -- every output ------------------------------------------------------------------------------------------


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "large.moe"
    path.write_text(overflowing("stages"))
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["compile", "{spec}"],
        ["compile", "{spec}", "--format", "md"],
        ["report", "{spec}", "--format", "md"],
        ["report", "{spec}", "--format", "text"],
        ["show", "{spec}"],
    ],
    ids=" ".join,
)
def test_what_is_printed_begins_with_the_verdict(command: list[str], spec: Path, capsys: Capture) -> None:
    assert main([word.format(spec=spec) for word in command]) == 1
    printed = capsys.readouterr()
    first = printed.out.splitlines()[0] if command[0] != "show" else printed.out[: printed.out.index("stage 0")]
    assert "DOES NOT FIT" in first
    assert printed.err.startswith("error[E04]")


@pytest.mark.parametrize(
    ("view", "name"), in_turn(["overview", "layer", "lanes", "timeline", "memory", "path"], ["v.svg", "v.dot"])
)
def test_pictures_begin_with_the_verdict(view: str, name: str, spec: Path, tmp_path: Path) -> None:
    if name.endswith("dot") and view in ("timeline", "memory", "path"):
        return
    target = tmp_path / name
    assert main(["show", str(spec), "--view", view, "-o", str(target)]) == 1
    assert "DOES NOT FIT" in target.read_text()


def test_files_are_written(spec: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main(["compile", str(spec), "--emit", "svg,dot,json,html,md,perfetto", "-o", str(out), "--json"]) == 1
    data = dagc.compile(spec).to_json()
    assert data["fits"] is False
    for suffix in ("txt", "html", "md"):
        text = (out / f"large.{suffix}").read_text()
        assert text.index("DOES NOT FIT") < text.index("small") if suffix != "html" else "DOES NOT FIT" in text
    capsys.readouterr()
    assert main(["compile", str(out / "large.decode.graph.json")]) == 1  # read again, it still does not fit
    assert "error[E04]" in capsys.readouterr().err
    page = tmp_path / "page.html"
    assert main(["report", str(spec), "-o", str(page)]) == 1
    assert "DOES NOT FIT" in page.read_text()


def test_check_verify_and_run(spec: Path, capsys: Capture) -> None:
    assert main(["check", str(spec)]) == 1
    assert "DOES NOT FIT: decode needs " in capsys.readouterr().out
    assert main(["verify", str(spec)]) == 0
    assert "equal" in capsys.readouterr().out


def test_run_refuses(spec: Path, capsys: Capture) -> None:
    pytest.importorskip("torch")
    assert main(["run", str(spec)]) == 1
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("error[E04]")


def test_a_launch_script_begins_with_the_verdict(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "large.moe"
    path.write_text(overflowing("cache"))
    assert main(["export", str(path), "--to", "vllm", "--model", "m"]) == 1
    comments = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# ") and "----" not in line]
    assert comments[0].startswith("# DOES NOT FIT")


def test_a_sweep_tells_what_does_not_fit(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "large.moe"
    path.write_text(
        "moe 1\nparam room = 20 MB\n" + overflowing("cache").replace("moe 1\n", "").replace("20 MB", "room")
    )
    assert main(["sweep", str(path), "--over", "room=20 MB,64 GB", "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("does not fit") and lines[2].endswith("pass")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_cures_on_more_ranks_count_what_an_engine_keeps_there(engine: str) -> None:
    """One GPU has no communication buffers, several have."""
    text = overflowing("cache").replace("memory = 20 MB", "memory = 24 GB")
    own = f"gpus = 0..0\nengine = {engine}\nsequences = 250000"
    plan = dagc.compile_text(text.replace("gpus = 0..3\ntp = 4", own))
    cures = [words.split(" fits: ") for words in plan.diagnostics[0].help if "gpus = " in words]
    assert cures
    for cure, size in cures:
        body = written(own.replace("gpus = 0..0", "gpus = [0]"), cure)
        cured = dagc.compile_text(text.replace("gpus = 0..3\ntp = 4", body))
        assert cured.fits and size == f"{show(max(p.peak_B for p in cured.pools), BYTES)} on the fullest GPU"


def test_cures_of_phases_fit_beside_each_other_or_say_what_was_left_out() -> None:
    text = overflowing("degrees").replace("phase decode", "phase prefill { gpus = 0..3, dp = 4 }\nphase decode")
    plan = dagc.compile_text(text)
    first, second = (d for d in plan.diagnostics if d.code == "E04")
    assert all(words.endswith(", `decode` left out") for words in first.help)
    for words in second.help:
        cures = [re.fullmatch(r"`(\w+)` with (.*) fits: .*", w) for w in (first.help[0], words)]
        cured = text
        for cure in cures:
            assert cure is not None
            old = {"prefill": "gpus = 0..3, dp = 4", "decode": "gpus = 0..3\ndp = 4"}[cure[1]]
            assert old in cured
            cured = cured.replace(old, written(old, cure[2]))
        assert "left out" in words or dagc.compile_text(cured).fits


def test_phases_that_differ_in_order_alone_are_laid_out_alike() -> None:
    """The phase that stays unchanged was lowered with the other one's order: a cure lowers it again."""
    text = overflowing("degrees", "gpus = 0..7\ndp = 2, ep = 4, order = [pp, ep, dp, sp, tp]")
    text = text.replace("phase decode", "phase prefill { gpus = 0..7, dp = 2, ep = 4 }\nphase decode")
    text = text.replace("memory = 3 MB", "memory = 3.1 MB")
    plan = dagc.compile_text(text)
    (error,) = (d for d in plan.diagnostics if d.code == "E04")
    assert "fit together" in error.message
    assert any("the GPUs, degrees and order of" in words for words in error.help)
    assert dagc.compile_text(text.replace(", order = [pp, ep, dp, sp, tp]", "")).fits
