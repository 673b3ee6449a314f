"""Forward and backward cells of two micro-batches at once: how long a pair takes, in DualPipe and with `exchange_overlap`."""

from __future__ import annotations

from functools import cache

import pytest

import dagc
from dagc.cost.training.layers_in_turn import StageCost, pair_s
from dagc.plan.step_totals import step_collectives
from dagc.plan.trained import TrainingResult

SPEC = """moe 1
hardware from "h100-sxm" { gpus = 16 }
model from "mixtral-8x7b" { layers = 8 }
workload { sequences = 64, prompt = 4096 tok }
phase train { gpus = 0..15, microbatches = 4, attention { dp = DP }, experts { ep = 8 }, WORDS }
"""


@cache
def step(words: str, dp: int = 8) -> TrainingResult:
    return dagc.compile_text(SPEC.replace("WORDS", words).replace("DP", str(dp))).trainings["train"]


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ((5.0, 2.0, 2.0), (9.0, 3.0, 3.0), 9.0),  # all tokens travel under what the other computes
        ((5.0, 4.0, 4.0), (9.0, 8.0, 8.0), 12.0),  # less is computed than travels
        ((5.0, 2.0, 0.0), (9.0, 3.0, 0.0), 14.0),  # other collectives hide nothing
        ((5.0, 1.0, 2.0), (9.0, 2.0, 3.0), 11.0),  # a part was hidden already
        ((1.0, 0.9, 0.9), (9.0, 0.0, 0.0), 9.1),
        ((0.0, 0.0, 0.0), (9.0, 3.0, 3.0), 9.0),  # not less than one of them by itself
    ],
)
def test_a_pair_takes_the_longer_of_what_it_computes_and_what_travels(
    one: tuple[float, float, float], other: tuple[float, float, float], wanted: float
) -> None:
    """(seconds, of these only a collective runs, tokens travel)"""
    assert pair_s(StageCost(*one), StageCost(*other)) == pytest.approx(wanted)
    assert pair_s(StageCost(*other), StageCost(*one)) == pytest.approx(wanted)


def test_a_step_of_one_stage_is_a_chain_of_pairs() -> None:
    """The first forward cell, then pairs, then the last backward cell."""
    paired, plain = (step(f"exchange_overlap = {word}", dp=16) for word in ("full", "none"))
    ahead, back = paired.staged[0, "forward"], paired.staged[0, "backward"]
    both = pair_s(ahead, back)
    assert both < ahead.time_s + back.time_s
    assert paired.steps.makespan_s == pytest.approx(ahead.time_s + 3 * both + back.time_s)
    assert plain.steps.makespan_s == pytest.approx(4 * (ahead.time_s + back.time_s))
    gained_s = plain.steps.makespan_s - paired.steps.makespan_s
    assert plain.exposed_s - paired.exposed_s == pytest.approx(gained_s)
    assert paired.worst.activations_B > plain.worst.activations_B


def test_copies_of_the_model_add_up_their_gradients() -> None:
    """Once a step, all that a GPU has of them, between two GPUs; nothing where there is one copy."""
    plain, hidden = (step(f"pp = 2, schedule = dualpipe, grad_overlap = {word}") for word in ("none", "full"))
    for result in (plain, hidden):
        assert [one.payload_B for one in result.copies] == [need.gradients_B for need in result.memory]
        calls = [c.total for c in step_collectives(result, 0) if c.total.axes == ("copies",)]
        assert calls == [result.copies[0]] and calls[0].wire_B == calls[0].payload_B
    assert plain.update_s > max(one.time_s for one in plain.copies) > 0 and hidden.update_s < plain.update_s
    assert not step("pp = 2, schedule = dualpipe_v").copies


def test_dualpipe_gains_what_travels_under_another_micro_batch() -> None:
    """Its pairs are never longer than both cells, nor shorter than one of them."""
    result = step("pp = 2, schedule = dualpipe")
    times = result.steps.times
    assert times.pairs_s is not None
    for (ahead, behind), seconds in times.pairs_s.items():
        one = times.forward_s[ahead]
        other = times.input_s[behind] + times.weight_s[behind]
        assert max(one, other) <= seconds < one + other
    alone = step("pp = 2, schedule = zb_h1")
    assert alone.steps.times.pairs_s is None and result.exposed_s < alone.exposed_s


def test_interleaved_pairs_are_of_two_chunks() -> None:
    paired, plain = (
        step(f"pp = 2, schedule = interleaved, virtual = 2, exchange_overlap = {w}") for w in ("full", "none")
    )
    assert paired.time_s < plain.time_s
    assert set(paired.steps.times.pairs_s or {}) == {(a, b) for a in range(4) for b in range(4) if a % 2 == b % 2}
