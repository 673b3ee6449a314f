"""The passes, one file each, in the order in which they run: graph passes rewrite a graph, analyses only look at one."""

from __future__ import annotations

from dagc.ir.graph_pass import GraphPass

from .dp import DataParallel
from .ep import ExpertParallel
from .mesh import MakeMesh
from .norms import SplitNorms
from .place import Place
from .pp import PipelineParallel
from .reshard import Reshard
from .sp import SequenceParallel
from .tp import TensorParallel

GRAPH_PASSES: tuple[type[GraphPass], ...] = (
    MakeMesh,
    TensorParallel,
    SequenceParallel,
    ExpertParallel,
    DataParallel,
    PipelineParallel,
    SplitNorms,
    Reshard,
    Place,
)
