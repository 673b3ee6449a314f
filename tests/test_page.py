"""The HTML page and its figures: complete, closed to the network, escaped, laid out without overlaps."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import runpy
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import INFERENCE, compiled, spec_text
from text_widths import clashes
from tiers import exhaustive, spread

import dagc
from dagc.api import Plan
from dagc.cli import main
from dagc.cli.writing import write_all
from dagc.ir.ops.op_set import OPS
from dagc.view.draw import layer_digraph
from dagc.view.draw.dot import COLORS
from dagc.view.draw.figures import layers
from dagc.view.draw.figures.boxes import Size, place
from dagc.view.draw.figures.markup import fit, tag, width
from dagc.view.draw.figures.standalone import SHEETS, svg
from dagc.view.draw.figures.svg import ticks
from dagc.view.facts.findings import binding, error_range, origins

EVIL = [
    "<script>alert(1)</script>",
    "\" onload=\"alert(1)' x='",
    "</style></title><img src=x onerror=alert(1)>",
    "two\nlines\r\x1b[31mred\x07",
    "模型 модель مدل 🙂 \u202e",
    "&amp; &lt; ]]> --> {{x}} ${body} `a` | *b* [c](javascript:d)",
]
VOID = {"meta", "br"}
pytestmark = pytest.mark.usefixtures("shared_servings")
Capture = pytest.CaptureFixture[str]


class Reader(HTMLParser):
    """Tags, their attributes and the text of a page; checks that what opens also closes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(
    params=spread([path.stem for path in INFERENCE], {"plan_a", "qwen3_235b_two_pools", "residual_streams"})
)
def paged(request: pytest.FixtureRequest) -> str:
    """Of the examples, those whose pages have every section between them: servings, pools and streams."""
    return str(request.param)


@cache
def page(name: str) -> str:
    return compiled(name).html()


@cache
def read_page(name: str) -> Reader:
    return read(page(name))


