"""Which measured kernels an op runs as: every kind is priced or says why not, and nothing costs nothing by being unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import ROOT

import dagc
from dagc.cost.match import KERNELS, ROOFLINE
from dagc.cost.price import price
from dagc.cost.records import Costs
from dagc.ir.ops.kind import Fuse
from dagc.ir.ops.op_set import OPS

EXAMPLE = ROOT / "examples" / "mixtral_8xh100.moe"


def costs(example: dagc.Plan) -> Costs:
    return price(example.phases["decode"].graph, example.units["decode"])


@pytest.fixture(scope="module")
def mixtral() -> dagc.Plan:
    return dagc.compile(EXAMPLE)


def test_every_kind_of_op_is_priced_or_listed_with_a_reason() -> None:
    """A kind has a measured kernel of its own, or rides in one, or always costs the roofline for a stated reason."""
    riding = {kind for kind, op in OPS.items() if op.rides_in}
    assert set(KERNELS) | riding | set(ROOFLINE) == {kind for kind, op in OPS.items() if not op.is_collective}
    assert not set(ROOFLINE) & (set(KERNELS) | riding)
    assert all(ROOFLINE.values())
    assert {name for op in OPS.values() for name in op.rides_in} == set(Fuse)


def test_what_takes_no_time_rides_in_a_kernel_that_its_record_names(mixtral: dagc.Plan) -> None:
    found = costs(mixtral).ops
    free = {key for key, one in found.items() if one.family == "fused"}
    assert {op for _, op in free} == {
        "gqa.o_q",
        "gqa.o_k",
        "gqa.o_k_2",
        "gqa.o_v",
        "moe.t",
        "moe.a_in",
        "moe.a",
        "moe.y",
    }
    for segment, op in free:
        (one,) = (
            o for s in mixtral.phases["decode"].graph.segments if s.name == segment for o in s.ops if o.name == op
        )
        assert OPS[one.kind].rides_in and not found[segment, op].time_s.any()


def test_an_op_inside_the_experts_that_rides_in_nothing_costs_its_roofline(
    mixtral: dagc.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kind that was not listed with the experts' kernel used to cost nothing."""
    segment = next(s for s in mixtral.phases["decode"].graph.segments if any(o.kind == "silu" for o in s.ops))
    gate = next(o for o in segment.ops if o.kind == "silu" and o.scope == "experts")
    before = costs(mixtral).ops[segment.name, gate.name]
    assert (before.family, float(before.time_s.max())) == ("fused", 0.0)
    monkeypatch.setitem(OPS, "silu", replace(OPS["silu"], rides_in=frozenset()))
    after = costs(mixtral).ops[segment.name, gate.name]
    assert after.family == "" and float(after.time_s.max()) > 0


def test_a_norm_rides_in_attention_only_between_its_projections_and_it(mixtral: dagc.Plan) -> None:
    for segment in mixtral.phases["decode"].graph.segments:
        for op in segment.ops:
            if op.kind == "rms_norm":
                assert float(costs(mixtral).ops[segment.name, op.name].time_s.max()) > 0
