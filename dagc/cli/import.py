"""`dagc import`: a Hugging Face config.json as a `.moe` model file, or commands of servers as a `.moe` plan."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..base.diagnostics import Diagnostic, SpecError
from ..importers.origins import SOURCES
from .arguments import allow_import_arguments, any_of, at_least
from .common import settings, tell
from .manner import manner, say
from .writing import write_all

PHASES = ("both", "prefill", "decode")
OF_SERVERS = (
    "gpu", "gpus", "preset", "config", "weight_dtype", "prompt_tokens", "output_tokens", "context_tokens", "prefix_tokens", "concurrency", "phases",
    "role", "engine_version", "set",
)  # fmt: skip
"""Options that only commands of servers have."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        default=[],  # else argparse asks for one where any word is missing
        metavar="CONFIG.json",
        help="config.json of a model; with --from: files, or `-- COMMAND ...`, that start servers",
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=tuple(SOURCES),
        metavar="SOURCE",
        help=f"import servers: {any_of(tuple(SOURCES))}",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help=".moe file to write (default: standard output)")
    parser.set_defaults(
        behind="options of a server's command come behind `--`: dagc import --from vllm -- vllm serve ..."
    )
    servers = parser.add_argument_group("with --from")
    servers.add_argument(
        "--gpu",
        metavar="GPU",
        action="append",
        help="preset of the GPUs (default: h100-sxm, which is said); prefill=NAME and decode=NAME: of servers of each",
    )
    servers.add_argument(
        "--gpus", type=at_least(1), metavar="N", help="GPUs of the pool (default: as many whole hosts as needed)"
    )
    servers.add_argument("--preset", metavar="MODEL", help="preset of the model (default: by the checkpoint's name)")
    servers.add_argument("--config", metavar="CONFIG.json", help="config.json of the model, in place of a preset")
    servers.add_argument(
        "--weight-dtype", metavar="DTYPE", help="what weights are stored in (default: by name and options)"
    )
    servers.add_argument("--prompt-tokens", type=at_least(1), metavar="TOK", help="tokens of a prompt")
    servers.add_argument("--output-tokens", type=at_least(1), metavar="TOK", help="generated tokens")
    servers.add_argument(
        "--context-tokens",
        type=at_least(1),
        metavar="TOK",
        help="KV length of a step of decode (default: prompt and output)",
    )
    servers.add_argument(
        "--prefix-tokens", type=at_least(0), metavar="TOK", help="tokens of a prompt that are cached (default: none)"
    )
    servers.add_argument(
        "--concurrency",
        type=at_least(1),
        metavar="N",
        help="requests at once (default: the most that the server takes)",
    )
    servers.add_argument(
        "--phases", choices=PHASES, metavar="P", help="which phases of a server that has both: both, prefill or decode"
    )
    servers.add_argument(
        "--role", choices=PHASES[1:], metavar="P", help="prefill or decode, where a command does not say"
    )
    servers.add_argument(
        "--engine-version", metavar="V", help="read as this version does (default: the newest that was checked)"
    )
    servers.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help="a variable that a file asks for and does not set (repeatable)",
    )
    allow_import_arguments(parser)


def run(args: Namespace) -> int:
    try:
        text, notes = _servers(args) if args.source else _config(args)
        notes += _verdict(text) if args.source else []
        if args.output is None:
            sys.stdout.write(text)
        else:
            write_all({Path(args.output): text.encode()})
            say(f"wrote {args.output}")
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    for note in () if manner().quiet else notes:
        print(note, file=sys.stderr)
    return 0


def _config(args: Namespace) -> tuple[str, list[str]]:
    from ..importers.huggingface import import_config

    if said := [name for name in OF_SERVERS if getattr(args, name) is not None]:
        raise _usage(f"--{said[0].replace('_', '-')} goes with --from")
    if len(args.words) != 1:
        what = f"one config.json, and there are {len(args.words)}" if args.words else "the config.json of a model"
        raise _usage(f"it takes {what}", "--from vllm -- vllm serve ... imports the command of a server")
    imported = import_config(args.words[0], args.allow_import)
    return imported.text(), [f"note: {note}" for note in imported.notes]


def _servers(args: Namespace) -> tuple[str, list[str]]:
    from ..importers.engines.imported import imported
    from ..importers.engines.unsaid import Given
    from ..importers.origins import commands

    if args.output is not None and args.output.isdecimal():
        raise _usage(
            f"--output names the file to write, and `{args.output}` is a number",
            "--output-tokens gives generated tokens",
        )
    gpu, pools = _gpus(args.gpu or [])
    given = Given(
        gpu,
        args.gpus,
        args.preset,
        None if args.config is None else Path(args.config),
        args.weight_dtype,
        args.prompt_tokens,
        args.output_tokens,
        args.context_tokens,
        args.prefix_tokens or 0,
        args.concurrency,
        args.phases or PHASES[0],
        args.role,
        args.engine_version,
        tuple(args.allow_import),
        pools,
    )
    args.set = args.set or []
    found = imported(commands(args.source, args.words, args.allow_import, settings(args)), given)
    several = len(found.servers) > 1
    lines = [
        f"{f'{server}: ' if several else ''}{line.option}: {line.outcome}{f', {line.words}' if line.words else ''}"
        for server, line in found.lines
    ]
    return found.text, [*lines, *(f"assumed: {note}" for note in found.notes)]


def _verdict(text: str) -> list[str]:
    """What keeps the plan from being compiled or from fitting: a command may ask for what its engine cannot load."""
    from ..api import compile_text

    try:
        plan = compile_text(text)
    except SpecError as error:
        return [f"not a valid plan: {one.code}: {one.message}" for one in error.diagnostics]
    return [] if plan.fits else ["the plan does not fit: `dagc check` says by how much"]


def _gpus(said: list[str]) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """One kind, or one of servers of prefill and one of those of decode."""
    pools = {role: name for role, equals, name in (text.partition("=") for text in said) if equals}
    if pools and (set(pools) != set(PHASES[1:]) or len(said) > len(pools)):
        raise _usage("--gpu takes one NAME, or prefill=NAME and decode=NAME")
    if not pools and len(said) > 1:
        raise _usage("--gpu takes one NAME, or prefill=NAME and decode=NAME")
    return (None, tuple(pools.items())) if pools else (said[0] if said else None, ())


def _usage(message: str, *help: str) -> SpecError:
    return SpecError(
        [Diagnostic("E14", f"dagc import: {message}", help=help or ("`dagc import --help` lists what it takes",))]
    )
