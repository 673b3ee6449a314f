"""A pass: the vocabulary is not split over tp. Every rank looks tokens up and makes the logits by itself."""

from dagc.ir.graph import Graph
from dagc.spec.unit import Unit

ABOUT = "keep the vocabulary whole on every rank: more memory, no all-reduce in the embedding and the head"
AFTER = "tp"


def run(graph: Graph, unit: Unit) -> Graph:
    """The graph with no `vocab` loop split; `reshard` inserts what collectives are left."""
    return graph.map_ops(lambda segment, op: op.annotate("vocab", ()), graph.level)
