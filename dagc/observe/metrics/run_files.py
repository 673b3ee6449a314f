"""Files of a run, told apart by what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...base.files import Unreadable, open_regular
from ...base.foreign_lines import TraceError, lines
from ...base.frozen import record
from ..memory import logs, snapshot
from . import benchmark, csv_files, exposition
from .csv_files import Requests
from .series import Server

GZIP = b"\x1f\x8b"
KNOWN = (
    "metrics in Prometheus' text, CSV of nvidia-smi or of requests, JSON of a benchmark, a log of vLLM, SGLang or TensorRT-LLM, or a snapshot of "
    "torch's allocator"
)


@record
class Given:
    """A file of the command line. `phase`: what it says the file is of; `role`: the kind of that phase."""

    path: Path
    phase: str = ""
    role: str = ""


@dataclass(slots=True)
class Run:
    """What the files of one run have. `about`: a line on each of them; `doubts`: what is worth a warning."""

    servers: list[Server] = field(default_factory=list)
    requests: list[Requests] = field(default_factory=list)
    results: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    logs: list[tuple[str, logs.Log]] = field(default_factory=list)
    snapshots: list[tuple[str, snapshot.Snapshot]] = field(default_factory=list)
    about: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def read(groups: Sequence[Sequence[Given]]) -> Run:
    """Each group has the files of one server, its scrapes in the order of time. Raises TraceError."""
    run = Run()
    for group in groups:
        servers: dict[str, Server] = {}
        for given in group:
            _one(given, servers, run)
        run.servers += servers.values()
    for server in run.servers:
        resets = sum(
            one.resets
            for name, of in server.series.items()
            if name.endswith(("_total", "_count"))
            for one in of.values()
        )
        if resets:
            run.doubts.append(
                f"counters fall between the scrapes of {', '.join(server.names)}: the server began again, they are not in the order of time, or of several servers, "
                "each of which takes a `--metrics` of its own"
            )
    if len(run.requests) > 1 or len(run.results) > 1:
        what = "files of requests" if len(run.requests) > 1 else "results of a benchmark"
        names = [one.name for one in run.requests] if len(run.requests) > 1 else [name for name, _ in run.results]
        raise TraceError(Path(names[1]), 0, f"there are several {what}, and a run has one", "give the one of the run")
    return run


def _one(given: Given, servers: dict[str, Server], run: Run) -> None:
    path = given.path
    form = kind(path)
    if form == "prometheus":
        server = servers.setdefault(given.phase, Server(given.phase, given.role))
        before = server.scrapes
        count = exposition.read(path, server)
        _known(path, count)
        server.names.append(path.name)
        scrapes = server.scrapes - before
        text = f"{count:,} sample{'s' if count != 1 else ''} of known series in {scrapes} scrape{'s' if scrapes != 1 else ''}"
    elif form == "samples":
        server = Server(given.phase, given.role, [path.name])
        count = csv_files.read_samples(path, server)
        _known(path, count)
        run.servers.append(server)
        text = f"{count:,} samples at {server.scrapes:,} moments"
    elif form == "requests":
        run.requests.append(csv_files.read_requests(path))
        text = f"{len(next(iter(run.requests[-1].columns.values()))):,} requests"
    elif form == "pickle":
        text = _snapshot(given, run)
    elif form == "json":
        found = benchmark.objects(path)
        if snapshot.is_snapshot(found[0]):
            text = _snapshot(given, run)
        else:
            results = [one for one in found if benchmark.is_results(one)]
            if not results:
                raise TraceError(path, 0, f"nothing in it is known: {KNOWN}")
            run.results += [(path.name, one) for one in results]
            text = f"{len(results)} result{'s' if len(results) > 1 else ''} of a benchmark"
    else:
        log = logs.read(path)
        if not log.known:
            raise TraceError(path, 0, f"nothing in it is known: {KNOWN}")
        run.logs.append((given.phase, log))
        if log.server.series:
            log.server.phase, log.server.role, log.server.names, log.server.told = (
                given.phase,
                given.role,
                [path.name],
                True,
            )
            run.servers.append(log.server)
        text = f"log of {' and '.join(sorted(log.engines))}"
    run.about.append(f"{path.name}: {text}{f', of {given.phase}' if given.phase else ''}")


def _known(path: Path, count: int) -> None:
    """Raises TraceError where a file has not one number of a known name."""
    if not count:
        raise TraceError(path, 0, f"no number in it has a known name: {KNOWN}")


def _snapshot(given: Given, run: Run) -> str:
    found = snapshot.read(given.path)
    run.snapshots += [(given.phase, one) for one in found]
    if not any(one.framed for one in found):
        run.doubts.append(f"{given.path.name} has no stacks: what its blocks are for is not known")
    return f"snapshot of torch's allocator, {len(found)} GPU{'s' if len(found) > 1 else ''}"


def kind(path: Path) -> str:
    """pickle, json, prometheus, samples, requests or log. Raises TraceError."""
    try:
        with open_regular(path) as file:
            head = file.read(2)
    except Unreadable as error:
        raise TraceError(path, 0, f"cannot be read: {error}") from None
    if not head:
        raise TraceError(path, 0, "it is empty")
    if head[:1] == b"\x80":
        return "pickle"
    if head == GZIP:
        raise TraceError(path, 0, "it is compressed", "gunzip writes what can be read")
    first = next((text for _, text in lines(path)), b"")
    if not first:
        raise TraceError(path, 0, "it is empty")
    if first[:1] == b"{":
        return "json"
    if first.startswith((b"# HELP ", b"# TYPE ")) or exposition.SAMPLE.match(first):
        return "prometheus"
    try:
        _, cells = next(csv_files.rows(path))
    except TraceError:
        return "log"
    if csv_files.request_columns(cells):
        return "requests"
    if csv_files.is_samples(cells):
        return "samples"
    if len(cells) > 1 and all(csv_files.NUMBER.match(cell) or csv_files.DATE.match(cell) for cell in cells):
        raise TraceError(
            path, 1, "the first row has numbers: names of columns are missing", "nvidia-smi without noheader"
        )
    return "log"
