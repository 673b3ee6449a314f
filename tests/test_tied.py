"""A tied head uses the embedding's table: one tensor in counts, and in memory where both are on one stage."""

from __future__ import annotations

import pytest
from conftest import spec_text

import dagc
from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.ir.graph import Graph

TABLE = 512 * 256
MODEL = (
    "layers = 2, hidden = 256, vocab = 512, dtype = bf16, tied = {tied}\n"
    "attention { heads = 8, kv_heads = 4 }\nmlp { hidden = 512 }\n{more}"
)


def plan(tied: str, phase: str = "gpus = 0..1, tp = 2", more: str = "") -> Plan:
    return dagc.compile_text(spec_text(phase=phase, model=MODEL.replace("{tied}", tied).replace("{more}", more)))


def graph(of: Plan) -> Graph:
    return of.phases["prefill"].graph


def test_the_table_counts_once() -> None:
    own, tied = plan("false"), plan("true")
    assert [a - b for a, b in zip(own.params, tied.params, strict=True)] == [TABLE, TABLE]


@pytest.mark.parametrize(("phase", "shared"), [("gpus = 0..1, tp = 2", 2), ("gpus = 0..3, tp = 2, pp = 2", 0)])
def test_it_is_held_once_by_a_stage_that_has_both(phase: str, shared: int) -> None:
    own, tied = (plan(t, phase).phases["prefill"].memory.stages for t in ("false", "true"))
    saved = sum(a.weights_B - b.weights_B for a, b in zip(own, tied, strict=True))
    assert saved == (TABLE * 2 / shared if shared else 0)


def test_a_head_of_another_dtype_cannot_be_tied() -> None:
    with pytest.raises(SpecError, match="no weight with the dimensions and dtype"):
        plan("true", more="weights { lm_head = fp8 }")
