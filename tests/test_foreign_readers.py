"""Every file that dagc writes for other programs, opened by a program that is not dagc's.

`READERS` has one for each file of the registry, `ENDINGS` for each ending of an engine's and a search's files: a new exporter
without a reader fails by its name. Each reader gives figures of what it read, and these must be the plan's.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import chakra_schema
import jsonschema
import numpy as np
import pytest
from conftest import spec_text
from tiers import spread

import dagc
from dagc.base.diagnostics import SpecError
from dagc.export import registry
from dagc.export.deploy.launchers import bench_files, launcher
from dagc.export.deploy.launchers import names as launchers
from dagc.export.deploy.made import deployment
from dagc.export.engines import ENGINES
from dagc.export.engines.launch import exported
from dagc.export.registry import EXPORTERS, PHASE, PLAN, SERVING, VIEW, Exporter
from dagc.view.draw.views import VIEWS
from dagc.view.facts.unroll import counts

SERVERS = ("vllm", "sglang", "trtllm")
"""Engines that serve."""
SERVE = "serve chat { arrivals = poisson(20 req/s), requests = 20 }\nrequire chat.ttft.p99 <= 1 s"
OF = {PLAN: (), PHASE: ("prefill",), VIEW: ("prefill", "layer"), SERVING: ("chat",)}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pydot")
Figures = Mapping[str, object]
"""What a reader found: each must be what `told` has of that name."""


@cache
def plan() -> dagc.Plan:
    return dagc.compile_text(spec_text(extra=f"phase decode {{ gpus = 0..7, ep = 4, tp = 2 }}\n{SERVE}"))


@cache
def told() -> Figures:
    """The plan's own figures."""
    result = plan().phases["prefill"]
    nodes, edges = counts(result)
    served = plan().servings["chat"].outcome.served
    (layer,) = registry.exporter("svg", VIEW).make(plan(), "prefill", "layer").values()
    assert isinstance(layer, bytes)
    ids = (element.get("id", "") for element in ElementTree.fromstring(layer).iter())
    return {
        "nodes": nodes, "edges": edges, "ranks": len(result.gpus), "phases": set(plan().phases), "drawn": boxes(one.removeprefix("prefill--") for one in ids),
        "requests": len(served.e2e_s), "e2e": float(np.mean(served.e2e_s)), "latency": result.schedule.latency_s,
        "requirement": plan().requirements[0].requirement.label,
    }  # fmt: skip


# -- readers ---------------------------------------------------------------------------------------


def schema(name: str) -> Any:
    return json.loads((resources.files("dagc.export") / name).read_text(encoding="utf-8"))


def valid(data: bytes, wanted: Any) -> Any:
    """JSON that its schema describes."""
    found = json.loads(data)
    jsonschema.Draft202012Validator(wanted).validate(found)
    return found


def placed_graph(data: bytes) -> Figures:
    found = valid(data, schema("graph.schema.json"))
    return {"nodes": len(found["nodes"]), "edges": len(found["edges"])}


def networkx_graph(data: bytes) -> Figures:
    import networkx as nx

    graph = nx.node_link_graph(json.loads(data), edges="edges")
    assert nx.is_directed_acyclic_graph(graph)
    return {"nodes": graph.number_of_nodes(), "edges": graph.number_of_edges()}


def rustworkx_graph(data: bytes) -> Figures:
    import rustworkx as rx

    graph = rx.parse_node_link_json(data.decode(), node_attrs=dict, edge_attrs=dict)
    assert rx.is_directed_acyclic_graph(graph)
    assert all(json.loads(graph[node]["gpus"]) for node in graph.node_indices())
    return {"nodes": graph.num_nodes(), "edges": graph.num_edges()}


