"""The exporters: one table of dagc's own, and those of installed packages, in one protocol.

An exporter is a function of what it takes, (plan), (plan, phase), (plan, phase, view) or (plan, serving), that gives {suffix: content};
the file is PLAN.SUFFIX, PLAN.PHASE.SUFFIX or PLAN.SERVING.SUFFIX. Content is bytes, pieces of bytes that are streamed, or a function that fills a folder.
Options that a record names come as keywords. A package adds exporters of a phase by the entry points `dagc.exporters`.
This module imports none of them: names, suffixes and help cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.frozen import record

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ..plan.plan import CompiledPlan

Content = bytes | Iterable[bytes] | Callable[[Path], None]
PLAN, PHASE, VIEW, SERVING = "plan", "phase", "view", "serving"
EMIT, SHOW, REPORT, SERVE = "emit", "show", "report", "serve"


@record
class Exporter:
    """`takes`: what one call is of. `source`: `module:function` in this package. `options`: keywords that it heeds
    (`name`: its own; `ranks`, `choice`, `target`, `knee`, `theme`, `buys`: gives what faster hardware would buy). `needs`: packages
    that it imports when it runs. `offered`: commands that have it. `folder`: its content fills a folder. `also`:
    other endings of a file name that ask for it. `trains`: it is of phases that train, too."""

    name: str
    about: str
    suffixes: tuple[str, ...]
    takes: str
    source: str
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    offered: tuple[str, ...] = (EMIT,)
    folder: bool = False
    also: tuple[str, ...] = ()
    trains: bool = False

    def make(self, plan: CompiledPlan, *of: str, **given: Any) -> dict[str, Content]:
        """Suffix -> content, for a phase and view where it takes them. Raises SpecError."""
        module, _, function = self.source.partition(":")
        made: Callable[..., Mapping[str, Content]] = getattr(import_module(f".{module}", __package__), function)
        given["name"] = self.name
        return dict(made(plan, *of, **{option: given[option] for option in self.options if option in given}))


def _picture(name: str, about: str) -> Exporter:
    """A picture is one file per view, whose suffix begins with the view."""
    given = ("name", "choice", "theme")
    return Exporter(name, about, (name,), VIEW, "pictures:picture", given, offered=(EMIT, SHOW), trains=True)


def _served(name: str, about: str) -> Exporter:
    """Pictures of a serving; that of the load is there where several loads were simulated."""
    suffixes = tuple(f"{view}.{name}" for view in ("latencies", "series", "steps"))
    return Exporter(
        name, about, suffixes, SERVING, "served_files:pictures", ("name", "knee", "theme"), offered=(SERVE,)
    )


EXPORTERS: tuple[Exporter, ...] = (
    _picture("dot", "a picture as Graphviz's input"),
    _picture("svg", "a picture, drawn by dagc itself"),
    _picture("png", "a picture, by rsvg-convert or CairoSVG"),
    _picture("pdf", "a picture, by rsvg-convert or CairoSVG"),
    Exporter(
        "json", "the placed graph; `dagc compile` reads that of a pass", ("graph.json",), PHASE, "json:graph_file", ("ranks",), ("orjson",),
        trains=True,
    ),
    Exporter(
        "nodelink", "the placed graph as networkx's node-link JSON", ("nodelink.json",), PHASE, "interchange:node_link_file",
        ("ranks",), ("networkx", "orjson"), trains=True,
    ),
    Exporter(
        "rustworkx", "the placed graph as rustworkx's node-link JSON", ("rustworkx.json",), PHASE, "interchange:rustworkx_file",
        ("ranks",), ("networkx", "orjson"), trains=True,
    ),
    Exporter(
        "graphml", "the placed graph as GraphML", ("graphml",), PHASE, "interchange:graphml_file", ("ranks",),
        ("networkx", "orjson"), trains=True,
    ),
    Exporter(
        "chakra", "one Chakra execution trace per rank, and the simulator's inputs", ("chakra",), PHASE, "chakra.folder:folder",
        ("target",), ("orjson",), folder=True, trains=True,
    ),
    Exporter("html", "the report as one page", ("html",), PLAN, "reports:html", ("buys", "theme"), offered=(EMIT, REPORT), also=("htm",)),
    Exporter("md", "the report in Markdown", ("md",), PLAN, "reports:markdown", ("buys",), offered=(EMIT, REPORT)),
    Exporter("text", "the report of the terminal", ("txt",), PLAN, "reports:text", ("buys",), offered=(REPORT,)),
    Exporter(
        "perfetto", "a timeline for Perfetto and for chrome://tracing", ("trace.json", "pftrace"), PHASE, "traces:timeline",
        ("ranks",), ("orjson",), trains=True,
    ),
    Exporter("json", "the object of `dagc compile --json`", ("json",), PLAN, "json:plan_file", needs=("orjson",)),
    Exporter("csv", "a line per request", ("requests.csv",), SERVING, "served_files:requests_file", offered=(SERVE,)),
    Exporter(
        "json", "the figures of a serving", ("serve.json",), SERVING, "served_files:serving_file", ("knee",), ("orjson",), (SERVE,)
    ),
    _served("svg", "pictures of a serving"),
    _served("png", "pictures of a serving, by rsvg-convert or CairoSVG"),
    _served("pdf", "pictures of a serving, by rsvg-convert or CairoSVG"),
    Exporter(
        "perfetto", "steps, requests and counters for Perfetto and for chrome://tracing", ("trace.json", "pftrace"), SERVING,
        "served_files:timeline", (), ("orjson",), (SERVE,),
    ),
)  # fmt: skip
"""In the order in which files are written: per phase, of the plan, of a serving."""


def names(command: str) -> tuple[str, ...]:
    """Names of dagc's own exporters that a command offers."""
    return tuple(dict.fromkeys(e.name for e in EXPORTERS if command in e.offered))


