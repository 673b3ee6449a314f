"""docs/commands.md and the man page docs/man/dagc.1, from the table of commands and their parsers.

python tools/command_pages.py
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from dagc.base.distribution import SUMMARY
from dagc.base.version import VERSION
from dagc.cli.all_commands import EXITS, GENERAL, USAGE
from dagc.cli.command_records import Argument, Command, command_line
from dagc.cli.commands import GROUPS
from dagc.cli.help_pages import PAGES

DOCS = Path(__file__).resolve().parent.parent / "docs"
MARKDOWN, MANUAL = DOCS / "commands.md", DOCS / "man" / "dagc.1"

DATE = "2026-11-29"
"""Of the man page: when its form changed last."""

HEAD = """# Commands

What `dagc help COMMAND` says, on one page (made by `tools/command_pages.py`; the man page is `docs/man/dagc.1`). Every example
is run by a test, in the top folder of the sources.

Options of every command, before or after its name:

| option | does |
| --- | --- |
"""


def shown(one: Argument) -> str:
    """An argument as it is written: `-o FILE, --output FILE`, `[SPEC ...]`."""
    value = "{" + ",".join(one.choices) + "}" if one.choices and one.name not in ("WHEN", "WHAT") else one.name
    if one.flags:
        return ", ".join(f"{flag} {value}" if one.takes_value else flag for flag in one.flags)
    return f"[{value}{' ...' if one.many else ''}]" if one.optional else f"{value}{' ...' if one.many else ''}"


def markdown() -> str:
    commands = command_line()
    lines = [HEAD + "\n".join(f"| `{option}` | {about} |" for option, about in GENERAL), ""]
    lines += ["Exit codes:", "", *(f"- {code}: {meaning}" for code, meaning in EXITS), ""]
    lines += ["Colours: `--color`, else `NO_COLOR` and `FORCE_COLOR` (set to anything but nothing; the first one wins), else those", "of a terminal whose `TERM` is not `dumb`.", ""]  # fmt: skip
    for title, group in GROUPS.items():
        lines += [f"## {title[0].upper()}{title[1:]}", ""]
        for name in group:
            lines += [*_section(commands[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(command: Command) -> Iterator[str]:
    page = PAGES[command.name]
    yield f"### dagc {command.name}"
    yield ""
    yield f"{command.about[0].upper()}{command.about[1:]}. " + " ".join(page.more)
    yield ""
    yield "```sh"
    for example in page.examples:
        yield f"{example.command}  # {example.about}{f' (needs {example.needs})' if example.needs else ''}"
    yield "```"
    yield ""
    rows = [(shown(one), one.about) for one in command.arguments if "--help" not in one.flags]
    if rows:
        yield "| argument | |"
        yield "| --- | --- |"
        for written, about in rows:
            yield f"| `{_cell(written)}` | {_cell(about)} |"
        yield ""
    also = [f"[dagc {name}](#dagc-{name})" for name in page.also]
    where = (
        [f"[{page.docs.removeprefix('docs/')}]({page.docs.removeprefix('docs/')})"]
        if page.docs != "docs/commands.md"
        else []
    )
    if also or where:
        yield f"See also: {', '.join((*where, *also))}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def manual() -> str:
    """The man page, in the classic macros that groff and mandoc read."""
    commands = command_line()
    lines = [
        f'.TH DAGC 1 {DATE} "dagc {VERSION}" "User Commands"',
        ".SH NAME",
        f"dagc \\- {_roff(SUMMARY)}",
    ]
    lines += [
        ".SH SYNOPSIS",
        f".B {_roff(USAGE.removeprefix('usage: '))}",
        ".SH OPTIONS",
        "Before or after the command:",
    ]
    for option, about in GENERAL:
        lines += [".TP", f".B {_roff(option)}", _prose(about)]
    for title, group in GROUPS.items():
        lines.append(f".SH {_roff(f'COMMANDS: {title.upper()}')}")
        for name in group:
            lines += _manual_section(commands[name])
    lines += [".SH EXIT STATUS"]
    for code, meaning in EXITS:
        lines += [".TP", f".B {code}", _prose(meaning)]
    lines += [".SH ENVIRONMENT"]
    for name, about in ENVIRONMENT.items():
        lines += [".TP", f".B {name}", _prose(about)]
    return "\n".join(lines) + "\n"


ENVIRONMENT = {
    "NO_COLOR": "no colours, if it is set to anything but nothing",
    "FORCE_COLOR": "colours where there is no terminal too; NO_COLOR and --color win over it",
    "DAGC_DEBUG": "the traceback of an internal error is shown",
    "COLUMNS": "width of help texts and reports",
    "DAGC_CACHE": "`off`: dagc check keeps no verdicts and no figures of simulated servings for its next run",
    "XDG_CACHE_HOME": "the folder in which they are, in dagc/kept, instead of ~/.cache",
}


def _manual_section(command: Command) -> Iterator[str]:
    page = PAGES[command.name]
    yield f".SS dagc {command.name}"
    yield _prose(f"{command.about[0].upper()}{command.about[1:]}.")
    for paragraph in page.more:
        yield ".PP"
        yield _prose(paragraph)
    for one in command.arguments:
        if "--help" not in one.flags:
            yield from (".TP", f".B {_roff(shown(one))}", _prose(one.about or one.name))
    yield ".PP"
    yield "Examples:"
    for example in page.examples:
        yield from (".PP", ".RS 4", ".EX", _roff(example.command), ".EE", ".RE", ".PP", _prose(f"{example.about}."))


def _roff(text: str) -> str:
    """Text in which nothing is a request of roff or an escape: hyphens that are copied stay hyphens."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "").replace('"', "\\(dq").replace("'", "\\(aq")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti")
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


def _prose(text: str) -> str:
    """In lines that are no longer than a screen is wide, as lint of man pages wants it."""
    return _roff("\n".join(textwrap.wrap(text, 68, break_long_words=False, break_on_hyphens=False)))


if __name__ == "__main__":
    MARKDOWN.write_text(markdown())
    MANUAL.write_text(manual())
