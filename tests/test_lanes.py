"""The picture of the placed graph against the unrolled graph: what is selected, what is near it, and what folding keeps."""

from __future__ import annotations

import itertools
import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import networkx as nx
import pytest
from conftest import INFERENCE, compiled, few_examples, spec_text
from text_widths import clashes
from tiers import exhaustive, in_turn

import dagc
from dagc.api import Plan
from dagc.cli import main
from dagc.view.draw.dot import identifier
from dagc.view.facts.critical import critical
from dagc.view.facts.every_rank import expand_ranks
from dagc.view.facts.lanes.fold import READABLE, Picture, picture
from dagc.view.facts.lanes.grid import BOX_H, Grid, grid, skipped
from dagc.view.facts.lanes.shown_part import FOLDS, Choice
from dagc.view.facts.lanes.wires import wires
from dagc.view.facts.lanes.words import heading
from dagc.view.facts.unroll import Node, unroll

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


@cache
def drawn(name: str, *select: str, hops: int = 0, unfold: tuple[str, ...] = ALL) -> tuple[Picture, Grid]:
    result = next(iter(plan_of(name).phases.values()))
    found = picture(result, Choice(select, hops, unfold))
    return found, grid(found)


def covered(found: Picture, laid: Grid) -> set[str]:
    """Ids of the rank-nodes of the boxes of an unfolded picture."""
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
        (["layer:1"], lambda n: n.layer == "sparse.1"),
        (["layer:lm_head"], lambda n: n.layer == "lm_head"),
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
    """Data edges and those of requests without direction, a collective one node for its group, receives left out; and who is who."""
    result = next(iter(plan_of(name).phases.values()))
    who: dict[str, str] = {}
    graph: nx.Graph = nx.Graph()
    receives: set[str] = set()
    for item in expand_ranks(result, unroll(result)):
        if isinstance(item, Node):
            base = item.id.rpartition("@")[0]
            own = len(item.gpus) > 1 and item.kind not in ("send", "recv") and item.stream != "host"
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


@pytest.mark.parametrize(
    ("select", "hops", "name"),
    in_turn([("gpu:3", "op:moe"), ("layer:1", "microbatch:0"), ("op:send,lm_head", "gpu:0..3")], [1, 2, 5], SPECS),
)
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
    wires(laid)
    assert len(laid.boxes) == len({(v.stage, v.microbatch, v.layer, v.op, v.lane) for v in visits})
    assert all(box.critical for box in laid.boxes)
    assert sum(v.end_s - v.start_s for v in visits) == pytest.approx(result.schedule.latency_s)
    _, whole = drawn(name)
    wires(whole)
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


@pytest.mark.parametrize(
    ("select", "name"),
    in_turn([(), ("gpu:0..7",), ("op:send,lm_head",), ("op:send,moe.out",), ("microbatch:0",)], SPECS),
)
def test_wires_are_the_data_edges(name: str, select: tuple[str, ...]) -> None:
    """Of the unrolled graph, where both ends are drawn; a send has one arrow, to a box that takes what it brings."""
    result = next(iter(plan_of(name).phases.values()))
    if len(result.graph.stages) == 1:
        select = tuple(s.replace("send,", "") for s in select)
    found, laid = drawn(name, *select)
    nodes = {item.id: item for item in unroll(result) if isinstance(item, Node)}
    edges = [item for item in unroll(result) if not isinstance(item, Node) and item.kind != "stream"]
    takes = {e.dst: e.src for e in edges if e.kind == "transfer"}  # a receive -> its send
    true = {(takes.get(e.src, e.src), e.dst) for e in edges if nodes[e.dst].kind != "recv"}
    shown = {b.id.rpartition("@")[0] for b in laid.boxes}
    made = wires(laid)
    pairs = {(w.source.id.rpartition("@")[0], w.target.id.rpartition("@")[0]) for w in made if w.kind != "critical"}
    assert pairs <= true
    red = {(w.source.id.rpartition("@")[0], w.target.id.rpartition("@")[0]) for w in made if w.kind == "critical"}
    within = {(a, b) for a, b in true if a in shown and b in shown and nodes[a].stage == nodes[b].stage}
    columns = {
        (b.id.rpartition("@")[0], c.gpu) for b in laid.boxes for c in found.bands[b.band].columns[b.first : b.last + 1]
    }
    both = {(a, b) for a, b in within if any((b, gpu) in columns for op, gpu in columns if op == a)}
    assert pairs | red >= both
    sends = {a for a, b in true if a in shown and b in shown and nodes[a].stage != nodes[b].stage}
    assert {w.source.id.rpartition("@")[0] for w in made if w.kind == "send"} == sends


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
    for wire in wires(laid):
        (x1, y1), *_, (x2, y2) = wire.points
        assert (wire.source.band == wire.target.band) == (wire.kind != "send")
        if wire.kind != "send":
            assert wire.source.y < wire.target.y and y1 < y2
            assert (
                wire.source.x < x1 <= wire.source.x + wire.source.w
                and wire.target.x < x2 <= wire.target.x + wire.target.w
            )
    assert len({identifier(b.id) for b in laid.boxes}) == len(laid.boxes)