def igraph_graph(data: bytes) -> Figures:
    import igraph

    with pytest.MonkeyPatch.context() as patch, _folder() as folder:
        patch.chdir(folder)
        Path("g.graphml").write_bytes(data)
        graph = igraph.Graph.Read_GraphML("g.graphml")
    assert graph.is_directed() and graph.is_dag()
    assert len(set(graph.vs["name"])) == graph.vcount() and all(graph.vs["label"])
    assert all(json.loads(one) for one in graph.vs["gpus"])
    return {"nodes": graph.vcount(), "edges": graph.ecount()}


def _folder() -> Any:
    import tempfile

    return tempfile.TemporaryDirectory()


def chakra_traces(folder: Path) -> Figures:
    import yaml

    network = yaml.safe_load((folder / "network.yml").read_text())
    ranks = json.loads((folder / "ranks.json").read_text())
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    count = 1
    for own in network["npus_count"]:
        count *= own
    files = sorted(folder.glob("rank.*.et"))
    for file in files:
        nodes = chakra_schema.read(file.read_bytes())[1]
        ids = {node.id for node in nodes}
        assert nodes and all(set(node.data_deps) | set(node.ctrl_deps) <= ids for node in nodes)
    assert count == len(files)
    return {"ranks": len(files), "latency": ranks["pass_s"]}


def pydot_graph(data: bytes) -> Figures:
    import pydot

    (graph,) = pydot.graph_from_dot_data(data.decode())
    names: set[str] = set()
    ends: set[str] = set()
    drawn: set[str] = set()
    inside = [graph]
    while inside:
        one = inside.pop()
        inside += one.get_subgraphs()
        names |= {node.get_name() for node in one.get_nodes()}
        drawn |= {node.get("id").strip('"') for node in one.get_nodes() if node.get("id")}
        ends |= {end for edge in one.get_edges() for end in (edge.get_source(), edge.get_destination())}
    assert ends and ends <= names, "an edge that ends nowhere"
    return {"drawn": boxes(drawn)}


def boxes(ids: Iterable[str]) -> set[str]:
    """Of ids in a picture of a layer, those of ops."""
    return {one for one in ids if one.startswith("sparse--")} - {"sparse--in"}


def svg_picture(data: bytes) -> Figures:
    root = ElementTree.fromstring(data)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    left, top, width, height = (float(x) for x in root.attrib["viewBox"].split())
    assert width > 0 and height > 0 and (left, top) == (0, 0)
    assert "".join(root.itertext()).strip()
    if shutil.which("rsvg-convert"):  # what draws pictures on desktops and for documents
        drawn = subprocess.run(["rsvg-convert", "-f", "png", "-w", "300"], input=data, capture_output=True, check=False)
        assert drawn.returncode == 0, drawn.stderr
        png_picture(drawn.stdout)
    return {}


def png_picture(data: bytes) -> Figures:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        colours = picture.convert("RGB").getcolors(1 << 24)
        assert colours is not None and len(colours) > 2, "an empty picture"
    return {}


def pdf_picture(data: bytes) -> Figures:
    from pypdf import PdfReader

    (page,) = PdfReader(io.BytesIO(data), strict=True).pages
    assert page.mediabox.width > 0 and plan().spec.model.name in page.extract_text()
    return {}


class _Page(HTMLParser):
    """Whether what opens closes, and the text."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [tag] if tag not in self.VOID else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def html_page(data: bytes) -> Figures:
    page = _Page()
    page.feed(data.decode())
    page.close()
    text = " ".join(page.words)
    assert not page.open and len(text) > 1000
    requirement = told()["requirement"]
    return {"requirement": requirement} if str(requirement) in " ".join(text.split()) else {"requirement": "lost"}


def markdown_page(data: bytes) -> Figures:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(data.decode())
    kinds = {token.type for token in tokens}
    assert {"heading_open", "table_open"} <= kinds
    rows = [t for t in tokens if t.type == "tr_open"]
    cells = ["".join(part.content for part in t.children or ()) for t in tokens if t.type == "inline"]
    assert len(rows) > 5
    return {"requirement": next((c for c in cells if c == told()["requirement"]), "lost")}


def plain_text(data: bytes) -> Figures:
    """Whatever shows text: UTF-8, nothing that steers a terminal."""
    lines = data.decode("utf-8").splitlines()
    assert lines and all(line.isprintable() for line in lines)
    return {"requirement": told()["requirement"]} if any(str(told()["requirement"]) in line for line in lines) else {}


def chrome_trace(data: bytes) -> Figures:
    """As chrome://tracing wants it: complete events with times, names of processes and threads."""
    events = json.loads(data)["traceEvents"]
    kinds = {event["ph"] for event in events}
    assert {"X", "M"} <= kinds
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in events if event["ph"] == "X")
    named = {event["pid"] for event in events if event["name"] == "process_name"}
    assert {event["pid"] for event in events if event["ph"] == "X"} <= named
    return {}


