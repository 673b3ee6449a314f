"""Exchanges inside an NVLink domain against the same between nodes, over sizes and ranks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from conftest import ROOT, examples, spec_text
from exchange_case import routed_layer
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import in_turn

import dagc
from dagc.base.diagnostics import SpecError
from dagc.calib import cluster_exchange, domain_a2a, load
from dagc.calib.families import FAMILIES
from dagc.calib.family import column
from dagc.calib.fitting import tables
from dagc.calib.moe_a2a import SMS, SMS_V2
from dagc.calib.rising import pooled, rising_s
from dagc.cost.exchange import Exchanges, Tokens
from dagc.cost.measured import Measured
from dagc.cost.network import collective_time
from dagc.ir.groups import GroupShape
from dagc.ir.op import Op
from dagc.ir.segment import Segment
from dagc.spec.hardware import Hardware, Link

NVLINK = ("a100-80gb-sxm", "h100-sxm", "h200-sxm", "b200-sxm", "gb200-nvl72")
KEPT = ROOT / "tests" / "data" / "calibration"
INFINIBAND = Link(50e9, 6e-6)
"""400 Gbit/s a GPU."""
ROUTED = "routed all_to_all"


@cache
def exchanges(preset: str, kind: str, words: str = "engine = trtllm") -> tuple[Exchanges, Hardware, Segment, Op, Op]:
    """With the two exchanges of a layer of routed experts: tokens there and back."""
    hardware = f'from "{preset}" {{ gpus = 8, link cluster {{ bandwidth = 50 GB/s, latency = 6 us }} }}'
    unit, segment, there, back = routed_layer(hardware, "mixtral-8x7b", kind, words)
    machine = unit.spec.hardware
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


@settings(deadline=None, max_examples=examples(300))
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
def test_more_bytes_never_take_less(preset: str, kind: str) -> None:
    """Though some measured kernels take longest with a token or two: on 32 GPUs of GB200 the two-sided combine took 32 us
    with one token and 20 us with 16."""
    for shape in (GroupShape(8, 8, 1), GroupShape(32, 32, 1), GroupShape(32, 8, 4)):
        times = np.array([call_s(preset, "decode", kind, size, shape) for size in np.geomspace(1e3, 1e9, 25)])
        assert (np.diff(times) >= -1e-9 * times[1:]).all(), shape
        assert times[-1] > 20 * times[0]


@pytest.mark.parametrize("family", ["custom_allreduce", "collective", "all_to_all"])
def test_a_rising_price_is_as_near_to_the_rows_as_the_stated_error(family: str) -> None:
    """Of the rows kept here: what rises is not far from what was fitted, which saw them."""
    for key, rows in tables.groups(FAMILIES[family], [KEPT])[0].items():
        entry = load(key.gpu).of(FAMILIES[family], key.engine)[key.variant]
        prices = [
            float(rising_s(FAMILIES[family], entry, 1, float(row["num_gpus"]), float(row["bytes"]))) for row in rows
        ]
        missed = np.abs(np.array(prices) / column(rows, "latency_us") * 1e6 - 1)
        assert np.median(missed) < max(0.02, entry.error.median), key
        assert np.quantile(missed, 0.9) < entry.error.p90, key


@settings(deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=40))
def test_pooled_values_rise_and_keep_their_mean(values: list[float]) -> None:
    found = pooled(np.array(values))
    assert (np.diff(found) >= -1e-12).all() and np.mean(found) == pytest.approx(np.mean(values), abs=1e-9)
    assert np.array_equal(pooled(np.sort(values)), np.sort(values))


def test_each_engine_has_an_all_reduce_of_its_own() -> None:
    """On 8 H200 (8 KB and 64 MB): priced by the table of the phase's engine, launched by a graph or by the host."""

    def found(engine: str, words: str, size: float) -> Measured:
        priced, _, _, there, _ = exchanges("h200-sxm", "decode", f"engine = {engine}, {words}")
        reduce = replace(there, kind="all_reduce", scope="dense")
        answer = priced.measured(reduce, size, GroupShape(8, 8, 1), 0.0)
        assert answer is not None
        return answer

    for engine in ("trtllm", "vllm", "sglang"):
        graph, host = (found(engine, f"cuda_graph = {flag}", 8192) for flag in ("true", "false"))
        assert graph.family == f"{engine} all_reduce" and graph.table == f"{engine} on h200_sxm"
        assert graph.instead_of == "" and graph.error < 0.1
        assert 2e-6 < float(graph.time_s) < 15e-6
        assert float(host.time_s) > 1.5 * float(graph.time_s)
        assert host.instead_of == ("trtllm on h200_sxm" if engine == "trtllm" else "")  # whose table is of graphs alone
    times = {float(found(engine, "cuda_graph = true", 8192).time_s) for engine in ("trtllm", "vllm", "sglang")}
    assert len(times) == 3
    large = [float(found(e, f"cuda_graph = {f}", 64e6).time_s) for e in ("vllm", "sglang") for f in ("true", "false")]
    assert max(large) < 1.3 * min(large)  # links, whoever launches


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