@pytest.mark.parametrize("name", SPECS)
def test_geometry_unfolded(name: str) -> None:
    check_geometry(drawn(name)[1])


@few_examples
def test_examples_can_be_read(example: Plan, example_name: str) -> None:
    """Few enough boxes, each selected execution in one of them, the folds told in their order."""
    for turn, (name, result) in enumerate(
        example.phases.items(), [path.stem for path in INFERENCE].index(example_name)
    ):
        parts = (Choice(("critical",)), Choice((f"gpu:{result.gpus[0]}",), 1), Choice(("layer:1",)))
        for choice in (Choice(), parts[turn % 3]):
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
            if found.steps < 200_000:
                check_nothing_lost(found, choice)


def check_nothing_lost(found: Picture, choice: Choice) -> None:
    """Every part, step and rank that is selected has a group, a row and a column."""
    assert not found.cut
    whole = picture(found.program.result, Choice(choice.select, choice.hops, ALL))
    stands = {part: (band, group) for band in found.bands for group in band.groups for part in group.parts}
    ranks = {id(band): {r for c in band.columns for r in c.ranks} for band in found.bands}
    for band in whole.bands:
        for group in band.groups:
            home, mine = stands[group.part]
            steps, theirs = found.program.steps(mine.part), whole.program.steps(group.part)
            shown = {(steps[k].name, steps[k].lane) for row in mine.rows for k in row}
            assert {(theirs[k].name, theirs[k].lane) for row in group.rows for k in row} == shown
            assert {c.rank for c in band.columns} <= ranks[id(home)]
    for band in found.bands:
        assert all(c.rank in c.ranks for c in band.columns)
        every = [r for c in band.columns for r in c.ranks]
        assert len(every) == len(set(every))


def test_only_what_is_asked_for_is_unfolded() -> None:
    result = compiled("plan_a").phases["prefill"]
    plain = picture(result)
    assert [name for name, _ in plain.folds] == ["ops", "microbatches", "layers", "stages", "ranks"]
    assert len({g.part.microbatch for g in plain.bands[0].groups}) == 1
    some = picture(result, Choice(unfold=("microbatches",)))
    assert "microbatches" not in dict(some.folds)
    assert {g.part.microbatch for g in some.bands[0].groups} == set(range(8))
    # Two classes of ranks: causal attention is longer where the later half of the tokens is.
    assert [len(c.ranks) for b in plain.bands for c in b.columns] == [8, 8] * 3
    assert [b.stages for b in plain.bands] == [(0,), (1, 2), (3,)]
    ranks = picture(result, Choice(unfold=("ranks",)))
    assert sum(len(b.columns) for b in ranks.bands) >= 16 and ranks.cut == 0


@pytest.mark.parametrize(
    ("load", "columns"), [("uniform", 1), ("zipf(0.8)", 3)], ids=["one class", "many classes of ranks"]
)
def test_a_column_stands_for_its_own_class(load: str, columns: int) -> None:
    """Four classes: the slowest, the middle and the fastest are drawn, each for itself at least."""
    phase = "gpus = 0..31\nattention { dp = 16, tp = 2 }\nexperts { ep = 32 }"
    model = (
        "layers = 2, hidden = 64, vocab = 512, dtype = fp32\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\n"
        "experts { count = 32, top_k = 2, hidden = 32 }"
    )
    work = f"sequences = 64, prompt = 256 tok, output = 16 tok, routing = {load}"
    plan = dagc.compile_text(spec_text(phase=phase, model=model, workload=work))
    found = picture(plan.phases["prefill"])
    assert "ranks" in dict(found.folds) and len(found.bands[0].columns) == columns
    check_nothing_lost(found, Choice())


def test_alternating_layers_are_folded() -> None:
    """Equal layers that are not neighbours are folded too."""
    model = """hidden = 64, vocab = 512, dtype = fp32
attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }
mlp { hidden = 64 }
experts { count = 8, top_k = 2, hidden = 32 }
stack = [embed, local, far, local, far, local, far, local, far, lm_head]"""
    blocks = "layer local { gqa, mlp }\nlayer far { gqa, moe }\n"
    plan = dagc.compile_text(spec_text(phase="gpus = 0..7, ep = 4, tp = 2", model=model) + blocks)
    found = picture(plan.phases["prefill"])
    assert [len(g.parts) for g in found.bands[0].groups] == [1, 1, 4, 4, 1, 1]  # ids, embedding, .., head, results
    check_nothing_lost(found, Choice())


