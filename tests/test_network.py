"""Collectives on two levels: shapes by brute force, published time and bus-bandwidth formulas, bounds."""

from __future__ import annotations

from collections import Counter
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dagc.base.collectives import COLLECTIVES, TRANSFERS, wire_bytes
from dagc.cost.exchange import KERNELS
from dagc.cost.network import ALGORITHMS, collective_time
from dagc.export.chakra.messages import COLLECTIVE_TYPE
from dagc.ir.groups import GroupShape, group_shape
from dagc.measure.collectives import TIMED
from dagc.spec.hardware import Link
from dagc.view.draw.dot import COLORS

NODE, CLUSTER = Link(450e9, 2e-6), Link(50e9, 6e-6)
KINDS = tuple(TRANSFERS)
# Sums of the same terms in another order.
ROUNDING = 1 + 1e-12

shapes = st.builds(lambda g, n: GroupShape(g * n, g, n), st.integers(1, 8), st.integers(1, 64))


@st.composite
def groups(draw: st.DrawFn) -> tuple[NDArray[np.int64], int]:
    """Disjoint groups of equal size, of GPUs in any order."""
    count, size = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    ids = draw(st.permutations(range(count * size)))
    return np.asarray(ids, dtype=np.int64).reshape(count, size), draw(st.integers(1, 9))


@given(groups())
def test_group_shape_by_counting(drawn: tuple[NDArray[np.int64], int]) -> None:
    ids, per_node = drawn
    counts = [Counter(gpu // per_node for gpu in row) for row in ids.tolist()]
    nodes = max(len(c) for c in counts)
    most = max(max(c.values()) for c in counts if len(c) == nodes)
    assert group_shape(ids, per_node) == GroupShape(ids.shape[1], most, nodes)


@given(shapes)
def test_rails_of_equal_nodes_are_their_ranks(shape: GroupShape) -> None:
    assert shape.rails == shape.per_node


@given(st.lists(st.integers(1, 8), min_size=1, max_size=8))
def test_rails_are_no_fewer_than_the_emptiest_node_has(held: list[int]) -> None:
    """A shape does not tell how uneven its nodes are: rails never make a call look dearer than it is."""
    shape = GroupShape(sum(held), max(held), len(held))
    assert min(held) <= shape.rails <= max(held)
    if len(held) <= 2:
        assert shape.rails == min(held)


def ring_wire_B(kind: str, payload_B: float, n: int) -> float:
    """Play a ring step by step: in each step every rank passes one chunk on; count what rank 0 sends."""
    chunk = payload_B if kind == "all_gather" else payload_B / n
    rounds = {"all_gather": 1, "reduce_scatter": 1, "all_reduce": 2}[kind]
    return sum(chunk for _ in range(rounds) for _ in range(n - 1))


@given(st.sampled_from(KINDS[:3]), st.floats(1, 1e10), st.integers(1, 64))
def test_wire_bytes_of_a_played_ring(kind: str, payload_B: float, n: int) -> None:
    assert wire_bytes(kind, payload_B, n) == pytest.approx(ring_wire_B(kind, payload_B, n))


@given(st.floats(1, 1e10), st.integers(2, 64))
def test_wire_bytes_of_messages(payload_B: float, n: int) -> None:
    to_others = sum(payload_B / n for peer in range(n) if peer != 0)
    assert wire_bytes("all_to_all", payload_B, n) == pytest.approx(to_others)
    assert wire_bytes("send", payload_B, n) == wire_bytes("permute", payload_B, n) == payload_B


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 4, 8])
def test_bus_bandwidth_of_a_large_call_is_the_link(kind: str, n: int) -> None:
    """nccl-tests: busbw = (bytes on the wire) / time, and reaches the link's bandwidth when latency is nothing."""
    size = 1e12
    time_s = collective_time(kind, size, GroupShape(n, n, 1), NODE, CLUSTER).time_s
    assert wire_bytes(kind, size, n) / time_s == pytest.approx(NODE.bandwidth_Bps, rel=1e-4)


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("size", [1e2, 1e5, 1e8])
def test_all_reduce_inside_a_node_is_the_fastest_of_the_published(n: int, size: float) -> None:
    a, bandwidth = NODE.latency_s, NODE.bandwidth_Bps
    wire_s = 2 * (n - 1) / n * size / bandwidth
    published = {
        "ring": 2 * (n - 1) * a + wire_s,
        "tree": 2 * ceil(log2(n)) * a + 2 * size / bandwidth,
        "scatter_gather": 2 * a + wire_s,
        "one_shot": a + (n - 1) * size / bandwidth,
    }
    if n & (n - 1) == 0:
        published["halving_doubling"] = 2 * log2(n) * a + wire_s
    found = collective_time("all_reduce", size, GroupShape(n, n, 1), NODE, CLUSTER)
    assert found.time_s == pytest.approx(min(published.values()))
    assert published[found.algorithm] == pytest.approx(found.time_s)


