"""Levels of links: the language, shapes and crossings by brute force, what they cost, and what carries them on."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import spec_text
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import dagc
from dagc.base.collectives import TRANSFERS, wire_bytes
from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.source import Source
from dagc.cli import main
from dagc.cost.network import beyond_ports, collective_time, ring_hops, spanned
from dagc.export.chakra import configs
from dagc.export.chakra.ranks import network
from dagc.export.json import dumps, plan_object
from dagc.ir.groups import GroupShape, group_shape
from dagc.ir.text.read import parse_graph
from dagc.ir.text.scan import TextError
from dagc.ir.text.write import print_graph
from dagc.lang.load import load
from dagc.lang.printer.print_spec import print_spec
from dagc.spec.hardware import Hardware, Link

Ids = NDArray[np.int64]
NODE, RACK, CLUSTER = Link(450e9, 2e-6), Link(100e9, 3e-6), Link(50e9, 6e-6)
KINDS = tuple(TRANSFERS)
SHORT = """link node { bandwidth = 450 GB/s, latency = 2 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us }"""
THREE = """link node { gpus = 8, bandwidth = 450 GB/s, latency = 2 us }
  link rack { gpus = 32, bandwidth = 100 GB/s, latency = 3 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us }"""
WIDE = "gpus = 0..63, dp = 4, ep = 8, tp = 2"


def text_of(links: str = THREE, phase: str = WIDE, gpus: int = 64, **other: str) -> str:
    text = spec_text(phase=phase, gpus=gpus, **other)  # type: ignore[arg-type]
    assert SHORT in text
    return text.replace(SHORT, links).replace(", per_node = 8", "" if "gpus =" in links else ", per_node = 8")


def hardware(links: str, gpus: int = 64, more: str = "") -> Hardware:
    return load(Source("x", text_of(links + more, gpus=gpus)), Collector()).hardware


def plan_json(text: str) -> bytes:
    """Without diagnostics, which have line numbers."""
    return dumps({**plan_object(dagc.compile_text(text, name="plan.moe")), "diagnostics": []})


# -- shapes ----------------------------------------------------------------------------------------


@st.composite
def groups(draw: st.DrawFn) -> tuple[Ids, tuple[int, ...]]:
    """Disjoint groups of equal size, of GPUs in any order, and nesting sizes of domains."""
    count, size = draw(st.integers(1, 5)), draw(st.integers(1, 10))
    ids = draw(st.permutations(range(count * size + draw(st.integers(0, 20)))))
    sizes = [draw(st.integers(1, 4))]
    for _ in range(draw(st.integers(0, 2))):
        sizes.append(sizes[-1] * draw(st.integers(2, 3)))
    return np.asarray(ids[: count * size], dtype=np.int64).reshape(count, size), tuple(sizes)


@given(groups())
def test_shapes_by_counting(drawn: tuple[Ids, tuple[int, ...]]) -> None:
    ids, sizes = drawn
    counts = [[Counter(gpu // size for gpu in row) for size in sizes] for row in ids.tolist()]
    worst = max(tuple(len(c) for c in reversed(row)) for row in counts)
    kept = [row for row in counts if tuple(len(c) for c in reversed(row)) == worst]
    shape = group_shape(ids, sizes[0], sizes[1:])
    if worst[-1] == 1:
        assert shape == GroupShape(ids.shape[1], ids.shape[1], 1)
        return
    assert shape.domains == (*reversed(worst), 1)
    most = [max(max(row[i].values()) for row in kept) for i in range(len(sizes))]
    assert [shape.per_node, *(s.ranks for s in shape.further)] == most
    for i, spread in enumerate(shape.further):
        held = [Counter(inner * sizes[i] // sizes[i + 1] for inner in row[i]) for row in kept]
        assert spread.inner == max(max(c.values()) for c in held)
    if len(ids) == 1:
        fewest = [min(kept[0][i].values()) for i in range(len(sizes))]
        assert all(low <= found for low, found in zip(fewest, shape.least, strict=True))


@given(groups())
def test_ring_crossings_by_walking_it(drawn: tuple[Ids, tuple[int, ...]]) -> None:
    """A closed ring in the order of ids: the outermost level that each hop crosses."""
    ids, sizes = drawn[0][:1], drawn[1]
    ring = sorted(ids[0].tolist())
    walked = [0] * (len(sizes) + 1)
    for a, b in zip(ring, [*ring[1:], ring[0]], strict=True):
        walked[sum(a // size != b // size for size in sizes)] += 1
    shape = group_shape(ids, sizes[0], sizes[1:])
    hops = ring_hops(shape)
    assert list(hops) + [0] * (len(walked) - len(hops)) == walked


@given(groups(), st.floats(1, 1e9))
def test_all_to_all_by_counting_destinations(drawn: tuple[Ids, tuple[int, ...]], size: float) -> None:
    """Bytes of a rank of equal domains on each level, and the time of the busiest port: NICs carry all that leaves a node."""
    ids, sizes = drawn[0][:1], drawn[1]
    counts = [Counter(gpu // size for gpu in ids[0].tolist()) for size in sizes]
    assume(all(len(set(c.values())) == 1 for c in counts) and ids.shape[1] > 1)
    links = (NODE, *(Link(100e9 / (i + 1), 3e-6 + i * 1e-6, i > 0) for i in range(len(sizes))))
    rank = int(ids[0][0])
    sent = [0.0] * len(links)
    for peer in ids[0].tolist():
        if peer != rank:
            sent[sum(peer // s != rank // s for s in sizes)] += size / ids.shape[1]
    found = collective_time("all_to_all", size, group_shape(ids, sizes[0], sizes[1:]), *links, floor=True)
    assert found.level_B == pytest.approx(tuple(sent), abs=size * 1e-12)
    used = [i for i, s in enumerate(sent) if s or not i]
    times = [sent[0] / NODE.bandwidth_Bps, *(sum(sent[i:]) / links[i].bandwidth_Bps for i in used if i)]
    assert found.time_s == pytest.approx(max(times))


shapes = st.builds(
    lambda g, n, r: group_shape(
        np.asarray([[32 * rack + 8 * node + i for rack in range(r) for node in range(n) for i in range(g)]]), 8, (32,)
    ),
    st.integers(1, 8), st.integers(1, 4), st.integers(1, 6),
)  # fmt: skip


@given(st.sampled_from(KINDS), shapes, st.floats(1, 1e10))
def test_bytes_on_all_levels_add_up_to_the_wire(kind: str, shape: GroupShape, size: float) -> None:
    found = collective_time(kind, size, shape, NODE, RACK, CLUSTER)
    assert min(found.level_B) >= 0 and len(found.level_B) == 3
    assert (found.level_B[2] > 0) == (shape.nodes > 1 and shape.further[0].domains > 1)
    if found.algorithm != "one_shot":
        assert sum(found.level_B) == pytest.approx(wire_bytes(kind, size, shape.ranks))


@given(st.sampled_from(KINDS), shapes, st.floats(0, 1e10))
def test_bounds_of_a_third_level(kind: str, shape: GroupShape, size: float) -> None:
    """No faster than with the rack's links everywhere, no slower than with the cluster's; the floor below the time."""

    def time_s(*links: Link, floor: bool = False) -> float:
        return collective_time(kind, size, shape, *links, floor=floor).time_s

    flat = GroupShape(shape.ranks, shape.per_node, shape.nodes)
    found = time_s(NODE, RACK, CLUSTER)
    assert time_s(NODE, RACK, CLUSTER, floor=True) <= found * (1 + 1e-12)
    fast = collective_time(kind, size, flat, NODE, RACK, floor=True).time_s
    assert fast <= found * (1 + 1e-12)
    assert time_s(NODE, RACK, replace(CLUSTER, bandwidth_Bps=5e9)) >= found / (1 + 1e-12)


def test_three_levels_all_reduce_as_derived() -> None:
    """2 (g-1)/g S/B_node + 2 (n-1)/n S/g /B_rack + 2 (r-1)/r S/(g n) /B_cluster, where rails are wide and hops are many."""
    g, n, r, size = 4, 4, 4, 1e9
    shape = group_shape(
        np.asarray([[32 * k + 8 * j + i for k in range(r) for j in range(n) for i in range(g)]]), 8, (32,)
    )
    links = (Link(100e9, 0.0), Link(24e9, 0.0), Link(1e9, 0.0, True))
    moving_s = (
        2 * (g - 1) / g * size / 100e9 + 2 * (n - 1) / n * size / g / 24e9 + 2 * (r - 1) / r * size / (g * n) / 1e9
    )
    found = collective_time("all_reduce", size, shape, *links)
    assert found.time_s == pytest.approx(moving_s)


def test_a_level_that_a_group_does_not_cross_is_not_there() -> None:
    """One node of each of two racks: the rack's links carry nothing."""
    apart = group_shape(np.asarray([[*range(8), *range(32, 40)]]), 8, (32,))
    for kind in KINDS:
        found = collective_time(kind, 1e8, apart, NODE, RACK, CLUSTER)
        two = collective_time(kind, 1e8, GroupShape(16, 8, 2), NODE, CLUSTER)
        assert (found.time_s, found.algorithm) == (two.time_s, two.algorithm) and found.level_B[1] == 0
    near = group_shape(np.asarray([[*range(16)]]), 8, (32,))
    assert collective_time("send", 1e6, near, NODE, RACK, CLUSTER).level_B == (0.0, 1e6, 0.0)


