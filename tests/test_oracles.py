"""Every case that XLA and PyTorch DTensor compiled: dagc's collectives are theirs, or send fewer bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from oracles import measure, operators, page, reshards
from oracles.case import Case, Tensor, collective, count, group_of_zero, wire_B
from oracles.compare import CHEAPER, DEARER, EQUAL, MISSING, SAME_BYTES, compare, judge
from oracles.layout import NotExpressible, coordinate
from oracles.records import case_of, from_json, stored_cases, to_json
from tiers import exhaustive, spread

CASES = stored_cases()
OPERATORS = operators.stored_operators()
TORCH_ROWS = reshards.stored_rows("torch")


@pytest.mark.parametrize("case", spread(CASES, CASES[::3]), ids=lambda c: c.id)
def test_a_program_has_the_collectives_of_the_reference_or_cheaper_ones(case: Case) -> None:
    ours, verdict = judge(lambda: measure.measure(case), case.collectives)
    if verdict.word == EQUAL:
        assert count(ours) == count(case.collectives)
        assert wire_B(ours) == wire_B(case.collectives)
    elif verdict.word != MISSING:
        assert wire_B(ours) < wire_B(case.collectives), verdict
    assert (verdict.word == EQUAL) != bool(verdict.why)


@pytest.mark.parametrize("row", OPERATORS, ids=lambda r: r.op)
def test_an_operator_costs_no_more_than_the_reference(row: operators.Row) -> None:
    ours, verdict = judge(lambda: operators.measure(row), row.collectives)
    if verdict.word == EQUAL:
        assert count(ours) == count(row.collectives)
    elif verdict.word != MISSING:
        assert wire_B(ours) < wire_B(row.collectives), verdict
    assert (verdict.word == EQUAL) != bool(verdict.why)


@pytest.mark.parametrize("row", TORCH_ROWS, ids=str)
def test_no_chain_moves_more_bytes_than_dtensor(row: reshards.Row) -> None:
    wire = reshards.chain_wire_B(row, reshards.moves(row))
    assert wire <= row.wire_B
    assert row.planner_B is None or wire <= row.planner_B
    assert row.lower_bound_B is None or wire >= row.lower_bound_B


@exhaustive
def test_the_page_is_current() -> None:
    assert page.PAGE.read_text() == page.page(page.stored()), "run `python -m tests.oracles`"


# -- the comparison itself -------------------------------------------------------------------------------------------


def test_verdicts() -> None:
    big, small = collective("all_reduce", (0, 1), 8.0, 1), collective("all_reduce", (0, 1), 4.0, 1)
    assert compare([big], [big]).word == EQUAL
    assert compare([small], [big]).word == CHEAPER
    assert "2x smaller" in compare([small], [big]).why
    assert compare([big], [small]).word == DEARER
    assert compare([small, small], [big]).word == SAME_BYTES
    twice = collective("all_gather", (0, 1), 8.0, 2)
    assert (
        compare([collective("all_gather", (0, 1), 8.0, 1)], [twice]).why
        == "all_gather of one value done once (1 fewer)"
    )


def test_equal_collectives_over_other_devices_are_not_equal() -> None:
    assert (
        compare([collective("all_reduce", (0, 1), 8.0, 1)], [collective("all_reduce", (0, 2), 8.0, 1)]).word
        == SAME_BYTES
    )


def test_groups_are_row_major() -> None:
    mesh = {"pp": 2, "ep": 2, "tp": 2}
    assert group_of_zero(mesh, ["tp"]) == (0, 1)
    assert group_of_zero(mesh, ["ep"]) == (0, 2)
    assert group_of_zero(mesh, ["pp", "tp"]) == (0, 1, 4, 5)


def test_a_degree_takes_axes_that_lie_side_by_side() -> None:
    case = case_of(RECORD)
    assert coordinate(case, "tp", ("a", "b")) == ["tp * 2"]
    with pytest.raises(NotExpressible, match="side by side"):
        coordinate(case, "tp", ("a", "c"))


RECORD = {
    "id": "x",
    "family": "tp",
    "description": "two matmuls",
    "source": {"tool": "torch"},
    "layers": 1,
    "model": {"batch": 2, "seq": 4, "hidden": 8},
    "mesh": {"axes": [{"name": "a", "size": 2}, {"name": "b", "size": 2}, {"name": "c", "size": 2}]},
    "inputs": [{"name": "x", "dims": ["batch", "seq", "hidden"], "placement": "[Replicate, Shard(1), Shard(1)]"}],
    "weights": [{"name": "mlp.w1/w3", "placement": "[Shard(0), Shard(1), Replicate] of [out,in]"}],
    "result": {
        "collectives": [
            {
                "kind": "all-reduce",
                "first_group": [0, 4],
                "group_size": 2,
                "payload_bytes": 64,
                "wire_bytes_per_device": 64.0,
                "count": 3,
            }
        ]
    },
}


def test_a_record_is_read_by_names() -> None:
    case = case_of(RECORD)
    assert case.axes("x", "seq") == ("b", "c")
    assert case.axes("w3", "ffn") == ("a",) and case.axes("w1", "hidden") == ("b",)
    assert case.collectives == (collective("all_reduce", (0, 4), 64.0, 3),)
    assert from_json(to_json(case)) == case


def test_a_strategy_that_the_compiler_refuses_is_not_expressible() -> None:
    ulysses = next(c for c in CASES if c.id == "jax_cp_ulysses_cp8_kv8")
    with pytest.raises(NotExpressible, match="kv_heads 4"):
        measure.measure(replace(ulysses, model={**ulysses.model, "kv_heads": 4}))


def test_a_residual_stream_split_in_width_is_not_expressible() -> None:
    case = case_of(RECORD)
    with pytest.raises(NotExpressible, match="whole in `hidden`"):
        measure.measure(replace(case, tensors={"x": Tensor(("batch", "seq", "hidden"), ((), (), ("a",)))}))


def test_the_page_of_a_directory_is_that_of_its_records(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(RECORD))
    table = page.page(page.directory(tmp_path))
    assert "| `x` two matmuls |" in table and "Single operators" not in table
