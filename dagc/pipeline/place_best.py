"""`place = best`: which GPU every rank of a phase is, found by pricing the ways that differ (`place_search.py`)."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.diagnostics import SpecError
from ..base.frozen import replace
from ..ir.graph_pass import PassError
from ..ir.mesh import MeshError
from ..plan.placement import Placement
from ..spec.phase import Phase
from ..spec.spec import Spec
from .place_search import Search
from .place_trial import with_ids


def best(spec: Spec, phase: Phase) -> Phase:
    """A phase of a spec, or one in the place of that of its name, with the GPU of every rank as `place = best` finds it; in its
    default order where it cannot be lowered."""
    own = with_ids(phase, (), best=phase.strategy.best)
    if phase.training is not None:
        spec = replace(spec, trainings=(*(p for p in spec.trainings if p.name != own.name), own))
        return placed(spec)[0].phase(own.name)
    others = tuple(own if p.name == own.name else p for p in spec.phases)
    known = any(p is own for p in others)
    return placed(replace(spec, phases=others if known else (*others, own)))[0].phase(own.name)


def placed(spec: Spec) -> tuple[Spec, Mapping[str, Placement]]:
    """The spec with the GPUs of all phases that are to be placed best, and how these lie. A phase that cannot be lowered is left
    in its default order: compiling it says why."""
    found: dict[str, Placement] = {}
    waiting = [*_groups(spec), *([p.name] for p in spec.trainings if p.strategy.best and not p.strategy.ids)]
    while waiting:
        names = waiting.pop(0)
        try:
            new, placements = Search(spec, [spec.phase(name) for name in names]).run()
        except (SpecError, PassError, MeshError):
            if len(names) > 1:  # one has no layout, or their axes do not nest: each by itself
                waiting = [*([name] for name in names), *waiting]
                continue
            new, placements = {names[0]: with_ids(spec.phase(names[0]), (), best=False)}, {}
        phases, trainings = (tuple(new.get(p.name, p) for p in own) for own in (spec.phases, spec.trainings))
        spec = replace(spec, phases=phases, trainings=trainings)
        found |= placements
    return spec, found


def _groups(spec: Spec) -> list[list[str]]:
    """Phases that are placed together: on the same GPUs, with the same stages and replicas."""
    groups: dict[object, list[str]] = {}
    for phase in spec.phases:
        s = phase.strategy
        if s.best and not s.ids:
            groups.setdefault((phase.hardware, tuple(sorted(phase.gpus)), s.pp, s.replicas), []).append(phase.name)
    return list(groups.values())