# -- NICs ------------------------------------------------------------------------------------------


def test_gpus_that_share_a_nic_at_once() -> None:
    pairs = np.asarray([[i, 8 + i] for i in range(8)])
    assert group_shape(pairs, 8, (), (4, 8)).sharing == 2 and group_shape(pairs, 8).sharing == 1
    assert group_shape(pairs[:1], 8, (), (1, 2)).sharing == 1  # alone on its NIC
    assert group_shape(pairs, 8, (), (3, 8)).sharing == 3  # NICs of 3, 3 and 2
    assert group_shape(np.arange(8)[None], 8, (), (1, 8)).sharing == 1  # inside a node nobody needs one
    shared = collective_time("all_to_all", 1e9, replace(GroupShape(2, 1, 2), sharing=2), NODE, CLUSTER, floor=True)
    alone = collective_time("all_to_all", 1e9, GroupShape(2, 1, 2), NODE, CLUSTER, floor=True)
    assert shared.time_s == pytest.approx(2 * alone.time_s)


def nics(count: int, bandwidth: int = 50) -> str:
    return THREE.replace(
        "cluster { bandwidth = 50 GB/s", f"cluster {{ nics = {count}, bandwidth = {bandwidth} GB/s"
    ).replace("link rack { gpus = 32, bandwidth = 100 GB/s, latency = 3 us }\n", "")


