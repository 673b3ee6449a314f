"""`dagc fit`: the largest batch, context and cache that fit, and the fewest GPUs that hold the phases."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..base.diagnostics import Collector, SpecError
from ..base.units import BYTES, number, show, show_runs
from .arguments import spec_arguments
from .common import put, settings, tell, width

if TYPE_CHECKING:
    from ..optimize.fewest import Fewest
    from ..optimize.room import Edge, Fit, Largest
    from ..spec.phase import Phase
    from ..spec.spec import Spec
    from ..view.facts.plan_answer import Answer

SCHEMA = 1
WORDS = {
    "sequences": "sequences",
    "context": "context of each",
    "prompt": "prompt of each",
    "kv_tokens": "KV cache of all",
}


def add_arguments(parser: ArgumentParser) -> None:
    spec_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: Namespace) -> int:
    from ..optimize.fewest import fewest, together
    from ..optimize.room import Fit

    try:
        spec = read(args)
        names = args.phase or [phase.name for phase in spec.phases]
        fit = Fit(spec)
        found = {name: list(fit.largest(name)) for name in names}
        groups = [] if apart(fit, names) else together(fit, names)
        counts = [(fewest(fit, group), fewest(fit, group, sequences=1)) for group in groups]
    except SpecError as error:
        tell(error.diagnostics)
        return 2
    if args.json:
        put((json.dumps(plain(fit, found, counts), indent=1) + "\n").encode())
    else:
        print("\n".join(text(args.spec, fit, found, counts, width(sys.stdout))))
    whole = all(one.at is not None for of in found.values() for one in of)
    return 0 if whole and all(one.layout for pair in counts for one in pair) else 1


def read(args: Namespace) -> Spec:
    """The spec, with the phases that are asked for in it. Raises SpecError."""
    from ..base.syntax.input import folder_of, read_source
    from ..lang.load import load
    from ..spec.inference_alone import inference_phases

    source = read_source(args.spec, args.allow_import)
    spec = load(source, Collector(), settings(args), folder_of(args.spec), args.allow_import)
    inference_phases(spec, args.phase, "`dagc fit` is")
    return spec


def answer(fit: Fit, found: dict[str, list[Largest]], counts: list[tuple[Fewest, Fewest]]) -> Answer:
    """Whether the spec fits as written, what is nearest to its limit, and how many GPUs would do."""
    from ..view.facts.plan_answer import DOES_NOT_FIT, Answer

    every = [one for of in found.values() for one in of]
    tightest = min(every, key=lambda one: one.at.value / max(1, one.written) if one.at is not None else 0.0)
    unit, what = unit_of(tightest), f"{tightest.phase}: {noun(tightest, fit.plan.spec.phase(tightest.phase))}"
    edge = beyond(tightest.beyond, unit)
    fewest = ", ".join(f"{one.gpus} of {one.written}" for one, _ in counts if one.layout)
    layouts = [f"fewest GPUs {fewest}"] if fewest else []
    if tightest.at is None:
        return Answer(DOES_NOT_FIT, "; ".join([f"{DOES_NOT_FIT}: {what}: none fits", *layouts]), (edge,))
    value, written = tightest.at.value, tightest.written
    if value < written:
        words = f"{DOES_NOT_FIT}: {what}: {written:,}{unit} written, {value:,}{unit} fit"
        return Answer(DOES_NOT_FIT, "; ".join([words, *layouts]), (edge,))
    none = [f"no layout holds {' and '.join(one.phases)}" for pair in counts for one in pair if not one.layout]
    times = f"{number(value / max(1, written), 3)} times what is written"
    return Answer(
        FITS,
        "; ".join([FITS, *layouts, *none]),
        (f"least room in {what}, {value:,}{unit} fit, {times}; {edge}",),
    )


FITS = "fits"


def text(
    name: str, fit: Fit, found: dict[str, list[Largest]], counts: list[tuple[Fewest, Fewest]], columns: int
) -> list[str]:
    """The report, line by line; the verdict is the first and the last."""
    from ..view.report.terminal_text import narrow

    whole = answer(fit, found, counts)
    verdict = f"{name}: {whole.verdict}"
    lines = [verdict, *(f"  {line}" for line in whole.limits)]
    for phase in found:
        own = fit.plan.spec.phase(phase)
        lines += ["", f"{phase} on {own.gpu_count} GPU{'s' if own.gpu_count > 1 else ''}"]
        rows = [["", "written", "fits", "fullest GPU there", ""]]
        rows += [row(one, own) for one in found[phase]]
        widths = [max(len(cells[i]) for cells in rows) for i in range(3)]
        for first, *cells, held, following in rows:
            aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            lines.append(f"  {first.ljust(widths[0])}  {'  '.join(aligned)}  {held}".rstrip())
            lines += [f"    {following}"] if following else []
    lines += ["", "fewest GPUs"]
    lines += [f"  not looked for: experts of {name} have GPUs of their own" for name in apart(fit, found)]
    for pair in counts:
        for one in pair:
            lines += gpus_lines(one)
    return narrow([*lines, "", verdict], columns)


def apart(fit: Fit, names: Iterable[str]) -> list[str]:
    """Phases whose experts have GPUs of their own, for which the fewest are not looked for."""
    return [name for name in names if fit.plan.spec.phase(name).strategy.apart is not None]


def row(one: Largest, phase: Phase) -> list[str]:
    """A line of the table of a phase."""
    unit = unit_of(one)
    fits = f"{one.at.value:,}{unit}" if one.at is not None else "none"
    held = f"{show(one.at.peak_B, BYTES)} of {show(one.at.capacity_B, BYTES)}" if one.at is not None else ""
    return [noun(one, phase), f"{one.written:,}{unit}", fits, held, beyond(one.beyond, unit)]


def noun(one: Largest, phase: Phase) -> str:
    """What is largest, in words."""
    return WORDS["prompt" if one.what == "context" and phase.takes_prompts and not phase.parts else one.what]


def unit_of(one: Largest) -> str:
    return "" if one.what == "sequences" else " tok"


def beyond(edge: Edge | None, unit: str) -> str:
    """`at 1,321: 11.06 MB too much`"""
    if edge is None:
        return "a spec cannot say more"
    if edge.refused:
        return f"at {edge.value:,}{unit}: {edge.refused}"
    return f"at {edge.value:,}{unit}: {show(edge.peak_B - edge.capacity_B, BYTES)} too much"


def gpus_lines(one: Fewest) -> list[str]:
    """How few GPUs hold some phases, and what stops one fewer."""
    from ..optimize.layouts import layout_words

    names = " and ".join(one.phases)
    batch = " and ".join(f"{n:,}" for n in dict.fromkeys(one.sequences))
    head = f"  {names}, {batch} sequence{'' if set(one.sequences) == {1} else 's'}: "
    if not one.layout or one.edge is None:
        head += f"no layout on up to {one.most} GPUs holds {'them' if len(one.phases) > 1 else 'it'}"
    else:
        first = one.layout[0]
        held = f"{show(one.edge.peak_B, BYTES)} of {show(one.edge.capacity_B, BYTES)} on the fullest"
        head += f"{one.gpus} of {one.written} written: gpus = [{show_runs(first.gpus)}], {layout_words(first)} ({held})"
    lines = [head]
    if not one.complete:
        lines.append(f"    not proved: {one.tried:,} layouts were tried, others on fewer GPUs were not")
    if one.fewer:
        count = one.gpus - 1 if one.layout else one.most
        total = sum(rule.count for rule in one.fewer)
        lines.append(f"    {count} GPU{'s' if count > 1 else ''}: none of {total} layout{'s' if total > 1 else ''}")
        lines += [f"      {rule.count} by {rule.rule}, e.g. {rule.example}" for rule in one.fewer]
    return lines


def plain(fit: Fit, found: dict[str, list[Largest]], counts: list[tuple[Fewest, Fewest]]) -> dict[str, Any]:
    """The same as data, SI units; its schema is `fit.schema.json` of dagc.export."""
    return {
        "schema": SCHEMA,
        "phases": {
            name: {
                one.what: {
                    "written": one.written,
                    "fits": edge_object(one.at),
                    "next": edge_object(one.beyond),
                    "looked_at": one.tried,
                }
                for one in of
            }
            for name, of in found.items()
        },
        "fewest_gpus": [fewest_object(one) for pair in counts for one in pair],
    }


def edge_object(edge: Edge | None) -> dict[str, Any] | None:
    if edge is None:
        return None
    if edge.refused:
        return {"value": edge.value, "refused": edge.refused}
    held = {"peak_B": edge.peak_B, "capacity_B": edge.capacity_B, "fullest_gpu": edge.gpu, "fits": edge.fits}
    return {"value": edge.value, **held}


def fewest_object(one: Fewest) -> dict[str, Any]:
    from ..optimize.layouts import layout_words

    return {
        "phases": list(one.phases),
        "sequences": list(one.sequences),
        "written": one.written,
        "gpus": one.gpus if one.layout else None,
        "layout": layout_words(one.layout[0]) if one.layout else None,
        "gpu_ids": list(one.layout[0].gpus) if one.layout else None,
        "held": edge_object(one.edge),
        "most": one.most,
        "bound": one.least,
        "layouts_lowered": one.tried,
        "complete": one.complete,
        "one_fewer": [{"rule": r.rule, "count": r.count, "example": r.example} for r in one.fewer],
    }