def exporter(name: str, takes: str) -> Exporter:
    """One of dagc's own."""
    return next(e for e in EXPORTERS if e.name == name and e.takes == takes)


def chosen(kinds: Iterable[str]) -> list[Exporter]:
    """Exporters of `--emit`: dagc's own in the order of the table, then those of installed packages."""
    kinds = list(kinds)
    own = names(EMIT)
    return [e for e in EXPORTERS if e.name in kinds and e.name in own] + [plugin(k) for k in kinds if k not in own]


SUFFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


@record
class Plugin(Exporter):
    """An exporter of an installed package: its faults are E17, with its name."""

    point: EntryPoint | None = None

    def make(self, plan: CompiledPlan, *of: str, **given: Any) -> dict[str, Content]:
        from ..base.entry_points import ANY_FAULT, broken, loaded

        assert self.point is not None
        made = loaded(self.point)
        try:
            content = dict(made(plan, *of))
        except ANY_FAULT as error:
            raise broken(self.point, f"failed on `{of[0]}`: {type(error).__name__}: {error}") from error
        for suffix, data in content.items():
            if not isinstance(data, bytes) or not isinstance(suffix, str) or not SUFFIX.fullmatch(suffix):
                raise broken(self.point, "does not return a mapping from file suffixes to bytes")
        return content


def installed() -> list[str]:
    """Names that installed packages give `--emit`."""
    from ..base.entry_points import EXPORTERS as GROUP
    from ..base.entry_points import installed as points

    return sorted(points(GROUP))


def plugin(name: str) -> Plugin:
    """An exporter of an installed package."""
    from ..base.entry_points import EXPORTERS as GROUP
    from ..base.entry_points import installed as points

    point = points(GROUP)[name]
    owner = point.dist.name if point.dist is not None else "an installed package"
    return Plugin(name, f"of {owner}", (), PHASE, point.value, point=point)
