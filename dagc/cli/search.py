"""`dagc search`: the best plan of a spec that leaves choices open, with a certificate."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.frozen import replace
from ..base.units import TOKEN_RATE, show
from ..export.engines import ENGINES
from ..optimize.asked_cluster import check_cluster
from .arguments import at_least, seconds, spec_arguments, theme_argument
from .common import chosen, put, settings, stem, tell, width
from .manner import color, live, manner
from .writing import check_folder

if TYPE_CHECKING:
    from ..base.picture_words import Theme
    from ..optimize.search.answer import Ranked
    from ..optimize.search.best_first import Found
    from ..optimize.search.exact import Allowed
    from ..plan.searched import Findings
    from ..spec.spec import Spec

KINDS = ("svg", "png", "pdf")
"""Of pictures."""


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "--objective", action="append", default=[], metavar="NAME",
        help="what the best plan is best in: throughput, throughput_per_gpu, ttft, tpot, mfu, memory, gpus, ... (two, by a comma or twice: a Pareto front)",
    )  # fmt: skip
    parser.add_argument(
        "--within", action="append", default=[], metavar="TEST", help='restrict the space: "gpus <= 32" (repeatable)'
    )
    parser.add_argument("--top", type=at_least(1), default=3, metavar="N", help="plans to show (default: 3)")
    parser.add_argument(
        "--budget", type=seconds, metavar="TIME", help="stop after `10 s`, with the best so far and the proven gap"
    )
    parser.add_argument(
        "--engine", choices=ENGINES, help="only plans that this engine runs, by the rules of its exporter"
    )
    parser.add_argument(
        "--against", metavar="SPEC", help="a plan that is there today: how much better the best one is, and by what"
    )
    parser.add_argument(
        "--workers", type=at_least(1), metavar="N", help="processes (default: one per CPU; at most four)"
    )
    parser.add_argument(
        "--on", default="", metavar="URL", help="a cluster instead: dask://HOST:PORT or ray://HOST:PORT"
    )
    parser.add_argument("--verify", action="store_true", help="prove the lowering of the winner")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the report")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write the plans as specs, every legal plan that was costed as CSV, the answer as JSON and as a page, pictures",
    )
    parser.add_argument(
        "--pictures",
        default="svg",
        metavar="KINDS",
        help="how -o writes pictures: comma list of svg, png, pdf (default: svg)",
    )
    theme_argument(parser)


def run(args: Namespace) -> int:
    from ..api.searches import opened, words
    from ..optimize.clusters import ClusterError
    from ..optimize.search.optimum import Asked, search
    from ..optimize.search.plain_answer import findings
    from ..optimize.search.refusals import REFUSALS, refusal
    from ..optimize.search.space_map import map_of
    from ..optimize.search.why import Explainer
    from ..optimize.search.workers import usual_workers
    from ..view.report.search_report import answer, reasons
    from ..view.report.search_report import verdict as closing

    asked = Asked(
        words(args.objective), tuple(args.phase), tuple(args.within), int(args.top), args.budget, int(args.workers or usual_workers()), args.on,
        _engine(args),
    )  # fmt: skip
    try:
        pictures = chosen(args.pictures, KINDS, "--pictures")
        if args.output:
            from ..export.pictures import check_kinds

            check_kinds(pictures)
        spec, text = opened(args.spec, args.phase, settings(args), args.allow_import)
        today = _today(args)
        check_cluster(args.on)
        if args.output:
            check_folder(Path(args.output))
        progress = Progress() if live() else None
        found = search(spec, asked, progress, text)
        if progress is not None:
            progress.clear()
        shown = findings(found, text.name)
        if not args.json:
            put(answer(shown, color=color(sys.stdout), width=width(sys.stdout)).encode())
        shown = Explainer(spec, asked, found).explained(shown, today)
        if args.output:
            shown = replace(
                shown, maps=tuple(m for name, one in found.searched.items() if (m := map_of(name, one)) is not None)
            )
            _write(shown, Path(args.output), stem(args.spec), pictures, args.theme)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    except ClusterError as error:
        tell([Diagnostic("E16", str(error))])
        return 2
    except REFUSALS as error:
        tell([refusal(error)])
        return 2
    if args.json:
        from ..export.searched_files import as_json

        put(as_json(shown))
    else:
        put(b"" if manner().quiet else reasons(shown, width=width(sys.stdout)).encode())
    code = 0 if found.ranked else 1
    if args.verify and found.best is not None and not _proved(found.best, text.name, args):
        code = 1
    if not args.json and not manner().quiet:
        print("\n".join(["", *closing(shown, color=color(sys.stdout), width=width(sys.stdout))]))
    return 130 if found.interrupted else code


class Progress:
    """The first plan as soon as there is one, and then how many were costed, on one line of a terminal."""

    def __init__(self) -> None:
        self.shown_s = 0.0

    def __call__(self, one: Found, count: int) -> None:
        now = monotonic()
        if now - self.shown_s < REFRESH_S:
            return
        self.shown_s = now
        phase, found = one.plan.phase, one.plan.the_estimate
        words = f"{phase.name}: {count:,} plans costed, the last one {show(found.throughput_tok_s / found.gpus, TOKEN_RATE)} per GPU"
        print(f"\r{words:<78}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)


REFRESH_S = 0.2


def _engine(args: Namespace) -> Allowed | None:
    """What the engine that `--engine` names runs, by the rules of its exporter."""
    if args.engine is None:
        return None
    from ..export.engines.runnable import Runs

    return Runs(args.engine)


def _today(args: Namespace) -> tuple[str, Spec] | None:
    """The plan that `--against` names, and its name. Raises SpecError."""
    if args.against is None:
        return None
    from ..api.asked_specs import spec_of

    return str(args.against), spec_of(args.against, None, args.allow_import)


def _proved(best: Ranked, name: str, args: Namespace) -> bool:
    """The numeric proof of every phase of a plan."""
    from ..base.source import Source
    from ..base.syntax.input import folder_of
    from ..execute.prove import prove_small
    from ..lang.load import load
    from ..pipeline.compile import compile_spec
    from .prove import verdict

    spec = load(Source(name, best.text), Collector(), {}, folder_of(args.spec), args.allow_import)
    holds = True
    for phase in spec.phases:
        proof = prove_small(compile_spec(spec, Collector(), [phase.name]), phase.name)
        print(verdict(proof), file=sys.stderr if args.json else sys.stdout)
        holds = holds and proof.holds
    return holds


def _write(found: Findings, folder: Path, name: str, kinds: list[str], theme: Theme) -> None:
    from ..export.searched_files import files
    from .writing import write_all

    write_all({folder / file: data for file, data in files(found, name, kinds, theme).items()})