def perfetto_trace(data: bytes) -> Figures:
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos

    trace = protos.Trace()
    trace.ParseFromString(data)
    trace.DiscardUnknownFields()
    assert trace.ByteSize() == len(data), "fields that the schema does not have"
    assert any(packet.HasField("track_event") for packet in trace.packet)
    return {}


def plan_object(data: bytes) -> Figures:
    found = valid(data, schema("plan.schema.json"))
    return {"phases": set(found["phases"])}


def serving_object(data: bytes) -> Figures:
    """An object of `servings` in the plan's schema, with its name."""
    whole = schema("plan.schema.json")
    found = json.loads(data)
    name = found.pop("serving")
    jsonschema.Draft202012Validator({"$ref": "#/$defs/serving", "$defs": whole["$defs"]}).validate(found)
    assert name == "chat"
    return {}


def requests_table(data: bytes) -> Figures:
    table = np.genfromtxt(io.BytesIO(data), delimiter=",", names=True)
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert table.dtype.names is not None and set(table.dtype.names) == set(rows[0])
    return {"requests": len(table), "e2e": pytest.approx(float(np.mean(table["e2e_s"])))}


READERS: dict[tuple[str, str], Callable[[Any], Figures]] = {
    (VIEW, "dot"): pydot_graph,
    (VIEW, "svg"): svg_picture,
    (VIEW, "png"): png_picture,
    (VIEW, "pdf"): pdf_picture,
    (PHASE, "graph.json"): placed_graph,
    (PHASE, "nodelink.json"): networkx_graph,
    (PHASE, "rustworkx.json"): rustworkx_graph,
    (PHASE, "graphml"): igraph_graph,
    (PHASE, "chakra"): chakra_traces,
    (PLAN, "html"): html_page,
    (PLAN, "md"): markdown_page,
    (PLAN, "txt"): plain_text,
    (PHASE, "trace.json"): chrome_trace,
    (PHASE, "pftrace"): perfetto_trace,
    (PLAN, "json"): plan_object,
    (SERVING, "requests.csv"): requests_table,
    (SERVING, "serve.json"): serving_object,
    (SERVING, "latencies.svg"): svg_picture,
    (SERVING, "latencies.png"): png_picture,
    (SERVING, "latencies.pdf"): pdf_picture,
    (SERVING, "series.svg"): svg_picture,
    (SERVING, "series.png"): png_picture,
    (SERVING, "series.pdf"): pdf_picture,
    (SERVING, "steps.svg"): svg_picture,
    (SERVING, "steps.png"): png_picture,
    (SERVING, "steps.pdf"): pdf_picture,
    (SERVING, "trace.json"): chrome_trace,
    (SERVING, "pftrace"): perfetto_trace,
}
"""(what one file is of, its ending) -> what reads it."""


# -- the registry ----------------------------------------------------------------------------------


class File(NamedTuple):
    exporter: Exporter
    suffix: str

    def __str__(self) -> str:
        return f"{self.exporter.takes}-{self.suffix}"


FILES = [File(one, suffix) for one in EXPORTERS for suffix in one.suffixes]


