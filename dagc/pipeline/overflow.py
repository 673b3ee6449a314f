"""Whether a phase fits its GPUs: E04 where it does not, with what was found to fix it."""

from __future__ import annotations

from ..base.units import BYTES, show
from ..cost.footprint import Memory
from ..spec.phase import EngineMemory
from ..spec.unit import Unit

NEARLY_FULL = 0.97
"""Share of what an engine may fill from which on a plan may fail to start."""


def check(memory: Memory, unit: Unit, help: tuple[str, ...] = ()) -> None:
    """E04 with the sum shown when the fullest stage does not fit, W06 when what an engine keeps leaves next to nothing.
    `help`: what was found to fix it."""
    worst, engine = memory.worst, unit.phase.memory
    nearly = engine.engine is not None and memory.fraction > NEARLY_FULL
    if memory.fits and not nearly:
        return
    parts = (
        ("weights", worst.weights_B),
        ("KV cache", worst.kv_cache_B),
        ("activations", worst.activations_B),
        ("buffers", worst.buffers_B),
        ("reserve", worst.reserve_B),
        *((("engine", worst.engine_B),) if worst.engine_B else ()),
    )
    sums = (
        " + ".join(f"{n} {show(v, BYTES)}" for n, v in parts) + f" = {show(worst.peak_B, BYTES)}",
        *_share(memory, engine),
    )
    if memory.fits:
        unit.out.add(
            "W06",
            f"memory of phase `{unit.phase.name}` is nearly full: {show(worst.peak_B, BYTES)} of {show(memory.capacity_B, BYTES)}",
            unit.phase.span,
            because=(*sums, f"what {engine.engine} keeps in addition to weights and cache is known only to a few GB"),
            help=(
                "`memory { graphs, communication, padding, tokens, sequences }` of the phase takes figures from its logs",
            ),
        )
        return
    unit.out.add(
        "E04",
        f"phase `{unit.phase.name}` does not fit: a GPU of stage {worst.stage} needs {show(worst.peak_B, BYTES)} of "
        f"{show(memory.capacity_B, BYTES)}, {show(worst.peak_B - memory.capacity_B, BYTES)} too much",
        unit.phase.span,
        because=sums,
        help=help,
    )


def _share(memory: Memory, engine: EngineMemory) -> tuple[str, ...]:
    """Why it is not the whole GPU."""
    if memory.capacity_B >= memory.total_B:
        return ()
    what = {"all": "everything it stores", "static": "weights and cache", "free": "cache, of what is left"}[engine.of]
    return (f"memory_fraction = {engine.fraction:.1%} of {show(memory.total_B, BYTES)} for {what}",)
