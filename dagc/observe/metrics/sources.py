"""The table of sources: what programs that watch a serving call things, and which metric each is (`sources.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from ...base.frozen import field, record

OF_LABELS = "of_labels"
"""The form whose `of` names labels."""


@record
class Source:
    """One name of another program. `form`: how its numbers become a metric, by the name in `figures.FORMS`; `scale`: to SI units; `of`: what it
    is a share of; `rank`: labels that say which GPU it is of; `phase`: the label that says of which phase; `without`: values of labels that do not
    count; `client`: seen where requests come in, in front of all servers; `since`, `before`: versions of the program."""

    name: str
    form: str
    metric: str
    source: str
    scale: float = 1.0
    of: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()
    phase: str = ""
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    client: bool = False
    since: str = ""
    before: str = ""


@record
class Result:
    """A number of a benchmark's results: the path of its key, and that of its unit where the file has one."""

    key: str
    metric: str
    scale: float = 1.0
    unit: str = ""


@record
class Sources:
    """`series`: in order of preference. `copies`: labels whose values count the same thing again; `data_parallel`: those that tell ranks with
    requests of their own; `columns`: what a request has -> names of its column without the unit; `shown_by`: metric -> the role whose servers show it
    where roles have servers of their own; nothing: none does."""

    series: tuple[Source, ...]
    copies: frozenset[str]
    data_parallel: tuple[str, ...]
    gpu_columns: tuple[str, ...]
    time_columns: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    benchmark: tuple[Result, ...]
    lists: Mapping[str, str]
    shown_by: Mapping[str, str]

    @property
    def aliases(self) -> dict[str, str]:
        """Names as they are written -> those of the table. SGLang's router and Ray write `_` for `:`, and Ray `ray_` before it."""
        found = {name: name for name in self.names}
        for name in self.names:
            if ":" in name:
                found |= dict.fromkeys((name.replace(":", "_"), f"ray_{name.replace(':', '_')}"), name)
        return found

    @property
    def names(self) -> frozenset[str]:
        """Of all series that are read."""
        return frozenset(
            name for source in self.series for name in (source.name, *(source.of if source.form != OF_LABELS else ()))
        )


@cache
def sources() -> Sources:
    """The table of `sources.json`."""
    data = json.loads((resources.files(__package__) / "sources.json").read_text())
    return Sources(
        tuple(_source(row) for row in data["series"]),
        frozenset(data["copies"]),
        tuple(data["data_parallel"]),
        tuple(data["gpu_columns"]),
        tuple(data["time_columns"]),
        {name: tuple(words) for name, words in data["request_columns"].items()},
        tuple(Result(**row) for row in data["benchmark"]),
        data["benchmark_lists"],
        data["shown_by"],
    )


def _source(row: Mapping[str, Any]) -> Source:
    of = row.get("of", ())
    more = {
        "of": (of,) if isinstance(of, str) else tuple(of),
        "rank": tuple(row.get("rank", ())),
        "without": {label: tuple(values) for label, values in row.get("without", {}).items()},
    }
    return Source(**{**row, **more})