def test_algorithm_follows_the_size() -> None:
    one_node = GroupShape(8, 8, 1)
    assert collective_time("all_reduce", 1e3, one_node, NODE, CLUSTER).algorithm == "one_shot"
    assert collective_time("all_reduce", 1e9, one_node, NODE, CLUSTER).algorithm == "scatter_gather"
    two_nodes = GroupShape(16, 8, 2)
    small = collective_time("all_reduce", 1.0, two_nodes, NODE, CLUSTER)
    assert small.algorithm != "ring"
    assert small.time_s == pytest.approx(2 * (NODE.latency_s + CLUSTER.latency_s), rel=1e-4)
    assert collective_time("all_reduce", 1e10, two_nodes, NODE, CLUSTER).algorithm == "ring"


def test_two_level_all_reduce_as_published() -> None:
    """2 (g-1)/g S/B_node + 2 (N-1)/N (S/g)/B_cluster + latencies, where the rails are wide enough to win."""
    g, n, size, cluster = 8, 4, 1e9, Link(449e9, 6e-6)
    moving_s = 2 * (g - 1) / g * size / NODE.bandwidth_Bps + 2 * (n - 1) / n * size / g / cluster.bandwidth_Bps
    found = collective_time("all_reduce", size, GroupShape(g * n, g, n), NODE, cluster, floor=True)
    ring_s = 2 * (g * n - 1) / (g * n) * size / NODE.bandwidth_Bps
    assert found.time_s == pytest.approx(min(moving_s, ring_s))


def test_a_flat_ring_has_the_bandwidth_of_the_rails() -> None:
    size = 1e12
    for per_node, bandwidth in ((2, 100e9), (8, 400e9)):
        shape = GroupShape(2 * per_node, per_node, 2)
        ring_s = 2 * (shape.ranks - 1) / shape.ranks * size / bandwidth
        assert collective_time("all_reduce", size, shape, NODE, CLUSTER, floor=True).time_s <= ring_s * ROUNDING
    wide = Link(400e9, 6e-6)  # 8 rails are faster than the node link, which then decides
    found = collective_time("all_reduce", size, GroupShape(16, 8, 2), NODE, wide, floor=True)
    assert found.time_s == pytest.approx(2 * 15 / 16 * size / NODE.bandwidth_Bps)


@pytest.mark.parametrize("held", [(4, 4), (8, 8, 8), (2, 6), (8, 1), (3,)])
def test_all_to_all_by_counting_destinations(held: tuple[int, ...]) -> None:
    """The slowest rank: the one whose bytes leave an emptier node most, or stay in a fuller one most."""
    size, n = 1e8, sum(held)
    node_of = [node for node, count in enumerate(held) for _ in range(count)]
    slowest_s = 0.0
    for rank in range(n):
        peers = [node_of[peer] == node_of[rank] for peer in range(n) if peer != rank]
        inside_s = peers.count(True) * size / n / NODE.bandwidth_Bps
        leaving_s = peers.count(False) * size / n / CLUSTER.bandwidth_Bps
        slowest_s = max(slowest_s, inside_s, leaving_s)
    latency_s = NODE.latency_s if len(held) == 1 else CLUSTER.latency_s
    shape = group_shape(np.array([[8 * node + i for node, count in enumerate(held) for i in range(count)]]), 8)
    assert collective_time("all_to_all", size, shape, NODE, CLUSTER).time_s == pytest.approx(latency_s + slowest_s)


