"""What `expand` writes is in both runs of the proof: a fault in it is caught by a model of another program, or listed here."""

from __future__ import annotations

from functools import cache

import pytest
from mutants.expansion import (
    CASES,
    EQUAL,
    LANGUAGE,
    GraphMutant,
    case,
    catches_graph,
    graph_mutants,
    pairs,
    true_graph,
    wrong_sums,
)
from tiers import spread

RARE = (
    "apertus", "axk2", "bailing_hybrid", "bamba", "cohere", "cwm", "dbrx", "deepseek_v2", "deepseek_v3_yarn", "deepseek_v4", "gemma2", "gemma2_capped",
    "gpt_neox", "gpt_oss_bounds", "kolibri1", "lfm2_moe", "llama3_bounds", "llama4", "longcat_flash", "ministral3", "mistral_large4", "phi3_longrope",
    "phimoe_jitter",
)  # fmt: skip
"""Models that between them see every fault: they are asked first."""


@cache
def faults() -> tuple[GraphMutant, ...]:
    return tuple(graph_mutants())


def first_to_catch(mutant: GraphMutant) -> tuple[str, str] | None:
    return next(
        (pair for pair in sorted(pairs(), key=lambda pair: pair[0] not in RARE) if catches_graph(mutant, *pair)), None
    )


@pytest.mark.parametrize("name", spread(CASES, RARE))
def test_the_graph_without_a_fault_is_the_model(name: str) -> None:
    assert case(name, "prefill").error(true_graph(name, "prefill")) < 1e-12


ONE_OF_EACH = {mutant.what: mutant for mutant in reversed(faults()) if mutant.name not in EQUAL}
"""Of each attribute the first fault that there is of it."""


@pytest.mark.parametrize("mutant", spread(faults(), list(ONE_OF_EACH.values())), ids=lambda m: m.name)
def test_a_fault_of_the_model_graph_is_caught(mutant: GraphMutant) -> None:
    assert (first_to_catch(mutant) is None) == (mutant.name in EQUAL)


def test_the_arithmetic_of_blocks() -> None:
    assert wrong_sums() == ""


def test_every_attribute_of_the_language_has_a_fault() -> None:
    tried = {m.what for m in faults()}
    inputs = {"sinks", "selected", "bias", "empty", "table", "gain"}
    for kind, attributes in LANGUAGE.items():
        for name in attributes:
            assert (kind, name) in tried or name in inputs, (kind, name)
    assert {
        ("attend", "sinks"),
        ("attend", "selected"),
        ("route", "bias"),
        ("route", "empty_bias"),
        ("route", "tokens"),
        ("rms_norm", "gain"),
        ("layer_norm", "gain"),
    } <= tried
    assert set(EQUAL) <= {m.name for m in faults()}
