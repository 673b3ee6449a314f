"""What faster hardware would buy."""

from __future__ import annotations

from collections.abc import Callable

from ..base.frozen import replace
from ..plan.result import PhaseResult, Sensitivity, passes_s
from ..spec.hardware import Hardware
from ..spec.unit import Unit
from .drafts import priced_again

Change = Callable[[Hardware], Hardware]


def sensitivities(unit: Unit, result: PhaseResult) -> tuple[Sensitivity, ...]:
    """What +10% of each rate, or 1 us less link latency, would buy in the phase's time, all its passes together. Where its experts
    are in another pool, of both."""
    variants: dict[str, Change] = {
        "+10% compute": _faster,
        "+10% HBM bandwidth": lambda own: replace(own, hbm_Bps=own.hbm_Bps * 1.1),
        **{f"+10% {tier.name} link": _wider(tier.name) for tier in unit.spec.hardware.tiers},
        "-1 us link latency": _quicker,
        "-1 us kernel launch": lambda own: replace(own, launch_s=max(0.0, own.launch_s - 1e-6)),
    }
    before_s = passes_s(result.all_passes)
    changed = {
        name: passes_s(priced_again(result, _with_experts(unit, change), change(unit.spec.hardware)))
        for name, change in variants.items()
    }
    if unit.spec.expert_link(unit.phase) is not None:
        links = tuple(replace(one, bandwidth_Bps=one.bandwidth_Bps * 1.1) for one in unit.spec.pool_links)
        wider = replace(unit, spec=replace(unit.spec, pool_links=links))
        changed["+10% link of pools"] = passes_s(priced_again(result, wider, unit.spec.hardware))
    return tuple(Sensitivity(name, time_s / before_s - 1.0 if before_s else 0.0) for name, time_s in changed.items())


def _faster(own: Hardware) -> Hardware:
    return replace(own, compute_flops={dtype: rate * 1.1 for dtype, rate in own.compute_flops.items()})


def _wider(tier: str) -> Change:
    """The links of a tier of that name."""
    return lambda own: next((own.changed(each, bandwidth=1.1) for each in own.tiers if each.name == tier), own)


def _quicker(own: Hardware) -> Hardware:
    for tier in own.tiers:
        own = own.changed(tier, latency_s=-1e-6)
    return own


def _with_experts(unit: Unit, change: Change) -> Unit:
    """With the pool of the experts changed, where it is another one."""
    if unit.spec.expert_link(unit.phase) is None:
        return unit
    name = unit.spec.experts_on(unit.phase).name
    others = tuple(change(own) if own.name == name else own for own in unit.spec.others)
    return replace(unit, spec=replace(unit.spec, others=others))
