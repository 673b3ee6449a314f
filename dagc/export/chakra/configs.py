"""Input files of ASTRA-sim's analytical backends, from a spec's hardware and a phase's ranks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from math import ceil
from typing import Any

from ...base.frozen import replace
from ...spec.hardware import Hardware, Link
from .ranks import Network, Ranks

GIB = 2.0**30
"""Bytes of the simulator's network gigabyte; its memory gigabyte has 1e9."""
SWITCH_HOPS = 2
"""A message through a switch: up and down. The simulator counts the latency for each."""


def groups(ranks: Ranks) -> dict[str, list[int]]:
    """Communicators: id -> ranks, in the order of the simulator's rings."""
    return {str(ranks.first + i): list(members) for i, members in enumerate(ranks.groups)}


def links_of(network: Network, hardware: Hardware) -> tuple[Link, ...]:
    """The spec's links of each dimension: bandwidth per GPU and direction; where GPUs share NICs, a GPU's part."""
    links = [hardware.links[i] for i in network.levels]
    if hardware.nics is not None:
        outside = next((i for i, link in enumerate(hardware.links) if i and not link.onward), len(hardware.links))
        part = hardware.nics[0] / hardware.nics[1]
        links = [
            replace(link, bandwidth_Bps=link.bandwidth_Bps * (part if i >= outside else 1))
            for i, link in zip(network.levels, links, strict=True)
        ]
    return tuple(links)


def network_text(network: Network, links: tuple[Link, ...]) -> str:
    """A switch for each domain of each level of links."""
    rows: dict[str, list[str] | list[int] | list[float]] = {
        "topology": ["Switch"] * len(links),
        "npus_count": list(network.shape),
        "bandwidth": [link.bandwidth_Bps / GIB for link in links],  # GB/s
        "latency": [link.latency_s * 1e9 / SWITCH_HOPS for link in links],  # ns a hop
    }
    return "".join(f"{key}: [ {', '.join(map(str, row))} ]\n" for key, row in rows.items())


def system(algorithms: Mapping[str, str], hardware: Hardware, *, roofline: bool) -> dict[str, Any]:
    """Without the roofline the simulator takes the durations that dagc estimated; with it, it makes its own estimate from
    FLOPs and bytes at the spec's efficiencies. Reductions of a ring read memory at `local-mem-bw` too, which the times of
    collectives have in them already, so that it is out of the way where nothing else needs it."""
    memory_Bps = hardware.hbm_Bps * hardware.mbu if roofline else NO_LIMIT_GBPS * 1e9
    return {
        "scheduling-policy": "FIFO",
        "endpoint-delay": 1,
        "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": 1,
        # One entry over all dimensions: of several, groups smaller than all ranks get rings.
        **{f"{kind.replace('_', '-')}-implementation": [name] for kind, name in algorithms.items()},
        "collective-optimization": "baseline",
        "local-mem-bw": memory_Bps / 1e9,  # GB/s
        "peak-perf": hardware.peak_flops("default") * hardware.mfu / 1e12,  # TFLOP/s
        "roofline-enabled": int(roofline),
        "trace-enabled": 0,
        "replay-only": 0,
    }


NO_LIMIT_GBPS = 1e9


def first_B(hardware: Hardware) -> int:
    """Bytes that take the roofline a nanosecond."""
    return ceil(hardware.hbm_Bps * hardware.mbu * 1e-9) + 1


MEMORY = {"memory-type": "NO_MEMORY_EXPANSION"}


def command(directory: str, model: str) -> str:
    """How to run the simulator on a directory of traces, as a shell's command."""
    directory = shlex.quote(directory)
    return (
        "AstraSim_Analytical_Congestion_Unaware "
        f"--workload-configuration={directory}/rank --comm-group-configuration={directory}/groups.json "
        f"--system-configuration={directory}/{model} --network-configuration={directory}/network.yml "
        f"--remote-memory-configuration={directory}/memory.json"
    )
