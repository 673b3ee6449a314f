"""The two exchanges of a layer of routed experts on eight GPUs, whose prices tests ask for."""

from __future__ import annotations

from typing import NamedTuple

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.ir.op import Op
from dagc.ir.segment import Segment
from dagc.lang.load import load
from dagc.pipeline.lower import unverified
from dagc.spec.unit import Unit


class RoutedLayer(NamedTuple):
    """`there`, `back`: the exchanges of tokens."""

    unit: Unit
    segment: Segment
    there: Op
    back: Op


def routed_layer(hardware: str, model: str, phase: str, words: str) -> RoutedLayer:
    """Of a model preset on hardware as a spec says it, in a phase of this kind with further words."""
    text = f"""moe 1
hardware {hardware}
model from "{model}" {{ }}
workload {{ sequences = 64, prompt = 128 tok, output = 8 tok }}
phase {phase} {{ gpus = 0..7, attention {{ dp = 8 }}, experts {{ ep = 8 }}, dispatch = all_to_all, {words} }}
"""
    spec = load(Source("t", text), Collector())
    unit = Unit(spec, spec.phases[0])
    segment = next(s for s in unverified(unit).segments if any(op.scope == "experts" for op in s.ops))
    there, back = (op for op in segment.ops if op.kind == "all_to_all" and op.scope == "experts")
    return RoutedLayer(unit, segment, there, back)