def test_what_does_not_fit_is_cut_and_said() -> None:
    """Fifty kinds of layers of six blocks: the first are drawn, and the title tells how many are not."""
    kinds = 52
    model = (
        "hidden = 64, vocab = 512, dtype = fp32\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\n"
        f"experts {{ count = 8, top_k = 2, hidden = 32 }}\nmlp {{ hidden = 64 }}\nstack = [embed, {', '.join(f'l{k}' for k in range(kinds))}, lm_head]"
    )
    layers = "\n".join(f"layer l{k} {{ gqa, mlp, gqa, mlp, gqa, mlp }}" for k in range(kinds))
    plan = dagc.compile_text(spec_text(phase="gpus = 0..1, tp = 2", model=model) + layers + "\n")
    found = picture(plan.phases["prefill"])
    laid = grid(found)
    check_geometry(laid)
    assert len(laid.boxes) <= READABLE < len(laid.boxes) + found.cut
    assert f"{found.cut:,} are left out" in " ".join(heading(found))


def test_many_stages_are_folded_however_few_their_boxes() -> None:
    phase = "gpus = 0..31, pp = 16, tp = 2"
    model = "layers = 32, hidden = 64, vocab = 512, dtype = fp32\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
    plan = dagc.compile_text(spec_text(phase=phase, model=model))
    assert len(picture(plan.phases["prefill"]).bands) <= 4
    assert len(picture(plan.phases["prefill"], Choice(unfold=("stages",))).bands) == 16


@exhaustive
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
    from dagc.view.draw.views import dot

    choice = Choice(("stage:0..1", "microbatch:0"), 0, ALL)
    text = dot(plan, "prefill", "lanes", choice)
    laid = grid(picture(plan.phases["prefill"], choice))
    assert text.count('shape="box"') == len(laid.boxes)
    assert len(re.findall(r" -> ", text)) == len(wires(laid)) > 0
    assert 'layout="nop2"' in text and text.count("pos=") == text.count('shape="') + text.count(" -> ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--select", "gpu:99"], "prefill has no gpu 99"),
        (["--select", "gpu:0..x"], "`0..x` is not a number"),
        (["--select", "gpu:"], "is not understood"),
        (["--select", "critica"], "did you mean `critical`?"),
        (["--select", "layer:sparce"], "did you mean `sparse`?"),
        (["--select", "layer:0..3,77"], "prefill has no layer 77"),
        (["--select", "op:all_to_al"], "did you mean `all_to_all`?"),
        (["--select", "stage:1", "--select", "layer:0"], "selects nothing in prefill"),
        (["--select", "critical:1"], "is not understood"),
        (["--select", "gpu:0\n\x1b[31m"], "is not a number"),
        (["--select", "layer:16"], "prefill has no layer 16"),
        (["--select", "layer:-1"], "prefill has no layer -1"),
        (["--select", "op:3..5"], "prefill has no `3..5`"),
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
    assert made == plan.svg("prefill", "lanes", select="gpu:0", hops=1)
    for wrong in ({"unfold": "rank"}, {"hops": -1}, {"select": "gpu:99"}):
        with pytest.raises(dagc.SpecError):
            plan.svg("prefill", "lanes", **wrong)
    with pytest.raises(dagc.SpecError, match="the overview has no --select"):
        plan.svg("prefill", "overview", select="gpu:0")
    with pytest.raises(ValueError, match="no view 'lane'"):
        plan.svg("prefill", "lane")
    assert plan._repr_mimebundle_()["image/svg+xml"] == plan.svg("prefill")


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("select", [(), ("layer:1",), ("layer:0,3",), ("op:lm_head",)])
def test_breaks_say_which_layers_are_not_drawn(name: str, select: tuple[str, ...]) -> None:
    """Of every cell: the layers that are drawn and those that its breaks name are the layers of its stage, in order."""
    found, laid = drawn(name, *select, unfold=())
    graph = found.program.result.graph
    for number, band in enumerate(found.bands):
        first = graph.first_layer(band.stages[0])
        whole = set(range(first, first + sum(count for _, count in graph.stages[band.stages[0]].layers)))
        for _, same in itertools.groupby(band.groups, key=lambda g: g.microbatches):
            cell = [group.part.number for group in same]
            gaps = skipped(found.program.result, band.stages[0], cell)
            shown = {n for n in cell if n is not None}
            assert sorted(n for gap in gaps for n in gap) == sorted(whole - shown)
            for gap, here in zip(gaps, cell, strict=False):
                assert here is None or all(n < here for n in gap)
        left = laid.left[number]
        right = laid.left[number + 1] if number + 1 < len(laid.left) else laid.width + 1
        texts = [label for label in laid.labels if label.look == "break" and left - 300 <= label.x < left]
        assert len(texts) == sum(left <= gap.left < right for gap in laid.breaks)
        assert all(re.match(r"\d+ layers? not drawn: ", label.words) for label in texts)
    starts = [label.words for label in laid.labels if label.look == "start"]
    assert len(starts) == len(found.bands) + sum(len(line.rows) > 0 for lines in laid.lines for line in lines)


def test_words_of_the_lanes_are_apart() -> None:
    for name in SPECS:
        assert clashes(plan_of(name).svg(next(iter(plan_of(name).phases)), "lanes")) == []
