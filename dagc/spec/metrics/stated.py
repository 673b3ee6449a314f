"""The metrics of hardware, model and workload."""

from __future__ import annotations

from ...base.units import (
    BYTE_RATE,
    BYTES,
    FLOP_RATE,
    MONEY_RATE,
    POWER,
    SCALAR,
    TIME,
    TOKENS,
)
from .metric import HARDWARE, MODEL, WORKLOAD, Metric

HARDWARES: tuple[Metric, ...] = (
    Metric(HARDWARE, "gpus", SCALAR, "", "GPUs in the pool", lambda s: float(s.hardware.gpus)),
    Metric(HARDWARE, "per_node", SCALAR, "", "GPUs in a node", lambda s: float(s.hardware.per_node)),
    Metric(
        HARDWARE, "compute", FLOP_RATE, "", "peak of a GPU in the model's dtype",
        lambda s: s.hardware.peak_flops(s.spec.model.dtype),
    ),
    Metric(
        HARDWARE, "mfu", SCALAR, "", "share of the compute peak that kernels reach", lambda s: s.hardware.mfu, share=True
    ),
    Metric(HARDWARE, "memory", BYTES, "", "memory of a GPU", lambda s: s.hardware.memory_B),
    Metric(
        HARDWARE, "memory.peak", BYTES, "lower", "what the fullest GPU stores, all phases together",
        lambda s: max((pool.peak_B for pool in s.held), default=0.0), pooled=True,
    ),
    Metric(
        HARDWARE, "memory.fraction", SCALAR, "lower", "the peak over the memory of a GPU",
        lambda s: max((pool.fraction for pool in s.held), default=0.0), share=True, pooled=True,
    ),
    Metric(HARDWARE, "hbm", BYTE_RATE, "", "memory bandwidth of a GPU", lambda s: s.hardware.hbm_Bps),
    Metric(
        HARDWARE, "mbu", SCALAR, "", "share of the memory bandwidth that kernels reach", lambda s: s.hardware.mbu,
        share=True,
    ),
    Metric(HARDWARE, "launch", TIME, "", "time to launch a kernel", lambda s: s.hardware.launch_s),
    Metric(
        HARDWARE, "price", MONEY_RATE, "", "money for a GPU over time", lambda s: s.hardware.price_per_s, needs="price"
    ),
    Metric(HARDWARE, "power", POWER, "", "what a GPU draws at most", lambda s: s.hardware.power_W, needs="power"),
    Metric(HARDWARE, "disk", BYTE_RATE, "", "what a host reads from its storage", lambda s: s.hardware.disk_Bps, needs="disk"),
    Metric(HARDWARE, "reserve", BYTES, "", "memory that the runtime keeps", lambda s: s.hardware.reserve_B),
)  # fmt: skip

OTHERS: tuple[Metric, ...] = (
    Metric(MODEL, "params_total", SCALAR, "", "parameters, counted from the blocks", lambda s: s.params[0]),
    Metric(MODEL, "params_active", SCALAR, "", "parameters that a token uses", lambda s: s.params[1]),
    Metric(MODEL, "params", SCALAR, "", "parameters as stated", lambda s: s.spec.model.params_stated),
    Metric(MODEL, "layers", SCALAR, "", "layers between embedding and head", lambda s: float(s.spec.model.layers)),
    Metric(WORKLOAD, "sequences", SCALAR, "", "sequences in the batch", lambda s: float(s.spec.workload.sequences)),
    Metric(WORKLOAD, "prompt", TOKENS, "", "prompt tokens per sequence", lambda s: float(s.spec.workload.prompt)),
    Metric(WORKLOAD, "output", TOKENS, "", "generated tokens per sequence", lambda s: float(s.spec.workload.output)),
)
