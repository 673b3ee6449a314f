"""The servings that a command line names: read, checked and compiled, with a line on a terminal that says how far it is."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.frozen import replace
from .common import settings

if TYPE_CHECKING:
    from ..api import Plan
    from ..spec.serve import Serve
    from ..spec.spec import Spec

Told = Callable[[str], None]


def read(args: Namespace, out: Collector, more: Mapping[str, str] | None = None) -> Spec:
    """The spec with the seed that is asked for. `more`: params in addition to those of `--set`. Raises SpecError."""
    from ..base.syntax.input import folder_of, read_source
    from ..lang.load import load

    source = read_source(args.spec, args.allow_import)
    spec = load(source, out, {**settings(args), **(more or {})}, folder_of(args.spec), args.allow_import)
    if args.seed is None:
        return spec
    return replace(spec, serves=tuple(replace(serve, seed=args.seed) for serve in spec.serves))


def compiled(
    spec: Spec, out: Collector, args: Namespace, servings: Sequence[str] = (), told: Told | None = None
) -> Plan:
    """The plan, with these servings simulated beside those that requirements name. Raises SpecError."""
    from ..api import Plan
    from ..pipeline.compile import compile_spec

    heard = None if told is None else lambda name, share: told(f"{name}: {share:.0%}")
    return Plan.of(compile_spec(spec, out, args.phase or None, cures=True, servings=servings, told=heard))


def asked(spec: Spec, args: Namespace) -> list[Serve]:
    """The servings that are asked for, in the order of the spec. Raises SpecError."""
    from ..api.serves import asked_servings

    found = asked_servings(spec, args.name)
    for serve in found if args.phase else ():
        for phase in (serve.prefill, serve.decode, serve.mixed):
            if phase is not None and phase not in args.phase:
                raise SpecError([Diagnostic("E14", f"`--phase` leaves out `{phase}`, which serves in `{serve.name}`")])
    return found