def test_groups_that_share_a_nic_contend() -> None:
    """As many NICs as GPUs change nothing; half as many of twice the rate neither, where all GPUs use them; fewer cost more."""
    own = dagc.compile_text(text_of(SHORT)).phases["prefill"].time_s
    assert dagc.compile_text(text_of(nics(8))).phases["prefill"].time_s == own
    assert dagc.compile_text(text_of(nics(4, 100))).phases["prefill"].time_s == pytest.approx(own)
    times = [dagc.compile_text(text_of(nics(n))).phases["prefill"].time_s for n in (8, 4, 2, 1)]
    assert times == sorted(times) and times[0] < times[-1]


def test_oversubscription_divides_what_crosses() -> None:
    half = SHORT.replace("= 50 GB/s", "= 25 GB/s")
    twice = SHORT.replace("latency = 6 us", "latency = 6 us, oversubscription = 2")
    assert (
        dagc.compile_text(text_of(half)).phases["prefill"].time_s
        == dagc.compile_text(text_of(twice)).phases["prefill"].time_s
    )


# -- what changes nothing, and what must ----------------------------------------------------------

PHASES = (
    WIDE,
    "gpus = 0..63, pp = 4, ep = 8, tp = 2",
    "gpus = 3..34, ep = 8, tp = 4",
    "gpus = 0..63, ep = 8, tp = 8, order = [pp, dp, sp, tp, ep]",
)


@pytest.mark.parametrize("phase", PHASES[:3])
@pytest.mark.parametrize(
    "links",
    [
        SHORT.replace("link cluster", "link rack { gpus = 32, bandwidth = 50 GB/s, latency = 6 us }\n  link cluster"),
        "link socket { gpus = 4, bandwidth = 450 GB/s, latency = 2 us }\n  " + SHORT,
        SHORT.replace("link node {", "link node { gpus = 8,"),
    ],
)
def test_a_level_of_the_same_links_changes_nothing(links: str, phase: str) -> None:
    assert plan_json(text_of(links, phase).replace("gpus = 64\n", "gpus = 64, per_node = 8\n")) == plan_json(
        text_of(SHORT, phase)
    )