def named(preset: str, kind: str, words: str, payload_B: float = 1e6, ranks: int = 8, nodes: int = 1) -> Measured:
    """What takes tokens to their experts."""
    priced, _, _, there, _ = exchanges(preset, kind, words)
    found = priced.measured(there, payload_B, GroupShape(ranks * nodes, ranks, nodes), 0.0)
    assert found is not None
    return found


@pytest.mark.parametrize("engine", ["trtllm", "vllm", "sglang"])
def test_tokens_take_the_kernels_that_the_engine_runs_in_such_a_phase(engine: str) -> None:
    prompts, steps = (named("h200-sxm", kind, f"engine = {engine}") for kind in ("prefill", "decode"))
    assert (prompts.family, steps.family) == ("deepep_ht_dispatch", "deepep_ll_dispatch")
    for found in (prompts, steps):
        assert found.table == f"{engine} on h200_sxm" and found.instead_of == ""
    rack = named("gb200-nvl72", "decode", f"engine = {engine}", ranks=32)
    assert rack.family.startswith("nvlink_")  # DeepEP was timed on 4 ranks there
    assert rack.instead_of == ("" if engine == "trtllm" else f"{engine} on gb200")


@pytest.mark.parametrize("engine", ["trtllm", "vllm", "sglang"])
@pytest.mark.parametrize("preset", ["h100-sxm", "h200-sxm", "b200-sxm", "gb200-nvl72", "gb300-nvl72"])
@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_tokens_narrower_than_measured_take_no_longer(preset: str, engine: str, kind: str) -> None:
    """A residual of few widths says little of a narrower one, which has fewer bytes."""
    priced = exchanges(preset, kind, f"engine = {engine}")[0]
    for tokens in (1.0, 64.0, 1024.0):
        for back in (False, True):
            options = [[*priced._token_kernels(Tokens(tokens, h, 8.0, 2.0, back), 4)] for h in (1024.0, 2048.0, 4096.0)]
            narrow, middle, wide = ([float(option.time_s) for option in each] for each in options)
            assert narrow and all(a <= 1.3 * b for a, b in zip(narrow, middle, strict=True))
            assert all(a <= 1.3 * b for a, b in zip(middle, wide, strict=True))


@pytest.mark.parametrize(
    ("engine", "name"),
    in_turn(
        ["trtllm", "vllm", "sglang"], ["deepep_ht", "deepep_ll", "deepep_v2", "nvlink_one_sided", "nvlink_two_sided"]
    ),
)
def test_a_phase_names_its_exchange(name: str, engine: str) -> None:
    """Priced by that kernel, wherever it was timed; what takes the place of this engine on this GPU is said."""
    for kind in ("prefill", "decode"):
        for preset, gpu in (("h100-sxm", "h100_sxm"), ("gb200-nvl72", "gb200")):
            found = named(preset, kind, f"engine = {engine}, exchange = {name}", ranks=4)
            assert found.family.startswith(name)
            assert (found.table == f"{engine} on {gpu}") == (found.instead_of == "")
    if name == "deepep_v2":
        modes = [named("h100-sxm", kind, f"engine = vllm, exchange = {name}").family for kind in ("prefill", "decode")]
        assert modes == ["deepep_v2_context_dispatch", "deepep_v2_generation_dispatch"]


def test_a_named_exchange_goes_between_nodes_too() -> None:
    families = {
        (kind, name): named("h200-sxm", kind, f"exchange = {name}", 1e8, nodes=2).family
        for kind in ("prefill", "decode")
        for name in ("deepep_ht", "deepep_ll", "nvlink_one_sided")
    }
    for kind, usual in (("prefill", "ht"), ("decode", "ll")):
        assert families[kind, "deepep_ht"] == "cluster_ht_dispatch"
        assert families[kind, "deepep_ll"] == "cluster_ll_dispatch"
        assert families[kind, "nvlink_one_sided"] == f"cluster_{usual}_dispatch"


def test_version_2_fills_the_links_between_nodes() -> None:
    """Its multiprocessors do not hold it up. No constant is fitted to its published times (B200, 2 nodes, 8192 tokens a rank): the
    fp8 dispatch of 7168 wide tokens, 8 choices, took 1.34 ms."""
    c = cluster_exchange.constants()["ht_dispatch"].constants
    row_B = 7168 * (1 + 4 / 128)
    v1, v2 = (float(cluster_exchange.time_s(c, 8192, row_B, 8, 2, 50e9, sms=sms)) for sms in (SMS, SMS_V2))
    assert v2 == pytest.approx(1.34e-3, rel=0.15) and v1 > 1.2 * v2
    times = [
        float(named("h200-sxm", "prefill", f"exchange = {e}", 2e9, nodes=2).time_s) for e in ("deepep_ht", "deepep_v2")
    ]
    assert times[1] < times[0]


def test_a_wrong_exchange_is_told() -> None:
    phase = "gpus = 0..7, ep = 8, exchange = {}"
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(spec_text(kind="decode", phase=phase.format("deepep_l")))
    (error,) = caught.value.diagnostics
    assert any("`deepep_ll`" in line for line in error.help)
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(spec_text(kind="decode", phase=phase.format("deepep_ll, dispatch = allgather")))
    assert "`exchange` belongs to `dispatch = all_to_all`" in str(caught.value)
