"""What makes a training step fit: changes of its words, each compiled before it is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import combinations, islice

from ..base.diagnostics import Collector, SpecError
from ..base.frozen import record, replace
from ..base.units import BYTES, TIME, show
from ..plan.trained import TrainingResult
from ..spec.phase import Phase
from ..spec.unit import Unit
from .lower import lowered, unverified
from .train import costed_cells, schedule_of, step_of, training_of

SAID = 3
"""Changes that are told, at most."""


@record
class Change:
    """`words`: as a spec has them."""

    words: tuple[str, ...]
    phase: Phase

    @property
    def said(self) -> str:
        return " and ".join(f"`{word}`" for word in self.words)


def cures(unit: Unit) -> tuple[str, ...]:
    """Those that make it fit, by how few words they change."""
    single = list(changes(unit))
    fits = fits_at_most(unit, single)
    if not fits and any(one.words == ("zero = 3",) for one in single):  # ranks may not divide its weights
        single = [one for one in single if one.words != ("zero = 3",)]
        fits = fits_at_most(unit, single)
    needed: set[str] = set()
    if not fits and (waiting := list(offloads(unit))):  # time for the links of hosts: where nothing else will do
        single, needed = [*single, *waiting], {"offload"}
        fits = fits_at_most(unit, single)
    of_word = {one.words[0].split()[0]: one for one in single}
    if not fits:
        words = "no `zero`, `recompute`, `microbatches` or `offload` makes it fit"
        return (f"{words}: more `pp` or `tp`, or shorter sequences",)
    for count in range(1, len(of_word) + 1):
        some_of = (some for some in combinations(single, count) if distinct(some) and needed <= words_of(some))
        together = (reduce(both, some) for some in some_of)
        found = list(islice((text for change in together if (text := tried(unit, change)) is not None), SAID))
        if found:
            return tuple(found)
    raise AssertionError("all together fit")


def fits_at_most(unit: Unit, single: list[Change]) -> bool:
    """Whether it fits with the last change of each word, which takes least memory."""
    of_word = {one.words[0].split()[0]: one for one in single}
    return bool(single) and fitting(unit, reduce(both, of_word.values())) is not None


def words_of(some: Iterable[Change]) -> set[str]:
    return {one.words[0].split()[0] for one in some}


def distinct(some: tuple[Change, ...]) -> bool:
    """Whether they change different words."""
    return len(words_of(some)) == len(some)


def offloads(unit: Unit) -> Iterator[Change]:
    """Activations that wait in host memory, ever more of them."""
    phase, training = unit.phase, unit.phase.training
    assert training is not None
    for share in (0.5, 1.0):
        if training.offload < share:
            yield Change((f"offload = {share:.0%}",), replace(phase, training=replace(training, offload=share)))


def changes(unit: Unit) -> Iterator[Change]:
    """What takes memory for the least time first: states shared out, smaller micro-batches, activations done anew."""
    phase, training = unit.phase, unit.phase.training
    assert training is not None
    for stage in range(training.zero + 1, 4):
        yield Change((f"zero = {stage}",), replace(phase, training=replace(training, zero=stage)))
    own = phase.strategy.microbatches
    for more in (own * factor for factor in (2, 4, 8)):
        if phase.sequences % (more * phase.batching.ranks * phase.batching.lanes) == 0:
            yield Change(
                (f"microbatches = {more}",), replace(phase, strategy=replace(phase.strategy, microbatches=more))
            )
    if training.recompute != ("full",):
        yield Change(("recompute = full",), replace(phase, training=replace(training, recompute=("full",))))


def both(one: Change, other: Change) -> Change:
    """One after the other: they are of different words."""
    phase = one.phase
    assert phase.training is not None and other.phase.training is not None
    training = phase.training
    for word in other.words:
        name = word.split()[0]
        if name == "microbatches":
            phase = replace(phase, strategy=other.phase.strategy)
        else:
            training = replace(training, **{name: getattr(other.phase.training, name)})
    return Change((*one.words, *other.words), replace(phase, training=training))


def fitting(unit: Unit, change: Change) -> TrainingResult | None:
    """The step with it, where it fits; what is said of it is verified besides."""
    own = Unit(unit.spec, change.phase, Collector())
    try:
        schedule = schedule_of(own, training_of(own))
        found = step_of(own, schedule, costed_cells(own, unverified(own)))
    except SpecError:
        return None
    return found if found.fits else None


def tried(unit: Unit, change: Change) -> str | None:
    """What it comes to, where it fits."""
    found = fitting(unit, change)
    if found is None:
        return None
    lowered(Unit(unit.spec, change.phase, Collector()))
    worst = found.worst
    sizes = f"{show(worst.peak_B, BYTES)} of {show(worst.capacity_B, BYTES)}"
    return f"{change.said}: {sizes}, a step of {show(found.time_s, TIME)}"