@pytest.mark.parametrize("phase", [PHASES[2], PHASES[3]])
def test_a_slow_level_costs(phase: str) -> None:
    """Half of the cluster joined by links of a tenth: dearer than before, and never dearer than all of it."""
    rack = "link rack {{ gpus = 32, bandwidth = {} GB/s, latency = 6 us }}\n  link cluster"
    slow = SHORT.replace("= 50 GB/s", "= 5 GB/s")
    times = [
        dagc.compile_text(text_of(links, phase)).phases["prefill"].time_s
        for links in (SHORT, slow.replace("link cluster", rack.format(50)), slow)
    ]
    assert times[0] < times[1] <= times[2]


def test_a_flat_network_makes_every_order_equal() -> None:
    flat = "\n".join(
        f"link {name} {{ {size}bandwidth = 50 GB/s, latency = 6 us }}"
        for name, size in (("node", "gpus = 8, "), ("rack", "gpus = 32, "), ("cluster", ""))
    )
    phase = "gpus = 0..31, dp = 2, ep = 8, tp = 2, order = [pp, sp, {}]"
    orders = [phase.format(", ".join(o)) for o in itertools.permutations(("dp", "ep", "tp"))]
    found = {dagc.compile_text(text_of(flat, order)).phases["prefill"].time_s for order in orders}
    steep = {dagc.compile_text(text_of(THREE, order)).phases["prefill"].time_s for order in orders}
    assert len(found) == 1 and len(steep) > 1


def test_edges_of_stages_by_their_own_pairs() -> None:
    """Stages of four GPUs: a send inside a node, one to the next node, one inside, and back across the rack's edge."""
    result = dagc.compile_text(text_of(THREE, "gpus = [24..39], pp = 4, tp = 4")).phases["prefill"]
    assert [edge.level for edge in result.costs.edges] == ["node", "cluster", "node"]
    assert result.costs.token_return.level == "cluster"
    inner, outer = result.costs.edges[0].time_s, result.costs.edges[1].time_s
    assert inner < outer and result.costs.transfer.time_s == outer


# -- the language ---------------------------------------------------------------------------------


def test_levels_are_read_and_printed() -> None:
    text = text_of(THREE.replace("latency = 6 us", "latency = 6 us, oversubscription = 2, nics = 4"), WIDE)
    text = text.replace("gpus = 64\n", "gpus = 64, per_host = 4\n")
    spec = load(Source("x", text), Collector())
    machine = spec.hardware
    assert [(one.name, one.gpus, one.oversubscription, one.nics) for one in machine.levels] == [
        ("node", 8, 1, None), ("rack", 32, 1, None), ("cluster", None, 2, 4),
    ]  # fmt: skip
    assert (machine.per_node, machine.per_host, machine.domains, machine.nics) == (8, 4, (8, 32), (1, 2))
    assert machine.links == (NODE, replace(RACK, onward=True), replace(CLUSTER, bandwidth_Bps=25e9))
    assert load(Source("y", print_spec(spec)), Collector()) == spec
    short = load(Source("x", text_of(SHORT)), Collector())
    assert short.hardware.short and "per_node = 8" in print_spec(short) and "per_host" not in print_spec(short)
    assert load(Source("y", print_spec(short)), Collector()) == short


def test_nics_begin_where_they_are_named_or_bandwidth_falls_most() -> None:
    assert [link.onward for link in hardware(THREE).links] == [False, False, True]
    assert [link.onward for link in hardware(THREE.replace("latency = 6 us", "latency = 6 us, nics = 8")).links] == [
        False,
        True,
        False,
    ]
    assert [link.onward for link in hardware(THREE.replace("bandwidth = 100", "bandwidth = 400")).links] == [
        False,
        True,
        False,
    ]


def test_a_preset_gets_a_level_more() -> None:
    def machine(body: str, preset: str = "h100-sxm") -> Hardware:
        text = text_of(SHORT).split("model small", 1)[1]
        return load(
            Source("x", f'moe 1\nhardware from "{preset}" {{ {body} }}\nmodel small{text}'), Collector()
        ).hardware

    found = machine("gpus = 256, link rail { gpus = 64, bandwidth = 50 GB/s, latency = 4 us }")
    assert [(one.name, one.gpus) for one in found.levels] == [("node", 8), ("rail", 64), ("cluster", None)]
    found = machine("gpus = 64, link node { gpus = 4 }")
    assert found.per_node == found.per_host == 4 and found.levels[0].bandwidth_Bps == 450e9
    for rack in ("gb200-nvl72", "gb300-nvl72"):
        trays = machine("gpus = 144", rack)
        assert (trays.per_node, trays.per_host, trays.domains) == (72, 4, (72,))


