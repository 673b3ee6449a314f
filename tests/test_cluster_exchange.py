"""Exchanges and collectives across nodes: stated errors on a sample of rows, monotone in every size, the published times."""

from __future__ import annotations

import csv
from functools import cache

import numpy as np
import pytest
from conftest import ROOT, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exchange import INFINIBAND, call_s, exchanges
from tiers import spread

from dagc.calib import cluster_collective, cluster_exchange
from dagc.calib.fitting import cluster
from dagc.cost.network import collective_time
from dagc.ir.groups import GroupShape

SAMPLE = ROOT / "tests" / "data" / "calibration" / "cluster_exchange.csv"
KERNELS = ("ll_dispatch", "ll_combine", "ht_dispatch", "ht_combine")
LINK_Bps = 50e9


@cache
def sample() -> list[cluster.Call]:
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        return [cluster.call(row) for row in csv.DictReader(file)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_stated_error_is_that_of_a_sample(kernel: str) -> None:
    """A sample of the rows, by the constants fitted on all: about the error stated of rows that a fit did not see."""
    found = cluster_exchange.constants()[kernel]
    calls = [each for each in sample() if each.kernel == kernel and each.fit == "yes"]
    assert len(calls) >= 10
    error = cluster.relative_error(kernel, found.constants, calls)
    assert abs(np.median(error) - found.median) < 0.03
    assert np.quantile(error, 0.9) < found.p90 + 0.05
    assert found.median <= 0.06 and found.p90 <= 0.20


@pytest.mark.parametrize("kernel", spread(KERNELS, of=lambda kernel: kernel.partition("_")[0]))
def test_a_fit_of_other_rows_says_the_same(kernel: str) -> None:
    """Constants of half the sample price the other half: the error that the file states is not one of its own rows."""
    pytest.importorskip("scipy")
    calls = [each for each in sample() if each.kernel == kernel and each.fit == "yes"]
    seen, unseen = calls[::2], calls[1::2]
    assert np.median(cluster.relative_error(kernel, cluster.fit(kernel, seen), unseen)) < 0.12


@pytest.mark.parametrize(("source", "most"), [("DeepEP V1 README", 0.14), ("pplx-garden, DeepEP", 0.17)])
def test_published_times(source: str, most: float) -> None:
    calls = [each for each in sample() if each.source == source]
    assert calls
    for each in calls:
        constants = cluster_exchange.constants()[each.kernel].constants
        assert cluster.relative_error(each.kernel, constants, [each]).max() < most


@given(
    st.sampled_from(KERNELS), st.floats(1, 1e5), st.integers(256, 16384), st.integers(1, 22),
    st.sampled_from([1, 2, 4, 8, 16, 32, 64]), st.floats(1e9, 1e12), st.floats(1.01, 4),
)  # fmt: skip
def test_more_of_anything_never_takes_less(
    kernel: str, tokens: float, row_B: int, top_k: int, nodes: int, link_Bps: float, more: float
) -> None:
    c = cluster_exchange.constants()[kernel].constants

    def seconds(tokens: float, row_B: float, top_k: float, nodes: int, link_Bps: float) -> float:
        return float(cluster_exchange.time_s(c, tokens, row_B, top_k, nodes, link_Bps))

    at = seconds(tokens, row_B, top_k, nodes, link_Bps)
    assert seconds(tokens * more, row_B, top_k, nodes, link_Bps) >= at * (1 - 1e-12)
    assert seconds(tokens, row_B * more, top_k, nodes, link_Bps) >= at * (1 - 1e-12)
    assert seconds(tokens, row_B, top_k + 1, nodes, link_Bps) >= at * (1 - 1e-12)
    assert seconds(tokens, row_B, top_k, nodes * 2, link_Bps) >= at * (1 - 1e-12)
    assert seconds(tokens, row_B, top_k, nodes, link_Bps * more) <= at * (1 + 1e-12)
    assert (at > 0) == (nodes > 1)


def test_more_multiprocessors_are_faster_until_the_link_is_full() -> None:
    c = cluster_exchange.constants()["ht_dispatch"].constants
    times = [float(cluster_exchange.time_s(c, 8192, 7168, 8, 4, LINK_Bps, sms=sms)) for sms in (4, 8, 16, 24, 64)]
    assert times == sorted(times, reverse=True)
    assert times[0] > 2 * times[2] and times[3] < 1.05 * times[4]


def test_group_limited_routing_bounds_the_nodes_of_a_token() -> None:
    """DeepSeek-V3: 4 of 8 groups. On 8 nodes a group is a node, on 16 it spans two, on 4 the limit says nothing."""
    c = cluster_exchange.constants()["ht_dispatch"].constants

    def seconds(nodes: int, groups: int = 0, limit: int = 0) -> float:
        reach = cluster_exchange.reach(groups, limit, nodes) if groups else float("inf")
        return float(cluster_exchange.time_s(c, 4096, 7392, 8, nodes, LINK_Bps, reach=reach))

    assert [cluster_exchange.reach(8, 4, nodes) for nodes in (2, 4, 8, 16, 32)] == [4, 4, 4, 8, 16]
    assert seconds(2, 8, 4) == seconds(2) and seconds(4, 8, 4) == seconds(4)
    assert seconds(8, 8, 4) < 0.6 * seconds(8)
    assert seconds(8, 8, 1) < seconds(8, 8, 2) < seconds(8, 8, 4) < seconds(8, 8, 8) == seconds(8)


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
@pytest.mark.parametrize("preset", ["h100-sxm", "b200-sxm", "a100-80gb-sxm"])
def test_more_nodes_or_bytes_never_take_less(preset: str, kind: str) -> None:
    sizes = np.geomspace(256, 1e9, 20)
    times = [[call_s(preset, "decode", kind, size, GroupShape(8 * n, 8, n)) for n in (1, 2, 4, 8)] for size in sizes]
    assert (np.diff(times, axis=0) >= -1e-12).all()
    if kind == "all_reduce":  # of the others the same payload is another buffer with more ranks
        assert (np.diff(times, axis=1) >= -1e-12).all()


def test_a_small_all_reduce_waits_for_the_hops_between_nodes() -> None:
    """16 ranks on 2 nodes: NCCL's launch and steps inside a node, then two hops of its tree; not an engine's kernel."""
    machine = exchanges("h100-sxm", "decode")[1]
    small = call_s("h100-sxm", "decode", "all_reduce", 14336, GroupShape(16, 8, 2))
    model = float(collective_time("all_reduce", 14336, GroupShape(16, 8, 2), machine.node, INFINIBAND).time_s)
    assert 25e-6 < small < 40e-6 and small > 1.5 * model
    assert call_s("h100-sxm", "decode", "all_reduce", 14336, GroupShape(32, 8, 4)) - small == pytest.approx(
        10e-6, rel=0.1
    )
    large = call_s("h100-sxm", "decode", "all_reduce", 1e9, GroupShape(16, 8, 2))
    wires = float(collective_time("all_reduce", 1e9, GroupShape(16, 8, 2), machine.node, INFINIBAND).time_s)
    inside = call_s("h100-sxm", "decode", "all_reduce", 1e9, GroupShape(8, 8, 1))
    assert large == max(wires, inside) < 1.1 * wires  # links alone, unless what was measured in a node is slower


@settings(max_examples=examples(200, 20))
@given(st.sampled_from(list(cluster_collective.PATTERNS)), st.floats(0, 1e-2), st.floats(0, 1e9), st.integers(2, 64))
def test_hops_are_never_free(kind: str, inside_s: float, wire_B: float, nodes: int) -> None:
    at = cluster_collective.time_s(kind, inside_s, wire_B, nodes, LINK_Bps)
    assert at > max(inside_s, wire_B / LINK_Bps)
    assert cluster_collective.time_s(kind, inside_s, wire_B, 2 * nodes, LINK_Bps) >= at
    assert cluster_collective.time_s(kind, inside_s, 2 * wire_B, nodes, LINK_Bps) >= at
