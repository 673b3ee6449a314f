"""`dagc.serve`: the servings of a spec under their traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.frozen import replace
from .asked_specs import spec_of
from .face import Plan

if TYPE_CHECKING:
    from ..serving.result import ServeResult
    from ..spec.serve import Serve
    from ..spec.spec import Spec
    from .asked_specs import Settings


def serve(
    spec_file: str | Path,
    *names: str,
    seed: int | None = None,
    settings: Settings | None = None,
    allow_import: Sequence[str | Path] = (),
) -> Mapping[str, ServeResult]:
    """The servings of a spec (or those named), simulated request by request: name -> result. `seed`: of everything random, instead of the
    spec's. Raises SpecError where the spec is wrong or a serving cannot run."""
    from ..base.diagnostics import Collector
    from ..pipeline.compile import compile_spec

    spec = spec_of(spec_file, settings, allow_import)
    if seed is not None:
        spec = replace(spec, serves=tuple(replace(one, seed=seed) for one in spec.serves))
    asked = [one.name for one in asked_servings(spec, names)]
    out = Collector()
    plan = Plan.of(compile_spec(spec, out, servings=asked))
    return {name: plan.serve(name) for name in asked}


def asked_servings(spec: Spec, names: Sequence[str]) -> list[Serve]:
    """The servings that are asked for (all where none is), in the order of the spec. Raises SpecError."""
    from ..base.diagnostics import Diagnostic, SpecError, did_you_mean

    known = {one.name: one for one in spec.serves}
    if not known:
        help = ("serve chat { arrivals = poisson(4 req/s), requests = 1000 }",)
        raise SpecError([Diagnostic("E14", "the spec has no serving", help=help)])
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            hint = f"did you mean `{near}`?" if near else f"servings: {', '.join(known)}"
            raise SpecError([Diagnostic("E14", f"there is no serving `{name}`", help=(hint,))])
    return [one for name, one in known.items() if not names or name in names]
