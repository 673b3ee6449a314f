"""Shell scripts that start servers, with the headers of Slurm jobs, and scripts of one replica each."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ...base.frozen import replace
from ...base.source import Source, Span
from ..shell.follow import follow
from .servers_found import Placed
from .wrappers import Program, Read, data, programs

REPLICA = "REPLICA"
"""A script that asks for it is run for each replica with its number."""
MAX_REPLICAS = 1_000
JOB = re.compile(r"^#SBATCH\s+(?:--(nodes|gpus-per-node|gres)[=\s]+|-(N)\s*)(\S+)", re.MULTILINE)
STEP = "srun"


def looks(text: str) -> bool:
    return (
        text.startswith("#!")
        or re.search(r"^\s*(#SBATCH|export |set -|exec )", text[:20_000], re.MULTILINE) is not None
    )


def placed(source: Source, read: Read) -> list[Placed]:
    """Raises ShellError."""
    nodes, _ = _job(source.text)
    job = dict.fromkeys(data()["counts"], str(nodes)) if nodes else {}
    if not _by_replica(source, read, job):
        return [_placed(one, source) for one in programs(source.text, source.name, read, job)]
    out: list[Placed] = []
    for replica in range(MAX_REPLICAS):
        given = {**job, REPLICA: str(replica)}
        found = programs(source.text, source.name, read, given)
        if not found:
            break
        # The first of its GPUs, which such a script has in a variable.
        first = follow(source.text, {**read.variables(), **given}, name=source.name, spent=read.spent).variables.get(
            "GPU", ""
        )
        seat = (int(first),) if re.fullmatch(r"\d{1,6}", first) else ()
        out += [replace(_placed(one, source), first_gpus=seat) for one in found]
    return out


def _by_replica(source: Source, read: Read, job: Mapping[str, str]) -> bool:
    """Whether it asks for the number of a replica, and refuses one that there cannot be."""
    if re.search(rf"\$\{{?{REPLICA}\b", source.text) is None:
        return False
    return not programs(source.text, source.name, read, {**job, REPLICA: "999999"})


def _placed(one: Program, source: Source) -> Placed:
    nodes, gpus = _job(source.text) if STEP in source.text else (0, 0)
    return Placed(
        one,
        gpus_per_node=one.gpus_per_node or gpus,
        nodes=one.nodes or (nodes if one.within == () and nodes == 1 else 0),
        name=_name(one, source),
        names=(os.path.basename(source.name), *one.within),
        where=source.name,
        span=_line(source, one),
    )


def _name(one: Program, source: Source) -> str:
    """By its functions, else by the file."""
    base = os.path.basename(source.name).split(".")[0]
    named = [
        name.removeprefix("serve_").removeprefix("start_")
        for name in one.within
        if name.startswith(("serve_", "start_"))
    ]
    return named[-1] if named else base


def _line(source: Source, one: Program) -> Span:
    end = source.text.find("\n", one.start, one.end)
    return Span(source, one.start, max(one.start + 1, one.end if end < 0 else end))


def _job(text: str) -> tuple[int, int]:
    """Nodes and GPUs per node of a job."""
    nodes = gpus = 0
    for long, short, value in JOB.findall(text):
        number = value.rpartition(":")[2].partition("-")[0]
        if not re.fullmatch(r"\d{1,6}", number):
            continue
        if short or long == "nodes":
            nodes = int(number)
        else:
            gpus = int(number)
    return nodes, gpus
