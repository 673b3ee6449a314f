"""The spec: typed records, every name resolved, every unit checked, all in SI base units.

Made by `dagc.lang.elaborate`; read by the passes. Spans are kept for diagnostics and never compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..base.frozen import record
from .hardware import Hardware
from .model import AttrValue, Model
from .phase import Phase
from .requirement import Requirement
from .workload import Workload

if TYPE_CHECKING:
    from .serve import Serve  # which a spec without servings does not pay for


@record
class Spec:
    """Everything that a `.moe` file says."""

    hardware: Hardware
    model: Model
    workload: Workload
    phases: tuple[Phase, ...]
    requirements: tuple[Requirement, ...]
    constants: Mapping[str, AttrValue]  # params (after --set) and lets
    params: Mapping[str, tuple[AttrValue, ...]]  # param -> its domain, for search
    serves: tuple[Serve, ...] = ()

    def serve(self, name: str) -> Serve:
        """Raises StopIteration where no serving has that name."""
        return next(s for s in self.serves if s.name == name)

    def phase(self, name: str) -> Phase:
        """Raises StopIteration where no phase has that name."""
        return next(p for p in self.phases if p.name == name)
