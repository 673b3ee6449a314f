"""What a training phase says beside its strategy: order of work, what is kept, and what makes new weights."""

from __future__ import annotations

from ..base.frozen import record
from ..base.low_precision import RECIPES


@record
class Training:
    """`schedule`: order of the cells of a pipeline, with `virtual` chunks of layers on each GPU; `recompute`: blocks, kinds of op or
    ops that are done anew before their gradients, `full` all. `zero`: what data-parallel ranks share out of the states of the
    `optimizer` and of gradients. Dtypes: of the sums of gradients, of the optimizer's own copy of the weights, of its moments. `overlap`: full
    where gradients are reduced, and shared out weights gathered, while other layers compute; `exchange_overlap`:
    full where tokens travel to experts while another micro-batch computes, forward and backward cells at once. `mtp_loss`: what the mean loss of the layers that
    predict further tokens counts beside the model's own; 0: they are not trained. `reshard_after_forward`: what is gathered of shared out
    weights is freed behind the forward pass of a layer, and gathered anew for its gradients.
    `matmul_dtype`: of products of layers, one of `base.low_precision` where their operands are quantised; empty: the dtype of the weights. `quantised_weights`:
    their weights are stored, and where the recipe allows gathered, so; else there are copies in 16 bits, too. `fp8_scaling`: delayed where scales of tensors
    are known before these.
    `offload`: share of what layers keep for their gradients that waits in the memory of the host.
    `dropout`: share of what layers add to the residual stream, and of the embedding's rows, that is put to nothing.
    `aux_loss`, `z_loss`: what the losses of routers count, the first with shares of experts over the tokens of `aux_loss_over`."""

    schedule: str = "one_f_one_b"
    virtual: int = 1
    recompute: tuple[str, ...] = ()
    optimizer: str = "adamw"
    zero: int = 0
    gradient_dtype: str = "fp32"
    master_dtype: str = "fp32"
    moment_dtype: str = "fp32"
    overlap: str = "none"
    exchange_overlap: str = "none"
    mtp_loss: float = 0.0
    aux_loss: float = 0.0
    aux_loss_over: str = "rank"
    z_loss: float = 0.0
    reshard_after_forward: bool = True
    matmul_dtype: str = ""
    quantised_weights: bool = False
    fp8_scaling: str = "current"
    dropout: float = 0.0
    offload: float = 0.0

    @property
    def quantises(self) -> bool:
        """Whether products read quantised operands."""
        return self.matmul_dtype in RECIPES
