"""Writes the pages of docs/ that are tables of the language: attributes with worked examples, defaults, presets.

python tools/language_pages.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from worked import BASE, FILES, OWN_NAMES, WORKED
from written_out import defaults, plain_spec

from dagc.base.diagnostics import Collector
from dagc.base.sections import SECTIONS, default_text, kind_text
from dagc.base.source import Source
from dagc.base.units import BYTE_RATE, BYTES, FLOP_RATE, SCALAR, Quantity, show
from dagc.cli.list_ import presets
from dagc.lang.load import load
from dagc.spec.model import Model

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "Made by `python tools/language_pages.py`; do not edit."


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def code(text: str) -> str:
    """A statement in a cell; its lines are joined."""
    return "<br>".join(f"`{line.strip()}`" for line in text.splitlines())


def attributes() -> str:
    """docs/attributes.md."""
    parts = [
        f"""# Attributes

{MADE} Every attribute of every section, each with a statement that compiles. An example takes the place of the
statements of its kind in this spec; `serve` and its phases are added to it.

```moe
moe 1
{chr(10).join(BASE.values())}
```

What an attribute is where a spec leaves it out is in [defaults](defaults.md); `dagc list attributes` prints both, with `--json` the range of
every number. `or any`: `dagc search` may choose it. The language itself is in [language](language.md). Files that examples read: {", ".join(f"`{name}`" for name in FILES)}, in the formats of
[traces](traffic.md#trace-files) and [histograms](traffic.md#histograms)."""
    ]
    for path, section in SECTIONS.items():
        about = section.about[0].upper() + section.about[1:]
        free = (
            " It takes further attributes, which blocks read by their names."
            if section.free and section.attributes
            else ""
        )
        parts.append(f"## {path}\n\n`{section.written}`\n\n{about}.{free}")
        if path in OWN_NAMES:
            parts.append(f"```moe\n{OWN_NAMES[path]}\n```")
        if section.attributes:
            rows = [
                (f"`{name}`", one.about, _takes(name, path), code(WORKED[path][name]))
                for name, one in section.attributes.items()
            ]
            parts.append(table(("attribute", "what it is", "takes", "example"), rows))
    return "\n\n".join(parts) + "\n"


def _takes(name: str, path: str) -> str:
    section = SECTIONS[path]
    one = section.attributes[name]
    kind = kind_text(name, one)
    parts = [f"`{kind}`" if one.words and one.kind != "dtype" else kind]
    parts += (
        [f"at most {one.high:g}"] if one.high <= 1 and one.kind in ("number", "shares") and one.dim == SCALAR else []
    )
    return "; ".join([*parts, *(["or `any`"] if name in section.open else [])])


def defaults_page() -> str:
    """docs/defaults.md."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for path, name, one, how in defaults():
        text, beside = ("", how) if isinstance(how, str) else (how.said(name), how.changes())
        rows.setdefault(path, []).append((f"`{name}`", default_text(one), f"`{text}`" if text else "-", beside))
    tables = "\n\n".join(
        f"## {path}\n\n{table(('attribute', 'default', 'written out', 'beside'), found)}"
        for path, found in rows.items()
    )
    return f"""# Defaults

{MADE} What holds where a spec says nothing, of every attribute that may be left out. Attributes that are
not here are required.

`written out` means the same as leaving it out in the spec at the end of this page: a test compiles both, and the plans are equal. `beside`
is what that spec has in addition where the default depends on it, or why the default cannot be written.

Where a phase names an `engine`, some defaults are that engine's ([memory and scheduling](cost.md#memory)); a preset replaces defaults
of the language by its own.

{tables}

## The spec

```moe
{plain_spec()}```
"""


def presets_page() -> str:
    """docs/presets.md."""
    listed = presets()
    gpus = [
        (
            f"`{one['name']}`", str(one["per_node"]), show(one["memory_B"], BYTES), show(one["hbm_Bps"], BYTE_RATE),
            *(_peak(one["compute_flops"], dtypes) for dtypes in (("bf16",), ("fp8",), ("nvfp4", "mxfp4"))),
            show(one["node_Bps"], BYTE_RATE), show(one["cluster_Bps"], BYTE_RATE),
            ", ".join(one["kernels"]) or "none: the roofline",
        )
        for one in listed
        if one["kind"] == "hardware"
    ]  # fmt: skip
    models = [
        (f"`{one['name']}`", *_counts(str(one["about"])), *sizes(str(one["name"])))
        for one in listed
        if one["kind"] == "model"
    ]
    return f"""# Presets

{MADE} What `from` takes by name; `dagc list presets` prints them. The body of a section overrides
any attribute of its preset: `hardware from "h100-sxm" {{ gpus = 64, mfu = 55% }}`. The files, with the source of every figure, are in
`grammar/library/hardware/` and `grammar/library/models/`.

## Hardware

Memory, its bandwidth and peaks are of one GPU; `inside` and `across` are the links of a GPU inside a node and between nodes, each
direction. `kernels`: engines whose kernels were measured on this GPU, or scaled from one alike ([calibration](calibration.md)).

{table(("preset", "per node", "memory", "bandwidth", "bf16", "fp8", "fp4", "inside", "across", "kernels"), gpus)}

## Models

Parameters in billions, of which a token uses the active ones ([models](models.md) compares them with other counts). `heads` are
query heads / key and value heads; `experts` those of a layer, chosen for each token, and shared ones. `dtype` is that of most weights.

{table(("preset", "total", "active", "layers", "width", "attention", "heads", "experts", "vocabulary", "dtype"), models)}
"""


def _peak(peaks: Mapping[str, float], dtypes: Sequence[str]) -> str:
    return next((show(peaks[dtype], FLOP_RATE) for dtype in dtypes if dtype in peaks), "-")


def _counts(about: str) -> tuple[str, str]:
    """`46.7 billion parameters, 12.88 billion active per token`"""
    total, active = about.split(", ")
    return total.split()[0], active.split()[0]


def sizes(preset: str) -> tuple[str, ...]:
    """Layers, width, attention, heads, experts, vocabulary, dtype of weights."""
    text = f'moe 1\nhardware from "b200-sxm" {{ }}\nmodel from "{preset}" {{ }}\nworkload {{ sequences = 1, prompt = 1 tok }}\n'
    model = load(Source(preset, f"{text}phase prefill {{ gpus = 0..0 }}\n"), Collector()).model
    experts = [f"{_whole(model, 'experts.count')}, {_whole(model, 'experts.top_k')} a token"]
    experts += [f"{shared} shared"] if (shared := _whole(model, "experts.shared")) not in ("-", "0") else []
    heads, kv_heads = (_whole(model, f"attention.{name}") for name in ("heads", "kv_heads"))
    return (
        str(model.layers), _whole(model, "hidden"), f"`{model.attributes['attention.kind']}`",
        heads if kv_heads == "-" else f"{heads} / {kv_heads}",
        ", ".join(experts) if "experts.count" in model.attributes else "-",
        _whole(model, "vocab"), model.weight_dtypes.get("experts", model.weight_dtype),
    )  # fmt: skip


def _whole(model: Model, name: str) -> str:
    value = model.attributes.get(name)
    return f"{value.value:,.0f}" if isinstance(value, Quantity) else "-"


PAGES = {"attributes.md": attributes, "defaults.md": defaults_page, "presets.md": presets_page}

if __name__ == "__main__":
    for name, made in PAGES.items():
        (DOCS / name).write_text(made(), encoding="utf-8")
