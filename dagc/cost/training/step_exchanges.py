"""step_exchanges: collectives of a training step: NCCL's, as it was measured, but for kernels for tokens that the phase names.

Sums of gradients and new weights travel in buckets. Beyond the ranks that were measured no call is faster than its links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...base.dtypes import DTYPE_BYTES
from ...base.frozen import replace
from ...ir.groups import GroupShape
from ...ir.op import UPDATE, Op
from ...ir.routed_dims import rows_of
from ..exchange import KERNELS, Exchanges, Kernel, Option, Tokens
from ..measured import Measured

BUCKET = 40e6
"""Numbers that go together, at least (Megatron-LM, `--ddp-bucket-size`)."""


class TrainingExchanges(Exchanges):
    """Times of the collectives of one segment of a step."""

    def measured(self, op: Op, payload_B: float, group: GroupShape, estimate_s: float) -> Measured | None:
        times = 1.0
        if op.cell == UPDATE and payload_B:
            times = max(1.0, BUCKET * DTYPE_BYTES[op.dtype] / payload_B)
        found = super().measured(op, payload_B * times, group, estimate_s * times)
        if found is None:
            return None
        return replace(found, time_s=np.maximum(found.time_s / times, estimate_s if found.outside else 0.0))

    def _sent(self, op: Op, payload_B: float) -> Tokens | None:
        """NCCL's exchange, unless the phase names kernels; weights of choices are no tokens."""
        rows = rows_of(op.dims)
        named = self.unit.phase.exchange is not None and rows is not None and op.dims[-1] != rows.slot
        return super()._sent(op, payload_B) if named else None

    def _as_nodes_s(self, op: Op, payload_B: float, ranks: int) -> float:
        return float("inf")

    def _collective_kernels(
        self, op: Op, payload_B: float, ranks: int, kernels: Sequence[Kernel] | None = None
    ) -> Iterator[Option]:
        own = [kernel for kernel in KERNELS[op.runtime_kind] if kernel.variant] if kernels is None else kernels
        yield from super()._collective_kernels(op, payload_B, ranks, own)
