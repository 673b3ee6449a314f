"""Help: one table of commands, pages whose examples run, and a start that loads nothing."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, spec_text
from doc_commands import brief
from tiers import spread

import dagc.api
from dagc.cli import main
from dagc.cli.all_commands import EXITS, GENERAL, overview
from dagc.cli.command_records import KINDS, LISTS, Command, command_line
from dagc.cli.commands import COMMANDS, GROUPS
from dagc.cli.help_pages import PAGES, Example
from dagc.cli.parser import build_parser

pytestmark = pytest.mark.usefixtures("shared_servings")

Capture = pytest.CaptureFixture[str]
MIXTRAL = str(ROOT / "examples" / "mixtral_8xh100.moe")
EXAMPLES = [example for page in PAGES.values() for example in page.examples]
FIRST = [
    page.examples[0]
    for name, page in PAGES.items()
    if name not in ("run", "measure", "init", "serve", "survive", "fit", "search", "audit")
]
"""Of each command but those that import PyTorch or take long: test_run.py, test_init.py, test_serve_command.py and others run them."""
REQUESTS = "arrival_s,input_tokens,output_tokens,ttft_ms,tpot_ms\n" + "".join(
    f"{k / 2},3000,500,{900 + k},{20 + k % 3}\n" for k in range(40)
)


@pytest.fixture(scope="module")
def commands() -> dict[str, Command]:
    return command_line()


def test_every_command_has_a_page() -> None:
    assert set(PAGES) == set(COMMANDS) == {name for group in GROUPS.values() for name in group}
    for name, page in PAGES.items():
        assert page.examples and page.more and (ROOT / page.docs).is_file(), name
        assert set(page.also) <= set(COMMANDS) - {name}
        assert any(shlex.split(example.command)[:2] == ["dagc", name] for example in page.examples)


def test_the_overview_is_that_of_the_parser() -> None:
    parser = build_parser()
    assert parser.format_help() == overview()
    flags = {
        ", ".join(a.option_strings) + (f" {a.metavar}" if a.metavar else "")
        for a in parser._actions
        if a.option_strings
    }
    assert flags == {option for option, _ in GENERAL}
    used = re.findall(r"-\w+\b|--[\w-]+", parser.format_usage())
    assert {flag for flag in used if flag.startswith("--")} <= {f for a in parser._actions for f in a.option_strings}
    assert max(map(len, overview().splitlines())) <= 88


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["-q", "--help"], ["help", "-q"]])
def test_all_ways_to_the_overview(words: list[str], capsys: Capture) -> None:
    assert main(words) == 0
    shown = capsys.readouterr()
    if words != ["help", "-q"]:
        assert shown.out == overview()
    assert shown.err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, capsys: Capture) -> None:
    assert main([name, "--help"]) == 0
    short = capsys.readouterr().out
    assert main(["help", name]) == 0
    full = capsys.readouterr().out
    page = PAGES[name]
    for text in (short, full):
        assert page.examples[0].command in text and page.docs in text
        assert all(option.split(",")[0] in text for option, _ in GENERAL)
    assert all(example.command in full for example in page.examples)
    assert all(f"{code:>3}  {meaning}" in full for code, meaning in EXITS)


def test_help_of_what_is_no_command(capsys: Capture) -> None:
    for word, said in (
        ("chek", "did you mean `check`?"),
        ("E05", "`dagc explain E05`"),
        ("zzz", "`dagc help` lists all"),
    ):
        assert main(["help", word]) == 2
        assert said in capsys.readouterr().err


def test_every_argument_says_what_it_does(commands: dict[str, Command]) -> None:
    for command in commands.values():
        assert all(one.about or one.choices for one in (*command.arguments, *command.general)), command.name
    assert set(LISTS) <= set(KINDS.values())


# -- examples ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The top folder of the sources, as far as examples name files of it."""
    top = tmp_path_factory.mktemp("sources")
    shutil.copytree(ROOT / "examples", top / "examples")
    shutil.copytree(ROOT / "tests" / "data" / "hf_configs", top / "tests" / "data" / "hf_configs")
    shutil.copytree(ROOT / "tests" / "data" / "prose", top / "tests" / "data" / "prose")
    (top / "small.moe").write_text(spec_text(kind="decode", phase="gpus = [0]"))
    with redirect_stdout(StringIO()) as printed:
        main(["ir", str(top / "small.moe"), "--after", "norms"])
    (top / "graph.ir").write_text(printed.getvalue())
    (top / "requests.csv").write_text(REQUESTS)
    return top


