"""step_kernels: what the kernels of a training step take, from tables that were measured in inference and what is known of training.

Forward products and attention are those of the tables; gradients are products of other shapes, and attention's gradient. Tables time
a kernel by itself; in a step of many a GPU runs slower (`calib/training_constants.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from ...base.frozen import replace
from ...calib.training_constants import kernels
from ...ir.mesh import Mesh
from ...ir.routed_dims import Rows
from ...ir.segment import Segment
from ...spec.hardware import Hardware
from ...spec.model import Model
from ...spec.phase import Phase
from ..expert_load import ExpertLoad
from ..match import laid_out
from ..measured import Match, Measured
from . import attention_kernels, memory_passes, step_products
from .memory_passes import MemoryPasses

PRODUCTS_OF, ATTENTION_OF = "trtllm", "vllm"
"""Whose tables time what training calls, too: PyTorch's products, and kernels of flash attention."""


def kernel_times(
    segment: Segment, mesh: Mesh, model: Model, phase: Phase, hardware: Hardware, loads: Mapping[Rows, ExpertLoad]
) -> dict[str, Measured]:
    """Op -> its time over the ranks, of every op whose kernel is another than its roofline has it. Hardware that names no calibration has
    passes over memory alone."""
    times: dict[str, Measured] = {}
    rows = hardware.mbu
    if hardware.calibration is not None:
        found = Match(segment, mesh, model, replace(phase, engine=PRODUCTS_OF), hardware, loads, times)
        known = kernels(found.calibration.gpu, low=phase.training is not None and phase.training.quantises)
        step_products.match(found, known)
        attention = Match(segment, mesh, model, replace(phase, engine=ATTENTION_OF), hardware, loads, times)
        attention_kernels.match(attention, known)
        rows = known.rows
    memory_passes.match(MemoryPasses(segment, mesh, phase, hardware, loads, rows), times)
    alike = (1,) * len(mesh.atoms)
    return {name: laid_out(each, alike) for name, each in times.items()}