@given(st.sampled_from(KINDS), shapes, st.floats(0, 1e10), st.floats(0, 1e10))
def test_time_grows_with_the_payload(kind: str, shape: GroupShape, a: float, b: float) -> None:
    small, large = sorted((a, b))
    slower = collective_time(kind, large, shape, NODE, CLUSTER).time_s
    assert collective_time(kind, small, shape, NODE, CLUSTER).time_s <= slower * ROUNDING


@given(st.sampled_from(KINDS), shapes, st.floats(0, 1e10))
def test_floor_is_never_above_the_estimate(kind: str, shape: GroupShape, size: float) -> None:
    floor_s = collective_time(kind, size, shape, NODE, CLUSTER, floor=True).time_s
    assert floor_s <= collective_time(kind, size, shape, NODE, CLUSTER).time_s * ROUNDING
    assert collective_time(kind, 0.0, shape, NODE, CLUSTER, floor=True).time_s == 0.0


@given(st.sampled_from(KINDS), shapes, st.floats(1, 1e10))
def test_bytes_on_both_links_add_up_to_the_wire(kind: str, shape: GroupShape, size: float) -> None:
    found = collective_time(kind, size, shape, NODE, CLUSTER)
    assert found.node_B >= 0 and found.cluster_B >= 0
    assert (found.cluster_B > 0) == (shape.nodes > 1)
    if found.algorithm != "one_shot":  # which sends more, to save latency
        assert found.node_B + found.cluster_B == pytest.approx(wire_bytes(kind, size, shape.ranks))


@given(st.sampled_from(KINDS), shapes, st.lists(st.floats(0, 1e10), min_size=1, max_size=5))
def test_an_array_of_payloads_takes_the_algorithm_of_the_largest(
    kind: str, shape: GroupShape, sizes: list[float]
) -> None:
    many = collective_time(kind, np.array(sizes), shape, NODE, CLUSTER)
    assert many.algorithm == collective_time(kind, max(sizes), shape, NODE, CLUSTER).algorithm
    for i, size in enumerate(sizes):
        one = collective_time(kind, size, shape, NODE, CLUSTER)
        assert many.time_s[i] >= one.time_s / ROUNDING
        if one.algorithm == many.algorithm and shape.per_node in (1, shape.ranks):  # no inner choice by size
            assert (many.time_s[i], many.node_B[i], many.cluster_B[i]) == pytest.approx(
                (one.time_s, one.node_B, one.cluster_B)
            )


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_of_one_costs_nothing(kind: str) -> None:
    alone = collective_time(kind, 1e9, GroupShape(1, 1, 1), NODE, CLUSTER)
    assert (alone.time_s, alone.node_B, alone.cluster_B) == (0.0, 0.0, 0.0)
    assert collective_time(kind, np.ones(3), GroupShape(1, 1, 1), NODE, CLUSTER).time_s.tolist() == [0.0] * 3
    assert wire_bytes(kind, 1e9, 1) == 0.0


def test_every_collective_has_its_line_in_every_table() -> None:
    """Prices, measured families, timing, proofs, exports and drawing; permutes and sends go as messages where noted."""
    assert set(ALGORITHMS) == set(TRANSFERS)
    assert set(KERNELS) == set(COLLECTIVES)
    assert set(TIMED) == {kind for kind, kernels in KERNELS.items() if kernels}
    assert set(COLORS) == set(TRANSFERS)
    assert set(COLLECTIVE_TYPE) == {kind for kind, one in COLLECTIVES.items() if not one.sends_result}