@pytest.fixture
def here(sources: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In the sources, where each plan is compiled once."""
    monkeypatch.chdir(sources)
    monkeypatch.setattr(dagc.api, "compile", _compiled_once)
    yield sources


COMPILE = dagc.api.compile


def _compiled_once(spec: str, *, settings: Any = None, phases: Any = None, allow_import: Any = ()) -> Any:
    return _plan(spec, tuple((settings or {}).items()), tuple(phases or ()))


@cache
def _plan(spec: str, settings: tuple[tuple[str, str], ...], phases: tuple[str, ...]) -> Any:
    return COMPILE(spec, settings=dict(settings), phases=phases or None)


@pytest.mark.parametrize("example", spread(EXAMPLES, lambda example: example in FIRST), ids=lambda e: e.command)
def test_examples_run(example: Example, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if example.needs:
        pytest.importorskip(example.needs)
    words = shlex.split(example.command)
    assert words[0] == "dagc"
    code = main(brief(words)[1:])
    shown = capfd.readouterr()
    assert code in (0, 1) and "error[E" not in shown.err, shown.err
    assert shown.out or shown.err or words[1] == "fmt"
    for flag in ("-o",):
        if flag in words:
            assert (here / words[words.index(flag) + 1]).exists()


# -- start-up ----------------------------------------------------------------------------------------


def test_help_is_printed_before_anything_is_loaded() -> None:
    """`dagc --help` takes little more than the interpreter: not even argparse, typing or re."""
    code = "import sys; bare = set(sys.modules); from dagc.cli import main; main(['--help']); print(*sys.modules.keys() - bare, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    loaded = set(done.stderr.split())
    assert done.stdout == overview()
    assert {name for name in loaded if name.startswith("dagc")} == {
        "dagc", "dagc.base", "dagc.base.version", "dagc.cli", "dagc.cli.commands", "dagc.cli.all_commands",
    }  # fmt: skip
    assert not loaded & {"argparse", "typing", "re", "pathlib", "dataclasses", "enum", "signal", "threading"}


def test_help_into_what_cannot_be_written() -> None:
    command = f"{sys.executable} -m dagc --help"
    done = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "cannot write the output" in done.stderr and "Traceback" not in done.stderr
    for to in (">&-", "| true"):
        done = subprocess.run(["bash", "-c", f"{command} {to}"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "Traceback" not in done.stderr


# -- the manner of speaking --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["-q", "check", "plan_a"], ["check", "plan_a", "-q"], ["check", "--quiet", "plan_a"]]
)
def test_quiet_is_the_verdict_alone(words: list[str], here: Path, capsys: Capture) -> None:
    assert main([str(here / "examples" / "plan_a.moe") if w == "plan_a" else w for w in words]) == 1
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1 and "FAILED: 16 of 32 requirements fail" in shown.out and shown.err == ""


def test_quiet_commands(here: Path, capsys: Capture) -> None:
    spec = "examples/plan_a.moe"
    assert main(["compile", spec, "-q", "--emit", "dot", "-o", "quiet"]) == 1
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1 and shown.err == "" and list((here / "quiet").iterdir())
    assert main(["report", spec, "-q", "-o", "quiet.md"]) == 1
    assert capsys.readouterr().out.count("\n") == 1 and (here / "quiet.md").stat().st_size > 1000
    assert main(["-q", "check", "nowhere.moe"]) == 2
    assert "error[E05]" in capsys.readouterr().err


def test_quiet_and_loud_at_once(capsys: Capture) -> None:
    assert main(["check", "-q", "-v", "x.moe"]) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_verbose_tells_files_and_passes(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "part.moe").write_text("moe 1\nlet b = 8\n")
    text = Path(MIXTRAL).read_text().partition("serve ")[0]
    (tmp_path / "plan.moe").write_text(text.replace("moe 1\n", 'moe 1\nimport "part.moe"\n', 1))
    assert main(["check", str(tmp_path / "plan.moe"), "-v", "--phase", "decode"]) == 0
    told = capsys.readouterr().err
    for path in ("plan.moe", "part.moe"):
        assert f"read      {tmp_path / path}" in told
    for name in ("expand", "tp", "reshard", "cost"):
        assert re.search(rf"^decode    {name} +\d+\.\d\d ms$", told, re.MULTILINE), told
    assert main(["check", str(tmp_path / "plan.moe"), "--phase", "decode"]) == 0
    assert "read  " not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "environment", "colored"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        (["--color=always"], {"NO_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": ""}, False),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": ""}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colours(
    words: list[str], environment: dict[str, str], colored: bool, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for line in (["check", "nowhere.moe", *words], [*words, "check", "nowhere.moe"], [*words, "chek"]):
        assert main(line) == 2
        assert ("\x1b[" in capsys.readouterr().err) == colored


def test_a_terminal_has_colours() -> None:
    """A real one, and one that says that it has none."""
    import pty

    for environment, colored in (
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ):
        ours, theirs = pty.openpty()
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
        subprocess.run(
            [sys.executable, "-m", "dagc", "check", "nowhere.moe"],
            cwd=ROOT,
            stderr=theirs,
            stdout=theirs,
            env=clean | environment,
            check=False,
        )
        os.close(theirs)
        said = os.read(ours, 4096)
        os.close(ours)
        assert (b"\x1b[" in said) == colored and b"E05" in said


def test_control_characters_reach_no_terminal(tmp_path: Path, capsys: Capture) -> None:
    """Colours or not: nothing of a name or an argument steers a terminal, but the colours that dagc prints itself."""
    evil = "a\x1b]0;owned\x07\x1b[2J\x9bm.moe"
    for words in (
        ["check", evil],
        ["help", evil],
        ["list", "attributes", evil],
        [evil],
        ["check", "x.moe", f"--{evil}"],
        ["explain", evil],
    ):
        assert main([*words, "--color", "always"]) == 2
        shown = capsys.readouterr()
        assert not re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;]*m)", shown.out + shown.err)


def test_general_options_are_those_of_every_parser(commands: dict[str, Command]) -> None:
    flags = [one.flags for one in next(iter(commands.values())).general]
    assert flags == [("-q", "--quiet"), ("-v", "--verbose"), ("--color",), ("-V", "--version")]
    for name, command in commands.items():
        assert [one.flags for one in command.general] == flags, name
    assert isinstance(build_parser(), argparse.ArgumentParser)


@pytest.mark.parametrize("words", [["-V"], ["--version"], ["check", "-V"], ["check", "--version"]])
def test_the_version_needs_nothing_else(words: list[str], capsys: Capture) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(f"dagc {dagc.__version__} (")


# -- pages made of the table -------------------------------------------------------------------------


def test_pages_are_made_of_the_table() -> None:
    import command_pages

    for path, text in (
        (command_pages.MARKDOWN, command_pages.markdown()),
        (command_pages.MANUAL, command_pages.manual()),
    ):
        assert path.read_text() == text, f"{path.name} is not what the parsers say: python tools/command_pages.py"
    assert all(f"### dagc {name}\n" in command_pages.MARKDOWN.read_text() for name in COMMANDS)


@pytest.mark.parametrize(
    "lint",
    [["groff", "-man", "-ww", "-z"], ["mandoc", "-T", "lint"], ["man", "--warnings", "-l"]],
    ids=lambda words: words[0],
)
def test_the_man_page_is_clean(lint: list[str]) -> None:
    if shutil.which(lint[0]) is None:
        pytest.skip(f"{lint[0]} is not installed")
    page = str(ROOT / "docs" / "man" / "dagc.1")
    done = subprocess.run(
        [*lint, page], capture_output=True, text=True, check=False, env={**os.environ, "MAN_KEEP_FORMATTING": "1"}
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert lint[0] == "man" or done.stdout == ""
    if lint[0] == "man":
        assert all(f"dagc {name}" in re.sub(".\x08", "", done.stdout) for name in COMMANDS)


@pytest.mark.parametrize("command", ["check", "export", "opt", "serve", "pick", "completion", "audit"])
def test_where_words_are_missing_a_whole_command_line_is_shown(command: str, capsys: Capture) -> None:
    assert main([command]) == 2
    said = capsys.readouterr().err
    assert f"such as `{PAGES[command].examples[0].command}`" in said
    assert "NAME" not in said.partition("help")[0]  # what may be left out is not required


def test_a_narrow_terminal_gets_narrow_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    wide = overview()
    assert max(map(len, wide.splitlines())) > 60  # of a file or a pipe nothing changes
    monkeypatch.setattr("sys.stdout", Terminal())
    narrow = overview()
    assert max(map(len, narrow.splitlines())) <= 50 and narrow.split() == wide.split()


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True
