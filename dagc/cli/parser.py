"""The parser of the command line. A command's own arguments are asked for when it is called, or a mistake needs them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from .all_commands import ABOUT, GENERAL, GENERAL_TITLE, USAGE, overview
from .columns import columns
from .commands import COMMANDS, MODULES
from .manner import AUTO, COLORS


class Parser(argparse.ArgumentParser):
    """argparse exits by itself; here a wrong command line is a diagnostic and code 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            f"{self.prog}: {message}", *self.examples(message), f"`{self.prog} --help` lists what it takes"
        )

    def examples(self, message: str) -> tuple[str, ...]:
        """A whole command line, where words are missing."""
        return ()

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A word of a list: the one that is meant, or all."""
        if action.choices is None or value in action.choices:
            return
        from ..base.suggest import did_you_mean

        known = [str(c) for c in action.choices]
        near = did_you_mean(str(value), known)
        if isinstance(action, argparse._SubParsersAction):
            hint = f"did you mean `{self.prog} {near}`?" if near else f"commands: {', '.join(known)}"
            raise UsageError(f"{self.prog} has no command `{value}`", hint)
        name = "/".join(action.option_strings) or action.metavar or action.dest
        raise UsageError(
            f"{self.prog}: {name} cannot be `{value}`",
            f"did you mean `{near}`?" if near else f"it may be {', '.join(known)}",
        )

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse hides that a message could not be written."""
        print(message, end="", file=file or sys.stderr, flush=True)


class CommandParser(Parser):
    """Of one command, whose module fills it: `add_arguments(parser)` and `run(args) -> exit code`."""

    command = ""
    explained = ""
    mixing = False

    def fill(self) -> None:
        if not self.command:
            return
        module = import_module(f".{MODULES.get(self.command, self.command)}", __package__)
        self.command, self.explained = "", self.command
        module.add_arguments(self)
        self.set_defaults(run=module.run)
        add_general(self)

    def examples(self, message: str) -> tuple[str, ...]:
        if not self.explained or "required" not in message:
            return ()
        from .help_pages import PAGES

        return (f"such as `{PAGES[self.explained].examples[0].command}`",)

    def format_help(self) -> str:
        if self.explained:
            from .help_pages import epilog

            self.epilog = epilog(self.explained)
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.fill()
        positional = [action.nargs for action in self._actions if not action.option_strings]
        if (
            positional == ["*"] and args is not None and "--" in args
        ):  # what follows is taken as it is, options of other programs too
            at = list(args).index("--")
            found, extra = self.parse_known_args(args[:at], namespace)
            (words,) = (action.dest for action in self._actions if not action.option_strings)
            setattr(found, words, [*getattr(found, words), *args[at + 1 :]])
            return found, extra
        if self.mixing or "*" not in positional or argparse.REMAINDER in positional:
            return super().parse_known_args(args, namespace)
        self.mixing = True  # argparse gives a list no words that follow an option: `SPEC --phase P TRACE`
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.mixing = False


class UsageError(Exception):
    """The command line is wrong: why, and what would help."""

    def __init__(self, message: str, *help: str) -> None:
        super().__init__(message)
        self.help = help


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace | int:
    """The parsed arguments, or an exit code when there is nothing more to do."""
    called = [word for word in argv if word in COMMANDS][:1]
    try:
        try:
            args = _parsed(argv, called or COMMANDS)
        except UsageError:
            args = _parsed(argv, COMMANDS)  # a mistake may mean any command
    except UsageError as error:
        from ..base.diagnostics import Diagnostic
        from .common import tell

        help_ = error.help
        if argv and argv[0].startswith("-") and "has no command" in str(error):
            help_ = ("options follow the command: dagc COMMAND SPEC --set k=v",)
        tell([Diagnostic("E14", str(error), help=help_)])
        return 2
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    if args.command is None:
        print(overview(), end="", file=sys.stderr, flush=True)
        return 2
    return args


def _parsed(argv: Sequence[str], commands: Iterable[str]) -> argparse.Namespace:
    """What was said to one of some commands. Raises UsageError."""
    parser = build_parser(commands)
    args, extra = parser.parse_known_args(argv)
    if extra:
        raise _unknown(parser, args.command, extra[0])
    return args


class _Version(argparse.Action):
    """Prints the version and ends, whatever else a command needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        from ..base.distribution import described, foreign
        from ..base.version import VERSION

        print(described(VERSION))
        if stranger := foreign():
            print(f"dagc: {stranger}", file=sys.stderr)
        raise SystemExit(0)


def add_general(parser: argparse.ArgumentParser, **before: Any) -> None:
    """The options that every command takes. `before`: what holds where neither side of the command's name has them; what a command
    does not say leaves what is said before it."""
    about = dict(GENERAL)
    group = parser.add_argument_group(GENERAL_TITLE)
    either = group.add_mutually_exclusive_group()
    for name, option in (("quiet", "-q"), ("verbose", "-v")):
        text = about[f"{option}, --{name}"]
        default = before.get(name, argparse.SUPPRESS)
        either.add_argument(option, f"--{name}", action="store_true", default=default, help=text)
    color = before.get("color", argparse.SUPPRESS)
    group.add_argument("--color", choices=COLORS, default=color, metavar="WHEN", help=about["--color WHEN"])
    group.add_argument(
        "-V", "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help=about["-V, --version"]
    )


def _unknown(parser: argparse.ArgumentParser, command: str | None, word: str) -> UsageError:
    """An option that the command does not have, or an argument too many."""
    from ..base.suggest import did_you_mean

    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    commands: dict[str, CommandParser] = dict(action.choices)
    for one in commands.values():
        one.fill()
    own: argparse.ArgumentParser = commands.get(command or "", parser)
    every_option = f"`{own.prog} --help` lists what it takes"
    if not word.startswith("-"):
        return UsageError(f"{own.prog}: there is nothing to do with `{word}`", every_option)
    name = word.partition("=")[0]
    options = own._option_string_actions
    near = did_you_mean(name.lstrip("-"), [o.lstrip("-") for o in options if o.startswith("--")])
    formats = options["--format"].choices if "--format" in options else None
    if formats is not None and name.lstrip("-") in formats:
        hint = f"did you mean `--format {name.lstrip('-')}`?"
    elif owners := [c for c, p in commands.items() if name in p._option_string_actions]:
        hint = f"`{name}` is an option of {', '.join(f'dagc {c}' for c in owners)}"
    else:
        hint = f"did you mean `--{near}`?" if near else own.get_default("behind") or every_option
    return UsageError(f"{own.prog} has no option `{name}`", hint)


class _Help(argparse.HelpFormatter):
    """Paragraphs are filled, but for examples, whose lines stay as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _Root(Parser):
    """The parser of all commands, whose help is the overview."""

    def format_help(self) -> str:
        return overview()


def build_parser(names: Iterable[str] = COMMANDS) -> Parser:
    """The parser of these commands."""
    parser = _Root(prog="dagc", usage=USAGE.removeprefix("usage: "), description=ABOUT, formatter_class=_Help)
    add_general(parser, quiet=False, verbose=False, color=AUTO)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=CommandParser)
    for name in names:
        about = COMMANDS[name]
        description = f"{about[0].upper()}{about[1:]}."
        one = commands.add_parser(name, help=about, description=description, prog=f"dagc {name}", formatter_class=_Help)
        one.command = name
    return parser
