"""The graph of a training step's cells for other programs: its longest path, found by networkx, is the step, in every schedule."""

from __future__ import annotations

import pytest
from test_training_language import spec
from test_training_run import STEPS, text_of
from tiers import spread

import dagc
from dagc.base.diagnostics import SpecError
from dagc.export.interchange import from_graphml, from_node_link, graphml, node_link, to_networkx
from dagc.plan.plan import CompiledPlan

nx = pytest.importorskip("networkx")


def longest_s(graph: nx.MultiDiGraph) -> float:
    """By the times of nodes alone: when they start is not asked."""
    ends: dict[str, float] = {}
    for name in nx.topological_sort(graph):
        ends[name] = graph.nodes[name]["time_s"] + max((ends[a] for a in graph.predecessors(name)), default=0.0)
    return max(ends.values())


def plan_of(schedule: str) -> CompiledPlan:
    return dagc.compile_text(text_of(schedule))


@pytest.mark.parametrize("schedule", spread(STEPS, list(STEPS)[::3]))
def test_the_longest_path_is_the_step(schedule: str) -> None:
    plan = plan_of(schedule)
    result = plan.trainings["step"]
    graph = to_networkx(plan, "step")
    assert longest_s(graph) == pytest.approx(result.time_s, rel=1e-12)
    own, gpus = result.steps.schedule, result.steps.schedule.gpus
    kinds = [kind for _, kind in graph.nodes(data="kind")]
    assert kinds.count("update") == gpus
    assert len(graph) - kinds.count("send") - gpus == sum(1 for gpu in range(gpus) for _ in own.written(gpu))
    assert (
        sum(flops for _, flops in graph.nodes(data="flops")) > 0 and min(t for _, t in graph.nodes(data="time_s")) >= 0
    )
    for a, b, fields in graph.edges(data=True):
        early = graph.nodes[a]["start_s"] + graph.nodes[a]["time_s"]
        assert early <= graph.nodes[b]["start_s"] * (1 + 1e-9) + 1e-12, (a, b)
        assert fields["bytes"] >= 0


def test_ranks_are_nodes_where_they_are_asked_for() -> None:
    plan = plan_of("dualpipe_v")
    folded, every = (to_networkx(plan, "step", ranks=ranks) for ranks in ("folded", "all"))
    each = len(plan.trainings["step"].graph.stages[0].gpus)
    assert len(every) == each * len(folded) and longest_s(every) == pytest.approx(longest_s(folded), rel=1e-12)


def test_files_read_back() -> None:
    graph = to_networkx(plan_of("zb_v"), "step")
    for back in (from_node_link(node_link(graph)), from_graphml(graphml(graph))):
        assert nx.utils.graphs_equal(back, graph)


def test_steps_of_too_many_cells_are_refused() -> None:
    text = spec(**{"microbatches = 8": "microbatches = 1_000_000", "sequences = 64": "sequences = 4_000_000"})
    with pytest.raises(SpecError) as caught:
        to_networkx(dagc.compile_text(text), "pretrain")
    assert caught.value.diagnostics[0].code == "E05"
