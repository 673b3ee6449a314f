"""`dagc list WHAT`: names that specs and command lines may use, each from the table that dagc itself reads."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..base.diagnostics import Diagnostic, did_you_mean
from ..base.harmless import in_json
from ..base.units import BYTE_RATE, BYTES, FLOP_RATE, UNITS, dim_words, show
from . import list_language as language
from .arguments import any_of
from .columns import columns as terminal_width
from .common import tell

if TYPE_CHECKING:
    from ..spec.hardware import Hardware

Record = Mapping[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        metavar="WHAT",
        choices=tuple(LISTS),
        help=any_of(tuple(LISTS)),
    )
    parser.add_argument(
        "only",
        nargs="?",
        metavar="NAME",
        help="only those of this name or section, or that begin with it, have it in their name or are about it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.add_argument("--format", choices=("text", "md", "json"), default="text", help="default: text")


def run(args: Namespace) -> int:
    if args.what is None:
        for name, (about, _, _) in LISTS.items():
            print(f"{name:<14}{about}")
        return 0
    _, records, columns = LISTS[args.what]
    listed = records()
    if args.only is not None:
        listed = named(args.only, listed, columns[0])
        if not listed:
            known = [str(record[columns[0]]) for record in records()]
            near = did_you_mean(args.only, known)
            help_ = f"did you mean `{near}`?" if near else f"`dagc list {args.what}` shows all"
            tell([Diagnostic("E14", f"none of the {args.what} is called `{args.only}`", help=(help_,))])
            return 2
    if args.json or args.format == "json":
        print(in_json(json.dumps(listed, indent=1, ensure_ascii=False)))
        return 0
    rows = [[_cell(record, name) for name in columns] for record in listed]
    if args.format == "md":
        print("\n".join(markdown(columns, rows)))
    else:
        head = [[name.upper() for name in columns]] if len(columns) > SELF_EVIDENT else []
        lines = text([*head, *rows])
        if sys.stdout.isatty() and max(map(len, lines)) > (width := terminal_width()):
            from .narrow_table import narrow

            lines = narrow(columns, head, rows, width)
        print("\n".join(lines))
    return 0


SELF_EVIDENT = 3
"""Columns up to which a table for a terminal has no head."""


def named(name: str, records: Sequence[Record], first: str) -> list[Record]:
    """Those of this name, else those whose name, or entry in the first column, begins with it, else those that have it in their name, else
    in what is said about them."""
    whole = [record for record in records if name in (record[first], record.get("name"))]
    if whole and first == "name":
        return whole
    if begin := [r for r in records if str(r[first]).startswith(name)] or whole:
        return begin
    word = name.casefold()
    inside = ([r for r in records if word in str(r.get(key, "")).casefold()] for key in (first, "name", "about"))
    return next(filter(None, inside), [])


def text(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns for a terminal."""
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(rows[0]))] if rows else []
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table for a page."""
    body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [
        f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *([f"`{r[0]}`", *r[1:]] for r in body))
    ]


def _cell(record: Record, name: str) -> str:
    value = record.get(name, "")
    if isinstance(value, bool):
        return name if value else ""
    return "" if value is None else str(value)


def presets() -> list[Record]:
    from ..lang import library

    return [
        *(_hardware(name) for name in library.names("hardware")),
        *(_model(name) for name in library.names("model")),
    ]


def _hardware(name: str) -> Record:
    from ..lang.library_hardware import library_hardware

    hardware = library_hardware(name)
    if hardware is None:
        return {"kind": "hardware", "name": name, "about": "cannot be read"}
    peaks = {k: v for k, v in hardware.compute_flops.items() if k != "default"}
    about = [f"{hardware.per_node} GPUs per node", show(hardware.memory_B, BYTES), show(hardware.hbm_Bps, BYTE_RATE)]
    about += [f"{dtype} {show(value, FLOP_RATE)}" for dtype, value in peaks.items() if dtype != "fp16"]
    about += [f"{level.name} {show(level.bandwidth_Bps, BYTE_RATE)}" for level in hardware.levels]
    kernels, whose = _kernels(hardware)
    about.append(whose)
    return {
        "kind": "hardware", "name": name, "about": ", ".join(about), "per_node": hardware.per_node, "memory_B": hardware.memory_B,
        "hbm_Bps": hardware.hbm_Bps, "compute_flops": peaks, "node_Bps": hardware.node.bandwidth_Bps,
        "cluster_Bps": hardware.cluster.bandwidth_Bps, "calibration": hardware.calibration, "kernels": kernels,
    }  # fmt: skip


def _kernels(hardware: Hardware) -> tuple[list[str], str]:
    """Engines whose kernels were measured on the GPU, and in words."""
    if hardware.calibration is None:
        return [], "not calibrated: the roofline"
    from ..calib.calibration import engines_of, load

    engines = engines_of(hardware.calibration)
    device = load(hardware.calibration).device
    own = (
        abs(device.hbm_Bps / hardware.hbm_Bps - 1) < 1e-3
        and abs(device.link_Bps / hardware.node.bandwidth_Bps - 1) < 1e-3
    )
    return engines, f"kernels of {', '.join(engines)}" + ("" if own else f", scaled from {hardware.calibration}")


def _model(name: str) -> Record:
    """What the head of its file says."""
    from ..lang import library

    source = library.preset("model", name)
    lines = source.text.splitlines() if source is not None else []
    told = [line[2:] for line in lines if line.startswith("# ") and "billion parameters" in line]
    return {"kind": "model", "name": name, "about": told[0].rstrip(".") if told else ""}


def metrics() -> list[Record]:
    from ..spec.metrics.known_metrics import TABLE

    return [{"name": m.full, "unit": m.unit, "better": m.better, "about": m.about} for m in TABLE]


def codes() -> list[Record]:
    from ..base.codes import TABLE

    words = {"E": "error", "W": "warning", "R": "requirement"}
    return [
        {"code": c.code, "severity": words[c.code[0]], "exit": c.exit, "title": c.title, "about": c.about}
        for c in TABLE
    ]


def exporters() -> list[Record]:
    """dagc's own and those of installed packages; one with files per phase and of the plan has a row for each."""
    from ..export import registry

    records = (*registry.EXPORTERS, *(registry.plugin(name) for name in registry.installed()))
    return [
        {
            "name": e.name, "per": e.takes, "commands": ", ".join(_offers(e.offered)), "files": ", ".join(e.suffixes),
            "needs": ", ".join(e.needs), "about": e.about,
        }
        for e in records
    ]  # fmt: skip


