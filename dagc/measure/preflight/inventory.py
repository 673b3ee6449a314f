"""What was found of a machine (a host), as records, and the same as JSON, which is read again from other hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, fields
from math import isfinite
from typing import Any, TypeVar

from ...base.frozen import record
from ...base.harmless import harmless

MOST_GPUS = 1024
"""Of a host, and of its NICs: more is not the output of a program that counts GPUs."""
MOST_TEXT = 200
"""Characters of a name that is kept."""
MIB = 2.0**20


class Misread(ValueError):
    """Text that is not what the program prints, or not a found machine: why."""


@record
class Gpu:
    """None, or nothing: not found. `free_B`: of its memory what no process holds. `nvlink_Bps`: data of all its links that are up, per direction; `links_up` and `links_down`:
    their numbers. `pcie_Bps`: of the line, per direction. `fabric`: state of its registration with the switches, and
    `clique`: which of its domains it joined. `lost`: it no longer answers. `capability`: compute capability."""

    index: int
    name: str = ""
    memory_B: float | None = None
    free_B: float | None = None
    capability: float | None = None
    mig: bool = False
    mig_devices: int = 0
    uncorrected: int | None = None
    remap_failed: bool = False
    recovery: str = ""
    pcie_Bps: float | None = None
    nvlink_Bps: float | None = None
    links_up: int | None = None
    links_down: int | None = None
    fabric: str = ""
    clique: str = ""
    lost: bool = False
    uuid: str = ""
    power_W: float | None = None
    usual_power_W: float | None = None
    slowed: str = ""
    compute_mode: str = ""


@record
class Nic:
    """A port of a network card. `near`: GPUs that it shares a PCIe switch with."""

    name: str
    rate_Bps: float
    active: bool
    near: tuple[int, ...] = ()


@record
class Timed:
    """A short exchange between the GPUs: `time_s` of one call or copy, `wanted_s` as expected."""

    what: str
    ranks: int
    size_B: float
    time_s: float
    wanted_s: float


@record
class Machine:
    """`cuda`: newest CUDA (or ROCm) that the driver runs. `joined`: words of `nvidia-smi topo -m` between GPUs -> pairs.
    `disk`: the folder that weights are to be in, its `disk_free_B`, and bytes of weights that are there already.
    `hidden`: GPUs that processes may not use. `torch_cuda`: CUDA that the installed PyTorch was built with. `exchange_on`: what the exchange ran on; `missing`: what
    could not be asked, and why. `processors`: of the CPU, that processes may use."""

    host: str
    vendor: str = ""
    driver: str = ""
    cuda: str = ""
    gpus: tuple[Gpu, ...] = ()
    hidden: int = 0
    joined: Mapping[str, int] = field(default_factory=dict)
    nics: tuple[Nic, ...] = ()
    memory_B: float | None = None
    available_B: float | None = None
    shared_B: float | None = None
    disk: str = ""
    disk_free_B: float | None = None
    weights_there_B: float | None = None
    torch: str = ""
    torch_cuda: str = ""
    exchange_on: str = ""
    exchange: tuple[Timed, ...] = ()
    missing: tuple[str, ...] = ()
    processors: int | None = None


def plain(machine: Machine) -> dict[str, Any]:
    """As data; SI units."""
    return asdict(machine)


T = TypeVar("T")


def read(data: object) -> Machine:
    """The machine of `plain`. Raises Misread."""
    found = _object(data, "a machine", Machine)
    lists: dict[str, Any] = {
        "gpus": tuple(_made(Gpu, one) for one in _list(found.pop("gpus", []), "gpus")),
        "nics": tuple(_made(Nic, one) for one in _list(found.pop("nics", []), "nics")),
        "exchange": tuple(_made(Timed, one) for one in _list(found.pop("exchange", []), "exchange")),
        "missing": tuple(_text(one, "missing") for one in _list(found.pop("missing", []), "missing")),
    }
    joined = found.pop("joined", {})
    if not isinstance(joined, dict) or len(joined) > MOST_GPUS:
        raise Misread("`joined` is not an object")
    pairs = {_text(word, "joined"): int(_number(count, word)) for word, count in joined.items()}
    host = found.get("host")
    if not isinstance(host, str) or not host:
        raise Misread("`host` is missing")
    return Machine(**_values(Machine, found), **lists, joined=pairs)


def _made(of: Callable[..., T], data: object) -> T:
    name = getattr(of, "__name__", "").lower()
    found = _object(data, name, of)
    near = (
        {"near": tuple(int(_number(one, "near")) for one in _list(found.pop("near"), "near"))}
        if "near" in found
        else {}
    )
    try:
        return of(**_values(of, found), **near)
    except TypeError:
        raise Misread(f"a {name} lacks a field") from None


def _object(data: object, what: str, of: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise Misread(f"{what} is not an object")
    known = {one.name for one in fields(of)}
    unknown = next((str(name) for name in data if name not in known), None)
    if unknown is not None:
        raise Misread(f"{what} has an unknown field `{harmless(unknown[:MOST_TEXT])}`")
    return dict(data)


def _list(data: object, what: str) -> Sequence[object]:
    if not isinstance(data, list) or len(data) > MOST_GPUS:
        raise Misread(f"`{what}` is not a list of at most {MOST_GPUS}")
    return data


def _values(of: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """Plain fields, by the types that the record gives them."""
    types = {one.name: str(one.type) for one in fields(of)}
    out: dict[str, Any] = {}
    for name, value in found.items():
        kind = types[name]
        if value is None and "None" in kind:
            out[name] = None
        elif kind.startswith("str"):
            out[name] = _text(value, name)
        elif kind == "bool":
            if not isinstance(value, bool):
                raise Misread(f"`{name}` is neither true nor false")
            out[name] = value
        else:
            number = _number(value, name)
            out[name] = int(number) if kind.startswith("int") else number
    return out


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise Misread(f"`{name}` is not text")
    return kept(value)


def _number(value: object, name: str) -> float:
    """Of an amount: finite and not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or not 0 <= value < 1e18:
        raise Misread(f"`{harmless(name[:MOST_TEXT])}` is not an amount")
    return float(value)


def kept(text: str) -> str:
    """A name from elsewhere: one line, of a bounded length, that no terminal obeys."""
    return harmless(" ".join(text.split())[:MOST_TEXT])
