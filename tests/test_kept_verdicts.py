"""Verdicts that are kept between runs of `dagc check`: they never change what it prints, whatever is in the user's cache folder."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import EXAMPLES, spec_text
from tiers import spread

from dagc.base import entry_points, said_text, user_cache
from dagc.cli import kept_metrics, kept_verdicts, main
from dagc.pipeline import compile as pipeline
from dagc.spec.spec import Spec

Capture = pytest.CaptureFixture[str]
FAILS = 'require "sooner" prefill.ttft <= 1 us\nrequire "alike" prefill.gpus == 8\n'
SPEC = spec_text(extra=FAILS)


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a plan that fails, for a dagc that is installed and has looked for nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DAGC_CACHE", raising=False)
    monkeypatch.setattr(user_cache, "identity", lambda: "installed")
    monkeypatch.setattr(user_cache.Use, "MOST", 0)  # of what tests here are not about
    monkeypatch.setattr(kept_metrics, "plan_text", lambda *_: None)
    monkeypatch.setattr(kept_verdicts, "_elsewhere", kept_verdicts.Elsewhere())
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plan.moe"
    path.write_text(SPEC)
    return path


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was compiled."""
    found: list[str] = []
    compile_spec = pipeline.compile_spec

    def counted(spec: Spec, *args: Any, **more: Any) -> Any:
        found.append(spec.phases[0].span.source.name)
        return compile_spec(spec, *args, **more)

    monkeypatch.setattr(pipeline, "compile_spec", counted)
    return found


def entries(spec: Path) -> list[Path]:
    return sorted((spec.parent / "cache/dagc/kept").glob("*.json"))


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(["check", *words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize("more", [[], ["--format", "json"], ["--format", "sarif"], ["-q"], ["--color", "always"]])
def test_the_second_run_prints_the_same_and_compiles_nothing(
    spec: Path, compilations: list[str], capsys: Capture, more: list[str]
) -> None:
    first = run(capsys, "plan.moe", *more)
    assert first[0] == 1 and first[1] and len(entries(spec)) == 1
    assert run(capsys, "plan.moe", *more) == first
    assert compilations == ["plan.moe"]


@pytest.mark.parametrize("name", ["three_link_levels", "residual_streams"])
def test_presets_of_dagc_ask_no_other_package(spec: Path, compilations: list[str], capsys: Capture, name: str) -> None:
    """A verdict that does is not kept."""
    spec.write_text((EXAMPLES[0].parent / f"{name}.moe").read_text())
    for _ in range(2):
        run(capsys, "plan.moe")
    assert compilations == ["plan.moe"] and len(entries(spec)) == 1


def test_a_verdict_of_several_specs(spec: Path, compilations: list[str], capsys: Capture) -> None:
    (spec.parent / "other.moe").write_text(spec_text())
    first = run(capsys, "plan.moe", "other.moe")
    assert "2 plans: 1 FAILED, 1 passed" in first[1]
    assert run(capsys, "plan.moe", "other.moe") == first
    assert compilations == ["plan.moe", "other.moe"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SPEC + "let more = 1\n", []),
        (SPEC.replace("tp = 2", "tp = 2, # more\n"), []),
        (SPEC, ["--phase", "prefill"]),
        (SPEC.replace("moe 1\n", "moe 1\nparam a = 1\n"), ["--set", "a=2"]),
    ],
)
def test_another_text_phase_or_setting_is_another_question(
    spec: Path, compilations: list[str], capsys: Capture, text: str, words: list[str]
) -> None:
    spec.write_text(SPEC if "param" not in text else text)
    run(capsys, "plan.moe")
    spec.write_text(text)
    run(capsys, "plan.moe", *words)
    assert len(compilations) == 2 and len(entries(spec)) == 2


def _edited(rng: random.Random, text: str) -> str:
    """With other comments, empty lines and spaces at the ends of lines."""
    lines = []
    for line in text.split("\n"):
        lines += rng.choice(([], [], [""], ["  # before"], [" ", "#", "# two"]))
        lines.append(line + rng.choice(("", "", " ", " # (", ' # "', "\t#!")))
    return "\n".join(lines)


WARNED = (
    SPEC.replace("require", "let a = (\n  1 # one\n  + 2\n)\nrequire", 1) + "require prefill.memory.fraction <= 90\n"
)
"""With warnings at several places, and brackets over lines, in which comments are said."""