def _offers(commands: Sequence[str]) -> list[str]:
    """How a command is asked for a file of an exporter."""
    asked = {"emit": "compile --emit", "serve": "serve --emit"}
    return [asked.get(c, c) for c in commands]


def passes() -> list[Record]:
    """Graph passes in the order in which they run, then those of installed packages. Fields of a pass are its options."""
    from dataclasses import fields

    from ..base.entry_points import PASSES, installed
    from ..passes import GRAPH_PASSES

    own = [
        {
            "name": one.name,
            "options": ", ".join(f.name for f in fields(one)),  # type: ignore[arg-type]
            "about": f"{(one.__doc__ or '').partition('. ')[0].rstrip('.')}",
        }
        for one in GRAPH_PASSES
    ]
    return [*own, *({"name": name, "options": "", "about": "of an installed package"} for name in installed(PASSES))]


RANKS = 8
"""For which `dagc list collectives` prints its figures."""


def collectives() -> list[Record]:
    from ..base.collectives import TRANSFERS

    return [
        {
            "name": one.name,
            f"wire_of_{RANKS}": round(one.wire(RANKS), 4),
            f"steps_of_{RANKS}": one.steps(RANKS),
            "about": "a sum over ranks" if one.reduces else "moves values",
        }
        for one in TRANSFERS.values()
    ]


def axes() -> list[Record]:
    from ..base.axes import AXES

    return [{"name": axis.name, "experts": axis.among_experts, "about": axis.about} for axis in AXES.values()]


