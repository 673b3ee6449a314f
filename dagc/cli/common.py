"""What the commands share: reading settings, compiling, printing diagnostics."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Diagnostic, SpecError, did_you_mean
from ..base.harmless import file_part
from .columns import columns
from .manner import color, manner

if TYPE_CHECKING:
    from argparse import Namespace

    from ..api import Plan
    from ..plan.plan import CompiledPlan
    from ..plan.result import Sensitivities


def settings(args: Namespace) -> dict[str, str]:
    """`--set k=v` pairs."""
    out: dict[str, str] = {}
    for text in args.set:
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise SpecError([Diagnostic("E14", f"`--set {text}` is not of the form name=value")])
        out[name.strip()] = value.strip()
    return out


def put(data: bytes) -> None:
    """Bytes on standard output. Whoever read it may have gone: the exit code stays what it is."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def audible(diagnostics: Sequence[Diagnostic]) -> Sequence[Diagnostic]:
    """Those that are told: errors alone where the command is to be quiet."""
    return [d for d in diagnostics if d.is_error] if manner().quiet else diagnostics


def verdict(spec: str, plan: CompiledPlan) -> str:
    """A plan in one line."""
    from ..view.facts.plan_answer import verdict

    return f"{spec}: {verdict(plan)}"


PIPED, NARROWEST, WIDEST = 80, 40, 400
"""Columns of what is no terminal, so that its lines are the same everywhere, and of terminals."""


def width(stream: object) -> int:
    """Columns of the terminal, or what COLUMNS says of it."""
    if not getattr(stream, "isatty", lambda: False)():
        return PIPED
    return min(WIDEST, max(NARROWEST, columns()))


def tell(diagnostics: Sequence[Diagnostic], *, requirements: bool = True) -> None:
    """Diagnostics on standard error."""
    from ..base.render import render

    shown = audible([d for d in diagnostics if requirements or d.code != "R07"])
    if shown:
        print(render(shown, "text", color(sys.stderr)), file=sys.stderr)


def compiled(spec: str, args: Namespace) -> Plan | None:
    """The plan, of a spec or of a placed graph (.json), or None after its errors were printed."""
    from ..api import compile

    try:
        if spec.endswith(".json"):
            return _placed(spec, args)
        return compile(spec, settings=settings(args), phases=args.phase or None, allow_import=args.allow_import)
    except SpecError as error:
        tell(error.diagnostics)
        return None


def _placed(path: str, args: Namespace) -> Plan:
    from ..api import read_plan

    if args.set:
        raise SpecError([Diagnostic("E14", "a placed graph has no params: `--set` needs the spec it was made from")])
    plan = read_plan(Path(path), args.allow_import)
    for name in args.phase:
        if name not in plan.phases:
            raise SpecError([Diagnostic("E14", f"unknown phase `{name}`", help=(f"phases: {', '.join(plan.phases)}",))])
    return plan


def chosen(text: str, known: tuple[str, ...], option: str, more: Callable[[], list[str]] | None = None) -> list[str]:
    """A comma list, each entry known. `more` names are asked for only when one is not."""
    names = [n.strip() for n in text.split(",") if n.strip()]
    if more is not None and not set(names) <= set(known):
        known = (*known, *more())
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            hint = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"
            raise SpecError([Diagnostic("E14", f"`{option} {name}` is unknown", help=(hint,))])
    return names


def buys(plan: Plan) -> Sensitivities:
    """What faster hardware would buy in each phase, for reports."""
    return {phase: plan.sensitivities(phase) for phase in plan.phases}


def stem(spec: str) -> str:
    """Name that artefacts carry."""
    if spec == "-":
        return "stdin"
    name = Path(spec).name
    return file_part(name.removesuffix(".graph.json") if name.endswith(".graph.json") else Path(spec).stem)
