"""Files of what was found elsewhere: the JSON of `dagc preflight --json`, or what nvidia-smi and rocm-smi printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...base.files import Unreadable, read_named
from ...base.frozen import replace
from . import probe, rocm, smi
from .inventory import MOST_GPUS, Machine, Misread, kept, read


def machines(paths: Sequence[str], allowed: Sequence[str | Path] = ()) -> list[Machine]:
    """Every host of the files. What programs printed is of one host, all of it. Raises Misread and Unreadable."""
    out: list[Machine] = []
    printed: list[tuple[str, bytes]] = []
    for path in paths:
        try:
            data = read_named(path, probe.MOST_B, allowed)
        except Unreadable as error:
            raise Unreadable(f"`{path}`: {error}", *error.help) from None
        found = _json(path, data) if data.lstrip()[:1] == b"{" else None
        if found is not None and "found" in found:
            out += _found(path, found["found"])
        else:
            printed.append((path, data))
    if printed:
        out.append(_printed(printed))
    return out


def _json(path: str, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise Misread(f"`{path}` is not JSON") from None
    if not isinstance(found, dict):
        raise Misread(f"`{path}` is not a JSON object")
    return found


def _found(path: str, found: object) -> list[Machine]:
    if not isinstance(found, list) or len(found) > MOST_GPUS:
        raise Misread(f"`{path}`: `found` is not a list of machines")
    try:
        return [read(one) for one in found]
    except Misread as error:
        raise Misread(f"`{path}`: {error}") from None


def _printed(files: Sequence[tuple[str, bytes]]) -> Machine:
    """One host, named by the first file. `-q -x` first, to which the others add."""
    machine = Machine(kept(Path(files[0][0]).stem) or "host")
    for path, data in sorted(files, key=lambda one: _order(one[1])):
        text = data.decode("utf-8", "replace")
        try:
            machine = _with(machine, data, text)
        except Misread as error:
            raise Misread(f"`{path}`: {error}") from None
    return machine


def _order(data: bytes) -> int:
    return 0 if data.lstrip()[:1] in (b"<", b"{") else 1


def _with(machine: Machine, data: bytes, text: str) -> Machine:
    head = text.lstrip()
    if head.startswith("<"):
        log = smi.read_log(data)
        if machine.gpus:
            raise Misread("a second host: give each its own JSON of `dagc preflight --json`")
        return replace(machine, vendor="nvidia", driver=log.driver, cuda=log.cuda, gpus=log.gpus)
    if head.startswith("{"):
        cards = rocm.read_cards(data)
        return replace(machine, vendor="amd", driver=cards.driver, gpus=cards.gpus)
    if not machine.gpus:
        raise Misread("what `nvidia-smi -q -x` prints must come with it, or it is none of the files that are read here")
    if "Link 0:" in text or "<inactive>" in text:
        return replace(machine, gpus=smi.with_links(machine.gpus, text))
    if "GPU0" in text:
        return probe.with_topology(machine, smi.read_topology(text))
    return replace(machine, gpus=smi.with_capabilities(machine.gpus, text))
