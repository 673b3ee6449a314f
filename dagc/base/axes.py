"""The axes of a strategy: one entry each, from which schema, mesh order, labels, degrees and reports read.

What an axis does to a graph is its pass, of the same name in `passes/`.
"""

from __future__ import annotations

from collections.abc import Mapping

from .frozen import record


@record
class Axis:
    """`about`: what it splits. `attention`: a folded strategy gives it a degree for attention. `among_experts`: its name on the
    side of the experts, where a folded strategy gives it a degree there too. `most`: its largest degree."""

    name: str
    about: str
    attention: bool = False
    among_experts: str = ""
    most: float = 1e6


STAGES, DATA, EXPERT, SEQUENCE, TENSOR = "pp", "dp", "ep", "sp", "tp"
AXES: Mapping[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis(STAGES, "layers, into stages", most=1024),
        Axis(DATA, "sequences of the batch", attention=True),
        Axis(EXPERT, "routed experts; in a flat strategy sequences of the batch too", among_experts=EXPERT),
        Axis(SEQUENCE, "tokens of a sequence", attention=True),
        Axis(TENSOR, "heads, widths and the vocabulary", attention=True, among_experts="etp"),
    )
}
"""In mesh order, outermost first."""

REPLICA = "replica"
"""Copies of the whole phase, outside of all axes."""
ENDS = "ends"
"""The first and the last stage, as an axis of two: over it the gradients of a table are partial that both have a copy of."""
EXPERT_REPLICA = "edp"
"""Ranks that hold the same experts, where a strategy is folded."""
ATTENTION_SIDE = tuple(axis.name for axis in AXES.values() if axis.attention)
EXPERT_SIDE = (EXPERT_REPLICA, *(axis.among_experts for axis in AXES.values() if axis.among_experts))
"""Names of mesh axes that belong to routed experts, outermost first."""
EXPERT_TENSOR = AXES[TENSOR].among_experts
IN_EXPERTS = tuple(axis.name for axis in AXES.values() if axis.among_experts)
"""Axes to which a folded strategy gives degrees in its experts."""
DEGREES = (*AXES, *(name for name in reversed(EXPERT_SIDE) if name not in AXES), REPLICA)
"""Every name that has a degree."""