def kind(file: File) -> object:
    """Whose file it is and what reads it; of pictures what reads them."""
    reader = READERS[file.exporter.takes, file.suffix]
    return reader if reader in (svg_picture, png_picture, pdf_picture) else (file.exporter.takes, reader)


def unread(exporters: Iterable[Exporter]) -> list[str]:
    """Files of exporters that nothing here reads."""
    return [str(File(e, s)) for e in exporters for s in e.suffixes if (e.takes, s) not in READERS]


def test_every_exporter_has_a_reader() -> None:
    assert not unread(EXPORTERS), "a line in READERS, of a program that is not dagc's"
    assert set(READERS) == {(one.exporter.takes, one.suffix) for one in FILES}, "a reader of what nothing writes"
    assert unread([Exporter("new", "", ("new.bin",), PHASE, "new:file")]) == ["phase-new.bin"]
    assert registry.EXPORTERS is EXPORTERS


@pytest.mark.parametrize("file", spread(FILES, of=kind), ids=str)
def test_a_foreign_program_reads_it(file: File, tmp_path: Path) -> None:
    exporter, suffix = file
    try:
        made = exporter.make(
            plan(), *OF[exporter.takes], ranks="folded", buys=lambda: dict.fromkeys(plan().phases, ()),
            target=tmp_path / "p.prefill.chakra",
        )  # fmt: skip
    except SpecError as error:
        if [d.code for d in error.diagnostics] == ["E16"]:
            pytest.skip("no renderer is installed")
        raise
    content = made[f"layer.{suffix}" if exporter.takes == VIEW else suffix]
    if callable(content):
        content(tmp_path)
        check(READERS[exporter.takes, suffix](tmp_path))
        return
    data = content if isinstance(content, bytes) else b"".join(content)
    check(READERS[exporter.takes, suffix](data))
    if suffix not in PROSE:
        with pytest.raises(Exception):  # noqa: B017 (each program has errors of its own)
            check(READERS[exporter.takes, suffix](data[: len(data) // 2]))


PROSE = ("md", "txt")
"""Files of which a half is one as well."""


def check(found: Figures) -> None:
    for name, value in found.items():
        assert value == told()[name], name


@pytest.mark.parametrize(
    ("kind", "view"),
    spread([("dot", "overview"), *(("svg", view) for view in VIEWS)], {("dot", "overview"), ("svg", "overview")}),
)
def test_every_picture_is_read(kind: str, view: str) -> None:
    for phase in plan().phases:
        (content,) = registry.exporter(kind, VIEW).make(plan(), phase, view).values()
        assert isinstance(content, bytes)
        READERS[VIEW, kind](content)


def test_every_rank_is_read() -> None:
    """With `--ranks all` as well: nodes and edges of each rank."""
    result = plan().phases["prefill"]
    found = set()
    for name in ("nodelink", "rustworkx", "graphml"):
        made = registry.exporter(name, PHASE).make(plan(), "prefill", ranks="all")
        ((suffix, content),) = made.items()
        figures = READERS[PHASE, suffix](content)
        found.add((figures["nodes"], figures["edges"]))
    ((nodes, edges),) = found
    assert nodes == len(result.gpus) * int(str(told()["nodes"])) and edges > 0


# -- files of engines and of searches ---------------------------------------------------------------


def shell_script(data: bytes) -> Figures:
    read = subprocess.run(["bash", "-n"], input=data, capture_output=True, check=False)
    assert read.returncode == 0, read.stderr
    return {}


def yaml_file(data: bytes) -> Figures:
    import yaml

    assert all(one is not None for one in yaml.safe_load_all(data.decode()))
    return {}


def search_object(data: bytes) -> Figures:
    found = valid(data, schema("search.schema.json"))
    assert found["plans"]
    return {}


def table(data: bytes) -> Figures:
    rows = list(csv.reader(io.StringIO(data.decode()), strict=True))
    assert len(rows) > 1 and len({len(row) for row in rows}) == 1
    return {}


def json_file(data: bytes) -> Figures:
    assert json.loads(data)
    return {}


def json_lines(data: bytes) -> Figures:
    assert all(isinstance(json.loads(line), dict) for line in data.splitlines())
    return {}


def spec_file(data: bytes) -> Figures:
    """Nothing but dagc reads a spec; its grammar alone does not make a plan, so it is compiled."""
    assert dagc.compile_text(data.decode()).phases
    return {}


def page_of_search(data: bytes) -> Figures:
    page = _Page()
    page.feed(data.decode())
    page.close()
    assert not page.open and page.words
    return {}


ENDINGS: dict[str, Callable[[bytes], Figures]] = {
    ".sh": shell_script,
    ".sbatch": shell_script,
    ".yaml": yaml_file,
    ".yml": yaml_file,
    ".jsonl": json_lines,
    ".search.json": search_object,
    ".json": json_file,
    ".csv": table,
    ".svg": svg_picture,
    ".html": page_of_search,
    ".moe": spec_file,
}
"""Ending of a file -> what reads it; the longest that fits."""


def reader(name: str) -> Callable[[bytes], Figures]:
    fitting = [ending for ending in ENDINGS if name.endswith(ending)]
    assert fitting, f"{name}: a line in ENDINGS, of a program that is not dagc's"
    return ENDINGS[max(fitting, key=len)]


def deployed() -> dagc.Plan:
    """Prefill and decode on GPUs of their own: a router and configs too."""
    return deployed_text("")


@cache
def deployed_text(serving: str) -> dagc.Plan:
    text = spec_text(
        phase="gpus = 0..3, tp = 4", dtype="bf16",
        extra=f"phase decode {{ gpus = 8..15, attention {{ dp = 8 }}, experts {{ ep = 8 }} }}\n{serving}",
    )  # fmt: skip
    return dagc.compile_text(text)


@pytest.mark.parametrize("engine", ENGINES)
def test_files_of_engines_are_read(engine: str) -> None:
    found = exported(deployed(), engine, "org/model", "p")
    assert found.files or found.refused
    for name, data in found.files.items():
        reader(name)(data)
    if engine != "megatron":
        assert found.files, [d.message for d in found.refused]


@pytest.mark.parametrize("engine", SERVERS)
@pytest.mark.parametrize("kind", launchers())
def test_files_of_launchers_are_read(kind: str, engine: str) -> None:
    """Of every launcher that starts the engine; one that does not says so with E05."""
    chosen = launcher(kind)
    one = deployment(deployed(), engine, "org/model", "p", chosen.engine_version(engine))
    try:
        files = chosen.files(one)
    except SpecError as error:
        assert [d.code for d in error.diagnostics] == ["E05"]
        pytest.skip(error.diagnostics[0].message)
    assert files
    for name, data in files.items():
        reader(name)(data)


@pytest.mark.parametrize("engine", SERVERS)
def test_files_of_benches_are_read(engine: str) -> None:
    """Beside every launcher's; a table of requests where a serving's lengths are no range."""
    served = deployed_text(f"{SERVE.splitlines()[0][:-1]}, lengths = lognormal(cv = 1) }}")
    for plan_ in (deployed(), served):
        files = bench_files(deployment(plan_, engine, "org/model", "p"))
        assert files
        for name, data in files.items():
            reader(name)(data)


def test_files_of_searches_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dagc.cli import main

    spec = tmp_path / "p.moe"
    spec.write_text(spec_text(phase="gpus = 0..3, ep = any, tp = any", gpus=8))
    assert main(["search", str(spec), "-o", str(tmp_path / "out")]) in (0, 1)
    capsys.readouterr()
    files = sorted((tmp_path / "out").iterdir())
    assert {".moe", ".json", ".csv", ".svg", ".html"} == {file.suffix for file in files}
    for file in files:
        reader(file.name)(file.read_bytes())
