"""Every table that says what a kind of op does has a line for every kind: a forgotten one fails here by its name."""

from __future__ import annotations

import importlib.util

import pytest

from dagc.base.collectives import ACROSS
from dagc.execute import work
from dagc.execute.numpy import collectives
from dagc.execute.numpy import rules as numpy_rules
from dagc.ir.ops.op_set import OPS

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install -e '.[torch]'"
)
COLLECTIVES = {name for name, kind in OPS.items() if kind.is_collective}
COMPUTED = set(OPS) - COLLECTIVES


def test_numpy_has_a_rule_for_every_kind() -> None:
    assert set(numpy_rules.NUMPY) == COMPUTED


def test_numpy_has_an_exchange_for_every_collective() -> None:
    assert set(collectives.COLLECTIVES) == COLLECTIVES


def test_every_kind_is_counted_or_says_that_it_computes_nothing() -> None:
    assert set(work.WORK) == COMPUTED
    assert [kind for kind, count in work.WORK.items() if count is None] == [
        "slice",
        "unpack",
        "pack",
        "stay",
        "rejoin",
        "fetch",
        "host_cache",
        "expert_copy",
    ]


@needs_torch
def test_torch_has_a_rule_for_every_kind() -> None:
    from dagc.execute.torch import rules

    assert set(rules.TORCH) == COMPUTED


@needs_torch
def test_torch_has_an_exchange_for_every_collective() -> None:
    from dagc.execute.torch import comm

    assert set(comm.COLLECTIVES) == COLLECTIVES - set(ACROSS)  # `dagc run` refuses experts on GPUs of their own


def test_rules_hold_for_rows_of_experts_where_the_record_says_so() -> None:
    """But for dispatch, which makes them."""
    assert {kind for kind, record in OPS.items() if record.on_rows} - {"dispatch"} == set(numpy_rules.BY_ROW)


@needs_torch
def test_both_backends_do_the_same_with_routed_rows() -> None:
    from dagc.execute.torch import rules

    assert set(rules.BY_ROW) == set(numpy_rules.BY_ROW)
    assert rules.BACKEND.of_rows == numpy_rules.BACKEND.of_rows
