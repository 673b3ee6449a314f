"""A pass: the vocabulary is not split over tp. Every rank looks tokens up and makes the logits by itself."""

from dataclasses import dataclass
from typing import ClassVar

from dagc.ir.graph import Graph
from dagc.ir.graph_pass import GraphPass


@dataclass(frozen=True, slots=True)
class WholeVocab(GraphPass):
    """The vocabulary whole on every rank: more memory, no all-reduce in the embedding and the head."""

    name: ClassVar[str] = "whole_vocab"
    after: ClassVar[str] = "tp"

    def run(self, graph: Graph) -> Graph:
        """The graph with no `vocab` loop split; `reshard` inserts what collectives are left."""
        return graph.map_ops(lambda segment, op: op.annotate("vocab", ()), graph.level)
