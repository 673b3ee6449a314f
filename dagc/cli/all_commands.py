"""What `dagc --help` prints. It is made without argparse, whose import takes longer than all of this."""

from __future__ import annotations

import sys

from .commands import COMMANDS, GROUPS

USAGE = "usage: dagc [-h] [-V] [-q | -v] [--color WHEN] COMMAND ..."
ABOUT = "Compile MoE deployment plans (.moe) to placed, costed, drawn execution graphs."
GENERAL = (
    ("-h, --help", "show this text, or that of a command"),
    ("-V, --version", "print the version, the distribution and where it is installed"),
    ("-q, --quiet", "print verdicts, results and errors only"),
    ("-v, --verbose", "also tell what was read and how long each pass took"),
    ("--color WHEN", "auto, always or never (auto: NO_COLOR, FORCE_COLOR, else on terminals)"),
)
"""Options of every command, before or after its name."""
GENERAL_TITLE = "general options"
EXITS = (
    (0, "passed"),
    (1, "compiled, but a requirement fails or it does not fit"),
    (2, "the spec or the command line is wrong"),
    (3, "internal error"),
    (130, "interrupted"),
    (143, "terminated"),
)
FIRST = "dagc init --model mixtral-8x7b --gpu h100-sxm --gpus 8 -o plan.moe"
"""The command line that a newcomer may begin with."""


def overview() -> str:
    """All commands by what they are for, and the options that each of them takes."""
    width = max(map(len, COMMANDS)) + 2
    lines = [USAGE, "", ABOUT, ""]
    for title, commands in GROUPS.items():
        lines += [f"  {title}", *(f"    {name.ljust(width)}{about}" for name, about in commands.items())]
    lines += ["", "options, before or after the command:"]
    lines += [f"  {option.ljust(width + 4)}{about}" for option, about in GENERAL]
    lines += ["", "example:", f"  {FIRST}", ""]
    lines += ["`dagc help COMMAND` explains a command with examples; README.md and docs/ say more.", ""]
    lines += ["exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in EXITS)]
    return "\n".join(_narrowed(lines)) + "\n"


def _narrowed(lines: list[str]) -> list[str]:
    """On a terminal that is narrower than they are: what is said beside a name goes on below its beginning."""
    if not sys.stdout.isatty():
        return lines
    from .columns import columns

    if max(map(len, lines)) <= (room := columns()):
        return lines
    import textwrap

    out: list[str] = []
    for line in lines:
        name, _, about = line.rpartition("  ")
        inside = " " * (len(line) - len(about) if name.strip() else 4)
        out += textwrap.wrap(line, max(room, len(inside) + 20), subsequent_indent=inside, break_on_hyphens=False) or [
            ""
        ]
    return out
