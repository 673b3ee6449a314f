"""`stages = balanced` in training: against every cut of small models, in time and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations

import pytest
from conftest import spec_text
from test_training_language import errors_of, read
from tiers import spread

import dagc
from dagc.base.frozen import replace
from dagc.pipeline.lower import unverified
from dagc.pipeline.step_cut import Cuts
from dagc.pipeline.train import costed_cells, schedule_of, step_of, training_of
from dagc.spec.unit import Unit

MODEL = "layers = 9, hidden = 512, vocab = 64000, dtype = bf16, dense_first = 3\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 64 }\nexperts { count = 8, top_k = 4, hidden = 512 }\nmlp { hidden = 1024 }"
CASES = {
    "1F1B": "pp = 4, microbatches = 16",
    "ZB-H2": "pp = 3, microbatches = 16, schedule = zb_h2",
    "shared out, overlapped": "pp = 2, dp = 2, microbatches = 8, zero = 3, grad_overlap = full",
    "interleaved": "pp = 2, microbatches = 8, schedule = interleaved, virtual = 2",
    "a V": "pp = 2, microbatches = 16, schedule = zb_v",
    "two copies": "pp = 4, microbatches = 16, schedule = dualpipe",
}


def text(words: str, memory: str = "64 GB", model: str = MODEL) -> str:
    gpus = 4 if "pp = 4" in words or "dp" in words else 3 if "pp = 3" in words else 2
    written = spec_text(
        kind="step", phase=f"kind = train\ngpus = 0..{gpus - 1}, {words}", workload="sequences = 32, prompt = 4096 tok"
    )
    head, rest = written.split("model", 1)
    return f"{head}model m {{ {model} }}\n{rest[rest.index('workload') :]}".replace(
        "memory = 64 GB", f"memory = {memory}"
    )


@cache
def cuts(words: str, memory: str = "64 GB", model: str = MODEL) -> Cuts:
    spec = read(text(words + ", stages = balanced", memory, model))
    unit = Unit(spec, spec.trainings[0])
    return Cuts(unit, schedule_of(unit, training_of(unit)), costed_cells(unit, unverified(unit)))


def every(layers: int, chunks: int) -> Iterator[tuple[int, ...]]:
    for edges in combinations(range(1, layers), chunks - 1):
        yield tuple(b - a for a, b in zip((0, *edges), (*edges, layers), strict=True))


@pytest.mark.parametrize(
    "words",
    spread(CASES.values(), [CASES[name] for name in ("shared out, overlapped", "ZB-H2", "a V")]),
    ids=list(CASES),
)
def test_no_cut_has_a_less_busy_gpu(words: str) -> None:
    """The busiest GPU's cells as the step itself has them, of every cut."""
    found = cuts(words)
    best = found.best()
    assert best is not None and sum(best) == 9

    def busiest_s(counts: tuple[int, ...]) -> float:
        own, spec = found.own, read(text(words + ", stages = balanced"))
        strategy = replace(spec.trainings[0].strategy, layers_per_stage=counts)
        unit = Unit(spec, replace(spec.trainings[0], strategy=strategy))
        times = step_of(unit, found.schedule, own, found.stages(counts)).steps.times
        each = [
            f + (i + w if times.backward_s is None else times.backward_s[k])
            for k, (f, i, w) in enumerate(zip(times.forward_s, times.input_s, times.weight_s, strict=True))
        ]
        return max(sum(each[stage] for stage in own) for own in found.stages_of)

    ours, all_s = busiest_s(best), [busiest_s(counts) for counts in every(9, found.schedule.stages)]
    assert ours == pytest.approx(min(all_s), rel=1e-9) and max(all_s) > 1.2 * ours


@pytest.mark.parametrize("words", [CASES["1F1B"], CASES["a V"]], ids=["1F1B", "a V"])
def test_of_cuts_that_fit_the_least_busy_one(words: str) -> None:
    """Where the fastest cut does not fit, the fastest one that does; where none fits, the one that needs least."""
    model = MODEL.replace("64000", "1000")
    free = cuts(words, model=model)
    fastest = free.best()
    assert fastest is not None
    others = {counts: free.too_full(counts) for counts in every(9, free.schedule.stages)}
    some = (others[fastest] + min(others.values())) / 2
    assert others[fastest] > 1.01 * some
    tight = cuts(words, f"{some * 64e9:.0f} B", model)
    found = tight.best()
    assert found is not None and tight.too_full(found) <= 1.0
    fitting = [counts for counts in others if tight.too_full(counts) <= 1.0]
    assert tight._rank(found)[1] == pytest.approx(min(tight._rank(counts)[1] for counts in fitting))
    none = cuts(words, f"{min(others.values()) * 63e9:.0f} B", model)
    least = none.best()
    assert least is not None and others[least] == pytest.approx(min(others.values()), rel=1e-3)


def test_a_balanced_plan_is_the_plan_with_its_cut() -> None:
    own, even = (
        dagc.compile_text(text(CASES["1F1B"] + ", stages = balanced")),
        dagc.compile_text(text(CASES["1F1B"] + ", layers_per_stage = [3, 2, 2, 2]")),
    )
    cut = own.spec.trainings[0].strategy.layers_per_stage
    assert cut is not None
    given = dagc.compile_text(text(CASES["1F1B"] + f", layers_per_stage = {list(cut)}"))
    ours, theirs, equal = (plan.trainings["step"] for plan in (own, given, even))
    assert (ours.time_s, ours.memory) == (theirs.time_s, theirs.memory) and ours.time_s < 0.9 * equal.time_s


def test_more_chunks_than_layers_are_told() -> None:
    (found,) = errors_of(text("pp = 2, microbatches = 8, schedule = interleaved, virtual = 5, stages = balanced"))
    assert found.code == "E03" and found.message == "10 chunks of layers need a layer each, of 9"
