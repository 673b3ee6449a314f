"""What a worker moves that changes between prompts and decode: weights, where its GPUs store those of one phase at a time, and caches."""

from __future__ import annotations

from ..plan.plan import CompiledPlan
from ..serving.records import Switch
from ..spec.serve import Serve
from .moved import cache_relaid, relaid


def switch_of(plan: CompiledPlan, serve: Serve, workers: int) -> Switch:
    """As long as the spec says; else as long as what lies elsewhere in the other layout takes on its way, each GPU over its own links. `workers`:
    independent ones that the phases make up."""
    if serve.switch_s is not None or serve.prefill is None or serve.decode is None:
        return Switch(serve.switch_s or 0.0)
    own = (serve.prefill, serve.decode)
    if not plan.phases[own[0]].shares(plan.phases[own[1]]):
        return Switch()  # each has GPUs of its own, in the layout of its phase
    caches = cache_relaid(plan, *own)
    if not serve.moves:
        return Switch(per_token_s=caches.time_s)
    there, back = relaid(plan, *own), relaid(plan, *reversed(own))
    return Switch(
        there.time_s,
        back_s=back.time_s,
        per_token_s=caches.time_s,
        moved_B=(there.total_B / workers, back.total_B / workers),
    )
