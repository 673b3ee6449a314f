"""recomputed: a training step with every set of blocks done anew, all else as it is: what memory costs in time, each compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter

from ...base.diagnostics import Collector, SpecError
from ...base.frozen import replace
from ...lang.choices import list_names, list_word
from ...pipeline.train import training_of, training_step
from ...plan.searched import Anew
from ...plan.trained import TrainingResult
from ...spec.unit import Unit
from .domains import sets_anew


def recompute_front(unit: Unit, until: float | None = None) -> tuple[Anew, ...]:
    """Those that no other is better than in both, the fastest first. `unit`: a phase that trains; `until`: the moment (of `perf_counter`) by
    which all are to be compiled, else there is no front."""
    own = training_of(unit).recompute
    found = []
    for word, step in _steps(unit):
        found.append(
            Anew(unit.phase.name, word, step.time_s, step.worst.peak_B, step.mfu, step.fits, list_names(word) == own)
        )
        if until is not None and perf_counter() > until:
            return ()
    out: list[Anew] = []
    for one in sorted(found, key=lambda one: (one.time_s, one.peak_B, not one.chosen)):
        if not out or one.peak_B < out[-1].peak_B:
            out.append(one)
    return tuple(out)


def _steps(unit: Unit) -> Iterator[tuple[str, TrainingResult]]:
    for word in _words(unit):
        phase = replace(unit.phase, training=replace(training_of(unit), recompute=list_names(word)))
        try:
            yield word, training_step(Unit(unit.spec, phase, Collector()))
        except SpecError:  # a set that such a layout does not have
            continue


def _words(unit: Unit) -> Sequence[str]:
    return tuple(dict.fromkeys((list_word(training_of(unit).recompute), *sets_anew(unit.spec.model))))
