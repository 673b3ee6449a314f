"""What was found when the calls of traces were laid beside a plan's."""

from __future__ import annotations

from typing import Any

from ...base.frozen import record

MISSING, EXTRA, SIZE, GROUP = "missing", "extra", "size", "group"


LEAST_SHARE = 0.01
"""Of the time of all ops: classes below it are no drift, whatever their ratio."""

NEGLIGIBLE_S = 1e-7
"""Of a plan: ops that have no kernel of their own, and receives, whose sends have the time."""


@record
class Deviation:
    """A collective of one rank. `word`: one of the above. `name`: of the plan's op, or of an extra call where it was. `part`: of the batch,
    `number`: of the pass, from 0. `detail`: what was planned, and what was seen."""

    word: str
    rank: int
    kind: str
    name: str
    part: int
    number: int
    detail: str


@record
class Late:
    """A rank that its group waited for. `wait_s`: after the others' middle one was there; `own_s`: by how much what the rank did
    since its last collective took longer than what they did."""

    rank: int
    kind: str
    name: str
    part: int
    number: int
    wait_s: float
    own_s: float


@record
class OpClass:
    """Ops of one class: calls of a rank in one pass, and the mean over ranks of what they took, measured and planned."""

    name: str
    calls: int
    measured_s: float
    planned_s: float


@record
class Matched:
    """`ranks`: that have a trace, of `world` in the plan. `planned`, `seen`, `same`: calls of all of them, in `passes` passes. `named`: ops were matched by their names, else by kind, size,
    group and order. `compares`: the plan's times are of the kind of device that ran. `classes`: where ops have names. `waited_s`: by the ranks for each other, in all collectives,
    summed over ranks; `span_s`: of all passes. `tolerance`: a share by which classes may be above or below the planned."""

    phase: str
    ranks: tuple[int, ...]
    world: int
    passes: int
    named: bool
    compares: bool
    planned: int
    seen: int
    same: int
    deviations: tuple[Deviation, ...]
    late: tuple[Late, ...]
    classes: tuple[OpClass, ...]
    waited_s: float
    span_s: float

    tolerance: float

    @property
    def differs(self) -> bool:
        """Whether some rank called other collectives than the plan has."""
        return bool(self.deviations)

    @property
    def drifted(self) -> tuple[OpClass, ...]:
        """Classes that took longer or shorter than planned by more than the tolerance."""
        total = sum(one.measured_s for one in self.classes)
        large = [
            one
            for one in self.classes
            if one.planned_s >= NEGLIGIBLE_S and max(one.measured_s, one.planned_s) >= LEAST_SHARE * total
        ]
        return tuple(
            o for o in large if self.compares and abs(o.measured_s - o.planned_s) > self.tolerance * o.planned_s
        )


@record
class Beside:
    """`found` None: calls could not be laid beside the plan's, for `reason`."""

    found: Matched | None
    reason: str = ""

    @property
    def drifts(self) -> bool:
        return self.found is not None and (self.found.differs or bool(self.found.drifted))

    def to_json(self) -> dict[str, Any]:
        """As `collectives` of compare.schema.json describes it."""
        from dataclasses import asdict

        found = self.found
        if found is None:
            return {"schema": 1, "reason": self.reason, "drifts": False}
        data = asdict(found) | {"deviations": [asdict(one) for one in found.deviations]}
        for one in data["classes"]:
            one["planned_s"] = one["planned_s"] if found.compares else None
        return {"schema": 1, "reason": "", "drifts": self.drifts, **data}
