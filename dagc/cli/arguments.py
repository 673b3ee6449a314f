"""Arguments of every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

EXITS = """`dagc COMMAND --help` lists the options of a command.

exit codes: 0 passed; 1 compiled, but a requirement fails or it does not fit; 2 the
spec or the command line is wrong; 3 internal error; 130 interrupted; 143 terminated"""

MOST = 10**9
"""Of anything that is counted, or of seconds."""


class _Parser(argparse.ArgumentParser):
    """argparse exits by itself; here a wrong command line is a diagnostic and code 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", f"`{self.prog} --help` lists what it takes")

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


class UsageError(Exception):
    """The command line is wrong: why, and what would help."""

    def __init__(self, message: str, *help: str) -> None:
        super().__init__(message)
        self.help = help


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace | int:
    """The parsed arguments, or an exit code when there is nothing more to do."""
    parser = build_parser()
    try:
        args, extra = parser.parse_known_args(argv)
        if extra:
            raise _unknown(parser, args.command, extra[0])
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
    if args.version:
        from ..base.distribution import described, foreign
        from ..base.version import VERSION

        print(described(VERSION))
        if stranger := foreign():
            print(f"dagc: {stranger}", file=sys.stderr)
        return 0
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    return args


def _unknown(parser: argparse.ArgumentParser, command: str | None, word: str) -> UsageError:
    """An option that the command does not have, or an argument too many."""
    from ..base.suggest import did_you_mean

    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    commands: dict[str, argparse.ArgumentParser] = dict(action.choices)
    own = commands.get(command or "", parser)
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
        hint = f"did you mean `--{near}`?" if near else every_option
    return UsageError(f"{own.prog} has no option `{name}`", hint)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dagc",
        description="Compile MoE deployment plans (.moe) to placed, costed, drawn execution graphs.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="store_true", help="print the version, the distribution and where it is installed"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    compile_ = _command(commands, "compile", "report a plan; write artefacts with --emit or -o")
    _spec(compile_, "spec file, - for standard input, or a .graph.json that --emit json wrote")
    compile_.add_argument(
        "--emit",
        default="",
        metavar="KINDS",
        help="comma list of dot, svg, png, pdf, json, nodelink, graphml, chakra, html, md, perfetto",
    )
    compile_.add_argument(
        "--view",
        default="overview,layer",
        metavar="VIEWS",
        help="comma list of pictures to draw: overview, layer, lanes (default: overview,layer)",
    )
    compile_.add_argument(
        "--ranks",
        choices=("folded", "all"),
        default="folded",
        help="json, nodelink, graphml: one node for all ranks, or one per rank; perfetto: one rank per class and stage, or every rank",
    )
    compile_.add_argument("-o", "--output", metavar="DIR", help="where artefacts go (default: ./NAME.out)")
    compile_.add_argument("--force", action="store_true", help="replace directories of traces that exist already")
    compile_.add_argument("--json", action="store_true", help="print one JSON object instead of the report")
    compile_.add_argument("--format", choices=("text", "md"), default="text", help="how to print the report")

    report = _command(commands, "report", "the report as one HTML page, or in Markdown")
    _spec(report)
    report.add_argument("-o", "--output", metavar="FILE", help=".html, .md or .txt (default: ./NAME.html)")
    report.add_argument("--format", choices=("html", "md", "text"), help="default: what FILE ends in")
    report.add_argument(
        "--force", action="store_true", help="accepted as in other commands: a report that exists is always replaced"
    )

    diff = _command(commands, "diff", "compare two plans, or one plan under two settings")
    diff.add_argument("a", metavar="A", help="spec file, - for standard input, or what `dagc compile --json` printed")
    diff.add_argument("b", nargs="?", metavar="B", help="the other side (default: A again)")
    diff.add_argument("--set-a", action="append", default=[], metavar="K=V", help="value of a param in A (repeatable)")
    diff.add_argument("--set-b", action="append", default=[], metavar="K=V", help="value of a param in B (repeatable)")
    _common(diff)
    diff.add_argument("--format", choices=("text", "md", "json"), default="text", help="default: text")
    diff.add_argument(
        "--fail-on-regression",
        type=_percent,
        nargs="?",
        const=0.0,
        metavar="PERCENT",
        help="exit 1 if time, throughput or memory got worse by more than this, or a requirement no longer holds",
    )

    sweep = _command(commands, "sweep", "compile a spec under every combination of some params")
    _spec(sweep)
    sweep.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="K=V,V",
        help="values of a param (repeatable; default: the domain of every param)",
    )
    sweep.add_argument(
        "--metric", action="append", default=[], metavar="M", help="metric to show, as in a require (repeatable)"
    )
    sweep.add_argument("--workers", type=_at_least(1), metavar="N", help="processes (default: one per CPU)")
    sweep.add_argument("--on", default="", metavar="URL", help="a cluster instead: dask://HOST:PORT or ray://HOST:PORT")
    sweep.add_argument("--format", choices=("text", "csv", "json"), default="text", help="default: text")

    check = _command(commands, "check", "verdict only; writes nothing")
    check.add_argument("specs", nargs="+", metavar="SPEC", help="spec files, - for standard input")
    _common(check)
    check.add_argument(
        "--format", choices=("text", "concise", "json", "github", "sarif"), default="text", help="default: text"
    )

    show = _command(commands, "show", "draw a picture")
    _spec(show)
    show.add_argument(
        "--view",
        choices=("overview", "layer", "lanes", "timeline", "memory", "path"),
        help="default: overview, or lanes where a part of the graph is chosen; the last three are SVG only",
    )
    show.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="WHAT",
        help="lanes: critical, gpu:0..7, layer:3, layer:NAME, stage:0, microbatch:0, op:NAME; several must all hold",
    )
    show.add_argument(
        "--hops", type=_at_least(0), default=0, metavar="N", help="lanes: also what is up to N data edges away"
    )
    show.add_argument(
        "--unfold",
        default="",
        metavar="FOLDS",
        help="lanes: comma list of ops, microbatches, layers, ranks, stages, blocks that are not folded, or all",
    )
    show.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=".svg, .dot, .png or .pdf; the last two need Graphviz (default: DOT or SVG on standard output)",
    )

    ir = _command(commands, "ir", "print the textual IR")
    _spec(ir)
    ir.add_argument(
        "--after", metavar="PASS", help="stop after this pass (default: the last; `spec`: before the first)"
    )
    ir.add_argument("--types", action="store_true", help="with the types of operands")

    verify = _command(commands, "verify", "prove the lowering: run the plan's small twin on NumPy, rank by rank")
    _spec(verify)
    verify.add_argument("--weights", metavar="FILE", help="an .npz checkpoint: run the model itself at its full dims")
    verify.add_argument(
        "--reference", metavar="FILE", help="an .npz with input_ids and the logits another program gave"
    )

    run = _command(commands, "run", "run the placed graph on real devices, measured beside the estimate")
    _spec(run, "spec file")
    run.add_argument("--engine", choices=("torch",), default="torch", help="what executes the graph")
    run.add_argument("--full-dims", action="store_true", help="the model's own dims, not those of its small twin")
    run.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default: GPUs if there are enough; gloo on cpu, NCCL on cuda",
    )
    run.add_argument(
        "--dtype", choices=("fp64", "fp32", "bf16", "fp16"), help="default: fp64; the model's at full dims"
    )
    run.add_argument(
        "--repeat",
        type=_at_least(1),
        default=3,
        metavar="N",
        help="timed passes, of which the median counts (default: 3)",
    )
    run.add_argument(
        "--timeout",
        type=_at_least(1, float),
        default=600.0,
        metavar="S",
        help="longest wait for another process, seconds (default: 600)",
    )
    run.add_argument("--json", action="store_true", help="print one JSON object instead of the table")

    export = _command(commands, "export", "write the launch command or config of a serving engine")
    _spec(export)
    export.add_argument(
        "--to",
        required=True,
        choices=("vllm", "sglang", "trtllm", "megatron"),
        metavar="ENGINE",
        help="vllm, sglang, trtllm or megatron",
    )
    export.add_argument("--model", metavar="M", help="checkpoint to serve (default: the plan's name of the model)")
    export.add_argument("-o", "--output", metavar="DIR", help="where files go (default: standard output)")
    export.add_argument("--force", action="store_true", help="write into a directory that is not empty")

    measure = _command(commands, "measure", "time the kernels of a plan on this machine (needs PyTorch)")
    _spec(measure)
    measure.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    measure.add_argument(
        "--grid",
        type=_at_least(0),
        metavar="N",
        help="also sizes times 2^-N ... 2^N around each (default: 0; with --fit 2)",
    )
    measure.add_argument(
        "--samples", type=_at_least(1), default=20, metavar="N", help="samples per kernel (default: 20)"
    )
    measure.add_argument("--name", metavar="GPU", help="name of the device in the tables (default: the driver's)")
    measure.add_argument("--collectives", action="store_true", help="time the collectives instead, under torchrun")
    measure.add_argument("--fit", action="store_true", help="fit a calibration file to the tables (needs SciPy)")
    measure.add_argument("-o", "--output", default=".", metavar="DIR", help="where tables go (default: here)")

    import_ = _command(commands, "import", "print a Hugging Face config.json as a .moe model file")
    import_.add_argument("config", metavar="CONFIG.json", help="config.json of a model")
    import_.add_argument("-o", "--output", metavar="FILE", help=".moe file to write (default: standard output)")
    _allow(import_)

    list_ = _command(commands, "list", "list the names that specs and command lines may use")
    list_.add_argument(
        "what",
        nargs="?",
        metavar="WHAT",
        choices=("presets", "metrics", "codes", "engines", "architectures", "units"),
        help="presets, metrics, codes, engines, architectures or units",
    )
    list_.add_argument("--json", action="store_true", help="print one JSON array")
    list_.add_argument("--format", choices=("text", "md", "json"), default="text", help="default: text")

    explain = _command(commands, "explain", "explain a diagnostic code")
    explain.add_argument("code", nargs="?", metavar="CODE", help="E01, W06, ... (default: list all)")

    fmt = _command(commands, "fmt", "format specs in place")
    fmt.add_argument("specs", nargs="+", metavar="SPEC", help="spec files; - formats standard input to standard output")
    _allow(fmt)
    fmt.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file would change")
    return parser


def _command(commands: argparse._SubParsersAction[_Parser], name: str, about: str) -> _Parser:
    return commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")


def _at_least(least: int, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    """A number of a kind from `least` to MOST."""

    def parse(text: str) -> float:
        value = kind(text)
        if not least <= value <= MOST:
            raise argparse.ArgumentTypeError(f"{text} is not from {least} to {MOST:.0e}")
        return value

    parse.__name__ = kind.__name__  # what argparse calls the type of a text that is no number
    return parse


def _percent(text: str) -> float:
    """`5` or `5%`, not negative."""
    value = float(text.strip().removesuffix("%"))
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _spec(parser: argparse.ArgumentParser, help: str = "spec file, - for standard input") -> None:
    parser.add_argument("spec", metavar="SPEC", help=help)
    _common(parser)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="value of a param (repeatable)")
    parser.add_argument("--phase", action="append", default=[], metavar="P", help="only this phase (repeatable)")
    _allow(parser)


def _allow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-import",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder outside the spec's project whose files it may read (repeatable)",
    )
