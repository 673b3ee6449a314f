"""How far to trust the figures of a serving: what interpolation adds, and how far simulated servings were from measured ones."""

from __future__ import annotations

from ...base.phase_kinds import DECODE
from ...calib.accuracy import OWN, PRICED, PhaseError, kernels_of, phase_errors, serving_errors
from ...plan.plan import CompiledPlan
from ...serving.result import ServeResult
from ...spec.hardware import Hardware
from ...spec.host_constants import constants
from ...spec.serve import Serve


def sureness(plan: CompiledPlan, serve: Serve, result: ServeResult) -> list[str]:
    """Sentences: of the prices, of what the host is taken to need, and of measured servings that compare."""
    prices = (
        f"prices of steps between compiled ones were off by up to {result.prices_error:.1%} where it was checked"
        if result.prices_error
        else "every step's price is compiled"
    )
    engine = engine_of(plan, serve)
    if engine is None:
        return [
            prices,
            "no phase names an `engine`: what the host of a server takes is left out, so no measured serving compares",
        ]
    errors = serving_errors(engine)
    if not errors:
        return [prices, "the simulation was not compared with servings that were measured"]
    kernels = _kernels(plan, serve)
    if kernels != OWN:
        step = phase_errors(kernels)[DECODE.name]
        return [
            prices,
            f"no serving{PRICED[kernels]} was compared with a measured one; a decode step alone is within {step.median:.0%} in half of"
            f" {step.cases:,} cases, within {step.p90:.0%} in nine of ten",
        ]
    shown = ", ".join(f"{time.upper()} {e.median:.0%} (nine of ten within {e.p90:.0%})" for time, e in errors.items())
    cases = max(e.cases for e in errors.values())
    factor = constants(engine, _prompts(plan, serve).calibration).prompt_factor
    host = [f"prompts take {factor:.3g} times what their kernels do, as measured servings of {engine} did"]
    return [
        prices,
        *(host if factor != 1 else ()),
        f"simulated against {cases:,} measured servings of {engine}, models that nothing was fitted to: half are within {shown}",
    ]


def error_of(plan: CompiledPlan, name: str, metric: str) -> PhaseError | None:
    """How far a figure of a serving was from measured servings: of a time that of this time, of what follows from all times that of the
    whole time of a request; None: nothing that compares was measured, or it is a count or a share."""
    serve = plan.spec.serve(name)
    engine = engine_of(plan, serve)
    time = FOLLOWS.get(metric, metric.partition(".")[0])
    if engine is None or _kernels(plan, serve) != OWN:
        return None
    return serving_errors(engine).get(TIMES_LIKE.get(time, time))


TIMES_LIKE = {"itl": "tpot"}
FOLLOWS = {
    **dict.fromkeys(("rate", "throughput", "throughput_per_gpu", "prompt_throughput", "goodput", "cost_per_token", "cost_per_request", "energy_per_token"), "e2e"),
    "throughput_per_user": "tpot",
}  # fmt: skip
"""Metric -> the time of a request that it follows from."""


def _prompts(plan: CompiledPlan, serve: Serve) -> Hardware:
    """The GPUs that take prompts in."""
    name = serve.prefill or _phases(serve)[0]
    return plan.spec.of(plan.spec.phase(name)).hardware


def engine_of(plan: CompiledPlan, serve: Serve) -> str | None:
    """The engine that its phases name, whose host's time counts; None: none is named."""
    return next((e for name in _phases(serve) if (e := plan.spec.phase(name).memory.engine) is not None), None)


def _phases(serve: Serve) -> list[str]:
    return [name for name in (serve.decode, serve.mixed, serve.prefill) if name is not None]


def _kernels(plan: CompiledPlan, serve: Serve) -> str:
    """Whose kernels price its steps, of the phase about which least is known."""
    found = {
        kernels_of(r.measured[0], r.substituted) for name in _phases(serve) if (r := plan.phases.get(name)) is not None
    }
    return next((kernels for kernels in reversed(tuple(PRICED)) if kernels in found), OWN)
