"""Whose program a command starts, the words behind it, and the checkpoint that it serves."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.diagnostics import Diagnostic, SpecError
from ...base.harmless import harmless
from ...engines.facts import Facts, facts
from . import ENGINES
from .command import ServerCommand
from .config_file import as_options, mapping, named_files
from .options import Words, split
from .unsaid import Given


def split_command(engine: str, command: ServerCommand, given: Given) -> tuple[Words, str]:
    """The words of a command, and the checkpoint that it serves. Raises SpecError."""
    known = facts(engine, given.version)
    words = _behind_program(known, command)
    if known.words.get("config") == "options":
        held = [as_options(mapping(p, command.files[p])) for p in named_files(words, known) if p in command.files]
        words = [*(word for own in held for word in own), *words]
    found = split(words, known)
    if found.faults:
        raise SpecError([fault(command, why) for why in found.faults])
    said = [t.value for t in found.told if t.option is not None and t.option.reads == "checkpoint" and t.value]
    named = list(dict.fromkeys([*found.plain, *said]))
    if known.words.get("model") == "given":  # its script knows the model
        if given.model is None and given.config is None:
            help_: tuple[str, ...] = ("--preset NAME or --config CONFIG.json",)
            raise SpecError(
                [
                    Diagnostic(
                        "E05",
                        f"{command.where}: the command does not say which model it runs",
                        command.span,
                        help=help_,
                    )
                ]
            )
        return found, given.model or str(given.config)
    if len(named) != 1:
        what = (
            f"names {len(named)} models: {', '.join(harmless(n)[:60] for n in named[:4])}"
            if named
            else "names no model"
        )
        guess = next((t for t in found.told if t.option is None and t.other is None and t.value), None)
        help_ = (
            (f"`{harmless(guess.text)[:100]}` is no option of {known.label}: its value may be the model",)
            if guess and not named
            else ()
        )
        raise SpecError([Diagnostic("E05", f"{command.where}: the command {what}", command.span, help=help_)])
    return found, named[0]


def _behind_program(known: Facts, command: ServerCommand) -> Sequence[str]:
    at = after_program(known, command.argv)
    if at is None:
        shown = harmless(" ".join(command.argv[:4]))[:80]
        other = engine_of(command.argv, ENGINES)
        help_ = (
            (f"`--from {other}`: it starts one of {facts(other).engine}",)
            if other
            else (f"it begins with {' or '.join(f'`{p}`' for p in known.programs)}",)
        )
        message = f"{command.where}: `{shown}` does not start a server of {known.engine}"
        raise SpecError([Diagnostic("E05", message, command.span, help=help_)])
    return command.argv[at:]


def after_program(known: Facts, argv: Sequence[str]) -> int | None:
    """Where options begin, behind the program and what starts it (`numactl ...`, `srun ...`); None: it is not this engine's."""
    needed = known.words.get("needs")
    if needed is not None and all(word.partition("=")[0] != needed for word in argv):
        return None
    plain = [word.rsplit("/", 1)[-1] for word in argv[:64]]
    plain = [
        "python" if word in ("python3", "python3.10", "python3.11", "python3.12", "python3.13") else word
        for word in plain
    ]
    for program in (*known.others, *known.programs):
        words = program.split()
        for start in range(len(plain)):
            if plain[start : start + len(words)] == words:
                return None if program in known.others else start + len(words)
    return None


def engine_of(argv: Sequence[str], engines: Sequence[str]) -> str | None:
    """Whose program it is that a command starts."""
    return next((e for e in engines if after_program(facts(e), argv) is not None), None)


def fault(command: ServerCommand, why: str) -> Diagnostic:
    return Diagnostic("E05", f"{command.where}: {harmless(why)[:300]}", command.span)
