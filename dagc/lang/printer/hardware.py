"""Pools of GPUs and their links as text."""

from __future__ import annotations

from collections.abc import Iterator

from ...spec.hardware import Hardware, Level, PoolLink
from .written import is_plain, number, section_text, word_or_path_text


def hardware_text(h: Hardware) -> str:
    compute = ", ".join(f"{k} = {number(v, 'FLOP/s')}" for k, v in h.compute_flops.items())
    return section_text(
        f"hardware {h.name}" if is_plain(h.name) else f'hardware "{h.name}"',
        [
            ", ".join(_sizes(h)),
            f"compute {{ {compute} }}",
            f"mfu = {number(h.mfu)}, memory = {number(h.memory_B, 'B')}",
            f"hbm = {number(h.hbm_Bps, 'B/s')}, mbu = {number(h.mbu)}",
            *([f"calibration = {word_or_path_text(h.calibration)}"] if h.calibration else []),
            f"launch = {number(h.launch_s, 's')}, reserve = {number(h.reserve_B, 'B')}",
            *([f"price = {number(h.price_per_s, '$/s')}"] if h.price_per_s is not None else []),
            *([f"power = {number(h.power_W, 'W')}"] if h.power_W is not None else []),
            *([f"host_memory = {number(h.host_memory_B, 'B')}"] if h.host_memory_B is not None else []),
            *([f"host_link = {number(h.host_link_Bps, 'B/s')}"] if h.host_link_Bps is not None else []),
            *([f"disk = {number(h.disk_Bps, 'B/s')}"] if h.disk_Bps is not None else []),
            *([f"vendor = {h.vendor}"] if h.vendor != "nvidia" else []),
            *([f"kind = {h.kind}"] if h.kind != "gpu" else []),
            *(_level(level, h.short) for level in h.levels),
        ],
    )


def _sizes(h: Hardware) -> Iterator[str]:
    yield f"gpus = {h.gpus}"
    if h.short:
        yield f"per_node = {h.per_node}"
    if h.per_host != h.per_node:
        yield f"per_host = {h.per_host}"


def _level(level: Level, short: bool) -> str:
    parts = [] if short or level.gpus is None else [f"gpus = {level.gpus}"]
    parts += [f"bandwidth = {number(level.bandwidth_Bps, 'B/s')}", f"latency = {number(level.latency_s, 's')}"]
    if level.oversubscription != 1:
        parts.append(f"oversubscription = {number(level.oversubscription)}")
    if level.nics is not None:
        parts.append(f"nics = {level.nics}")
    name = level.name if is_plain(level.name) else f'"{level.name}"'
    return f"link {name} {{ {', '.join(parts)} }}"


def pool_link_text(link: PoolLink) -> str:
    inside = f"bandwidth = {number(link.bandwidth_Bps, 'B/s')}, latency = {number(link.latency_s, 's')}"
    return f"link {link.pools[0]} to {link.pools[1]} {{ {inside} }}"