def test_another_comment_is_no_other_question(
    spec: Path, compilations: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed is what would be printed of the text as it is now."""
    rng = random.Random(1)
    head, brackets, tail = WARNED.partition("let a")
    brackets, close, tail = (brackets + tail).partition(")\n")
    spec.write_text(WARNED)
    run(capsys, "plan.moe")
    for more in ([], ["--format", "json"], ["--format", "sarif"], ["--format", "concise"], ["-q"], []):
        spec.write_text(_edited(rng, head) + "\n" + brackets + close + _edited(rng, tail))
        found = run(capsys, "plan.moe", *more)
        assert compilations == ["plan.moe"] and len(entries(spec)) == 1
        with monkeypatch.context() as patch:
            patch.setenv("DAGC_CACHE", "off")
            assert run(capsys, "plan.moe", *more) == found and found[0] == 1
        compilations.pop()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("moe 1 # a\n\n \t\n# b\nlet x = 3  \n", "moe 1\nlet x = 3"),
        ('let s = "# a" # b\n', 'let s = "# a"'),
        ("let x = [1, # a\n\n2] # b\nlet y = (2) # c\n", "let x = [1, # a\n\n2] # b\nlet y = (2)"),
        ("phase p { # a\n  gpus = 0..1 # b\n\n}\n", "phase p {\n  gpus = 0..1\n}"),
        ("let x = ] # a\n(# b\n# c", "let x = ]\n(# b\n# c"),
        ("# \x00\nlet x = 3 # \x1b", "# \x00\nlet x = 3 # \x1b"),
        ("", ""),
        ("# a\n" * (said_text.MOST // 4 + 1), "# a\n" * (said_text.MOST // 4 + 1)),
    ],
)
def test_what_a_text_says(text: str, left: str) -> None:
    found = said_text.said(text)
    assert found.text == left
    for at in range(0, len(left), max(1, len(left) // 100)):
        back = found.back(at)
        assert back is not None and found.place(back) == at and (left[at] in "\n" or text[back] == left[at])
    away = [at for at in range(min(200, len(text))) if found.place(at) is None]
    assert all(text[at] in " \t\n" or "#" in text[: at + 1].rpartition("\n")[2] for at in away)
    assert found.back(-1) is None and found.back(len(left) + 1) is None


def _imports(spec: Path) -> None:
    (spec.parent / "more.moe").write_text("moe 1\nlet x = 2\n")
    spec.write_text(SPEC.replace("moe 1\n", 'moe 1\nimport "more.moe"\n'))


def _checkout(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_cache, "identity", lambda: None)


def _off(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGC_CACHE", "off")


def _unwritable(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (spec.parent / "cache").write_text("a file where the folder would be")


def _of_files(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _imports(spec)


def _plugins(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass of another package: other packages are asked."""
    compile_spec = pipeline.compile_spec

    def asking(*args: Any, **more: Any) -> Any:
        entry_points.entry_points("dagc.passes")
        return compile_spec(*args, **more)

    monkeypatch.setattr(pipeline, "compile_spec", asking)


def _wrong(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec.write_text(SPEC + "phase other { }\n")


@pytest.mark.parametrize("change", [_checkout, _off, _unwritable, _of_files, _plugins, _wrong])
def test_what_follows_from_more_than_the_text_is_not_kept(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, change: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    change(spec, monkeypatch)
    first = run(capsys, "plan.moe")
    assert first[0] in (1, 2) and entries(spec) == []
    assert run(capsys, "plan.moe") == first


def test_what_takes_how_long_is_asked_anew(spec: Path, compilations: list[str], capsys: Capture) -> None:
    for _ in range(2):
        assert "parse, check" in run(capsys, "plan.moe", "-v")[2]
    assert len(compilations) == 2 and entries(spec) == []


SPOILS: list[Callable[[dict[str, Any]], Any]] = [
    lambda e: e.pop("state"),
    lambda e: e.update(passed=1),
    lambda e: e.update(verdict=None),
    lambda e: e.update(failing=[["a", "b"]]),
    lambda e: e.update(failing=[["a", "b", 3]]),
    lambda e: e.update(diagnostics={}),
    lambda e: e.update(failing={}),
    lambda e: e["diagnostics"][0].pop(),
    lambda e: e["diagnostics"][0].__setitem__(0, "Z99"),
    lambda e: e["diagnostics"][0].__setitem__(1, 3),
    lambda e: e["diagnostics"][0].__setitem__(2, [0, 10**9]),
    lambda e: e["diagnostics"][0].__setitem__(2, [-1, 3]),
    lambda e: e["diagnostics"][0].__setitem__(2, [True, 3]),
    lambda e: e["diagnostics"][0].__setitem__(4, [[0, 1, 5]]),
    lambda e: e["diagnostics"][0].__setitem__(5, [None]),
]


@pytest.mark.parametrize("spoil", spread(SPOILS, SPOILS[::3]))
def test_an_entry_of_another_form_counts_as_absent(
    spec: Path, compilations: list[str], capsys: Capture, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    first = run(capsys, "plan.moe")
    (path,) = entries(spec)
    found = json.loads(path.read_text().partition("\n")[2])
    spoil(found)
    user_cache.write(path.stem, found)
    assert run(capsys, "plan.moe") == first
    assert len(compilations) == 2
