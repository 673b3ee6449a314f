"""`dagc search`: the best plan of a spec that leaves choices open, with a certificate."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.units import show
from ..optimize.search.answer import Answer, Ranked
from ..optimize.search.domains import Unbounded
from ..optimize.search.objectives import NoObjective
from ..optimize.search.optimum import Nothing, search
from ..optimize.search.space import TooLarge
from .arguments import at_least, spec_arguments
from .common import settings, tell


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "--objective", action="append", default=[], metavar="NAME",
        help="what the best plan is best in: throughput, throughput_per_gpu, ttft, tpot, gpus, ... (twice: a Pareto front)",
    )  # fmt: skip
    parser.add_argument("--top", type=at_least(1), default=3, metavar="N", help="plans to show (default: 3)")


def run(args: Namespace) -> int:
    from ..base.syntax.input import folder_of, read_source
    from ..lang.open_spec import load_open

    try:
        source = read_source(args.spec, args.allow_import)
        spec = load_open(source, Collector(), settings(args), folder_of(args.spec), args.allow_import)
        found = search(spec, args.objective, phases=args.phase, top=args.top)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    except Nothing:
        help_ = ("leave something open: `tp = any`, `microbatches = any(1, 2, 4)`, `strategy = any`",)
        tell([Diagnostic("E14", "the spec leaves nothing open that could be searched", help=help_)])
        return 2
    except NoObjective as error:
        tell([Diagnostic("E14", str(error), help=(error.help,))])
        return 2
    except Unbounded as error:
        tell(
            [
                Diagnostic(
                    "E09", str(error), error.choice.span, help=(f"list its values: `{error.choice.path} = any(...)`",)
                )
            ]
        )
        return 2
    except TooLarge as error:
        tell([_too_large(error)])
        return 2
    for line in lines(found):
        print(line)
    return 0 if found.ranked else 1


def _too_large(error: TooLarge) -> Diagnostic:
    widest = sorted(error.domains, key=lambda d: -len(d.values))[:3]
    shown = ", ".join(f"`{d.path}` {len(d.values):,}" for d in widest)
    return Diagnostic(
        "E09", f"the space has {error.size:,} plans, and more than {error.rows:,} of them pass the first rules",
        because=(f"the widest choices: {shown} values",), help=(f"bound one: `{widest[0].path} = any(...)`",),
    )  # fmt: skip


def lines(answer: Answer) -> list[str]:
    """A plain report."""
    out = [f"{_place(k)} {_figures(answer, one)}  {_choices(one)}" for k, one in enumerate(answer.ranked, 1)]
    if not out:
        out.append("no plan of the space is legal and meets every requirement")
    certificate = answer.certificate
    out.append(
        f"{certificate.size:,} plans: {certificate.costed:,} costed, {certificate.bounded:,} excluded by their bound, "
        f"{certificate.equal:,} equal to another"
    )
    out += [f"  {one.count:>16,}  {one.rule}: {one.about}" for one in certificate.rejected]
    state = "complete" if certificate.complete else f"not complete: {certificate.left:,} plans left"
    out.append(f"{state}, {certificate.seconds:.2f} s")
    return out


def _place(k: int) -> str:
    return f"{k}."


def _figures(answer: Answer, one: Ranked) -> str:
    return ", ".join(
        f"{o.phase}.{o.name} {show(v, o.dim)}" for o, v in zip(answer.objectives, one.figures, strict=True)
    )


def _choices(one: Ranked) -> str:
    return "; ".join(
        f"{phase} {' '.join(f'{path} {value}' for path, value in values.items())}"
        for phase, values in one.values.items()
    )
