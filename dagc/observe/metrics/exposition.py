"""Prometheus' text, as `/metrics` of engines, frontends and dcgm-exporter answer: of several answers each may have a file, or all one."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path

from ...base.foreign_lines import TraceError, lines
from .series import MOST_SERIES, Labels, Server, TooMany
from .sources import sources

SAMPLE = re.compile(rb"([a-zA-Z_:][a-zA-Z0-9_:.]*)(?:\{(.*)\})?[ \t]+(\S+)(?:[ \t]+(-?[0-9.]+))?(?:[ \t]+#.*)?$")
LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
ENDS = ("_bucket", "_sum", "_count")
MILLISECONDS_FROM = 1e11
"""Times from here on are in ms: the text format's; OpenMetrics has seconds."""
ABSENT = 9.0e18
"""From here on a number of dcgm-exporter says that the GPU has no such thing."""
MOST_LABELS = 64
MOST_LABEL_BYTES = 2000
"""Of all labels of a sample."""
MOST_BYTES = 1_000_000_000
"""Of one file: hours of scrapes of a large deployment."""


def family(name: str) -> str:
    """The name without what a histogram or a summary ends its series with."""
    return next((name[: -len(end)] for end in ENDS if name.endswith(end)), name)


def read(path: Path, server: Server) -> int:
    """Adds every sample of a known name to the server; each repeated head of a family begins a new scrape. Returns the number of samples.
    Raises TraceError."""
    known = sources().aliases
    heads: set[str] = set()
    told: set[tuple[str, Labels]] = set()
    head, found, length = "", 0, 0
    server.scrapes += 1
    for number, line in lines(path):
        length += len(line) + 1
        if length > MOST_BYTES:
            raise TraceError(path, number, f"the file is longer than {MOST_BYTES:,} bytes")
        if line[:1] == b"#":
            words = line.split(None, 3)
            if len(words) > 2 and words[1] in (b"HELP", b"TYPE"):
                head = words[2].decode(errors="replace")
                if head in heads:
                    heads.clear()
                    told.clear()
                    server.scrapes += 1
            continue
        sample = SAMPLE.match(line)
        if sample is None:
            raise TraceError(path, number, 'this is no line of Prometheus\' text: NAME{LABEL="VALUE"} NUMBER')
        if head and len(heads) < MOST_SERIES:
            heads.add(head)
        written = sample[1].decode()
        base = written if written in known else family(written)
        if base not in known:
            continue
        name = known[base] + written[len(base) :]
        value = _number(sample[3])
        if value is None:
            raise TraceError(path, number, "its value is not a number")
        if not isfinite(value) or value >= ABSENT:
            continue
        labels = _labels(sample[2], path, number)
        if (name, labels) in told and not heads:
            told.clear()
            server.scrapes += 1
        if (name, labels) in told:
            help = "each scrape begins with `# HELP` and `# TYPE` of its families"
            raise TraceError(path, number, "one scrape has the same series twice", help)
        told.add((name, labels))
        found += 1
        try:
            server.add(name, labels, value, _seconds(sample[4]))
        except TooMany:
            raise TraceError(path, number, f"it has more than {MOST_SERIES:,} series") from None
    return found


def _number(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _seconds(text: bytes | None) -> float | None:
    value = None if text is None else _number(text)
    return value / 1000 if value is not None and abs(value) >= MILLISECONDS_FROM else value


def _labels(text: bytes | None, path: Path, number: int) -> Labels:
    """Sorted, as far as they are needed to tell series apart."""
    if not text:
        return ()
    if len(text) > MOST_LABEL_BYTES:
        raise TraceError(path, number, f"its labels are longer than {MOST_LABEL_BYTES:,} bytes")
    given, at = text.decode(errors="replace"), 0
    found: dict[str, str] = {}
    while at < len(given):
        label = LABEL.match(given, at)
        if label is None or len(found) >= MOST_LABELS:
            raise TraceError(path, number, "its labels cannot be read")
        if label[1] in found:
            raise TraceError(path, number, "a sample has a label twice")
        found[label[1]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], label[2])
        at = label.end()
    return tuple(sorted(found.items()))
