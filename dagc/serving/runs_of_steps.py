"""Runs of equal steps: how many of them an arrival lets go on."""

from __future__ import annotations

import math

from .records import Line

NOTHING = Line(0, 0, math.inf)
"""The price of a step that only moves cache."""


def steps_to(time_s: float, start_s: float, first_s: float, more_s: float, most: int) -> int:
    """The fewest steps, of at least 1 and at most `most`, at whose end it is `time_s` or later, from `start_s` on: step i takes `first_s + i
    more_s`."""
    need = time_s - start_s
    if more_s:
        half = first_s - more_s / 2
        guess = (math.sqrt(half * half + 2 * more_s * need) - half) / more_s if need > 0 else 0.0
    else:
        guess = need / first_s if first_s else most
    steps = math.ceil(guess)
    if 1 < steps < most and 1e-6 < steps - guess < 1 - 1e-6:
        return steps
    steps = min(max(steps, 1), most)  # near a step's end: as the clock itself says
    while steps < most and start_s + steps * first_s + more_s * (steps * (steps - 1) // 2) < time_s:
        steps += 1
    while steps > 1 and start_s + (steps - 1) * first_s + more_s * ((steps - 1) * (steps - 2) // 2) >= time_s:
        steps -= 1
    return steps
