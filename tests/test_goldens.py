"""Golden IR: one idea to a file, the graph before some passes and after them. `pytest --update-golden` writes the latter."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagc.cli import main
from dagc.ir.graph import Graph
from dagc.ir.text.read import parse_graph
from dagc.ir.text.write import COLUMNS, print_graph
from dagc.ir.verify.verify import verify
from dagc.passes import GRAPH_PASSES
from dagc.pipeline.observers import Verify
from dagc.pipeline.run_passes import run
from dagc.pipeline.text import parse, show

FOLDER = Path(__file__).parent / "golden"
GOLDENS = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.ir"))
IDEA, PASSES, INPUT, AFTER = "# ", "# passes: ", "\n# input\n", "\n# after\n"

MOST_OPS, MOST_RANKS = 8, 4


class Golden:
    """The parts of a file."""

    def __init__(self, name: str) -> None:
        self.path = FOLDER / f"{name}.ir"
        self.text = self.path.read_text()
        head, _, rest = self.text.partition(INPUT)
        self.given, _, self.expected = rest.partition(AFTER)
        self.idea, _, self.passes = head.rstrip().partition("\n" + PASSES)

    @property
    def before(self) -> Graph:
        return parse_graph(self.given)

    def after(self) -> Graph:
        graph = self.before
        verify(graph)
        for _, made in run(parse(self.passes), graph, [Verify()]):
            graph = made
        return graph


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str, pytestconfig: pytest.Config) -> None:
    golden = Golden(name)
    found = print_graph(golden.after())
    if pytestconfig.getoption("--update-golden"):
        given = print_graph(golden.before)
        passes = show(parse(golden.passes))
        golden.path.write_text(f"{golden.idea}\n{PASSES}{passes}\n{INPUT}{given}{AFTER}{found}")
    else:
        assert found == golden.expected


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_are_small(name: str) -> None:
    """Input and result on one page: one line that says the idea, few ops on few ranks, as `print_graph` has them."""
    golden = Golden(name)
    assert golden.idea.startswith(IDEA) and golden.idea.endswith(".") and "\n" not in golden.idea
    assert max(map(len, golden.text.splitlines())) <= COLUMNS
    assert golden.passes == show(parse(golden.passes)) and golden.given == print_graph(golden.before)
    after = parse_graph(golden.expected)
    if after.mesh is not None:
        assert after.mesh.size(tuple(after.mesh.sizes)) * after.mesh.stages <= MOST_RANKS
    for graph in (golden.before, after):
        assert sum(len(segment.ops) for segment in graph.segments) <= MOST_OPS + 4 * (graph is after)


def test_every_pass_has_a_golden() -> None:
    folders = {name.partition("/")[0] for name in GOLDENS}
    assert folders == {one.name for one in GRAPH_PASSES}
    for name in GOLDENS:
        assert name.partition("/")[0] in {one.name for one in parse(Golden(name).passes)}


def test_the_command_does_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A golden as it is, comments and all, is not a file of one graph; its parts are."""
    for name in ("tp/column_row", "mesh/place"):
        golden = Golden(name)
        file = tmp_path / "graph.ir"
        file.write_text(f"{golden.idea}\n{golden.given}")
        assert main(["opt", str(file), "--passes", golden.passes, "--verify-each"]) == 0
        assert capsys.readouterr().out == golden.expected
