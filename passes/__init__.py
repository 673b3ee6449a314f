"""The passes, one file each, in the order in which they run: graph passes rewrite a graph, analyses only look at one."""

from __future__ import annotations

from dagc.ir.graph_pass import GraphPass

from .backward import Backward
from .dp import DataParallel
from .ep import ExpertParallel
from .host_experts import ResidentExperts
from .mesh import MakeMesh
from .norms import SplitNorms
from .offload import Offload
from .place import Place
from .pp import PipelineParallel
from .quantise import Quantise
from .recompute import Recompute
from .reshard import Reshard
from .sp import SequenceParallel
from .tie import TieTables
from .tp import TensorParallel
from .zero import ZeroRedundancy

GRAPH_PASSES: tuple[type[GraphPass], ...] = (
    Backward,
    Quantise,
    Recompute,
    MakeMesh,
    TensorParallel,
    SequenceParallel,
    ExpertParallel,
    DataParallel,
    PipelineParallel,
    TieTables,
    ZeroRedundancy,
    SplitNorms,
    Reshard,
    Offload,
    ResidentExperts,
    Place,
)
OF_TRAINING = (Backward, Quantise, Recompute, TieTables, ZeroRedundancy)
"""Passes of training steps alone."""
OF_FEWER_BITS = (Quantise,)
"""Of those whose products have 8 or 4 bits."""
OF_HOSTS = (Offload, ResidentExperts)
"""Of phases whose hosts keep something."""
