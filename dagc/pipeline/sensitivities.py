"""What faster hardware would buy."""

from __future__ import annotations

from dataclasses import replace

from ..plan.result import PhaseResult, Sensitivity, passes_s
from ..spec.hardware import Hardware
from ..spec.unit import Unit
from .drafts import priced_again


def sensitivities(unit: Unit, result: PhaseResult) -> tuple[Sensitivity, ...]:
    """What +10% of each rate, or 1 us less link latency, would buy in the phase's time, all its passes together."""
    hardware = unit.spec.hardware
    faster = {k: v * 1.1 for k, v in hardware.compute_flops.items()}
    quicker = hardware
    for tier in hardware.tiers:
        quicker = quicker.changed(tier, latency_s=-1e-6)
    variants: dict[str, Hardware] = {
        "+10% compute": replace(hardware, compute_flops=faster),
        "+10% HBM bandwidth": replace(hardware, hbm_Bps=hardware.hbm_Bps * 1.1),
        **{f"+10% {tier.name} link": hardware.changed(tier, bandwidth=1.1) for tier in hardware.tiers},
        "-1 us link latency": quicker,
        "-1 us kernel launch": replace(hardware, launch_s=max(0.0, hardware.launch_s - 1e-6)),
    }
    before_s = passes_s(result.all_passes)
    changed = {name: passes_s(priced_again(result, unit, variant)) for name, variant in variants.items()}
    return tuple(Sensitivity(name, time_s / before_s - 1.0 if before_s else 0.0) for name, time_s in changed.items())
