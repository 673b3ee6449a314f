"""Any legal plan of any model: it computes the same, computes and stores nothing it should not, and runs in some order.

DAGC_EXAMPLES=20 tries twenty times as many plans, and other ones at every run.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from conftest import examples, whole
from conservation import executed, machine_of, parameters
from hypothesis import HealthCheck, assume, given, settings
from random_plans import plans

from dagc.api import Plan
from dagc.base.diagnostics import SpecError
from dagc.execute.inputs import Inputs
from dagc.execute.machine import RankMachine
from dagc.execute.prove import prove
from dagc.ir.graph import Graph
from dagc.ir.mesh import Mesh
from dagc.ir.ops.sizes import loop_axes
from dagc.pipeline.lower import lower
from dagc.pipeline.parameters import count_parameters
from dagc.plan.result import PhaseResult
from dagc.spec.unit import Unit
from dagc.view.facts.unroll import Edge, unroll

PROPERTY = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
)


def compiled(text: str) -> Plan:
    """The plan; one that is refused is not an example."""
    try:
        return whole(text)
    except SpecError:
        assume(False)
        raise


@settings(PROPERTY, max_examples=examples(25, 5))
@given(plans(uses=True))
def test_the_ranks_compute_what_the_model_computes(case: tuple[str, str]) -> None:
    kind, text = case
    proof = prove(compiled(text), kind)
    assert proof.holds, proof


@settings(PROPERTY, max_examples=examples(12))
@given(plans())
def test_work_and_parameters_are_conserved(case: tuple[str, str]) -> None:
    kind, text = case
    plan = compiled(text)
    result, unit = plan.phases[kind], plan.units[kind]
    model = next(graph for _, graph in lower(Unit(unit.spec, unit.phase)))
    tokens = np.ones((unit.phase.batching.places, unit.phase.tokens), dtype=int)
    inputs = Inputs(tokens, unit.spec.workload.routing)
    machine = machine_of(result.graph, inputs)
    check_work(result.graph, executed(RankMachine(model, inputs, Mesh((), {}, {}))), executed(machine))
    assert parameters(machine, result.graph) == count_parameters(model)[0]


def check_work(graph: Graph, model: dict[tuple[str, str], float], ranks: dict[tuple[str, str], float]) -> None:
    """What the ranks compute together is the model's work, once for each rank that repeats it."""
    mesh = graph.the_mesh
    assert model.keys() == ranks.keys()
    for segment, name in model:
        split = mesh.size(tuple(set(loop_axes(graph.segment(segment).by_name[name]))))
        repeated = mesh.size(tuple(mesh.sizes)) / split
        assert ranks[segment, name] == pytest.approx(model[segment, name] * repeated), (segment, name)


@settings(PROPERTY, max_examples=examples(40, 6))
@given(plans())
def test_the_placed_graph_is_sound(case: tuple[str, str]) -> None:
    """Acyclic with one node per op and cell; no collective over a group of one."""
    kind, text = case
    result = compiled(text).phases[kind]
    check_order(result)
    sizes = [result.graph.the_mesh.size(op.axes) for s in result.graph.segments for op in s.ops if op.is_collective]
    assert all(size > 1 for size in sizes)


def check_order(result: PhaseResult) -> None:
    graph = nx.DiGraph()
    nodes = 0
    for item in unroll(result):
        if isinstance(item, Edge):
            assert item.src in graph and item.dst in graph
            graph.add_edge(item.src, item.dst)
        else:
            graph.add_node(item.id)
            nodes += 1
    assert nodes == graph.number_of_nodes() > 0
    assert nx.is_directed_acyclic_graph(graph)
