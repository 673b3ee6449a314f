"""`dagc search`: the best plan of a spec that leaves choices open, with a certificate."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from math import isinf
from pathlib import Path

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.units import show
from ..lang.open_spec import OpenSpec
from ..optimize.search.answer import Answer, Ranked, Searched
from ..optimize.search.domains import Unbounded
from ..optimize.search.objectives import NoObjective
from ..optimize.search.optimum import Asked, Nothing, search
from ..optimize.search.served import TooMany
from ..optimize.search.space import TooLarge
from ..optimize.search.within import Wrong
from .arguments import at_least, spec_arguments
from .common import settings, stem, tell

BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h)?\s*")
SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """`10 s`, `500 ms`; a bare number counts seconds."""
    found = BUDGET.fullmatch(text)
    if found is None:
        raise ArgumentTypeError(f"{text} is no time such as `10 s`")
    return float(found[1]) * SECONDS[found[2] or "s"]


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument(
        "--objective", action="append", default=[], metavar="NAME",
        help="what the best plan is best in: throughput, throughput_per_gpu, ttft, tpot, gpus, ... (twice: a Pareto front)",
    )  # fmt: skip
    parser.add_argument(
        "--within", action="append", default=[], metavar="TEST", help='restrict the space: "gpus <= 32" (repeatable)'
    )
    parser.add_argument("--top", type=at_least(1), default=3, metavar="N", help="plans to show (default: 3)")
    parser.add_argument(
        "--budget", type=seconds, metavar="TIME", help="stop after `10 s`, with the best so far and the proven gap"
    )
    parser.add_argument("--verify", action="store_true", help="prove the lowering of the winner")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the report")
    parser.add_argument("-o", "--output", metavar="DIR", help="write the plans as specs, and the answer as JSON")


def run(args: Namespace) -> int:
    from ..base.syntax.input import folder_of, read_source
    from ..lang.open_spec import load_open

    asked = Asked(tuple(args.objective), tuple(args.phase), tuple(args.within), int(args.top), args.budget)
    try:
        source = read_source(args.spec, args.allow_import)
        spec = load_open(source, Collector(), settings(args), folder_of(args.spec), args.allow_import)
        _check_phases(spec, args.phase)
        found = search(spec, asked)
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    except (Nothing, NoObjective, Unbounded, TooLarge, TooMany, Wrong) as error:
        tell([_refusal(error)])
        return 2
    if args.output:
        _write(found, Path(args.output), stem(args.spec))
    if args.json:
        import json

        from ..base.harmless import in_json

        print(in_json(json.dumps(as_object(found), indent=1)))
    else:
        for line in lines(found):
            print(line)
    code = 0 if found.ranked else 1
    if args.verify and found.best is not None and not _proved(found.best, source.name, args):
        code = 1
    return 130 if found.interrupted else code


def _check_phases(spec: OpenSpec, names: list[str]) -> None:
    known = [p.name for p in spec.spec.phases]
    for name in names:
        if name not in known:
            raise SpecError([Diagnostic("E14", f"unknown phase `{name}`", help=(f"phases: {', '.join(known)}",))])


def _refusal(error: Exception) -> Diagnostic:
    if isinstance(error, Nothing):
        help_ = ("leave something open: `tp = any`, `microbatches = any(1, 2, 4)`, `strategy = any`",)
        return Diagnostic("E14", "the spec leaves nothing open that could be searched", help=help_)
    if isinstance(error, Unbounded):
        path = error.choice.path
        return Diagnostic("E09", str(error), error.choice.span, help=(f"list its values: `{path} = any(...)`",))
    if isinstance(error, TooLarge):
        widest = sorted(error.domains, key=lambda d: -len(d.values))[:3]
        shown = ", ".join(f"`{d.path}` {len(d.values):,}" for d in widest)
        return Diagnostic(
            "E09", f"the space has {error.size:,} plans, and more than {error.rows:,} of them pass the first rules",
            because=(f"the widest choices: {shown} values",), help=(f"bound one: `{widest[0].path} = any(...)`",),
        )  # fmt: skip
    if isinstance(error, TooMany):
        return Diagnostic(
            "E09", str(error), help=("stop after a while: `--budget 60 s`", "leave less open, or restrict it: --within")
        )
    assert isinstance(error, (NoObjective, Wrong))
    return Diagnostic("E14", str(error), help=(error.help,))


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


def _write(answer: Answer, folder: Path, name: str) -> None:
    import json

    from .writing import write_all

    files = {folder / f"{name}.{k}.moe": one.text.encode() for k, one in enumerate(answer.ranked, 1)}
    files[folder / f"{name}.search.json"] = (json.dumps(as_object(answer), indent=1) + "\n").encode()
    write_all(files)


def as_object(answer: Answer) -> dict[str, object]:
    """Plain data, in SI units."""
    return {
        "objectives": [{"name": o.name, "phase": o.phase, "better": o.better} for o in answer.objectives],
        "complete": answer.complete,
        "gap": _finite(answer.gap),
        "seconds": answer.seconds,
        "plans": [
            {
                "figures": list(one.figures), "gpus": one.gpus, "slow_B": one.slow_B, "alternatives": dict(one.picked),
                "choices": {n: {p: [v.start, v.stop] if isinstance(v, range) else v for p, v in own.items()} for n, own in one.values.items()},
                "spec": one.text,
            }
            for one in answer.ranked
        ],
        "searched": {name: _searched(one) for name, one in answer.searched.items()},
        "joined": None if answer.joined is None else {
            "tried": answer.joined.tried, "refused": answer.joined.refused, "complete": answer.joined.complete,
        },
    }  # fmt: skip


def _finite(gap: float | None) -> float | None:
    return None if gap is None or isinf(gap) else gap


def _searched(one: Searched) -> dict[str, object]:
    own = one.certificate
    return {
        "size": own.size, "equal": own.equal, "costed": own.costed, "compiled": own.compiled, "bounded": own.bounded, "left": own.left,
        "complete": own.complete, "gap": _finite(own.gap),
        "rejected": [{"rule": r.rule, "about": r.about, "code": r.code, "count": r.count, "example": r.example} for r in own.rejected],
    }  # fmt: skip


def lines(answer: Answer) -> list[str]:
    """A plain report."""
    out = [f"{k}. {_figures(answer, one)}  {_choices(one)}" for k, one in enumerate(answer.ranked, 1)]
    if not out:
        out.append("no plan of the space is legal and meets every requirement")
    for name, one in answer.searched.items():
        own = one.certificate
        out += [f"{name}: breaks `{near.rule}` alone ({near.words}): {_chosen(near.values)}" for near in one.near]
        out.append(
            f"{name}: {own.size:,} plans: {own.costed:,} costed, {own.bounded:,} excluded by their bound, {own.equal:,} equal to another"
        )
        out += [f"  {r.count:>18,}  {r.rule}: {r.about}" for r in own.rejected]
    gap = "" if answer.gap is None or isinf(answer.gap) else f", at most {answer.gap:.1%} better"
    left = sum(one.certificate.left for one in answer.searched.values())
    out.append(
        f"{'complete' if answer.complete else f'not complete: {left:,} plans left{gap}'}, {answer.seconds:.2f} s"
    )
    return out


def _figures(answer: Answer, one: Ranked) -> str:
    return ", ".join(
        f"{o.phase}.{o.name} {show(v, o.dim)}" for o, v in zip(answer.objectives, one.figures, strict=True)
    )


def _chosen(values: Mapping[str, object]) -> str:
    def shown(value: object) -> str:
        return (
            f"{value.start}..{value.stop - 1}"
            if isinstance(value, range)
            else str(value).lower()
            if isinstance(value, bool)
            else str(value)
        )

    return " ".join(f"{p} {shown(v)}" for p, v in values.items())


def _choices(one: Ranked) -> str:
    return "; ".join(f"{phase} {_chosen(values)}" for phase, values in one.values.items())