def engines() -> list[Record]:
    from ..base.schema.phase import PHASE
    from ..calib.calibration import engines_of
    from ..calib.known_gpus import available
    from ..export.engines import ENGINES

    phase, default = PHASE["engine"].words, PHASE["engine"].default
    timed = {name: [gpu for gpu in available() if name in engines_of(gpu)] for name in phase}
    found: list[Record] = []
    for name in dict.fromkeys((*ENGINES, *phase)):
        uses = [f"`dagc export --to NAME` writes its launch files ({_versions(name)})"] if name in ENGINES else []
        if name in phase:
            says = "a phase with `engine = NAME`" + (", or without one," if name == default else "")
            uses.append(f"{says} is priced with its kernels (measured on {', '.join(timed[name])})")
            uses.append("`engine = NAME` counts the memory it keeps")
        found.append({"name": name, "about": "; ".join(uses), "kernels": timed.get(name, [])})
    return found


def launchers() -> list[Record]:
    from ..export.deploy.launchers import LAUNCHERS

    return [{"name": one.name, "about": one.about} for one in LAUNCHERS]


def imports() -> list[Record]:
    from ..importers.origins import SOURCES

    return [{"name": name, "about": one.about} for name, one in SOURCES.items()]


def _versions(engine: str) -> str:
    from ..engines.facts import facts

    return ", ".join(facts(engine).versions)


def architectures() -> list[Record]:
    from ..lang import library

    return [
        {"name": name, "about": '`model_type` of a config.json: model from "config.json", or dagc import'}
        for name in library.architectures()
    ]


def units() -> list[Record]:
    return [{"unit": unit, "about": dim_words(dim), "factor": factor} for unit, (factor, dim) in UNITS.items()]


LISTS: dict[str, tuple[str, Callable[[], list[Record]], tuple[str, ...]]] = {
    "presets": ("hardware and models that `from` takes", presets, ("name", "kind", "about")),
    "metrics": ("what `require` and `sweep --metric` take", metrics, ("name", "unit", "better", "about")),
    "codes": (
        "diagnostics; `dagc explain CODE` has a page for each",
        codes,
        ("code", "severity", "exit", "title", "about"),
    ),
    "engines": ("serving engines and what dagc does for them", engines, ("name", "about")),
    "exporters": (
        "kinds of files that `compile --emit`, `show` and `report` write",
        exporters,
        ("name", "per", "commands", "files", "needs", "about"),
    ),
    "launchers": ("what `dagc export --launcher` writes for", launchers, ("name", "about")),
    "imports": ("what `dagc import --from` takes", imports, ("name", "about")),
    "passes": ("graph passes, in the order in which they run", passes, ("name", "options", "about")),
    "axes": ("axes of a strategy, and their names among experts", axes, ("name", "experts", "about")),
    "collectives": (
        f"collectives: bytes on the wire per byte of payload, and steps, among {RANKS} ranks",
        collectives,
        ("name", f"wire_of_{RANKS}", f"steps_of_{RANKS}", "about"),
    ),
    "schedules": (
        "orders of a training step in p stages of v chunks, with m micro-batches of forward F, backward B, of it W for weights",
        language.schedules,
        ("name", "title", "chunks", "idle", "holds"),
    ),
    "architectures": ("models of a Hugging Face config.json", architectures, ("name", "about")),
    "units": ("units of numbers", units, ("unit", "about", "factor")),
    "sections": ("sections of a spec", language.sections, ("section", "written", "about")),
    "attributes": (
        "attributes of sections, with their defaults; `open`: may be `any`, for `dagc search`",
        language.attributes,
        ("section", "name", "takes", "default", "open", "about"),
    ),
    "functions": ("functions of expressions and of blocks", language.functions, ("name", "in", "written", "about")),
    "dims": ("dimensions of tensors in blocks", language.dims, ("name", "size", "about")),
    "dtypes": ("dtypes, with their bytes per number", language.dtypes, ("name", "bytes", "about")),
    "blocks": ("blocks of the library, with their dimensions", language.blocks, ("name", "phase", "about")),
}
"""What is listed -> what it is, its records, and the columns of the table."""
