"""What NVIDIA's `nvidia-smi` prints: `-q -x` (all of a GPU, as XML), `nvlink --status`, `topo -m`, and the table of `--query-gpu`.

Element names are those of the driver's `nvsmi_device_v12.dtd` and `nvsmi_device_v13.dtd`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.parsers import expat

from ...base.frozen import replace
from .inventory import MIB, MOST_GPUS, Gpu, Misread, kept

LANE_BPS = {1: 0.25e9, 2: 0.5e9, 3: 1e9, 4: 2e9, 5: 4e9, 6: 8e9}
"""PCIe generation -> bytes per second and direction of one lane, as datasheets count them (8 GT/s are 1 GB/s)."""
DATA_BPS = {26.562: 25e9, 53.125: 50e9}
"""NVLink 4 and 5: rate of a link as `nvlink --status` prints it, in GB/s -> data per direction, by the datasheets."""
NO_ANSWER = "GPU is lost"
RECOVERED = ("", "None", "N/A")
"""States of `gpu_recovery_action` that ask for nothing."""
_LINK = re.compile(r"Link (\d+): (?:(\d+(?:\.\d+)?) GB/s|<inactive>)")
_GPU = re.compile(r"GPU (\d+):")


class Log(NamedTuple):
    """`nvidia-smi -q -x`"""

    driver: str
    cuda: str
    gpus: tuple[Gpu, ...]


def read_log(data: bytes) -> Log:
    """Raises Misread."""
    out: dict[str, str] = {}
    gpus: list[Gpu] = []
    for path, values in _elements(data):
        if path == "gpu":
            if len(gpus) >= MOST_GPUS:
                raise Misread(f"more than {MOST_GPUS} GPUs")
            gpus.append(_gpu(len(gpus), values))
        else:
            out.setdefault(path, values.get(path, ""))
    return Log(out.get("driver_version", ""), out.get("cuda_version", ""), tuple(gpus))


def _elements(data: bytes) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Each child of the root: its name, and the texts inside it by path, the first of each path. Bounded: declarations of
    entities are refused, and a path or text that is too long is cut."""
    found: list[tuple[str, dict[str, str]]] = []
    stack: list[str] = []
    texts: dict[str, str] = {}
    part: list[str] = []

    def start(name: str, _: Mapping[str, str]) -> None:
        if not stack and name != "nvidia_smi_log":
            raise Misread(f"its root is `{kept(name)}`, not `nvidia_smi_log`")
        if len(stack) > 20:
            raise Misread("its elements are nested too deep")
        stack.append(name[:100])
        part.clear()
        if len(stack) == 2:
            texts.clear()

    def end(_: str) -> None:
        path = "/".join(stack[2:]) or stack[-1]
        if len(texts) < 5000:
            if stack[-1] == "mig_device":
                texts["mig_device"] = texts.get("mig_device", "") + "."
            texts.setdefault(path, kept("".join(part)))
        part.clear()
        if len(stack) == 2:
            found.append((stack[1], dict(texts)))
            if len(found) > 4 * MOST_GPUS:
                raise Misread("it has too many elements")
        stack.pop()

    def characters(text: str) -> None:
        if len(part) < 100:
            part.append(text[:1000])

    def entity(*_: object) -> None:
        raise Misread("it declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = characters, entity
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise Misread(f"not XML: {expat.ErrorString(error.code)} in line {error.lineno}") from None
    yield from found


def _gpu(index: int, values: Mapping[str, str]) -> Gpu:
    lost = any(text == NO_ANSWER for text in values.values())
    generation = _number(values.get("pci/pci_gpu_link_info/pcie_gen/max_link_gen", ""))
    lanes = _number(values.get("pci/pci_gpu_link_info/link_widths/current_link_width", "").removesuffix("x"))
    lane_Bps = LANE_BPS.get(int(generation or 0))
    state, status = values.get("fabric/state", ""), values.get("fabric/status", "")
    joined = state == "Completed" and status in ("", "Success")
    ills = [*([] if joined else [status]), *_unhealthy(values)]
    fabric = "" if state in ("", "N/A") else ", ".join([state, *filter(None, dict.fromkeys(ills))])
    uuid = values.get("fabric/clusterUuid", "")
    alone = not uuid.strip("0-") or uuid == "N/A"  # a fabric of one host has no id
    recovery = values.get("gpu_recovery_action", "")
    total, used = (_mib(values.get(f"fb_memory_usage/{name}", "")) for name in ("total", "used"))
    return Gpu(
        index, values.get("product_name", ""), total, None if total is None or used is None else max(0.0, total - used), _number(values.get("compute_cap", "")),
        values.get("mig_mode/current_mig") == "Enabled", len(values.get("mig_device", "")), _uncorrected(values),
        values.get("remapped_rows/remapped_row_failure") == "Yes", "" if recovery in RECOVERED else recovery,
        lane_Bps * lanes if lane_Bps and lanes else None, fabric=fabric,
        clique="" if alone or not joined else f"{uuid}.{values.get('fabric/cliqueId', '')}", lost=lost,
        uuid=values.get("uuid", ""), power_W=_power(values, "current_power_limit", "power_limit"),
        usual_power_W=_power(values, "default_power_limit"), slowed=", ".join(_slowed(values)),
        compute_mode=values.get("compute_mode", ""),
    )  # fmt: skip


POWER = ("gpu_power_readings", "power_readings")
"""Where limits of power are, by the version of the driver."""
SLOWED = {
    "hw_slowdown": "",
    "hw_thermal_slowdown": "heat",
    "hw_power_brake_slowdown": "the power brake",
    "sw_thermal_slowdown": "heat",
}
"""Reasons for slow clocks that are no part of an idle or loaded GPU's life, and what is behind them; nothing: any of the others."""


def _power(values: Mapping[str, str], *names: str) -> float | None:
    texts = (values.get(f"{part}/{name}", "") for part in POWER for name in names)
    return next((watts for text in texts if (watts := _number(text.removesuffix("W"))) is not None), None)


def _slowed(values: Mapping[str, str]) -> Iterator[str]:
    active = {
        path.rpartition("_reason_")[2] for path, text in values.items() if "_reason_" in path and text == "Active"
    }
    named = dict.fromkeys(SLOWED[one] for one in SLOWED if one in active and SLOWED[one])
    yield from named or (["its hardware"] if "hw_slowdown" in active else [])


def _unhealthy(values: Mapping[str, str]) -> Iterator[str]:
    """What the fabric says is wrong with a GPU's way to it."""
    health = {path.rpartition("/")[2]: text for path, text in values.items() if path.startswith("fabric/health/")}
    yield from (name for name, text in health.items() if text == "True")
    yield from (f"{name} {text}" for name, text in health.items() if text in ("Unhealthy", "Degraded"))
    if health.get("incorrect_configuration", "N/A") not in ("N/A", "None", "False", "True", ""):
        yield f"incorrect_configuration {health['incorrect_configuration']}"


def _uncorrected(values: Mapping[str, str]) -> int | None:
    """ECC errors since the driver was loaded that could not be corrected."""
    own = [t for path, t in values.items() if path.startswith("ecc_errors/volatile/") and "uncorrectable" in path]
    counts = [number for text in own if (number := _number(text)) is not None]
    return int(sum(counts)) if counts else None


def _mib(text: str) -> float | None:
    number = _number(text.removesuffix("MiB").strip()) if text.endswith("MiB") else None
    return None if number is None else number * MIB


def _number(text: str) -> float | None:
    """None for `N/A`, and for all else that is no amount."""
    found = re.fullmatch(r"\d{1,15}(\.\d{1,6})?", text.strip())
    return float(found[0]) if found else None


def with_links(gpus: tuple[Gpu, ...], text: str) -> tuple[Gpu, ...]:
    """GPUs with what `nvidia-smi nvlink --status` says of their links. Raises Misread."""
    up: dict[int, list[float]] = {}
    down: Counter[int] = Counter()
    gpu: int | None = None
    for line in text.splitlines():
        if head := _GPU.match(line):
            gpu = int(head[1][:9])
            up.setdefault(gpu, [])
        elif (link := _LINK.match(line.strip())) is not None and gpu is not None and len(up[gpu]) < MOST_GPUS:
            rate = float(link[2]) if link[2] else 0.0
            if rate:
                up[gpu].append(_data_Bps(rate))
            else:
                down[gpu] += 1
        if len(up) > MOST_GPUS:
            raise Misread(f"more than {MOST_GPUS} GPUs")
    if not up:
        raise Misread("it names no GPU")
    return tuple(
        replace(g, nvlink_Bps=sum(up[g.index]), links_up=len(up[g.index]), links_down=down[g.index])
        if g.index in up
        else g
        for g in gpus
    )


def _data_Bps(rate_GBps: float) -> float:
    return next((data for line, data in DATA_BPS.items() if abs(rate_GBps / line - 1) < 1e-3), rate_GBps * 1e9)


class Topology(NamedTuple):
    """`joined`: word between two GPUs -> pairs of them. `near`: NIC -> GPUs behind the same PCIe switch. `names`: NIC of the
    table -> the device's name."""

    joined: Mapping[str, int]
    near: Mapping[str, tuple[int, ...]]
    names: Mapping[str, str]


NEAR = ("PIX", "PXB")
"""Words for a path that stays below a PCIe host bridge."""
_WORD = re.compile(r"X|NV\d{1,3}|PIX|PXB|PHB|NODE|SYS")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def read_topology(text: str) -> Topology:
    """Of `nvidia-smi topo -m`. Raises Misread."""
    lines = [_ESCAPE.sub("", line) for line in text.splitlines()[: 4 * MOST_GPUS]]
    at = next((i for i, line in enumerate(lines) if re.match(r"\s*GPU0\b", line)), None)
    if at is None:
        raise Misread("it has no column `GPU0`")
    head = re.findall(r"(?:GPU|NIC)\d+|mlx\w+|irdma\w+|bnxt\w+", lines[at])[:MOST_GPUS]
    joined: Counter[str] = Counter()
    rows: set[str] = set()
    near: dict[str, list[int]] = {}
    for line in lines[at + 1 :]:
        cells = line.split()
        if not cells or cells[0] not in head:
            continue
        words = cells[1 : 1 + len(head)]
        if len(words) < len(head) or not all(_WORD.fullmatch(word) for word in words):
            raise Misread(f"its row of `{kept(cells[0])}` does not have a word for each column")
        row = int(cells[0][3:]) if cells[0].startswith("GPU") else None
        rows |= {cells[0]} if row is not None else set()
        for column, word in zip(head, words, strict=True):
            if row is None or word == "X":
                continue
            if column.startswith("GPU"):
                joined[word] += 1
            elif word in NEAR:
                near.setdefault(column, []).append(row)
    if rows != {name for name in head if name.startswith("GPU")}:
        raise Misread("it does not have a row for each GPU")
    names = dict(re.findall(r"^\s*(NIC\d+): (\S+)", "\n".join(lines), re.MULTILINE))
    pairs = {word: count // 2 for word, count in sorted(joined.items())}
    return Topology(pairs, {name: tuple(gpus) for name, gpus in near.items()}, {n: kept(d) for n, d in names.items()})


def with_capabilities(gpus: tuple[Gpu, ...], text: str) -> tuple[Gpu, ...]:
    """GPUs with their compute capabilities, of `--query-gpu=index,compute_cap --format=csv,noheader`. Raises Misread."""
    found: dict[int, float] = {}
    for line in text.splitlines()[:MOST_GPUS]:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 2 or not cells[0].isdigit():
            raise Misread(f"`{kept(line)}` is not an index and a compute capability")
        number = _number(cells[1])
        if number is not None:
            found[int(cells[0][:9])] = number
    return tuple(replace(g, capability=found.get(g.index, g.capability)) for g in gpus)
