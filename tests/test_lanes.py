"""The picture of the placed graph against the unrolled graph: what is selected, what is near it, and what folding keeps."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import networkx as nx
import pytest
from conftest import compiled, spec_text

import dagc
from dagc.cli import main
from dagc.export.critical import critical
from dagc.export.dot import identifier
from dagc.export.json import expand_ranks
from dagc.export.lanes.fold import FOLDS, READABLE, Picture, picture
from dagc.export.lanes.grid import BOX_H, Grid, grid
from dagc.export.lanes.select import Choice
from dagc.export.lanes.words import heading
from dagc.export.unroll import Node, unroll
from dagc.plan import Plan

Capture = pytest.CaptureFixture[str]
SVG = "{http://www.w3.org/2000/svg}"
ALL = ("all",)
SPECS = {
    "one stage": spec_text(phase="gpus = 0..7, ep = 4, tp = 2, microbatches = 2"),
    "stages": spec_text(phase="gpus = 0..15, pp = 2, ep = 4, tp = 2, microbatches = 4"),
    "two lanes": spec_text(phase="gpus = 0..15, pp = 2, ep = 4, tp = 2, microbatches = 2, overlap = two_batch"),
    "folded": spec_text(phase="gpus = 0..7\nattention { dp = 2, tp = 4 }\nexperts { ep = 8 }"),
    "scattered": spec_text(
        phase="gpus = 0..15, pp = 2, ep = 2, sp = 2, tp = 2\nplace gpu = pp + 2 * (tp * 4 + ep * 2 + sp)"
    ),
    "decode": spec_text(kind="decode", phase="gpus = 0..7, ep = 4, tp = 2"),
}


@cache
def plan_of(name: str) -> Plan:
    return dagc.compile_text(SPECS[name])


@cache
def everything(name: str) -> dict[str, Node]:
    """Every rank-node of the placed graph but the receives, which take no time and are drawn as arrows."""
    result = next(iter(plan_of(name).phases.values()))
    nodes = (item for item in expand_ranks(result, unroll(result)) if isinstance(item, Node))
    return {n.id: n for n in nodes if n.kind != "recv"}


def drawn(name: str, *select: str, hops: int = 0, unfold: tuple[str, ...] = ALL) -> tuple[Picture, Grid]:
    result = next(iter(plan_of(name).phases.values()))
    found = picture(result, Choice(select, hops, unfold))
    return found, grid(found)


def covered(found: Picture, laid: Grid) -> set[str]:
    """Ids of the rank-nodes that the boxes of an unfolded picture stand for."""
    out: set[str] = set()
    for box in laid.boxes:
        columns = found.bands[box.band].columns[box.first : box.last + 1]
        out |= {f"{box.id.rpartition('@')[0]}@{c.gpu}" for c in columns}
    return out


@pytest.mark.parametrize("name", SPECS)
def test_unfolded_it_is_the_placed_graph(name: str) -> None:
    found, laid = drawn(name)
    assert covered(found, laid) == everything(name).keys()
    assert found.steps == len(everything(name)) and not found.folds and not found.cut


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(
    ("select", "keep"),
    [
        (["gpu:0..2,5"], lambda n: gpu_of(n) in (0, 1, 2, 5)),
        (["layer:1"], lambda n: n.stage == 0 and n.layer.endswith("sparse.2")),
        (["layer:lm_head"], lambda n: "lm_head" in n.layer),
        (["stage:0", "microbatch:0"], lambda n: (n.stage, n.microbatch) == (0, 0)),
        (["op:all_to_all"], lambda n: n.kind == "all_to_all"),
        (["op:moe", "gpu:1"], lambda n: n.op.startswith("moe.") and gpu_of(n) == 1),
        (["op:gqa.q,all_to_all"], lambda n: n.op == "gqa.q" or n.kind == "all_to_all"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_selection_is_what_it_says(name: str, select: list[str], keep: Any) -> None:
    wanted = {key for key, n in everything(name).items() if keep(n)}
    assert wanted
    assert covered(*drawn(name, *select)) == wanted


def gpu_of(node: Node) -> int:
    return int(node.id.rpartition("@")[2])


@cache
def by_brute_force(name: str) -> tuple[nx.Graph, dict[str, str]]:
    """Data edges without direction, a collective one node for its group, receives left out; and who is who."""
    result = next(iter(plan_of(name).phases.values()))
    who: dict[str, str] = {}
    graph: nx.Graph = nx.Graph()
    receives: set[str] = set()
    for item in expand_ranks(result, unroll(result)):
        if isinstance(item, Node):
            base = item.id.rpartition("@")[0]
            own = len(item.gpus) > 1 and item.kind not in ("send", "recv")
            who[item.id] = f"{base}@{min(item.gpus)}" if own else item.id
            graph.add_node(who[item.id])
            receives |= {item.id} if item.kind == "recv" else set()
        elif item.kind != "stream":
            graph.add_edge(who[item.src], who[item.dst])
    for node in receives:
        near = list(graph.neighbors(node))
        graph.remove_node(node)
        send = next(n for n in near if "/send" in n)
        graph.add_edges_from((send, other) for other in near if other != send)
    return graph, {key: value for key, value in who.items() if key not in receives}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("hops", [1, 2, 5])
@pytest.mark.parametrize("select", [("gpu:3", "op:moe"), ("layer:1", "microbatch:0"), ("op:send,lm_head", "gpu:0..3")])
def test_hops_are_data_edges(name: str, hops: int, select: tuple[str, ...]) -> None:
    result = next(iter(plan_of(name).phases.values()))
    if len(result.graph.stages) == 1:
        select = tuple(s.replace("send,", "") for s in select)
    graph, who = by_brute_force(name)
    start = {who[key] for key in covered(*drawn(name, *select))}
    near = set().union(*(nx.single_source_shortest_path_length(graph, node, cutoff=hops) for node in start))
    assert covered(*drawn(name, *select, hops=hops)) == {key for key, node in who.items() if node in near}


@pytest.mark.parametrize("name", SPECS)
def test_the_critical_path_is_all_of_it(name: str) -> None:
    result = next(iter(plan_of(name).phases.values()))
    visits = critical(result)
    _, laid = drawn(name, "critical")
    assert len(laid.boxes) == len({(v.stage, v.microbatch, v.layer, v.op, v.lane) for v in visits})
    assert all(box.critical for box in laid.boxes)
    assert sum(v.end_s - v.start_s for v in visits) == pytest.approx(result.schedule.latency_s)
    _, whole = drawn(name)
    assert {b.id.rpartition("@")[0] for b in whole.boxes if b.critical} == {b.id.rpartition("@")[0] for b in laid.boxes}


@pytest.mark.parametrize("name", SPECS)
def test_equal_letters_exchange(name: str) -> None:
    found, laid = drawn(name)
    nodes = everything(name)
    for rows in itertools.groupby(laid.boxes, key=lambda b: (b.band, b.row)):
        groups: dict[str, set[tuple[int, ...]]] = {}
        for box in rows[1]:
            columns = found.bands[box.band].columns[box.first : box.last + 1]
            members = {nodes[f"{box.id.rpartition('@')[0]}@{c.gpu}"].gpus for c in columns}
            if box.kind not in ("compute", "send"):
                assert len(members) == 1
                groups.setdefault(box.words.split()[0], set()).update(members)
        assert all(len(found) == 1 for found in groups.values())
        assert len(set().union(*groups.values())) == len(groups) if groups else True


def check_geometry(laid: Grid) -> None:
    """Boxes are apart and inside, wires run down, ids are one of a kind."""
    rows: dict[tuple[int, float], list[tuple[float, float]]] = {}
    for box in laid.boxes:
        rows.setdefault((box.band, box.y), []).append((box.x, box.x + box.w))
        assert box.x >= 0 and box.x + box.w <= laid.width + 12 and box.y >= 0 and box.y + BOX_H <= laid.height
    for spans in rows.values():
        assert all(a[1] < b[0] for a, b in itertools.pairwise(sorted(spans)))
    for band, ys in itertools.groupby(sorted(rows), key=lambda key: key[0]):
        assert all(b[1] - a[1] > BOX_H for a, b in itertools.pairwise(ys)), band
    assert all(w.source.y < w.target.y and w.source.band == w.target.band for w in laid.wires)
    assert len({identifier(b.id) for b in laid.boxes}) == len(laid.boxes)


@pytest.mark.parametrize("name", SPECS)
def test_geometry_unfolded(name: str) -> None:
    check_geometry(drawn(name)[1])


def test_examples_can_be_read(example: Plan) -> None:
    """Few enough boxes, each selected execution in one of them, the folds told in their order."""
    for name, result in example.phases.items():
        for choice in (Choice(), Choice(("critical",)), Choice((f"gpu:{result.gpus[0]}",), 1), Choice(("layer:1",))):
            found = picture(result, choice)
            laid = grid(found)
            check_geometry(laid)
            assert 0 < len(laid.boxes) <= READABLE, name
            folded = [name for name, _ in found.folds]
            assert folded == sorted(folded, key=list(FOLDS).index)
            lefts = [found.steps, *(left for _, left in found.folds)]
            assert all(a > b for a, b in itertools.pairwise(lefts))
            said = " ".join(heading(found))
            assert all(FOLDS[name] in said for name in folded) and f"{found.steps:,} boxes" in said
            if not found.cut:
                check_nothing_lost(found, choice)


def check_nothing_lost(found: Picture, choice: Choice) -> None:
    """Every part, step and rank that is selected has a group, a row and a column."""
    whole = picture(found.program.result, Choice(choice.select, choice.hops, ALL)) if found.steps < 2e5 else found
    stands = {part: (band, group) for band in found.bands for group in band.groups for part in group.parts}
    ranks = {id(band): {r for c in band.columns for r in c.ranks} for band in found.bands}
    for band in whole.bands:
        for group in band.groups:
            home, mine = stands[group.part]
            steps, theirs = found.program.steps(mine.part), whole.program.steps(group.part)
            shown = {(steps[k].name, steps[k].lane) for row in mine.rows for k in row}
            assert {(theirs[k].name, theirs[k].lane) for row in group.rows for k in row} == shown
            assert {c.rank for c in band.columns} <= ranks[id(home)]


def test_only_what_is_asked_for_is_unfolded() -> None:
    result = compiled("plan_a").phases["prefill"]
    plain = picture(result)
    assert [name for name, _ in plain.folds] == ["ops", "microbatches", "layers", "stages", "ranks"]
    assert len({g.part.microbatch for g in plain.bands[0].groups}) == 1
    some = picture(result, Choice(unfold=("microbatches",)))
    assert "microbatches" not in dict(some.folds)
    assert {g.part.microbatch for g in some.bands[0].groups} == set(range(8))
    assert [len(b.columns) for b in plain.bands] == [1] * 3 and len(plain.bands[0].columns[0].ranks) == 16
    assert [b.stages for b in plain.bands] == [(0,), (1, 2), (3,)]
    ranks = picture(result, Choice(unfold=("ranks",)))
    assert sum(len(b.columns) for b in ranks.bands) >= 16 and ranks.cut == 0


def test_more_than_ten_thousand_boxes(tmp_path: Path, capsys: Capture) -> None:
    """A whole micro-batch of plan A, every op on every GPU: a box for each, all of them well-formed."""
    target = tmp_path / "big.svg"
    args = ["show", "examples/plan_a.moe", "--phase", "prefill", "--select", "microbatch:0..1", "--unfold", "all"]
    assert main([*args, "-o", str(target)]) == 0
    capsys.readouterr()
    nodes = [g for g in ET.fromstring(target.read_bytes()).iter(f"{SVG}g") if g.get("class", "").startswith("node")]
    assert len(nodes) > 10_000 and all(g.find(f"{SVG}title") is not None for g in nodes)
    assert len({g.get("id") for g in nodes}) == len(nodes)


def test_dot_has_the_same_boxes_and_edges() -> None:
    import re

    plan = plan_of("stages")
    from dagc.export.views import dot

    choice = Choice(("stage:0..1", "microbatch:0"), 0, ALL)
    text = dot(plan, "prefill", "lanes", choice)
    laid = grid(picture(plan.phases["prefill"], choice))
    assert text.count('shape="box"') == len(laid.boxes)
    assert len(re.findall(r" -> ", text)) == len(laid.wires) + len(laid.hops)
    assert 'layout="nop"' in text and text.count("pos=") == text.count('shape="')


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--select", "gpu:99"], "prefill has no gpu 99"),
        (["--select", "gpu:0..x"], "`0..x` is no number"),
        (["--select", "gpu:"], "is not understood"),
        (["--select", "critica"], "did you mean `critical`?"),
        (["--select", "layer:sparce"], "did you mean `sparse`?"),
        (["--select", "layer:0..3,77"], "prefill has no layer 77"),
        (["--select", "op:all_to_al"], "did you mean `all_to_all`?"),
        (["--select", "stage:1", "--select", "layer:0"], "selects nothing in prefill"),
        (["--select", "critical:1"], "is not understood"),
        (["--select", "gpu:0\n\x1b[31m"], "is no number"),
        (["--unfold", "rank"], "did you mean `ranks`?"),
        (["--hops", "-1"], "argument --hops: -1 is not from 0"),
        (["--view", "layer", "--select", "gpu:0"], "the layer has no --select"),
        (["--select", "gpu:0", "-o", "x.gif"], "ends in .svg, .dot, .png, .pdf"),
    ],
)
def test_refused(options: list[str], said: str, capsys: Capture, tmp_path: Path) -> None:
    args = ["show", "examples/plan_a.moe", "--phase", "prefill", "-o", str(tmp_path / "x.svg"), *options]
    assert main(args) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.out == "" and "\x1b" not in shown.err
    assert list(tmp_path.iterdir()) == []


def test_too_many_boxes_are_refused(capsys: Capture) -> None:
    args = ["show", "examples/deepseek_v3_h800.moe", "--phase", "decode", "--unfold", "all"]
    assert main(args) == 2
    assert "boxes of decode are more than anything can show" in capsys.readouterr().err


def test_plan_svg() -> None:
    """The same picture from Python, which a notebook shows."""
    plan = plan_of("stages")
    made = plan.svg("prefill", "lanes", select=["gpu:0"], hops=1)
    assert made == made._repr_svg_() and ET.fromstring(made).tag == f"{SVG}svg"
    assert plan._repr_mimebundle_()["image/svg+xml"] == plan.svg("prefill")
