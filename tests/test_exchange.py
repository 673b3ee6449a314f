"""Exchanges inside an NVLink domain against the same between nodes, over sizes and ranks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dagc
from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.calib import domain_a2a, load
from dagc.cost.exchange import Exchanges
from dagc.cost.network import collective_time
from dagc.ir.graph import Op, Segment
from dagc.ir.groups import GroupShape
from dagc.lang.load import load as load_spec
from dagc.pipeline.lower import lower
from dagc.spec.hardware import Hardware, Link
from dagc.spec.unit import Unit

NVLINK = ("a100-80gb-sxm", "h100-sxm", "h200-sxm", "b200-sxm", "gb200-nvl72")
INFINIBAND = Link(50e9, 6e-6)
"""400 Gbit/s a GPU."""
ROUTED = "routed all_to_all"


@cache
def exchanges(preset: str, kind: str) -> tuple[Exchanges, Hardware, Segment, Op, Op]:
    """With the two exchanges of a layer of routed experts: tokens there and back."""
    text = f"""moe 1
hardware from "{preset}" {{ gpus = 8, link cluster {{ bandwidth = 50 GB/s, latency = 6 us }} }}
model from "mixtral-8x7b" {{ }}
workload {{ sequences = 64, prompt = 128 tok, output = 8 tok }}
phase {kind} {{ gpus = 0..7, attention {{ dp = 8 }}, experts {{ ep = 8 }}, dispatch = all_to_all }}
"""
    spec = load_spec(Source("t", text), Collector())
    unit = Unit(spec, spec.phases[0])
    graph = list(lower(unit))[-1][1]
    segment = next(s for s in graph.segments if any(op.scope == "experts" for op in s.ops))
    there, back = (op for op in segment.ops if op.kind == "all_to_all" and op.scope == "experts")
    machine = spec.hardware
    assert machine.calibration is not None
    return Exchanges(segment, unit, machine, load(machine.calibration)), machine, segment, there, back


def call_s(preset: str, phase: str, kind: str, payload_B: float, shape: GroupShape) -> float:
    """One call as it is priced: measured where a kernel decides, else by the two-level model."""
    priced, machine, _, there, back = exchanges(preset, phase)
    op = {"dispatch": there, "combine": back}.get(kind) or replace(there, kind=kind, scope="dense")
    model_s = float(collective_time(op.kind, payload_B, shape, machine.node, INFINIBAND).time_s)
    found = priced.measured(op, payload_B, shape, model_s)
    return model_s if found is None else float(found.time_s)


KINDS = ("dispatch", "combine", "all_reduce", "all_gather", "reduce_scatter", "all_to_all")


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(NVLINK), st.sampled_from(("prefill", "decode")), st.sampled_from(KINDS),
    st.floats(3, 9.5).map(lambda x: 10.0**x), st.sampled_from([2, 3, 4, 6, 8, 12, 16, 18, 24, 32, 36, 48, 64, 72]), st.data(),
)  # fmt: skip
def test_a_domain_is_never_slower_than_nodes_on_infiniband(
    preset: str, phase: str, kind: str, payload_B: float, ranks: int, data: st.DataObject
) -> None:
    node = data.draw(st.sampled_from([n for n in range(1, ranks) if ranks % n == 0]), label="ranks on a node")
    inside = call_s(preset, phase, kind, payload_B, GroupShape(ranks, ranks, 1))
    over = call_s(preset, phase, kind, payload_B, GroupShape(ranks, node, ranks // node))
    assert inside <= over * (1 + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", NVLINK)
def test_more_bytes_never_take_much_less(preset: str, kind: str) -> None:
    """Estimates follow measured kernels, some of which take longest with a token or two: on 32 GPUs of GB200 the two-sided
    combine took 32 us with one token and 20 us with 16."""
    for shape in (GroupShape(8, 8, 1), GroupShape(32, 32, 1), GroupShape(32, 8, 4)):
        times = [call_s(preset, "decode", kind, size, shape) for size in np.geomspace(1e3, 1e9, 25)]
        worst = (times / np.maximum.accumulate(times)).min()
        assert worst > 0.55, (worst, shape)
        assert times[-1] > 20 * times[0]


def test_exchanges_of_a_domain_were_measured_over_its_ranks() -> None:
    """What was fitted on 4 ranks is not stretched to 32: the kernels of the whole domain take over, and beyond them the
    estimate says so."""
    priced, _, _, there, back = exchanges("gb200-nvl72", "decode")
    for op in (there, back):
        for ranks in (8, 32, 64):
            found = priced.measured(op, 1e6, GroupShape(ranks, ranks, 1), 0.0)
            assert found is not None and found.family.startswith("nvlink_") and "ep_size" not in found.outside
        far = priced.measured(op, 1e6, GroupShape(72, 72, 1), 0.0)
        assert far is not None and "ep_size" in far.outside
    reduce = priced.measured(replace(there, kind="all_reduce", scope="dense"), 1e6, GroupShape(32, 32, 1), 0.0)
    assert reduce is not None and "num_gpus" in reduce.outside


def test_dispatch_of_a_domain_grows_slowly_with_its_ranks() -> None:
    """Each token is copied to the ranks that it hits, at most top_k: published times at 8 and 32 ranks differ by a fifth
    (DeepSeek-V3, 4096 tokens per rank in nvfp4)."""
    c = load("gb200").of(domain_a2a.FAMILY, "trtllm")["nvlink_one_sided_dispatch"].constants
    times = [float(domain_a2a.time_s(c, 4096, 7168, 8, n, 0.5625)) for n in (8, 16, 32, 64)]
    assert times == sorted(times) and times[2] < 1.6 * times[0]
    assert float(domain_a2a.time_s(c, 4096, 7168, 8, 1, 0.5625)) == 0.0


def test_experts_over_one_domain_beat_those_over_four_nodes() -> None:
    def tpot(preset: str, batch: int) -> float:
        text = f"""moe 1
hardware from "{preset}" {{ gpus = 32 }}
model from "deepseek-r1" {{ }}
workload {{ sequences = {batch}, prompt = 1024 tok, output = 1024 tok }}
phase decode {{ gpus = 0..31, context = 1536 tok, attention {{ dp = 32 }}, experts {{ ep = 32 }} }}
"""
        return dagc.compile_text(text).phases["decode"].time_s

    for batch in (32, 512, 4096):
        assert tpot("gb200-nvl72", batch) < tpot("b200-sxm", batch)
