"""Arguments that several commands take, and kinds of values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence

MOST = 10**9
"""Of anything that is counted, or of seconds."""


def any_of(words: Sequence[str]) -> str:
    """`a, b or c`"""
    return f"{', '.join(words[:-1])} or {words[-1]}"


NUMBERS: dict[type, str] = {int: "whole number", float: "number"}


def at_least(least: int, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """A number of a kind from `least` to MOST."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"`{text}` is not a {NUMBERS[kind]}{_written_out(text)}") from None
        if not least <= value <= MOST:
            raise argparse.ArgumentTypeError(f"{text} is not from {least} to {MOST:.0e}")
        return value

    return parse


def _written_out(text: str) -> str:
    """What is meant by `128k` and `4x8`."""
    if re.fullmatch(r"[0-9]{1,6}[kK]", text):
        count = int(text[:-1])
        return f": write it out, {1000 * count}, or {1024 * count} if 1024 is meant"
    if found := re.fullmatch(r"([0-9]{1,6}) ?[x*] ?([0-9]{1,6})", text):
        return f": write it out, {int(found[1]) * int(found[2])}"
    return ""


def tokens(text: str) -> float:
    """`4096`, or `4096 tok` as in a spec."""
    return at_least(1)(text.strip().removesuffix("tok").rstrip())


def percent(text: str) -> float:
    """`5` or `5%`, not negative."""
    value = float(text.strip().removesuffix("%"))
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def theme_argument(parser: argparse.ArgumentParser) -> None:
    """Of every command that writes pictures or a page."""
    from ..base.picture_words import THEMES

    parser.add_argument(
        "--theme",
        choices=THEMES,
        default="auto",
        help="colours of pictures and pages (default: auto, which is dark where the reader's screen is; in PNG and PDF it is light)",
    )


TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h)?\s*")
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """`10 s`, `500 ms`; a bare number counts seconds."""
    found = TIME.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is not a time such as `10 s`")
    return float(found[1]) * SECONDS[found[2] or "s"]


def spec_arguments(parser: argparse.ArgumentParser, help: str = "spec file, - for standard input") -> None:
    parser.add_argument("spec", metavar="SPEC", help=help)
    common_arguments(parser)


def common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="value of a param (repeatable)")
    parser.add_argument("--phase", action="append", default=[], metavar="P", help="only this phase (repeatable)")
    allow_import_arguments(parser)


def allow_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-import",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder outside the spec's project whose files it may read (repeatable)",
    )
