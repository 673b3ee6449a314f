"""How a command is to speak, as `-q`, `-v` and `--color` say, and NO_COLOR and FORCE_COLOR of the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

AUTO, ALWAYS, NEVER = COLORS = ("auto", "always", "never")


class Manner(NamedTuple):
    """`quiet`: verdicts, results and errors alone. `verbose`: also what was read, and how long passes took."""

    quiet: bool = False
    verbose: bool = False
    color: str = AUTO

    @classmethod
    def said_in(cls, argv: Sequence[str]) -> Manner:
        """As a command line says that is not parsed yet: for its own errors."""
        words = list(argv[: argv.index("--")] if "--" in argv else argv)
        colors = [word.removeprefix("--color=") for word in words if word.startswith("--color=")]
        colors += [after for word, after in pairwise(words) if word == "--color"]
        known = [color for color in colors if color in COLORS]
        return cls("-q" in words or "--quiet" in words, "-v" in words or "--verbose" in words, (known or [AUTO])[-1])


def manner_of(args: Any) -> Manner:
    """What the general options say."""
    return Manner(args.quiet, args.verbose, args.color)


_manner = [Manner()]


def manner() -> Manner:
    """Of the command that runs."""
    return _manner[-1]


@contextmanager
def behaving(said: Manner) -> Iterator[None]:
    _manner.append(said)
    try:
        yield
    finally:
        _manner.pop()


def color(stream: object) -> bool:
    """Whether to print colours there. The command line says, else the environment (no-color.org, force-color.org: a variable
    that is set to anything but nothing), else whether it is a terminal that has them."""
    asked = manner().color
    if asked != AUTO:
        return asked == ALWAYS
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    isatty = getattr(stream, "isatty", lambda: False)
    return bool(isatty()) and os.environ.get("TERM") != "dumb"


def live() -> bool:
    """Whether to show how far the work is: on a terminal, unless it is to be quiet."""
    return sys.stderr.isatty() and not manner().quiet


def say(text: str) -> None:
    """A line about what was done, which `-q` leaves out."""
    if not manner().quiet:
        print(text)


@contextmanager
def shown_progress(before: str = "") -> Iterator[Callable[[str], None] | None]:
    """A line on a terminal that says how far something is: `told(words)`. None where nobody looks."""
    if not live():
        yield None
        return

    longest = 0

    def told(words: str) -> None:
        nonlocal longest
        text = f"{before}{words}"
        longest = max(longest, len(text))
        print(f"\r{text.ljust(longest)}", end="", file=sys.stderr, flush=True)

    try:
        yield told
    finally:
        print(f"\r{' ' * longest}\r", end="", file=sys.stderr, flush=True)