def test_a_page_has_everything_and_loads_nothing(paged: str) -> None:
    example, html, reader = compiled(paged), page(paged), read_page(paged)
    assert len(html.encode()) <= 500_000
    names = [name for name, _ in reader.tags]
    assert names.count("script") == names.count("style") == 1
    assert not {"link", "iframe", "img", "object", "embed", "base", "form"} & set(names)
    for name, attributes in reader.tags:
        assert not any(key.startswith("on") or key in ("src", "style") for key in attributes), (name, attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert not [u for u in re.findall(r"https?://[^\s\"'<]+", html) if u != "http://www.w3.org/2000/svg"]
    for v in example.requirements:
        assert " ".join(v.requirement.label.split()) in reader.text
    for result in example.phases.values():
        assert binding(result, example.sensitivities(result.name)) in reader.text
    headings = ["Requirements", "Stages", "Memory per GPU", "Critical path", "What would help", "Spec", "Assumptions"]
    assert all(h in reader.text for h in headings)
    assert reader.text.index("Requirements") < reader.text.index("Stages")


def test_ids_are_single_and_links_lead_somewhere(paged: str) -> None:
    reader = read_page(paged)
    ids = [a["id"] for _, a in reader.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    wanted = {str(a["href"])[1:] for name, a in reader.tags if name == "a"}
    wanted |= {str(a["marker-end"])[5:-1] for _, a in reader.tags if a.get("marker-end")}
    assert wanted <= set(ids)
    assert {"requirements", "spec", "assumptions"} <= wanted


def test_the_policy_names_the_script_and_the_style() -> None:
    html = page("plan_a")
    policy = next(
        str(a["content"]) for n, a in read_page("plan_a").tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for name in ("script", "style"):
        body = re.search(rf"<{name}>(.*?)</{name}>", html, re.DOTALL)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_every_diagnostic_stands_at_its_line() -> None:
    plan = compiled("plan_a")
    html = page("plan_a")
    for d in plan.diagnostics:
        assert d.span is not None
        line = d.span.source.position(d.span.start)[0]
        item = re.search(rf'<li id="L0-{line}" class="line [a-z]+">.*?</li>', html)
        assert item is not None and d.message in read(item[0]).text


def test_the_same_page_twice() -> None:
    assert page("plan_a") == dagc.compile(Path(compiled("plan_a").spec.phases[0].span.source.name)).html()  # type: ignore[union-attr]


@cache
def plain_plan() -> Plan:
    extra = 'param batch = 4 in [4, 8]\nrequire "r" decode.tpot <= 1 us'
    return dagc.compile_text(spec_text(kind="decode", extra=extra, phase="gpus = 0..15, pp = 2, ep = 4, tp = 2"))


@cache
def evil_plan(text: str) -> Plan:
    """A plan with a name nobody expects wherever a name can be given."""
    plan = plain_plan()
    verdicts = tuple(replace(v, requirement=replace(v.requirement, label=text)) for v in plan.requirements)
    spec = plan.spec
    spec = replace(
        spec,
        model=replace(spec.model, name=text),
        hardware=replace(spec.hardware, name=text, calibration=text),
        workload=replace(spec.workload, routing=replace(spec.workload.routing, kind=text)),
        params={text: ()},
        constants={text: text},
    )
    phases = {}
    for name, result in plan.phases.items():
        segments = tuple(
            replace(s, ops=tuple(replace(op, block=text if op.block == "moe" else op.block) for op in s.ops))
            for s in result.graph.segments
        )
        phases[name] = replace(result, graph=replace(result.graph, phase=name, segments=segments))
    diagnostics = tuple(replace(d, message=text, label=text, because=(text,), help=(text,)) for d in plan.diagnostics)
    return replace(plan, spec=spec, requirements=verdicts, diagnostics=diagnostics, phases=phases)


@cache
def read_plain_page() -> Reader:
    return read(plain_plan().html())


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
def test_names_are_only_text(text: str) -> None:
    plain = read_plain_page()
    html = evil_plan(text).html()
    reader = read(html)
    assert sorted({n for n, _ in reader.tags}) == sorted({n for n, _ in plain.tags})
    assert sum(n == "script" for n, _ in reader.tags) == 1
    for _, attributes in reader.tags:
        assert not any(key.startswith("on") for key in attributes)
    visible = "".join(
        c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" for c in text.replace("\n", " ")
    )
    assert " ".join(visible.split()) in reader.text
    assert not any(c in html for c in "\x1b\x07\u202e")


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
@pytest.mark.parametrize("view", SHEETS)
def test_figures_are_well_formed(view: str, text: str) -> None:
    root = ET.fromstring(svg(evil_plan(text), "decode", view))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not any(e.tag.endswith("script") or "onload" in e.attrib for e in root.iter())


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", 'a"b', "модель"])
def test_a_file_with_any_name(name: str, tmp_path: Path, capsys: Capture) -> None:
    spec = tmp_path / f"{name}.moe"
    spec.write_text(spec_text())
    assert main(["report", str(spec), "-o", str(tmp_path / "out.html")]) == 0
    capsys.readouterr()
    reader = read((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert f"{name}: dagc report" in reader.text and "img" not in {n for n, _ in reader.tags}


def test_waterfall_and_memory_add_up() -> None:
    """Widths of the bars are the shares of the path; the bars of a stage are its bytes."""
    plan = compiled("plan_a")
    result = plan.phases["prefill"]
    bars = [
        e
        for e in ET.fromstring(svg(plan, "prefill", "path")).iter("{http://www.w3.org/2000/svg}rect")
        if e.get("class", "").startswith("b-") and len(e)
    ]
    total = sum(float(e.get("width", 0)) for e in bars)
    largest = max(result.path, key=lambda s: s.time_s)
    share = largest.time_s / sum(s.time_s for s in result.path)
    assert max(float(e.get("width", 0)) for e in bars) / total == pytest.approx(share, rel=0.02)
    memory = ET.fromstring(svg(plan, "prefill", "memory"))
    parts = [
        e
        for e in memory.iter("{http://www.w3.org/2000/svg}rect")
        if re.fullmatch(r"p\d", e.get("class", "")) and len(e)
    ]
    worst = result.memory.worst
    by_class = {e.get("class"): float(e.get("width", 0)) for e in parts[-4:]}
    assert by_class["p1"] / sum(by_class.values()) == pytest.approx(worst.kv_cache_B / worst.peak_B, rel=0.01)


def test_layout() -> None:
    """Inputs above, nothing on top of anything, no edge through a box."""
    sizes = {name: Size(100, 40) for name in ("in", "a", "b", "c", "d", "e", "f")}
    edges = [
        ("in", "a"),
        ("a", "b"),
        ("a", "c"),
        ("a", "d"),
        ("b", "e"),
        ("d", "e"),
        ("in", "e"),
        ("e", "f"),
        ("a", "f"),
    ]
    laid = place(sizes, edges, {n: "one" for n in sizes} | {"f": "two"})
    for a, b in edges:
        assert laid.places[a].bottom < laid.places[b].y
    for p, q in itertools.combinations(laid.places.values(), 2):
        assert abs(p.x - q.x) >= (p.w + q.w) / 2 or p.bottom <= q.y or q.bottom <= p.y
    assert laid.paths.keys() == set(edges)
    for p in laid.places.values():
        assert p.w / 2 <= p.x <= laid.width - p.w / 2 and 0 <= p.y <= laid.height


@pytest.mark.parametrize(
    "example_name", spread([path.stem for path in INFERENCE], {"custom_attention", "plan_a", "residual_streams"})
)
def test_boxes_of_every_example_are_apart(example: Plan) -> None:
    for phase in example.phases:
        for _, _, figure in layers.draw(example.phases[phase]):
            rects = ET.fromstring(f"<svg>{figure.body}</svg>").iter("rect")
            boxes = [e for e in rects if "box" in e.get("class", "").split() and e.get("rx")]
            places = [tuple(float(e.get(k, 0)) for k in ("x", "y", "width", "height")) for e in boxes]
            assert places
            for (x, y, w, h), (u, v, s, t) in itertools.combinations(places, 2):
                assert x + w <= u or u + s <= x or y + h <= v or v + t <= y


@pytest.mark.parametrize(
    ("kind", "phase", "known_as"),
    [
        ("prefill", "gpus = 0..3, sp = 2, tp = 2, sp_method = ring", {"permute"}),
        ("decode", "gpus = 0..3, sp = 2, tp = 2", {"all_reduce"}),
    ],
)
def test_a_ring_and_a_merge_are_drawn_as_what_runtimes_call_them(kind: str, phase: str, known_as: set[str]) -> None:
    """A turn of a ring is a permute, a merge of softmax pieces an all_reduce: in the label, the colour and the legend."""
    plan = dagc.compile_text(spec_text(kind=kind, phase=phase, dtype="bf16"))
    result = plan.phases[kind]
    own = {op.kind: op.runtime_kind for s in result.graph.segments for op in s.ops if op.kind != op.runtime_kind}
    assert own and set(own.values()) == known_as
    for text in (layer_digraph.draw(plan, kind), plan.svg(kind, "layer")):
        assert not [name for name in own if name in text]
    boxes = re.findall(r'label=<(?:<b>)?(\w+).*?shape="hexagon".*?fillcolor="([^"]*)"', layer_digraph.draw(plan, kind))
    assert known_as <= {name for name, _ in boxes} and all(COLORS[name] == fill for name, fill in boxes)


def test_ids_are_one_of_a_kind(paged: str) -> None:
    ids = re.findall(r'\bid="([^"]*)"', page(paged))
    assert len(ids) > 100 and len(set(ids)) == len(ids)


def test_text_fits() -> None:
    assert fit("short", 100) == "short"
    cut = fit("a very long name of an op", 60)
    assert cut.endswith("…") and width(cut) <= 60
    assert width("模型") > width("ab")
    assert tag("p", "<b>", cls='"') == '<p class="&quot;">&lt;b&gt;</p>'


def test_ticks() -> None:
    assert ticks(1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert len(ticks(0.0937)) <= 9 and ticks(0.0) == [0.0]


def test_errors_are_told_where_they_are_known() -> None:
    measured, roofline = compiled("mixtral_8xh100").phases["decode"], compiled("plan_a").phases["decode"]
    found = origins(measured)
    assert sum(o.time_s for o in found) == pytest.approx(sum(s.time_s for s in measured.path))
    assert any(o.family and 0 < o.error < 1 for o in found)
    assert "measured kernel times" in error_range(measured) and "not known" in error_range(roofline)


def test_report_command(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = str(Path(__file__).parent.parent / "examples" / "deepseek_v3_expert_gpus.moe")
    assert main(["report", spec]) == 0
    assert capsys.readouterr().out == "wrote deepseek_v3_expert_gpus.html\n"
    assert [p.name for p in tmp_path.iterdir()] == ["deepseek_v3_expert_gpus.html"]
    assert main(["report", spec, "-o", "x.pdf"]) == 2
    assert "x.pdf" in capsys.readouterr().err
    assert main(["report", spec, "--format", "text"]) == 0
    assert capsys.readouterr().out.startswith("passed: all 2 requirements hold\n")
    assert main(["compile", spec, "--emit", "html,md", "-o", "out"]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"deepseek_v3_expert_gpus.{k}" for k in ("txt", "html", "md")
    }


def test_show_draws_figures_without_graphviz(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    spec = str(Path(__file__).parent.parent / "examples" / "three_link_levels.moe")
    assert main(["show", spec, "--view", "timeline", "-o", str(tmp_path / "t.svg")]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"t.prefill.svg", "t.decode.svg"}
    assert main(["show", spec, "--view", "memory", "-o", str(tmp_path / "t.png")]) == 2
    assert main(["show", spec, "--view", "memory"]) == 2
    capsys.readouterr()
    assert main(["show", spec, "--view", "memory", "--phase", "decode"]) == 0
    assert ET.fromstring(capsys.readouterr().out).tag.endswith("svg")


def test_no_half_written_file(tmp_path: Path, capsys: Capture) -> None:
    """A full disk in the middle of a stream, a fault of ours, a place that takes no files."""

    def full() -> object:
        yield b"half"
        raise OSError(28, "No space left on device")

    def broken() -> object:
        yield b"half"
        raise RuntimeError("bug")

    old = tmp_path / "old.html"
    old.write_text("old")
    with pytest.raises(dagc.SpecError, match="No space left"):
        write_all({tmp_path / "a.txt": b"whole", old: full()})  # type: ignore[dict-item]
    with pytest.raises(RuntimeError):
        write_all({tmp_path / "new" / "a.txt": b"whole", old: broken()})  # type: ignore[dict-item]
    assert [p.name for p in tmp_path.iterdir()] == ["old.html"] and old.read_text() == "old"
    spec = str(Path(__file__).parent.parent / "examples" / "three_link_levels.moe")
    assert main(["report", spec, "-o", str(old / "in_a_file.html")]) == 2
    assert "E05" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["old.html"]


@exhaustive
def test_the_gallery_is_made_by_its_command(tmp_path: Path) -> None:
    """The same pictures as are committed, figure by figure: `python docs/gallery.py` makes those anew that are older than the costs."""
    docs = Path(__file__).parent.parent / "docs"
    runpy.run_path(str(docs / "gallery.py"))["main"](tmp_path, compiled)
    made = sorted(p.name for p in (tmp_path / "gallery").iterdir())
    assert made == sorted(p.name for p in (docs / "gallery").iterdir())
    assert (tmp_path / "gallery.md").read_text() == (docs / "gallery.md").read_text()
    assert all(f"gallery/{name}" in (docs / "gallery.md").read_text() for name in made)
    older = [n for n in made if (tmp_path / "gallery" / n).read_text() != (docs / "gallery" / n).read_text()]
    assert not older, "run `python docs/gallery.py`"


def test_every_figure_of_a_phase_stands_once(paged: str) -> None:
    """What a kind calls its time too."""
    example = compiled(paged)
    found = re.findall(r'<dl class="cards">(.*?)</dl>', page(paged), re.S)
    assert len(found) == len(example.phases) + len(example.rows("servings"))
    for cards, result in zip(found, example.phases.values(), strict=False):
        titles = re.findall(r"<dt>(.*?)</dt>", cards)
        assert titles.count(result.phase_kind.metric) == 1 and len(set(titles)) == len(titles) > 5


def test_boxes_of_a_layer_are_as_dark_as_their_share_of_its_time() -> None:
    """Against the costs: the shares in the boxes are those of their ops, add up to all, and give the shade of the legend."""
    plan = compiled("custom_attention")
    result = plan.phases["prefill"]
    ((name, _, figure),) = layers.draw(result)
    costs = {op: float(c.time_s.max()) for (segment, op), c in result.costs.ops.items() if segment == name}
    total = sum(costs.values())
    found = 0.0
    for group in ET.fromstring(f"<svg>{figure.body}</svg>").iter("g"):
        texts = [t.text or "" for t in group.findall("text")]
        if "node" not in group.get("class", "").split():
            continue
        took = re.search(r"\((\d+)%\)$", texts[-1])
        assert took is not None, texts
        found += int(took[1])
        own = (group.findtext("title") or "").partition(":")[0]
        assert int(took[1]) >= round(costs[own] / total * 100) - 1
        box = group.find("rect")
        if box is not None and (shade := re.search(r"\bbox h(\d)", box.get("class", ""))):
            low, high = ([0.0, *layers.HEAT, 1.0][int(shade[1]) + k] for k in (0, 1))
            assert low - 0.006 <= int(took[1]) / 100 <= high + 0.006
    assert found == pytest.approx(100, abs=0.5 * len(costs))


def test_every_kind_of_op_is_glossed_where_it_is_drawn(example: Plan) -> None:
    assert all(3 <= len(kind.about) <= 90 for kind in OPS.values())
    assert len({kind.about for kind in OPS.values()}) == len(OPS)
    for result in example.phases.values():
        said = [words for _, words in layers.keys(result)]
        drawn = {op.kind for d in layer_digraph.drawings(result) for op in d.segment.ops if not op.is_collective}
        assert all(f"{kind}: {OPS[kind].about}" in said for kind in drawn)


def test_words_of_a_layer_are_apart(example: Plan) -> None:
    for phase in example.phases:
        assert clashes(example.svg(phase, "layer")) == []
