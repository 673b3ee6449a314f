"""The commands of README.md and docs/: they are run in a scratch folder, and what they print is compared with what the page shows.

python tools/doc_commands.py PAGE...   writes into pages what their commands print now

What a page is to a reader who follows it from top to bottom:

- a `moe` block that begins with `moe 1` is the file `plan.moe`, and a `diff` block changes it (`- ` lines become the `+ ` lines below);
- a `console` block has commands behind `$ ` and what they print; `$ echo $?` shows an exit code;
- an `sh` block has commands; where a block without a language follows, it is what the last of them prints;
- a `python` block is run, and behind `>>> ` is what it prints; names stay from one block to the next;
- `...` alone in a line leaves out the middle of an output: the lines above are its first, those below its last.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from code_pages import changed

from dagc.cli import main

ROOT = Path(__file__).resolve().parent.parent
SPEC = "plan.moe"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CUT = "..."
TIMES = re.compile(r"(plans in|simulated in) [\d.,]+ (?:us|ms|s|min)\b")
"""What a clock says differs from run to run."""

NOT_RUN = {
    "python": "tools and tests of a checkout, which CI runs by themselves",
    "python3": "makes a virtual environment",
    "pip": "installs packages",
    "pipx": "makes an environment and installs packages (.ci/run)",
    "docker": "builds a container",
    "pytest": "runs tests",
    "torchrun": "starts processes on several hosts",
    "dagc run": "starts processes with PyTorch (tests/test_run.py)",
    "dagc import --from script": "reads launch scripts of the reader (tests/test_import_deployments.py)",
    "dagc import --from auto": "reads manifests of the reader (tests/test_import_deployments.py)",
    "dagc import --from aiconfigurator": "reads files of another tool (tests/test_import_deployments.py)",
    "printf": "writes the reader's list of hosts",
    "HOSTS=hosts": "starts servers on GPUs (tests/test_deploy.py)",
}
"""How a command begins that is not run here -> why."""


@dataclass(frozen=True)
class Step:
    """What a reader does next. `kind`: spec, change, command or python; `shown`: what a command prints by the page, None where it does not say."""

    kind: str
    text: str
    shown: str | None = None
    start: int = 0
    end: int = 0
    """Where `shown` is in the page."""


@dataclass(frozen=True)
class Ran:
    step: Step
    printed: str
    code: int


def steps(page: str) -> Iterator[Step]:
    blocks = list(BLOCK.finditer(page))
    for block, follower in zip(blocks, [*blocks[1:], None], strict=False):
        language, text, at = block[1], block[2], block.start(2)
        if language == "moe" and text.startswith("moe 1\n"):
            yield Step("spec", text)
        elif language == "diff":
            yield Step("change", text)
        elif language == "console":
            for part in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                yield Step("command", part[1], part[2], at + part.start(2), at + part.end(2))
        elif language == "python" and text.startswith(">>> "):
            yield from examples(text, at)
        elif language == "python":
            yield Step("python", text)
        elif language == "sh":
            *first, last = re.findall(r"^((?:.*\\\n)*.+)\n", text, re.MULTILINE)
            yield from (Step("command", one) for one in first)
            prints = follower and not follower[1] and not page[block.end() : follower.start()].strip()
            if follower and prints:
                yield Step("command", last, follower[2], follower.start(2), follower.end(2))
            else:
                yield Step("command", last)


def examples(text: str, at: int) -> Iterator[Step]:
    """What is typed in a session, and what it prints. `at`: where the session is in the page."""
    lines = text.splitlines(True)
    for one in doctest.DocTestParser().get_examples(text):
        first = one.lineno + one.source.count("\n")
        start = at + len("".join(lines[:first]))
        yield Step("python", one.source, one.want, start, start + len(one.want))


def calls(command: str) -> Iterator[list[str]]:
    """The words of each command of a line, without the folder of the virtual environment."""
    for part in command.replace("\\\n", " ").split("&&"):
        words = shlex.split(part, comments=True)
        if words:
            yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def why_not_run(words: Sequence[str]) -> str | None:
    return next((key for key in NOT_RUN if words[: len(key.split())] == key.split()), None)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder with the files of a checkout that commands of pages name."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        shutil.copytree(ROOT / "examples", folder / "examples")
        configs = folder / "tests" / "data" / "hf_configs"
        configs.mkdir(parents=True)
        shutil.copy(ROOT / "tests" / "data" / "hf_configs" / "mixtral-8x7b.json", configs)
        shutil.copytree(ROOT / "tests" / "data" / "prose", folder / "tests" / "data" / "prose")
        yield folder


BRIEF = {"search": ("--budget", "0.3 s", "--workers", "1")}
"""Options of commands that are run to see that they run: a search of all of a space takes as long as it is wide."""


def brief(words: Sequence[str]) -> list[str]:
    """The words of a command whose figures nobody reads."""
    own = words[0] == "dagc" and "--budget" not in words
    return [*words, *(BRIEF.get(words[1], ()) if own else ())]


def run(page: str, elsewhere: Collection[str] = ()) -> Iterator[Ran]:
    """In the current folder, what each command prints, on both streams as in a terminal. `elsewhere`: commands that are left out where the page
    does not show what they print."""
    code, names = 0, {"__name__": "__main__"}
    for step in steps(page):
        if step.kind == "spec":
            Path(SPEC).write_text(step.text)
        elif step.kind == "change":
            Path(SPEC).write_text(changed(Path(SPEC).read_text(), step.text.splitlines()))
        elif step.kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(compile(step.text, "<page>", "exec" if step.shown is None else "single"), names)
            yield Ran(step, said.getvalue(), 0)
        elif step.shown is None and step.text in elsewhere:
            continue
        elif step.text == "echo $?":
            yield Ran(step, f"{code}\n", 0)
        else:
            out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
            ours = [words for words in calls(step.text) if why_not_run(words) is None]
            for words in ours if step.shown is not None else map(brief, ours):
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                    code = main(words[1:]) if words[0] == "dagc" else other(words)
            if not ours:
                continue
            yield Ran(step, out.buffer.getvalue().decode(), code)


def other(words: Sequence[str]) -> int:
    """The few commands of a shell that pages use to look at files."""
    match words:
        case ["ls", folder]:
            print(*sorted(path.name for path in Path(folder).iterdir()), sep="\n")
        case ["cat", file]:
            print(Path(file).read_text(), end="")
        case ["grep", pattern, file]:
            print(*(line for line in Path(file).read_text().splitlines() if pattern in line), sep="\n")
        case _:
            raise ValueError(f"`{shlex.join(words)}` is neither run nor in the table of what is not")
    return 0


def shortened(printed: str, shown: str) -> str:
    """As much of an output as the page shows: all of it, or so many lines of its beginning and its end."""
    lines, page = printed.splitlines(), shown.splitlines()
    if CUT not in page:
        return printed
    head = page.index(CUT)
    tail = len(page) - head - 1
    if len(lines) <= head + tail:
        return printed
    return "\n".join((*lines[:head], CUT, *(lines[-tail:] if tail else ()))) + "\n"


def timeless(text: str) -> str:
    return TIMES.sub(r"\1 0 s", text)


def rewritten(page: str) -> str:
    """The page with what its commands print now; what only a clock would change stays."""
    for ran in reversed(list(run(page))):
        step = ran.step
        if step.shown is not None:
            now = shortened(ran.printed, step.shown)
            if timeless(now) != timeless(step.shown):
                page = page[: step.start] + now + page[step.end :]
    return page


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name).resolve()
        with scratch():
            path.write_text(rewritten(path.read_text()))
