"""domains: all that a choice can be, where the spec does not list its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from ...base.axes import AXES, DATA, EXPERT, SEQUENCE, STAGES, TENSOR
from ...lang.choices import PHASES, list_word
from ...spec.choice import Choice
from ...spec.model import Model
from .rules import FOLDED, GPUS, HARDWARE, Facts
from .space import Domain, Word

FIRST = (
    HARDWARE, GPUS, STAGES, "stages", "replicas", *FOLDED, DATA, EXPERT, SEQUENCE, TENSOR, "dcp", "sequences", "chunk", "redundant", "microbatches", "dispatch",
    "sp_method", "sequence_parallel", "overlap", "schedule", "virtual", "zero", "recompute", "grad_overlap", "exchange_overlap",
    "matmul_dtype", "quantised_weights",
)  # fmt: skip
"""The order in which a grid grows: what rejects most comes first."""
MOST_SEQUENCES = 1 << 16
LEAST_CHUNK = 256
MOST_DRAFTED = 8
MOST_BLOCKS = 4
"""Kinds of block of which all sets are tried."""


class Unbounded(ValueError):
    """A choice that has no end."""

    def __init__(self, choice: Choice) -> None:
        super().__init__(f"`{choice.path} = any` has no end")
        self.choice = choice


def domains(choices: Sequence[Choice], facts: Facts, gpus: Sequence[int] = ()) -> tuple[Domain, ...]:
    """The domains of a phase's choices, in the order in which a grid grows. `gpus`: numbers of GPUs that it may have beside those
    of its own choice. Raises Unbounded."""
    own = {choice.path: choice for choice in choices}
    counts = _gpus(own.get(GPUS), facts)
    order = sorted(own, key=lambda path: FIRST.index(path) if path in FIRST else len(FIRST))
    batches = own.get("sequences")
    most = (
        facts.phase.sequences
        if batches is None
        else max((*_numbers(batches), *(() if batches.values else (MOST_SEQUENCES,))))
    )
    every = _Every(facts, counts, most)
    return tuple(Domain(path, own[path].values or every.of(own[path])) for path in order)


def _numbers(choice: Choice) -> tuple[int, ...]:
    return tuple(v for v in choice.values if isinstance(v, int))


def _gpus(choice: Choice | None, facts: Facts) -> tuple[int, ...]:
    if choice is None:
        return (len(facts.phase.gpus),)
    return _numbers(choice) or tuple(range(1, 1 + max(own.gpus for own in facts.pools.values())))


class _Every:
    """All values of an attribute."""

    def __init__(self, facts: Facts, gpus: Sequence[int], sequences: int) -> None:
        self.facts, self.gpus, self.sequences = facts, gpus, sequences

    def of(self, choice: Choice) -> tuple[Word, ...]:
        path = choice.path
        if path == GPUS:
            return tuple(self.gpus)
        if path == "dcp" and self.facts.phase.takes_prompts:
            return (1,)
        if path == "overlap" and self.facts.phase.training is not None:
            return ("none",)
        if path in (*FOLDED, *AXES, "replicas", "dcp"):
            return _divisors(self.gpus)
        found = OWN.get(path)
        if found is not None:
            return found(self)
        attribute = PHASES.attribute(path)
        if attribute.kind == "flag":
            return (False, True)
        if attribute.words:
            first = [attribute.default] if attribute.default in attribute.words else []
            return tuple(dict.fromkeys((*(str(w) for w in first), *attribute.words)))
        raise Unbounded(choice)


def _divisors(counts: Sequence[int]) -> tuple[int, ...]:
    """Of any of these numbers: a million of them have a million, which is no reason to try a million times a million."""
    there = np.zeros(max(counts) + 1, dtype=bool)
    there[list(counts)] = True
    return tuple(d for d in range(1, len(there)) if there[d::d].any())


def _powers(most: int, least: int = 1) -> tuple[int, ...]:
    """Powers of two between two numbers."""
    return tuple(1 << k for k in range(64) if least <= 1 << k <= most)


def _chunks(every: _Every) -> tuple[Word, ...]:
    """Whole prompts, or powers of two of their tokens."""
    new = every.facts.new
    return (new, *reversed(_powers(new - 1, LEAST_CHUNK)))


def _spares(every: _Every) -> tuple[Word, ...]:
    """None, powers of two, and on any number of expert ranks the fewest that fill them, and so many more that every rank has a power
    of two of them."""
    experts = every.facts.count("experts.count")
    ranks = _divisors(every.gpus)
    filling = {-experts % ep + ep * more for ep in ranks for more in (0, *_powers(experts // ep))}
    return tuple(sorted({0, *_powers(experts), *(n for n in filling if n <= experts)}))


def sets_anew(model: Model) -> tuple[str, ...]:
    """Values of `recompute`: nothing, any blocks of the layers between embedding and head (where those are many: one), and all."""
    blocks = [*dict.fromkeys(block for layer in model.stack[1:-1] for block in layer.blocks)]
    most = len(blocks) if len(blocks) <= MOST_BLOCKS else 1
    sets = (some for count in range(most + 1) for some in combinations(blocks, count))
    return (*(list_word(some) for some in sets), "full")


OWN: Mapping[str, Callable[[_Every], tuple[Word, ...]]] = {
    "microbatches": lambda every: _powers(every.sequences),
    "sequences": lambda every: _powers(every.sequences),
    "chunk": _chunks,
    "redundant": _spares,
    "draft": lambda every: tuple(range(MOST_DRAFTED + 1)),
    "decode": lambda every: _powers(every.sequences),
    "virtual": lambda every: _divisors([every.facts.spec.model.layers]),
    "zero": lambda every: tuple(range(int(PHASES.attribute("zero").high) + 1)),
    "recompute": lambda every: sets_anew(every.facts.spec.model),
    "prompt_tokens": lambda every: _powers(every.facts.spec.workload.prompt, LEAST_CHUNK),
}
"""Attributes whose values are fewer than all numbers."""