WRONG = {
    "not a multiple": (THREE.replace("gpus = 32", "gpus = 20"), "E03", "20"),
    "not increasing": (THREE.replace("gpus = 32", "gpus = 8"), "E03", "8"),
    "outermost first": ("\n".join(reversed(THREE.splitlines())), "E10", "link"),
    "twice": (THREE + "\nlink rack { gpus = 32, bandwidth = 100 GB/s, latency = 3 us }", "E11", "link"),
    "zero": (THREE.replace("gpus = 32", "gpus = 0"), "E09", "0"),
    "below one": (THREE.replace("6 us", "6 us, oversubscription = 0.5"), "E09", "0.5"),
    "no NICs": (THREE.replace("6 us", "6 us, nics = 0"), "E09", "0"),
    "too many NICs": (THREE.replace("6 us", "6 us, nics = 9"), "E09", "9"),
    "NICs inside": (THREE.replace("2 us", "2 us, nics = 8"), "E12", "8"),
    "other NICs": (THREE.replace("3 us", "3 us, nics = 8").replace("6 us", "6 us, nics = 4"), "E03", "4"),
    "no outermost": ("\n".join(THREE.splitlines()[:2]), "E10", "32"),
    "no size": (THREE.replace("gpus = 32, ", ""), "E10", "link"),
    "no latency": (THREE.replace(", latency = 3 us", ""), "E10", "link"),
    "unit": (THREE.replace("gpus = 32", "gpus = 32 GB"), "E08", "32 GB"),
    "slip": (THREE.replace("oversub", "").replace("gpus = 32", "gpu = 32, gpus = 32"), "E02", "gpu"),
}  # fmt: skip


def errors(text: str) -> list[Diagnostic]:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text, name="plan.moe")
    return [d for d in caught.value.diagnostics if d.code[0] == "E"]


@pytest.mark.parametrize("name", WRONG)
def test_levels_that_are_wrong(name: str) -> None:
    links, code, at = WRONG[name]
    (found,) = errors(text_of(links))
    assert (found.code, found.span and found.span.text) == (code, at)
    assert found.help or found.also or code in ("E09", "E10")


def test_sizes_that_contradict_each_other() -> None:
    (found,) = errors(spec_text().replace("link node {", "link node { gpus = 4,"))
    assert found.code == "E11" and found.span is not None and found.span.text == "4" and found.also[0].span.text == "8"
    (found,) = errors(spec_text().replace("per_node = 8", "per_node = 8, per_host = 3"))
    assert found.code == "E03" and found.span is not None and found.span.text == "3"


def test_domains_that_are_not_full_and_faster_outside() -> None:
    plan = dagc.compile_text(
        text_of(THREE.replace("bandwidth = 100", "bandwidth = 500"), "gpus = 0..31, ep = 8, tp = 4", 40)
    )
    found = [d.message for d in plan.diagnostics if d.code == "W06" and "link" in d.message]
    assert found == [
        "40 GPUs do not fill domains of `link rack` of 32 (`gpus`): the last domain has 8",
        "`link rack` has more bandwidth than `link node`, which is inside it",
    ]


# -- what carries them on -------------------------------------------------------------------------


