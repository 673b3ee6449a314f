"""What `hardware`, its peaks and its links take."""

from __future__ import annotations

from ..dtypes import NAMED
from ..units import BYTE_RATE, BYTES, FLOP_RATE, MONEY_RATE, POWER, TIME
from .attribute import DTYPES, LEAST_RATE, Attribute, count_of, share_of, word_of

HARDWARE: dict[str, Attribute] = {
    "gpus": count_of("GPUs in the pool", high=1e6),
    "per_node": count_of("GPUs in one node", 8, high=1e6),
    "per_host": count_of("GPUs of one host, where it is not a node", None, high=1e6, otherwise="a node's"),
    "compute": Attribute("peak FLOP/s of one GPU, or a section by dtype", dim=FLOP_RATE, low=LEAST_RATE),
    "mfu": share_of("share of the compute peak that kernels reach", 0.6),
    "memory": Attribute("memory of one GPU", dim=BYTES),
    "hbm": Attribute("memory bandwidth of one GPU", dim=BYTE_RATE, low=LEAST_RATE),
    "mbu": share_of("share of the memory bandwidth that kernels reach", 0.8),
    "launch": Attribute("time to launch one kernel", dim=TIME, default=2e-6, open_low=False, high=1.0),
    "calibration": word_of(
        'measured constants of its kernels, e.g. h100_sxm or "mine.json"', None, otherwise="none: mfu and mbu"
    ),
    "reserve": Attribute("memory the runtime keeps for itself", dim=BYTES, default=0.0, open_low=False),
    "price": Attribute(
        "money for one GPU over time, for costs",
        dim=MONEY_RATE,
        default=None,
        low=1e-12,
        high=1e6,
        otherwise="no costs",
    ),
    "power": Attribute(
        "what one GPU draws at most, for energies", dim=POWER, default=None, low=1e-3, high=1e6, otherwise="no energies"
    ),
    "host_memory": Attribute(
        "memory of one host, for what its GPUs keep there", dim=BYTES, default=None, otherwise="as much as is needed"
    ),
    "host_link": Attribute(
        "bytes per second between the memories of a GPU and of its host, per GPU and direction",
        dim=BYTE_RATE,
        default=None,
        low=LEAST_RATE,
        otherwise="50 GB/s: four fifths of PCIe 5 x16",
    ),
    "disk": Attribute(
        "bytes per second from the storage of one host",
        dim=BYTE_RATE,
        default=None,
        low=LEAST_RATE,
        otherwise="no times of loading from it",
    ),
    "vendor": word_of("who makes its GPUs: some engines run on one's alone", "nvidia", "nvidia", "amd"),
    "kind": word_of(
        "what its devices are: of a CPU each process is one, and no serving engine is told of it", "gpu", "gpu", "cpu"
    ),
}

_NO_UNITS = "the GPU has none, and refuses such weights"

_PEAK_OF = {"fp8": _NO_UNITS, "nvfp4": _NO_UNITS} | {
    one.name: f"that of `{one.unit}`" + (", else of `default`" if one.widened else "")
    for one in NAMED.values()
    if one.unit != one.name
}

COMPUTE: dict[str, Attribute] = {
    **{
        dtype: Attribute(
            f"peak FLOP/s in {dtype}",
            dim=FLOP_RATE,
            default=None,
            low=LEAST_RATE,
            otherwise=_PEAK_OF.get(dtype, "that of `default`"),
        )
        for dtype in DTYPES
    },
    "default": Attribute(
        "peak FLOP/s in all other dtypes",
        dim=FLOP_RATE,
        default=None,
        low=LEAST_RATE,
        otherwise="the larger of bf16 and fp16, else the largest",
    ),
}
"""Section `compute` of hardware, where peaks differ by dtype."""

LINK: dict[str, Attribute] = {
    "bandwidth": Attribute("bytes per second, per GPU and direction", dim=BYTE_RATE, low=LEAST_RATE),
    "latency": Attribute("latency of one message", dim=TIME, open_low=False, high=10.0),
    "gpus": count_of("GPUs that it joins", None, high=1e6, otherwise="all"),
    "oversubscription": Attribute(
        "how much more its GPUs can send than what crosses it can carry", default=1.0, low=1.0, open_low=False, high=1e3
    ),
    "nics": count_of(
        "NICs of a node, where its GPUs share them; bandwidth is then of one NIC",
        None,
        high=1e6,
        otherwise="one for each GPU",
    ),
}

POOL_LINK: dict[str, Attribute] = {
    "bandwidth": Attribute(
        "bytes per second from one pool to the other, per GPU and direction", dim=BYTE_RATE, low=LEAST_RATE
    ),
    "latency": LINK["latency"],
}
"""`link A to B`."""
