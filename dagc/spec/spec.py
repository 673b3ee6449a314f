"""The spec: typed records, every name resolved, every unit checked, all in SI base units.

Made by `dagc.lang.elaborate`; read by the passes. Spans are kept for diagnostics and never compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..base.frozen import field, record, replace
from .choice import Alternatives
from .hardware import Hardware, Link, PoolLink
from .model import AttrValue, Model
from .phase import Phase
from .requirement import Requirement
from .workload import Workload

if TYPE_CHECKING:
    from .serve import Serve  # which a spec without servings does not pay for


@record
class Spec:
    """Everything that a `.moe` file says. `hardware` is its first pool of GPUs, `others` are further ones; where there are any,
    each phase names its own."""

    hardware: Hardware
    model: Model
    workload: Workload
    phases: tuple[Phase, ...]
    requirements: tuple[Requirement, ...]
    constants: Mapping[str, AttrValue]  # params (after --set) and lets
    params: Mapping[str, tuple[AttrValue, ...]]  # param -> its domain, for search
    serves: tuple[Serve, ...] = ()
    others: tuple[Hardware, ...] = ()
    pool_links: tuple[PoolLink, ...] = ()
    alternatives: Mapping[str, Alternatives] = field(default_factory=dict, compare=False)  # of phases that have some
    trainings: tuple[Phase, ...] = ()  # phases that train; `phases` are inference

    def serve(self, name: str) -> Serve:
        """Raises StopIteration where no serving has that name."""
        return next(s for s in self.serves if s.name == name)

    @property
    def pools(self) -> Mapping[str, Hardware]:
        """By name, in the spec's order."""
        return {own.name: own for own in (self.hardware, *self.others)}

    @property
    def domains(self) -> Mapping[str, tuple[AttrValue, ...]]:
        """What `--set` may choose from: values of params, alternatives of phases."""
        return {**self.params, **{name: known.names for name, known in self.alternatives.items()}}

    def of(self, phase: Phase) -> Spec:
        """The spec as a phase sees it: `hardware` is its own pool, and `model` has its dtypes. To be asked of the spec as it is
        written: what one phase sees has lost the dtypes of the model."""
        if phase.precision is not None and (model := self.model.stored_as(phase.precision)) is not self.model:
            return replace(self, model=model).of(phase)
        if not self.others or phase.hardware in ("", self.hardware.name):
            return self
        own = self.pools[phase.hardware]
        rest = tuple(other for other in (self.hardware, *self.others) if other is not own)
        return replace(self, hardware=own, others=rest)

    @property
    def alternating(self) -> tuple[frozenset[str], ...]:
        """Phases that take turns on their GPUs, which store the weights of one of them at a time."""
        turns = (serve for serve in self.serves if serve.moves)
        return tuple(frozenset(filter(None, (serve.prefill, serve.decode))) for serve in turns)

    def unused(self, phase: Phase) -> Iterator[int]:
        """GPUs of the phase's pool that no phase uses."""
        used = {gpu for own in self.phases for pool, gpu in own.seats if pool == phase.hardware}
        return (gpu for gpu in range(self.of(phase).hardware.gpus) if gpu not in used)

    def experts_on(self, phase: Phase) -> Hardware:
        """The pool that has a phase's experts, asked of the spec as the phase sees it."""
        apart = phase.strategy.apart
        return self.hardware if apart is None or not apart.hardware else self.pools[apart.hardware]

    def expert_link(self, phase: Phase) -> Link | None:
        """What joins the phase's own pool and that of its experts; None where they are one."""
        apart = phase.strategy.apart
        if apart is None or not apart.hardware:
            return None
        found = self.pool_link(phase.hardware, apart.hardware)
        assert found is not None, "checked when the spec was read"
        return found.link

    def first_expert_id(self, phase: Phase) -> int:
        """What ids in the graph have more than those of the experts' pool: there they count on behind the phase's own pool, from a
        whole domain on."""
        if self.expert_link(phase) is None:
            return 0
        outer = self.experts_on(phase).domains[-1]
        return -(-self.hardware.gpus // outer) * outer

    def pool_link(self, one: str, other: str) -> PoolLink | None:
        """What joins two pools."""
        return next((link for link in self.pool_links if set(link.pools) == {one, other}), None)

    def phase(self, name: str) -> Phase:
        """Raises StopIteration where no phase has that name."""
        return next(p for p in (*self.phases, *self.trainings) if p.name == name)