def test_the_graph_file_and_the_text_keep_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text(text_of(THREE.replace("latency = 6 us", "latency = 6 us, oversubscription = 2, nics = 4")))
    out = tmp_path / "out"
    assert main(["compile", str(spec), "--emit", "json", "-o", str(out)]) == 0
    file = out / "p.prefill.graph.json"
    capsys.readouterr()
    assert main(["compile", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["phases"] == json.loads((out / "p.json").read_text())["phases"]
    data = json.loads(file.read_text())
    assert [one["name"] for one in data["plan"]["hardware"]["levels"]] == ["node", "rack", "cluster"]
    for change, said in (
        ({"gpus": 20}, "not a multiple"),
        ({"nics": 9}, "more than one each"),
        ({"name": "a b"}, "not a name"),
    ):
        data["plan"]["hardware"]["levels"][1] = {
            **json.loads(file.read_text())["plan"]["hardware"]["levels"][1],
            **change,
        }
        wrong = tmp_path / "wrong.graph.json"
        wrong.write_text(json.dumps(data))
        assert main(["compile", str(wrong)]) == 2
        assert said in capsys.readouterr().err
    graph = dagc.compile_text(spec.read_text()).phases["prefill"].graph
    text = print_graph(graph)
    assert " domains [32] nics=1/2" in text.splitlines()[1]
    assert parse_graph(text).the_mesh.gpus == graph.the_mesh.gpus
    for old, new in (("domains [32]", "domains [20]"), ("nics=1/2", "nics=2/2"), ("nics=1/2", "nics=0/2")):
        with pytest.raises(TextError):
            parse_graph(text.replace(old, new))


def test_bytes_by_level_in_json() -> None:
    plan = dagc.compile_text(text_of(THREE, "gpus = 0..63, pp = 2, dp = 2, ep = 8, tp = 2"))
    calls = json.loads(dumps(plan.to_json()))["phases"]["prefill"]["collectives"]
    assert {name for c in calls for name in c["level_B"]} == {"node", "rack", "cluster"}
    for c in calls:
        assert sum(c["level_B"].values()) == pytest.approx(c["wire_B"]), c
    assert [s.name for s in plan.sensitivities("prefill")][2:5] == [
        "+10% node link",
        "+10% rack link",
        "+10% cluster link",
    ]
    assert "joins 32 GPUs; 100 GB/s per GPU" in plan.html()


def test_the_simulators_network_has_all_levels() -> None:
    plan = dagc.compile_text(
        text_of(THREE.replace("latency = 6 us", "latency = 6 us, nics = 4"), "gpus = 0..63, dp = 4, ep = 8, tp = 2")
    )
    found = network(plan.phases["prefill"])
    assert (found.shape, found.levels) == ((2, 4, 8), (2, 1, 0))
    assert found.gpus.tolist() == [i % 2 * 32 + i // 2 % 4 * 8 + i // 8 for i in range(64)]
    text = configs.network_text(found, configs.links_of(found, plan.spec.hardware))
    rows = dict(line.split(": ") for line in text.splitlines())
    bandwidth = [x * configs.GIB for x in json.loads(rows["bandwidth"])]
    assert bandwidth == pytest.approx([25e9, 100e9, 450e9])
    uneven = network(
        dagc.compile_text(
            text_of(
                THREE,
                "gpus = [0..15, 32..39], dp = 3, ep = 8",
                workload="sequences = 96, prompt = 256 tok, output = 16 tok",
            )
        ).phases["prefill"]
    )
    assert (
        uneven.shape == (2, 4, 8)
        and uneven.gpus.reshape(8, 4, 2)[:, :, 0].T.tolist() == [[*range(8)], [*range(8, 16)], [-1] * 8, [-1] * 8]
        and uneven.gpus.reshape(8, 4, 2)[:, :, 1].T.tolist() == [[*range(32, 40)], [-1] * 8, [-1] * 8, [-1] * 8]
    )


def test_hosts_are_what_engines_call_nodes(tmp_path: Path) -> None:
    text = text_of(
        SHORT,
        "gpus = 0..7, tp = 8",
        model="layers = 4, hidden = 64, vocab = 512\nattention { kind = gqa, heads = 8, kv_heads = 8, head_dim = 8 }\nmlp { hidden = 64 }",
    )
    spec = tmp_path / "p.moe"
    spec.write_text(text.replace("per_node = 8", "per_node = 8, per_host = 4"))
    assert main(["export", str(spec), "--to", "vllm", "-o", str(tmp_path / "out")]) == 0
    (script,) = (tmp_path / "out").glob("*.sh")
    assert "--nnodes 2" in script.read_text()


def test_what_is_spanned_keeps_ports_apart() -> None:
    """NVLink to the rack, NICs beyond: a group with one node a rack has left the ports of the node."""
    apart = group_shape(np.asarray([[0, 32, 64, 96]]), 8, (32, 64))
    links = (NODE, replace(RACK, onward=True), CLUSTER, replace(CLUSTER, latency_s=9e-6, onward=True))
    shape, used, kept = spanned(apart, links)
    assert kept == (0, 2, 3) and [link.onward for link in used] == [False, False, True] and shape.nodes == 4


# -- measured exchanges ----------------------------------------------------------------------------


def test_what_a_group_has_beyond_its_ports() -> None:
    """NVLink to the rack of 32, a rail to 64, and above it a spine that carries a fourth."""
    rack, rail = Link(450e9, 3e-6, onward=True), Link(50e9, 6e-6)
    links = (NODE, rack, rail, Link(12.5e9, 7e-6, onward=True))

    def beyond(ids: range) -> object:
        return beyond_ports("all_to_all", 1e6, group_shape(np.asarray([ids]), 8, (32, 64)), links)

    assert beyond(range(8)) is None and beyond(range(32)) is None
    near, far = beyond(range(64)), beyond(range(128))
    assert near == beyond_ports("all_to_all", 1e6, GroupShape(64, 32, 2), (NODE, rail))
    assert (near.domains, near.link_Bps) == (2, 50e9)  # type: ignore[attr-defined]
    # Of the 96 GPUs in other racks 64 are above the spine.
    assert (far.domains, far.wire_B) == (4, pytest.approx(0.75e6))  # type: ignore[attr-defined]
    assert far.link_Bps == pytest.approx(12.5e9 * 96 / 64)  # type: ignore[attr-defined]


def test_gpus_that_share_a_nic_have_their_part_of_it_once() -> None:
    found = beyond_ports("all_to_all", 1e6, replace(GroupShape(16, 8, 2), sharing=2), (NODE, CLUSTER))
    assert found is not None and found.link_Bps == CLUSTER.bandwidth_Bps / 2


def decode_s(preset: str, body: str, ranks: int = 64) -> float:
    text = f"""moe 1
hardware from "{preset}" {{ gpus = 128
{body} }}
model from "deepseek-v3" {{ }}
workload {{ sequences = {64 * ranks}, prompt = 4096 tok, output = 256 tok }}
phase decode {{ gpus = 0..{ranks - 1}, attention {{ dp = {ranks} }}, experts {{ ep = {ranks} }} }}
"""
    (found,) = dagc.compile_text(text).to_json()["phases"]["decode"]["collectives"]
    return float(found["time_s"])


def test_measured_exchanges_go_by_the_levels_that_they_span() -> None:
    rail = "link rail {{ gpus = {}, bandwidth = 400 Gbit/s, latency = 6 us }}"
    spine = rail + "\nlink cluster {{ oversubscription = 4 }}"
    plain = decode_s("h200-sxm", "")
    assert decode_s("h200-sxm", spine.format(64)) == plain
    assert 1.5 * plain < decode_s("h200-sxm", spine.format(32)) < decode_s("h200-sxm", spine.format(16)) < 4 * plain


def test_an_nvlink_domain_of_trays_is_one_domain() -> None:
    """The kernels of a whole domain, whether its trays are a level of their own or not."""
    trays = """per_node = 4
    link node { gpus = 4, latency = 1 us }
    link rack { gpus = 72, bandwidth = 900 GB/s, latency = 2 us }"""
    assert decode_s("gb200-nvl72", trays) == decode_s("gb200-nvl72", "")
    assert decode_s("gb200-nvl72", trays, 128) > 2 * decode_s("gb200-nvl72", trays)


def test_a_send_between_nodes_waits_for_a_hop_where_kernels_are_measured() -> None:
    """NCCL's hop of 14 us, not the 6 us of the bare link; without a calibration the bare link."""
    text = """moe 1
hardware from "h100-sxm" {{ gpus = 16{} }}
model from "mixtral-8x7b" {{ }}
workload {{ sequences = 16, prompt = 1024 tok, output = 64 tok }}
phase decode {{ gpus = 0..15, pp = 4, tp = 4 }}
"""
    measured, bare = (
        dagc.compile_text(text.format(more)).phases["decode"].costs for more in ("", ", calibration = none")
    )
    assert [edge.level for edge in measured.edges] == ["node", "cluster", "node"]
    assert measured.edges[0].time_s == bare.edges[0].time_s
    assert measured.edges[1].time_s - bare.edges[1].time_s == pytest.approx(14e-6 - 6e-6)
    assert measured.edges[1].floor_s == bare.edges[1].floor_s and measured.edges[1].bound == "latency"
